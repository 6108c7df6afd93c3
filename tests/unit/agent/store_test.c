/* store_test.c - the last traces, bounded. */
#include "store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static struct span *span_for(uint32_t trace, uint32_t number, uint32_t bytes)
{
    struct span *span = calloc(1, sizeof(*span) + bytes);
    span->references = 1;
    span->encoded_bytes = bytes;
    span->has_parent = number > 0;
    span->start_ns = 1000 + number;
    span->end_ns = 2000 + number;
    memcpy(span->trace_id, &trace, sizeof(trace));
    memcpy(span->span_id, &number, sizeof(number));
    return span;
}

static void put(struct store *store, uint32_t trace, uint32_t number, uint32_t bytes)
{
    struct span *span = span_for(trace, number, bytes);
    store_put(store, span);
    span_give(span);
}

static void the_oldest_trace_goes_first_and_the_bound_holds(void **state)
{
    struct store *store = store_new(100000);
    struct store_figures figures;
    for (uint32_t i = 0; i < 1000; i++) {
        put(store, i, 0, 1000);
        store_read_figures(store, &figures);
        assert_true(figures.bytes <= 100000);
    }
    uint8_t first[16] = {0}, last[16] = {0};
    uint32_t number = 999;
    memcpy(last, &number, sizeof(number));
    assert_null(store_find(store, first));
    assert_non_null(store_find(store, last));
    assert_int_equal(figures.evicted_traces + figures.traces, 1000);
    assert_memory_equal(store_before(store, NULL)->trace_id, last, 16);
    store_free(store);
}

static void a_span_told_twice_stands_there_once(void **state)
{
    struct store *store = store_new(100000);
    put(store, 1, 0, 10);
    put(store, 1, 1, 10);
    put(store, 1, 1, 10);
    const struct stored_trace *trace = store_before(store, NULL);
    assert_int_equal(trace->spans_count, 2);
    assert_false(stored_trace_root(trace)->has_parent);
    assert_null(store_before(store, trace));
    store_free(store);
}

static void one_trace_cannot_grow_without_end(void **state)
{
    struct store *store = store_new(1 << 30);
    for (uint32_t i = 0; i < STORE_TRACE_SPANS_MAX + 5; i++)
        put(store, 1, i, 10);
    assert_int_equal(store_before(store, NULL)->spans_count, STORE_TRACE_SPANS_MAX);
    assert_int_equal(store_before(store, NULL)->spans_left_out, 5);
    store_free(store);
}

static void a_span_larger_than_the_bound_leaves_an_empty_store(void **state)
{
    struct store *store = store_new(100);
    put(store, 1, 0, 1000);
    assert_null(store_before(store, NULL));
    store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_trace_goes_first_and_the_bound_holds),
        cmocka_unit_test(a_span_told_twice_stands_there_once),
        cmocka_unit_test(one_trace_cannot_grow_without_end),
        cmocka_unit_test(a_span_larger_than_the_bound_leaves_an_empty_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
