/* body_test.c - a request body between the wire and the application: lengths, chunks, bounds. */
#include "../../../src/server/body.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct cts_http_rules rules = {
    .line_bytes_max = 4094, .fields_count_max = 100, .field_bytes_max = 8190};

static _Atomic uint64_t memory_bytes, spooled_bytes;
static struct cts_gateway gateway;
static const struct body_keeper keeper = {
    .gateway = &gateway,
    .rules = &rules,
    .memory_bytes = &memory_bytes,
    .memory_bytes_max = 4 << 20,
    .spooled_bytes = &spooled_bytes,
    .spooled_bytes_max = 8 << 20,
};

static struct cts_request with_length(int64_t length)
{
    return (struct cts_request){.content_length = length};
}

static struct cts_request with_chunks(void)
{
    return (struct cts_request){.content_length = -1, .is_chunked = true};
}

static void assert_bytes(struct cts_bytes bytes, const char *text)
{
    assert_int_equal(bytes.count, strlen(text));
    assert_memory_equal(bytes.at, text, bytes.count);
}

static void a_request_without_body_has_ended_at_once(void **state)
{
    struct body body;
    body_init(&body, &keeper);
    struct cts_request none = with_length(-1);
    body_begin(&body, &none);
    assert_true(body.has_ended);
    struct cts_request empty = with_length(0);
    empty.expects_continue = true;
    body_begin(&body, &empty);
    assert_true(body.has_ended);
    assert_false(body.owes_continue);
    body_free(&body);
}

static void a_body_takes_its_length_and_leaves_the_next_request(void **state)
{
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_length(5);
    struct cts_bytes from = cts_bytes_of("abcdeGET /");
    body_begin(&body, &request);
    assert_int_equal(body_store(&body, &from), 0);
    assert_bytes(body.ready, "abcde");
    assert_bytes(from, "GET /");
    assert_int_equal(body.total_bytes, 5);
    body_free(&body);
}

static void a_body_in_pieces_is_gathered(void **state)
{
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_length(6);
    const char *const pieces[] = {"a", "bc", "def"};
    int r = CTS_NEED_MORE;
    body_begin(&body, &request);
    for (size_t i = 0; i < CTS_COUNT(pieces); i++) {
        assert_int_equal(r, CTS_NEED_MORE);
        struct cts_bytes from = cts_bytes_of(pieces[i]);
        r = body_store(&body, &from);
        assert_int_equal(from.count, 0);
    }
    assert_int_equal(r, 0);
    assert_bytes(body.ready, "abcdef");
    body_free(&body);
}

static void chunks_are_undone_byte_by_byte_and_the_rest_stays(void **state)
{
    static const char wire[] = "3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\nGET";
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_chunks();
    size_t at = 0;
    body_begin(&body, &request);
    for (int r = CTS_NEED_MORE; r == CTS_NEED_MORE; at++) {
        assert_true(at < sizeof(wire) - 1);
        struct cts_bytes from = {wire + at, 1};
        r = body_store(&body, &from);
        assert_true(r <= 0);
    }
    assert_bytes(body.ready, "abcde");
    assert_string_equal(wire + at, "GET");
    body_free(&body);
}

static void a_bad_chunk_is_an_error_for_ever(void **state)
{
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_chunks();
    struct cts_bytes from = cts_bytes_of("3\r\nabcX\r\n0\r\n\r\n");
    body_begin(&body, &request);
    assert_int_equal(body_store(&body, &from), 400);
    assert_int_equal(body.error, -EBADMSG);
    assert_non_null(body.code);
    assert_false(body.has_ended);
    body_free(&body);
}

static void discarding_keeps_no_byte(void **state)
{
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_length(100);
    char bytes[100] = {0};
    struct cts_bytes from = {bytes, 60};
    body_begin(&body, &request);
    assert_int_equal(body_discard(&body, &from), CTS_NEED_MORE);
    from = (struct cts_bytes){bytes, 60};
    assert_int_equal(body_discard(&body, &from), 0);
    assert_int_equal(from.count, 20);
    assert_int_equal(cts_buffer_count(&body.store), 0);
    body_free(&body);
}

static void trailers_are_shown_when_the_body_has_ended(void **state)
{
    static const char wire[] = "1\r\na\r\n0\r\nX-A: 1\r\n\r\nGET";
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_chunks();
    size_t at = 0;
    body_begin(&body, &request);
    while (!body.has_ended) {
        struct cts_bytes from = {wire + at++, 1};
        assert_int_equal(body_trailers(&body).count, 0);
        assert_true(body_store(&body, &from) <= 0);
    }
    assert_bytes(body_trailers(&body), "X-A: 1\r\n");
    assert_string_equal(wire + at, "GET");
    body_rest(&body);
    assert_null(body.trailers.at);
    body_begin(&body, &request);
    assert_int_equal(body_trailers(&body).count, 0);
    struct cts_bytes thrown = {wire, sizeof(wire) - 1};
    assert_int_equal(body_discard(&body, &thrown), 0);
    assert_null(body.trailers.at);
    body_free(&body);
}

static void a_second_request_begins_with_nothing_of_the_first(void **state)
{
    struct body body;
    body_init(&body, &keeper);
    struct cts_request first = with_chunks();
    struct cts_bytes from = cts_bytes_of("3\r\nabc\r\nxyz\r\n");
    body_begin(&body, &first);
    assert_true(body_store(&body, &from) > 0);
    struct cts_request second = with_length(2);
    from = cts_bytes_of("xy");
    body_begin(&body, &second);
    assert_int_equal(body_store(&body, &from), 0);
    assert_int_equal(body.error, 0);
    assert_bytes(body.ready, "xy");
    body_free(&body);
}

/* More than a megabyte: what it has in memory is shown, the rest comes from the disk. */
static void a_large_body_goes_to_the_disk_until_that_is_full(void **state)
{
    static char piece[65536];
    struct body body;
    body_init(&body, &keeper);
    struct cts_request request = with_length(64 << 20);
    body_begin(&body, &request);
    body_expect(&body);
    size_t count = 0;
    memset(piece, 'p', sizeof(piece));
    for (; !body_is_full(&body); count += sizeof(piece)) {
        struct cts_bytes from = {piece, sizeof(piece)};
        assert_int_equal(body_store(&body, &from), CTS_NEED_MORE);
        assert_true(count < 16 << 20);
    }
    assert_int_equal(body.ready.count + spool_count(&body.spool), count);
    assert_int_equal(spooled_bytes, 8 << 20);
    assert_false(body_is_whole(&body));
    assert_int_equal(spool_take(&body.spool, piece, 10), 10);
    assert_memory_equal(piece, "pppppppppp", 10);
    body_free(&body);
    assert_int_equal(spooled_bytes, 0);
    assert_int_equal(memory_bytes, 0);
}

static void bodies_that_wait_share_a_bound_of_memory(void **state)
{
    static char piece[1 << 20];
    struct body bodies[5];
    for (size_t i = 0; i < CTS_COUNT(bodies); i++) {
        struct cts_request request = with_length(2 << 20);
        struct cts_bytes from = {piece, sizeof(piece)};
        body_init(&bodies[i], &keeper);
        body_begin(&bodies[i], &request);
        body_expect(&bodies[i]);
        assert_int_equal(body_store(&bodies[i], &from), CTS_NEED_MORE);
        assert_int_equal(bodies[i].spool.fd >= 0, i == 4);
    }
    for (size_t i = 0; i < CTS_COUNT(bodies); i++)
        body_free(&bodies[i]);
    assert_int_equal(memory_bytes, 0);
}

static void a_body_is_too_slow_after_ten_seconds_below_the_rate(void **state)
{
    struct body body;
    struct cts_request request = with_length(100000);
    const uint64_t second = 1000000000;
    char bytes[6000] = {0};
    body_init(&body, &keeper);
    body_begin(&body, &request);
    body_wait_begins(&body, second);
    assert_false(body_is_too_slow(&body, 10 * second));
    assert_true(body_is_too_slow(&body, 12 * second));
    struct cts_bytes from = {bytes, sizeof(bytes)};
    assert_int_equal(body_store(&body, &from), CTS_NEED_MORE);
    assert_false(body_is_too_slow(&body, 12 * second));
    assert_true(body_is_too_slow(&body, 14 * second));
    body_wait_ends(&body, 12 * second);
    assert_false(body_is_too_slow(&body, 99 * second)); /* the rest of the time was not the client's */
    body_free(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_without_body_has_ended_at_once),
        cmocka_unit_test(a_body_takes_its_length_and_leaves_the_next_request),
        cmocka_unit_test(a_body_in_pieces_is_gathered),
        cmocka_unit_test(chunks_are_undone_byte_by_byte_and_the_rest_stays),
        cmocka_unit_test(a_bad_chunk_is_an_error_for_ever),
        cmocka_unit_test(discarding_keeps_no_byte),
        cmocka_unit_test(trailers_are_shown_when_the_body_has_ended),
        cmocka_unit_test(a_second_request_begins_with_nothing_of_the_first),
        cmocka_unit_test(a_large_body_goes_to_the_disk_until_that_is_full),
        cmocka_unit_test(bodies_that_wait_share_a_bound_of_memory),
        cmocka_unit_test(a_body_is_too_slow_after_ten_seconds_below_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
