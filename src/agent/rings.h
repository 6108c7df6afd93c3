/* rings.h - the shared memory of every worker, and what was read from it.
 *
 * A ring gives its bytes back in order and only for spans whose fate is known; the counts stand in
 * the consumer page beside the tail, so an agent that is killed loses nothing but what it had
 * taken into its heap, and its successor counts that. While the collector does not answer and a
 * ring is three quarters full, spans are taken into the heap, 64 MiB at most over all rings.
 * A damaged ring is left alone and counted. */
#ifndef AGENT_RINGS_H
#define AGENT_RINGS_H

#include "exporter.h"
#include "otlp.h"
#include "store.h"

#include "ctserve/slot_read.h"

#define RINGS_COUNT_MAX 4096
#define RINGS_HEAP_BYTES_MAX_DEFAULT (64u << 20)
#define RINGS_AHEAD_SPANS_MAX 8192
#define RINGS_AHEAD_BYTES_MAX (32u << 20)

struct rings;

struct rings_plan {
    struct store *store;
    struct exporter *exporter;         /* NULL: storing locally is all there is */
    const struct env_plan *env;
    struct otlp_process process;       /* of the server; slot, generation and pid are the ring's */
    size_t heap_bytes_max;
    void (*retired)(void *context, uint64_t ring_id);
    void (*recycle)(void *context, uint64_t ring_id);
    void (*note)(void *context, int level, const char *sentence);
    void *context;
};

struct ring {
    struct cts_list link;
    struct rings *owner;
    struct cts_agent_ring facts;
    struct cts_slot_view view;
    struct resource *resource;
    struct otlp_clock clock;
    struct cts_record_cursor cursor;       /* ahead of the tail */
    struct cts_consumer_counts counts;     /* what the page says, plus what is not flushed yet */
    struct cts_list spans;                 /* read, still in the ring, in order */
    struct cts_list heap;                  /* taken out of the ring */
    size_t spans_count, heap_count;
    bool is_dirty, is_drained, is_gone, is_retired, is_damaged;
    uint32_t event;                        /* enum cts_worker_event, the last one heard */
    struct otlp_death death;
    char *stack;
    uint32_t row_next;                     /* a dead worker's rows, told up to here */
    uint64_t rows_seen, rows_before;       /* open ones met, open ones of an earlier agent */
};

struct rings *rings_new(const struct rings_plan *plan);   /* NULL: no memory */
void rings_free(struct rings *rings);
/* A ring announced by the master; `fd` stays the caller's. One that is known already is ignored.
 * 0 or -errno. */
int rings_add(struct rings *rings, const struct cts_agent_ring *facts, int fd);
void rings_event(struct rings *rings, const struct cts_agent_worker *event,
                 struct cts_bytes stack);
void rings_forget(struct rings *rings, uint64_t ring_id);
/* Read what was committed since. Called by a timer, and when the exporter has room again. */
void rings_drain(struct rings *rings);
void rings_settle(struct rings *rings, struct span *span);   /* the exporter's `settled` */
void rings_flush(struct rings *rings);                       /* the exporter's `turned` */
/* Is everything that was committed read and its fate known? */
bool rings_are_empty(const struct rings *rings);
/* The master is gone: a worker whose process is gone too counts as lost. True while any lives. */
bool rings_adopt_orphans(struct rings *rings);
size_t rings_unsent(const struct rings *rings);
size_t rings_heap_bytes(const struct rings *rings);
const struct cts_list *rings_list(const struct rings *rings);

/* The identity of one ring, or of several added up. */
struct ring_sums {
    uint64_t started, open, in_ring, in_heap, acked, rejected, dropped_ring_full;
    uint64_t dropped[CTS_DROP_REASONS_COUNT];
    uint64_t lost_uncommitted, rows_full;
    bool is_exact;                 /* of one moment; false while a busy worker outruns us */
    bool balances;                 /* valid when exact */
};
void ring_sum(const struct ring *ring, struct ring_sums *ret_sums);
void ring_sums_add(struct ring_sums *to, const struct ring_sums *from);
bool ring_sums_balance(const struct ring_sums *sums);

#endif
