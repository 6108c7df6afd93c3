/* help.h - what the tests of the tracing room share: a slot, a request, the identity. */
#ifndef TESTS_TRACING_HELP_H
#define TESTS_TRACING_HELP_H

#include "ctserve/tracing.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ROWS 4u

static inline void help_slot_create(struct cts_slot *slot, uint32_t rows_count)
{
    struct cts_slot_plan plan = {.ring_id = 7,
                                 .slot_index = 2,
                                 .generation = 3,
                                 .age = 11,
                                 .ring_bytes = CTS_RING_BYTES_MIN,
                                 .rows_count = rows_count};
    memset(plan.fork_trace_id, 0xab, sizeof(plan.fork_trace_id));
    assert_int_equal(cts_slot_create(&plan, slot), 0);
}

/* This process writes and reads the same slot. */
static inline void help_attach_here(struct cts_slot *slot)
{
    help_slot_create(slot, ROWS);
    assert_int_equal(cts_tracer_attach_master(slot), 0);
    cts_tracer_enable(true);
}

static inline void help_detach_here(struct cts_slot *slot)
{
    cts_tracer_detach();
    cts_slot_free(slot);
}

static inline struct cts_trace_start help_start(void)
{
    return (struct cts_trace_start){
        .method = cts_bytes_of("GET"),
        .path = cts_bytes_of("/items/7"),
        .query = cts_bytes_of("a=b&c=d"),
        .scheme = cts_bytes_of("http"),
        .host = cts_bytes_of("shop.example:8000"),
        .user_agent = cts_bytes_of("wrk/4"),
        .peer_address = cts_bytes_of("127.0.0.1"),
        .peer_port = 40001,
        .server_port = 8000,
        .version_minor = 1,
        .start_ns = 5000,
    };
}

static const struct cts_trace_end help_end = {.status = 200, .response_body_bytes = 13};
static const char help_unsampled[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

static inline void help_request(void)
{
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    cts_trace_begin(&request, &start);
    cts_trace_phase(&request, CTS_PHASE_APP);
    cts_trace_phase(&request, CTS_PHASE_SEND);
    cts_trace_end(&request, &help_end);
}

static inline void help_request_unsampled(void)
{
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    start.traceparent = cts_bytes_of(help_unsampled);
    cts_trace_begin(&request, &start);
    cts_trace_end(&request, &help_end);
}

static inline void help_span(void)
{
    struct cts_attribute attributes[] = {
        {"ctserve.worker.age", CTS_ATTRIBUTE_INT, {0}, 11},
        {"ctserve.why", CTS_ATTRIBUTE_TEXT, {"told to", 7}, 0},
    };
    struct cts_span span = {
        .name = "ctserve.fork", .attributes = attributes, .attributes_count = 2};
    cts_span_put(&span);
}

/* started = open + in_ring + in_heap + acked + rejected + dropped + lost_uncommitted */
static inline bool help_identity_holds(const struct cts_slot_view *view,
                                       struct cts_slot_counts *ret_counts)
{
    struct cts_consumer_counts done;
    cts_slot_count(view, ret_counts);
    cts_consumer_read(view, &done);
    int64_t in_ring = cts_ring_count(view, done.tail);
    uint64_t rest = ret_counts->open + ret_counts->rowless_open + ret_counts->dropped_ring_full +
                    done.acked + done.rejected + done.heap_taken + done.lost_uncommitted;
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        rest += done.dropped[i];
    return ret_counts->is_exact && in_ring >= 0 && ret_counts->started == rest + (uint64_t)in_ring;
}

/* Read everything there is and acknowledge it. Returns how many, -1 when the ring is damaged. */
static inline int64_t help_drain(const struct cts_slot_view *view, struct cts_record_copy *record)
{
    struct cts_consumer_counts done;
    cts_consumer_read(view, &done);
    struct cts_record_cursor cursor = {done.tail, done.acked};
    int64_t count = 0;
    enum cts_record_look look;
    while ((look = cts_record_next(view, &cursor, record)) == CTS_LOOK_RECORD)
        count++;
    done.tail = cursor.position;
    done.acked += (uint64_t)count;
    cts_consumer_write(view, &done);
    return look == CTS_LOOK_END ? count : -1;
}

#endif
