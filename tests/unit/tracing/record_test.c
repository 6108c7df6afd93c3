/* What a request leaves in its row and in the ring, and what the reader makes of it. */
#include "help.h"

#include "../../../src/tracing/crc32c.h"

#include <stdlib.h>

static struct cts_record_copy record;

#define assert_text(bytes, text)                                                                   \
    do {                                                                                           \
        assert_int_equal((bytes).count, strlen(text));                                             \
        assert_memory_equal((bytes).at, text, strlen(text));                                       \
    } while (0)

static void the_checksum_is_castagnolis_on_both_ways(void **state)
{
    unsigned char bytes[100];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 37);
    assert_int_equal(cts_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(crc32c_by_table("123456789", 9), 0xe3069283);
    for (size_t count = 0; count <= sizeof(bytes); count++)
        assert_int_equal(cts_crc32c(bytes, count), crc32c_by_table(bytes, count));
}

static void a_request_becomes_one_record_with_all_that_was_told(void **state)
{
    struct cts_slot slot;
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    start.traceparent = cts_bytes_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    help_attach_here(&slot);
    cts_trace_begin(&request, &start);
    assert_true(request.is_recording);
    cts_trace_phase(&request, CTS_PHASE_APP);
    struct cts_trace_end end = {.status = 500,
                                .request_body_bytes = 3,
                                .response_body_bytes = 4,
                                .error_type = cts_bytes_of("ValueError"),
                                .error_message = cts_bytes_of("no such item"),
                                .route = cts_bytes_of("/items/<id>")};
    cts_trace_end(&request, &end);
    struct cts_record_cursor cursor = {0};
    assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_RECORD);
    assert_int_equal(record.kind, CTS_RECORD_SERVER_SPAN);
    assert_int_equal(record.index, 1);
    assert_int_equal(record.row_sequence, 1);
    assert_int_equal(record.server.head.status, 500);
    assert_int_equal(record.server.head.start_ns, 5000);
    assert_true(record.server.head.app_ns >= record.server.head.head_ns);
    assert_true(record.server.head.end_ns >= record.server.head.app_ns);
    assert_int_equal(record.server.head.has_parent, 1);
    assert_int_equal(record.server.head.parent_span_id[0], 0xb7);
    assert_int_equal(record.server.head.trace_id[15], 0x9c);
    assert_memory_equal(record.server.head.span_id, request.span_id, 8);
    assert_int_equal(record.server.head.peer_port, 40001);
    assert_text(record.server.method, "GET");
    assert_text(record.server.path, "/items/7");
    assert_text(record.server.query, "a=b&c=d");
    assert_text(record.server.scheme, "http");
    assert_text(record.server.host, "shop.example:8000");
    assert_text(record.server.user_agent, "wrk/4");
    assert_text(record.server.peer, "127.0.0.1");
    assert_text(record.server.route, "/items/<id>");
    assert_text(record.server.error_type, "ValueError");
    assert_text(record.server.error_message, "no such item");
    assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_END);
    help_detach_here(&slot);
}

static void an_open_row_tells_what_runs_and_a_closed_one_is_free(void **state)
{
    struct cts_slot slot;
    struct cts_row_copy row;
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    help_attach_here(&slot);
    cts_trace_begin(&request, &start);
    cts_trace_phase(&request, CTS_PHASE_APP);
    assert_int_equal(cts_row_read(&slot.view, 0, &row), CTS_ROW_OPEN);
    assert_true(row.is_traced);
    assert_int_equal(row.phase, CTS_PHASE_APP);
    assert_int_equal(row.start_mono_ns, 5000);
    assert_int_equal(row.app_mono_ns, request.app_ns);
    assert_text(row.method, "GET");
    assert_text(row.path, "/items/7");
    assert_text(row.host, "shop.example:8000");
    assert_memory_equal(row.trace_id, request.trace_id, 16);
    assert_int_equal(cts_row_read(&slot.view, 1, &row), CTS_ROW_FREE);
    assert_int_equal(cts_row_read(&slot.view, ROWS, &row), CTS_ROW_FREE);
    cts_trace_end(&request, &help_end);
    cts_trace_end(&request, &help_end);
    assert_int_equal(cts_row_read(&slot.view, 0, &row), CTS_ROW_FREE);
    assert_int_equal(cts_ring_count(&slot.view, 0), 1);
    help_detach_here(&slot);
}

static void texts_that_are_too_long_are_cut_and_counted(void **state)
{
    static char text[20000];
    struct cts_slot slot;
    struct cts_worker_copy worker;
    struct cts_trace_request request;
    struct cts_bytes all = {text, sizeof(text)};
    struct cts_trace_start start = {.method = all,
                                    .path = all,
                                    .query = all,
                                    .scheme = all,
                                    .host = all,
                                    .user_agent = all,
                                    .peer_address = all};
    struct cts_trace_end end = {
        .status = 200, .error_type = all, .error_message = all, .route = all};
    memset(text, 'x', sizeof(text));
    help_attach_here(&slot);
    cts_trace_begin(&request, &start);
    cts_trace_end(&request, &end);
    struct cts_record_cursor cursor = {0};
    assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_RECORD);
    assert_int_equal(record.server.path.count, CTS_ROW_TARGET_BYTES);
    assert_int_equal(record.server.method.count, CTS_ROW_METHOD_BYTES);
    cts_worker_read(&slot.view, &worker);
    assert_int_equal(worker.attributes_dropped, 10);
    help_detach_here(&slot);
}

static void a_span_carries_attributes_of_every_kind(void **state)
{
    struct cts_slot slot;
    struct cts_attribute attributes[] = {
        {"text", CTS_ATTRIBUTE_TEXT, {"words", 5}, 0},
        {"int", CTS_ATTRIBUTE_INT, {0}, -9},
        {"bool", CTS_ATTRIBUTE_BOOL, {0}, 1},
    };
    struct cts_span span = {.name = "ctserve.boot",
                            .start_mono_ns = 1,
                            .end_mono_ns = 2,
                            .is_error = true,
                            .error_type = "OSError",
                            .status_message = "busy",
                            .attributes = attributes,
                            .attributes_count = 3};
    help_attach_here(&slot);
    cts_span_put(&span);
    struct cts_record_cursor cursor = {0};
    assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_RECORD);
    assert_int_equal(record.kind, CTS_RECORD_SPAN);
    assert_memory_equal(record.span.head.trace_id, span.trace_id, 16);
    assert_text(record.span.name, "ctserve.boot");
    assert_text(record.span.error_type, "OSError");
    assert_text(record.span.status_message, "busy");
    assert_int_equal(record.span.attributes_count, 3);
    assert_text(record.span.attributes[0].text, "words");
    assert_text(record.span.attributes[1].key, "int");
    assert_int_equal(record.span.attributes[1].number, -9);
    assert_int_equal(record.span.attributes[2].kind, CTS_ATTRIBUTE_BOOL);
    assert_int_equal(record.span.attributes[2].number, 1);
    help_detach_here(&slot);
}

static void attributes_that_do_not_fit_are_dropped_and_counted(void **state)
{
    static char text[5000];
    struct cts_slot slot;
    struct cts_worker_copy worker;
    struct cts_attribute attributes[20];
    for (size_t i = 0; i < 20; i++)
        attributes[i] = (struct cts_attribute){"key", CTS_ATTRIBUTE_TEXT, {text, sizeof(text)}, 0};
    struct cts_span span = {.name = "big", .attributes = attributes, .attributes_count = 20};
    help_attach_here(&slot);
    cts_span_put(&span);
    struct cts_record_cursor cursor = {0};
    assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_RECORD);
    assert_int_equal(record.span.attributes_count, 3);
    cts_worker_read(&slot.view, &worker);
    assert_int_equal(worker.attributes_dropped, 17 + 3);
    help_detach_here(&slot);
}

static void a_full_ring_drops_new_spans_and_counts_them(void **state)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    help_attach_here(&slot);
    for (int i = 0; i < 1000; i++)
        help_request();
    help_span();
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.started, 1001);
    assert_int_equal(counts.open, 0);
    assert_true(counts.dropped_ring_full > 700);
    assert_int_equal(counts.committed + counts.dropped_ring_full, 1001);
    uint64_t committed = counts.committed;
    assert_int_equal(help_drain(&slot.view, &record), committed);
    help_request();
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.committed, committed + 1);
    help_detach_here(&slot);
}

static void records_go_round_the_ring_with_every_size_of_pad(void **state)
{
    static char text[4000];
    struct cts_slot slot;
    struct cts_slot_counts counts;
    int64_t drained = 0;
    memset(text, 'q', sizeof(text));
    help_attach_here(&slot);
    for (size_t i = 0; i < 20000; i++) {
        struct cts_trace_request request;
        struct cts_trace_start start = help_start();
        start.query = (struct cts_bytes){text, (i * 7919) % 2000};
        cts_trace_begin(&request, &start);
        cts_trace_end(&request, &help_end);
        if (i % 3 == 0) {
            int64_t count = help_drain(&slot.view, &record);
            assert_true(count >= 0);
            drained += count;
        }
    }
    drained += help_drain(&slot.view, &record);
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.dropped_ring_full, 0);
    assert_int_equal(drained, 20000);
    help_detach_here(&slot);
}

static void a_request_of_an_unsampled_parent_stays_outside_of_the_identity(void **state)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    struct cts_row_copy row;
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    start.traceparent = cts_bytes_of(help_unsampled);
    help_attach_here(&slot);
    cts_trace_begin(&request, &start);
    assert_false(request.is_recording);
    assert_int_equal(cts_row_read(&slot.view, 0, &row), CTS_ROW_OPEN);
    assert_false(row.is_traced);
    assert_int_equal(row.flags & CTS_ROW_UNTRACED, CTS_ROW_UNTRACED);
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.started, 0);
    assert_int_equal(counts.open, 0);
    cts_trace_end(&request, &help_end);
    help_request();
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.started, 1);
    help_detach_here(&slot);
}

static void with_tracing_off_rows_open_for_supervision_only(void **state)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    struct cts_row_copy row;
    struct cts_worker_copy worker;
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    help_attach_here(&slot);
    cts_tracer_enable(false);
    cts_trace_begin(&request, &start);
    assert_int_equal(cts_row_read(&slot.view, 0, &row), CTS_ROW_OPEN);
    cts_trace_end(&request, &help_end);
    help_span();
    cts_slot_count(&slot.view, &counts);
    assert_int_equal(counts.started, 0);
    assert_int_equal(counts.head, 0);
    cts_worker_read(&slot.view, &worker);
    assert_int_equal(worker.requests_count, 1);
    assert_int_equal(worker.answered_count, 1);
    help_detach_here(&slot);
}

static void a_request_without_a_free_row_runs_untraced_and_is_counted(void **state)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    struct cts_trace_request requests[ROWS + 1];
    struct cts_trace_start start = help_start();
    help_attach_here(&slot);
    for (size_t i = 0; i <= ROWS; i++)
        cts_trace_begin(&requests[i], &start);
    assert_null(requests[ROWS].row);
    assert_false(requests[ROWS].is_recording);
    cts_slot_count(&slot.view, &counts);
    assert_int_equal(counts.rows_full, 1);
    assert_int_equal(counts.open, ROWS);
    for (size_t i = 0; i <= ROWS; i++)
        cts_trace_end(&requests[i], &help_end);
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.committed, ROWS);
    help_detach_here(&slot);
}

static void the_oldest_request_over_the_limit_is_the_hung_one(void **state)
{
    struct cts_slot slot;
    struct cts_row_copy row;
    struct cts_trace_request young, old;
    struct cts_trace_start start = help_start();
    help_attach_here(&slot);
    start.start_ns = 9000;
    cts_trace_begin(&young, &start);
    start.start_ns = 2000;
    cts_trace_begin(&old, &start);
    assert_false(cts_row_find_hung(&slot.view, 3999, 2000, &row));
    assert_false(cts_row_find_hung(&slot.view, 1000, 1, &row));
    assert_true(cts_row_find_hung(&slot.view, 20000, 2000, &row));
    assert_int_equal(row.start_mono_ns, 2000);
    assert_int_equal(row.index, 1);
    cts_trace_progress(&old);
    assert_true(cts_row_find_hung(&slot.view, 20000, 2000, &row));
    assert_int_equal(row.start_mono_ns, 9000);
    cts_trace_end(&young, &help_end);
    assert_false(cts_row_find_hung(&slot.view, 20000, 2000, &row));
    help_detach_here(&slot);
}

static void silence_counts_only_while_a_beat_is_required(void **state)
{
    struct cts_slot slot;
    help_attach_here(&slot);
    uint64_t later = cts_clock_mono_ns() + 1000000000000u;
    assert_int_equal(cts_worker_silence_ns(&slot.view, later), 0);
    cts_beat_required(true);
    uint64_t before = cts_worker_silence_ns(&slot.view, later);
    assert_true(before > 0);
    cts_beat();
    assert_true(cts_worker_silence_ns(&slot.view, later) <= before);
    assert_int_equal(cts_worker_silence_ns(&slot.view, 1), 0);
    cts_beat_required(false);
    assert_int_equal(cts_worker_silence_ns(&slot.view, later), 0);
    help_detach_here(&slot);
}

/* A worker may write anything anywhere at any time: nothing crashes, loops or reads outside. The
 * suite runs under ASan; a mapping has no red zones, so reads past it would be faults. */
static void a_scribbler_cannot_make_the_reader_crash(void **state)
{
    struct cts_slot slot;
    struct cts_row_copy row;
    struct cts_slot_counts counts;
    uint64_t damaged = 0, good = 0, random = 88172645463325252u;
    help_attach_here(&slot);
    for (int i = 0; i < 100; i++)
        help_request();
    help_span();
    unsigned char *map = (unsigned char *)slot.map;
    size_t bytes = slot.view.consumer_offset;
    unsigned char *clean = malloc(bytes);
    assert_non_null(clean);
    memcpy(clean, map, bytes);
    for (int round = 0; round < 20000; round++) {
        for (int i = 0; i < 3; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            size_t ring_at = slot.view.ring_offset + (random >> 8) % 40000;
            size_t page_at = offsetof(struct cts_slot_header, worker) + (random >> 8) % 64;
            size_t row_at = 4096 + (random >> 8) % 4096;
            size_t at = (random & 7) == 0 ? page_at : (random & 7) == 1 ? row_at : ring_at;
            map[at] = (unsigned char)(random >> 40);
        }
        struct cts_record_cursor cursor = {0};
        enum cts_record_look look;
        while ((look = cts_record_next(&slot.view, &cursor, &record)) == CTS_LOOK_RECORD)
            good++;
        damaged += look == CTS_LOOK_DAMAGED;
        (void)cts_ring_count(&slot.view, 0);
        for (uint32_t i = 0; i < ROWS; i++)
            (void)cts_row_read(&slot.view, i, &row);
        (void)cts_row_find_hung(&slot.view, ~0ull, 0, &row);
        cts_slot_count(&slot.view, &counts);
        memcpy(map, clean, 4096 + 4096);
        memcpy(map + slot.view.ring_offset, clean + slot.view.ring_offset, 40960);
    }
    assert_true(damaged > 10000);
    assert_true(good > 0);
    free(clean);
    help_detach_here(&slot);
}

/* Whoever can compute the checksum can lie more precisely. */
static void a_record_with_a_right_checksum_and_wrong_fields_is_damaged(void **state)
{
    struct lie {
        size_t at;
        uint64_t value;
        size_t bytes;
    } lies[] = {
        {offsetof(struct cts_record, bytes), 39, 4},
        {offsetof(struct cts_record, bytes), 20000, 4},
        {offsetof(struct cts_record, bytes), 0xfffffff8u, 4},
        {offsetof(struct cts_record, kind), 0, 2},
        {offsetof(struct cts_record, kind), CTS_RECORD_PAD, 2},
        {offsetof(struct cts_record, kind), CTS_RECORD_SPAN, 2},
        {offsetof(struct cts_record, index), 0, 8},
        {offsetof(struct cts_record, index), 9, 8},
        {offsetof(struct cts_record, row_sequence), 2, 8},
        {offsetof(struct cts_record, row_index), ROWS, 4},
        {offsetof(struct cts_record, payload_bytes), 0xffffffffu, 4},
        {offsetof(struct cts_record, payload_bytes), 8, 4},
        {sizeof(struct cts_record) + offsetof(struct cts_server_span_payload, path_bytes), 65535,
         2},
        {sizeof(struct cts_record) + offsetof(struct cts_server_span_payload, peer_bytes), 0, 2},
    };
    struct cts_slot slot;
    help_attach_here(&slot);
    help_request();
    help_request();
    unsigned char *at = (unsigned char *)slot.map + slot.view.ring_offset;
    uint32_t first_bytes = ((struct cts_record *)at)->bytes;
    unsigned char *second = at + first_bytes;
    uint32_t bytes = ((struct cts_record *)second)->bytes;
    unsigned char clean[1024];
    assert_true(bytes <= sizeof(clean));
    memcpy(clean, second, bytes);
    for (size_t i = 0; i < CTS_COUNT(lies); i++) {
        memcpy(second + lies[i].at, &lies[i].value, lies[i].bytes);
        ((struct cts_record *)second)->crc32c = cts_crc32c(second + 8, bytes - 8);
        struct cts_record_cursor cursor = {0};
        assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_RECORD);
        assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_DAMAGED);
        assert_int_equal(cursor.position, first_bytes);
        memcpy(second, clean, bytes);
    }
    help_detach_here(&slot);
}

static void a_head_that_jumps_or_goes_back_is_damage(void **state)
{
    struct cts_slot slot;
    help_attach_here(&slot);
    help_request();
    uint64_t head = slot.map->worker.head;
    uint64_t wrong[] = {head + 4, CTS_RING_BYTES_MIN + 8, ~0ull, 1ull << 63};
    for (size_t i = 0; i < CTS_COUNT(wrong); i++) {
        struct cts_record_cursor cursor = {0};
        slot.map->worker.head = wrong[i];
        assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_DAMAGED);
        assert_true(cts_ring_count(&slot.view, 0) < 0);
    }
    struct cts_record_cursor cursor = {head, 1};
    slot.map->worker.head = 0;
    assert_int_equal(cts_record_next(&slot.view, &cursor, &record), CTS_LOOK_DAMAGED);
    help_detach_here(&slot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_castagnolis_on_both_ways),
        cmocka_unit_test(a_request_becomes_one_record_with_all_that_was_told),
        cmocka_unit_test(an_open_row_tells_what_runs_and_a_closed_one_is_free),
        cmocka_unit_test(texts_that_are_too_long_are_cut_and_counted),
        cmocka_unit_test(a_span_carries_attributes_of_every_kind),
        cmocka_unit_test(attributes_that_do_not_fit_are_dropped_and_counted),
        cmocka_unit_test(a_full_ring_drops_new_spans_and_counts_them),
        cmocka_unit_test(records_go_round_the_ring_with_every_size_of_pad),
        cmocka_unit_test(a_request_of_an_unsampled_parent_stays_outside_of_the_identity),
        cmocka_unit_test(with_tracing_off_rows_open_for_supervision_only),
        cmocka_unit_test(a_request_without_a_free_row_runs_untraced_and_is_counted),
        cmocka_unit_test(the_oldest_request_over_the_limit_is_the_hung_one),
        cmocka_unit_test(silence_counts_only_while_a_beat_is_required),
        cmocka_unit_test(a_scribbler_cannot_make_the_reader_crash),
        cmocka_unit_test(a_record_with_a_right_checksum_and_wrong_fields_is_damaged),
        cmocka_unit_test(a_head_that_jumps_or_goes_back_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
