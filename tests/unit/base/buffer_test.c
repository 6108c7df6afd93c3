/* buffer_test.c - bytes that grow, and JSON written into them. */
#include "test.h"

#include "ctserve/buffer.h"
#include "ctserve/json.h"
#include "faults.h"

#include <errno.h>
#include <math.h>

static void a_buffer_grows_and_gives_back_what_was_put(void **state)
{
    struct cts_buffer buffer = CTS_BUFFER_EMPTY;
    char expected[5000];

    for (int i = 0; i < 1000; i++) {
        memcpy(expected + i * 5, "abcde", 5);
        assert_int_equal(cts_buffer_put(&buffer, "abcde", 5), 0);
    }
    assert_int_equal(cts_buffer_count(&buffer), 5000);
    assert_memory_equal(cts_buffer_view(&buffer).at, expected, 5000);
    cts_buffer_free(&buffer);
    assert_null(buffer.at);
    assert_int_equal(cts_buffer_view(&buffer).count, 0);
}

static void dropped_bytes_at_the_front_become_room_again_without_a_new_block(void **state)
{
    struct cts_buffer buffer = CTS_BUFFER_EMPTY;

    assert_int_equal(cts_buffer_reserve(&buffer, 100), 0);
    size_t capacity = buffer.capacity;
    for (size_t i = 0; i < capacity; i++)
        assert_int_equal(cts_buffer_put(&buffer, i % 2 ? "1" : "0", 1), 0);
    cts_buffer_drop(&buffer, capacity - 2);
    faults_arm(0);
    assert_int_equal(cts_buffer_put(&buffer, "xyz", 3), 0);
    assert_int_equal(faults_seen(), 0);
    assert_int_equal(buffer.capacity, capacity);
    assert_memory_equal(cts_buffer_view(&buffer).at, "01xyz", 5);
    cts_buffer_drop(&buffer, 5);
    assert_int_equal(buffer.start, 0);
    cts_buffer_free(&buffer);
}

static void without_memory_nothing_changes(void **state)
{
    struct cts_buffer buffer = CTS_BUFFER_EMPTY;

    faults_arm(1);
    assert_int_equal(cts_buffer_put(&buffer, "a", 1), -ENOMEM);
    assert_null(buffer.at);
    assert_int_equal(cts_buffer_put(&buffer, "abc", 3), 0);
    struct cts_buffer before = buffer;
    faults_arm(1);
    assert_int_equal(cts_buffer_reserve(&buffer, 100000), -ENOMEM);
    assert_memory_equal(&buffer, &before, sizeof(buffer));
    faults_arm(1);
    assert_int_equal(cts_buffer_printf(&buffer, "%0*d", 5000, 1), -ENOMEM);
    assert_memory_equal(cts_buffer_view(&buffer).at, "abc", 3);
    assert_int_equal(cts_buffer_reserve(&buffer, SIZE_MAX - 1), -ENOMEM);
    faults_arm(0);
    cts_buffer_free(&buffer);
}

static void printf_appends_exactly_its_text(void **state)
{
    struct cts_buffer buffer = CTS_BUFFER_EMPTY;

    assert_int_equal(cts_buffer_printf(&buffer, "%s", ""), 0);
    assert_int_equal(cts_buffer_printf(&buffer, "%d-%s", 7, "x"), 0);
    assert_int_equal(cts_buffer_printf(&buffer, "%0*d", 1000, 1), 0);
    assert_int_equal(cts_buffer_count(&buffer), 1003);
    assert_memory_equal(cts_buffer_view(&buffer).at, "7-x0", 4);
    cts_buffer_free(&buffer);
}

static const char *text_of(struct cts_buffer *buffer)
{
    assert_int_equal(cts_buffer_reserve(buffer, 1), 0);
    buffer->at[buffer->end] = '\0';
    return buffer->at + buffer->start;
}

static void write_sample(struct cts_json *json)
{
    cts_json_object_open(json);
    cts_json_key(json, "list");
    cts_json_array_open(json);
    cts_json_int(json, INT64_MIN);
    cts_json_uint(json, UINT64_MAX);
    cts_json_double(json, 0.5);
    cts_json_double(json, NAN);
    cts_json_array_open(json);
    cts_json_array_close(json);
    cts_json_object_open(json);
    cts_json_object_close(json);
    cts_json_array_close(json);
    cts_json_key(json, "yes");
    cts_json_bool(json, true);
    cts_json_key(json, "no\n");
    cts_json_bool(json, false);
    cts_json_key(json, "text");
    cts_json_text(json, cts_bytes_of("a"));
    cts_json_key(json, "none");
    cts_json_null(json);
    cts_json_object_close(json);
}

static void json_keeps_its_own_commas(void **state)
{
    struct cts_buffer buffer = CTS_BUFFER_EMPTY;
    struct cts_json json;

    cts_json_init(&json, &buffer);
    write_sample(&json);
    assert_false(json.failed);
    assert_string_equal(text_of(&buffer),
                        "{\"list\":[-9223372036854775808,18446744073709551615,0.5,null,[],{}],"
                        "\"yes\":true,\"no\\n\":false,\"text\":\"a\",\"none\":null}");
    cts_buffer_free(&buffer);
}

static void json_text_is_always_valid_utf8(void **state)
{
    static const struct {
        const char *in;
        size_t count;
        const char *out;
    } cases[] = {
        {"", 0, "\"\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"\"\\\n\r\t\x01\x7f", 7, "\"\\\"\\\\\\n\\r\\t\\u0001\\u007f\""},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"\xc3", 1, "\"\xef\xbf\xbd\""},                                 /* cut short */
        {"\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},                 /* overlong */
        {"\xe0\x80\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* overlong */
        {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* surrogate */
        {"\xf4\x90\x80\x80x", 5, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\""},
        {"a\xff" "b", 3, "\"a\xef\xbf\xbd" "b\""},
    };

    for (size_t i = 0; i < CTS_COUNT(cases); i++) {
        struct cts_buffer buffer = CTS_BUFFER_EMPTY;
        struct cts_json json;

        cts_json_init(&json, &buffer);
        cts_json_text(&json, (struct cts_bytes){cases[i].in, cases[i].count});
        assert_string_equal(text_of(&buffer), cases[i].out);
        cts_buffer_free(&buffer);
    }
}

static void json_without_memory_fails_once_and_stays_quiet(void **state)
{
    for (long nth = 1; nth <= 2; nth++) {
        struct cts_buffer buffer = CTS_BUFFER_EMPTY;
        struct cts_json json;

        cts_json_init(&json, &buffer);
        faults_arm(nth);
        write_sample(&json);
        write_sample(&json);
        assert_int_equal(json.failed, faults_seen() >= nth);
        assert_int_equal(json.depth, 0);
        if (nth == 1)
            assert_true(json.failed);
        faults_arm(0);
        cts_buffer_free(&buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_buffer_grows_and_gives_back_what_was_put),
        cmocka_unit_test(dropped_bytes_at_the_front_become_room_again_without_a_new_block),
        cmocka_unit_test(without_memory_nothing_changes),
        cmocka_unit_test(printf_appends_exactly_its_text),
        cmocka_unit_test(json_keeps_its_own_commas),
        cmocka_unit_test(json_text_is_always_valid_utf8),
        cmocka_unit_test(json_without_memory_fails_once_and_stays_quiet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
