/* store.h - the last traces, for the API. In memory, bounded by bytes; the oldest trace goes
 * first. A span that is put twice (told again after a crash) stands there once. */
#ifndef AGENT_STORE_H
#define AGENT_STORE_H

#include "span.h"

#define STORE_BYTES_MAX_DEFAULT (64u << 20)
#define STORE_TRACE_SPANS_MAX 2000

struct store;

struct stored_trace {
    struct cts_list by_age;          /* newest last */
    struct stored_trace *next_in_bucket;
    uint8_t trace_id[16];
    uint64_t start_ns, end_ns;
    bool is_error;
    size_t bytes;
    size_t spans_count, spans_capacity;
    size_t spans_left_out;           /* above STORE_TRACE_SPANS_MAX */
    struct span **spans;
};

struct store *store_new(size_t bytes_max);         /* NULL: no memory */
void store_free(struct store *store);
/* Takes a reference of its own. What cannot be kept (no memory) is counted. */
void store_put(struct store *store, struct span *span);
const struct stored_trace *store_find(const struct store *store, const uint8_t trace_id[16]);
/* The span that tells what the trace is about: without a parent here, the earliest. */
const struct span *stored_trace_root(const struct stored_trace *trace);
/* Newest first: start with NULL. NULL at the end. */
const struct stored_trace *store_before(const struct store *store,
                                        const struct stored_trace *trace);

struct store_figures {
    size_t bytes, bytes_max, traces, spans;
    uint64_t evicted_traces, left_out_spans;
};
void store_read_figures(const struct store *store, struct store_figures *ret_figures);

#endif
