/* store.c - a hash table of traces and the order in which they were last touched. */
#include "store.h"

#include <stdlib.h>

#define BUCKETS_COUNT 16384u

struct store {
    struct stored_trace *buckets[BUCKETS_COUNT];
    struct cts_list by_age;
    size_t bytes, bytes_max, traces_count, spans_count;
    uint64_t evicted_traces, left_out_spans;
};

struct store *store_new(size_t bytes_max)
{
    struct store *store = calloc(1, sizeof(*store));
    if (store == NULL)
        return NULL;
    store->bytes_max = bytes_max;
    cts_list_init(&store->by_age);
    return store;
}

/* Trace ids come from clients too: mixed, so that chosen ids do not share a bucket cheaply. */
static uint32_t bucket_of(const uint8_t trace_id[16])
{
    uint64_t half[2];
    memcpy(half, trace_id, 16);
    uint64_t hash = (half[0] ^ 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
    hash = (hash ^ (hash >> 32) ^ half[1]) * 0xc4ceb9fe1a85ec53ull;
    return (uint32_t)(hash >> 40) % BUCKETS_COUNT;
}

static void trace_drop(struct store *store, struct stored_trace *trace)
{
    struct stored_trace **at = &store->buckets[bucket_of(trace->trace_id)];
    while (*at != trace)
        at = &(*at)->next_in_bucket;
    *at = trace->next_in_bucket;
    cts_list_take(&trace->by_age);
    for (size_t i = 0; i < trace->spans_count; i++)
        span_give(trace->spans[i]);
    store->bytes -= trace->bytes;
    store->spans_count -= trace->spans_count;
    store->traces_count--;
    free(trace->spans);
    free(trace);
}

void store_free(struct store *store)
{
    if (store == NULL)
        return;
    while (!cts_list_is_empty(&store->by_age))
        trace_drop(store, CTS_CONTAINER(store->by_age.next, struct stored_trace, by_age));
    free(store);
}

static struct stored_trace *find(const struct store *store, const uint8_t trace_id[16])
{
    struct stored_trace *trace = store->buckets[bucket_of(trace_id)];
    while (trace != NULL && memcmp(trace->trace_id, trace_id, 16) != 0)
        trace = trace->next_in_bucket;
    return trace;
}

const struct stored_trace *store_find(const struct store *store, const uint8_t trace_id[16])
{
    return find(store, trace_id);
}

static struct stored_trace *trace_new(struct store *store, const struct span *span)
{
    struct stored_trace *trace = calloc(1, sizeof(*trace));
    if (trace == NULL)
        return NULL;
    memcpy(trace->trace_id, span->trace_id, 16);
    trace->start_ns = span->start_ns;
    trace->end_ns = span->end_ns;
    trace->bytes = sizeof(*trace) + 32;
    trace->next_in_bucket = store->buckets[bucket_of(span->trace_id)];
    store->buckets[bucket_of(span->trace_id)] = trace;
    cts_list_put_last(&store->by_age, &trace->by_age);
    store->traces_count++;
    store->bytes += trace->bytes;
    return trace;
}

static bool has_span(const struct stored_trace *trace, const struct span *span)
{
    for (size_t i = 0; i < trace->spans_count; i++) {
        if (memcmp(trace->spans[i]->span_id, span->span_id, 8) == 0)
            return true;
    }
    return false;
}

static bool trace_reserve(struct stored_trace *trace)
{
    if (trace->spans_count < trace->spans_capacity)
        return true;
    size_t capacity = trace->spans_capacity == 0 ? 2 : trace->spans_capacity * 2;
    struct span **spans = realloc(trace->spans, capacity * sizeof(*spans));
    if (spans == NULL)
        return false;
    trace->spans = spans;
    trace->spans_capacity = capacity;
    return true;
}

static void trace_put(struct store *store, struct stored_trace *trace, struct span *span)
{
    size_t bytes = span_bytes(span) + 2 * sizeof(span);
    trace->spans[trace->spans_count++] = span_take(span);
    trace->bytes += bytes;
    store->bytes += bytes;
    store->spans_count++;
    if (span->start_ns < trace->start_ns)
        trace->start_ns = span->start_ns;
    if (span->end_ns > trace->end_ns)
        trace->end_ns = span->end_ns;
    trace->is_error = trace->is_error || span->is_error;
    cts_list_take(&trace->by_age);
    cts_list_put_last(&store->by_age, &trace->by_age);
}

void store_put(struct store *store, struct span *span)
{
    struct stored_trace *trace = find(store, span->trace_id);
    if (trace == NULL)
        trace = trace_new(store, span);
    if (trace == NULL) {
        store->left_out_spans++;
        return;
    }
    /* The bound also keeps the search for a double short. */
    if (trace->spans_count >= STORE_TRACE_SPANS_MAX || !trace_reserve(trace)) {
        trace->spans_left_out++;
        store->left_out_spans++;
        return;
    }
    if (has_span(trace, span))
        return;
    trace_put(store, trace, span);
    while (store->bytes > store->bytes_max && !cts_list_is_empty(&store->by_age)) {
        trace_drop(store, CTS_CONTAINER(store->by_age.next, struct stored_trace, by_age));
        store->evicted_traces++;
    }
}

const struct span *stored_trace_root(const struct stored_trace *trace)
{
    const struct span *root = NULL;
    for (size_t i = 0; i < trace->spans_count; i++) {
        const struct span *span = trace->spans[i];
        if (root == NULL || (root->has_parent && !span->has_parent) ||
            (root->has_parent == span->has_parent && span->start_ns < root->start_ns))
            root = span;
    }
    return root;
}

const struct stored_trace *store_before(const struct store *store,
                                        const struct stored_trace *trace)
{
    const struct cts_list *link = trace == NULL ? store->by_age.prev : trace->by_age.prev;
    return link == &store->by_age ? NULL : CTS_CONTAINER(link, struct stored_trace, by_age);
}

void store_read_figures(const struct store *store, struct store_figures *ret_figures)
{
    *ret_figures = (struct store_figures){
        store->bytes, store->bytes_max, store->traces_count, store->spans_count,
        store->evicted_traces, store->left_out_spans};
}
