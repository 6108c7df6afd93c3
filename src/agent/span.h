/* span.h - one finished span on its way through the agent.
 *
 * It is encoded once, when it is read (a Span message of OTLP), and then only carried: into
 * batches, into the local store, back out through the API. It is shared by reference count between
 * the queue of its ring and the store.
 *
 * Always true: a span stands in the list of its ring until its fate is counted there; while it
 * waits for the collector it also stands in exactly one list of the exporter. */
#ifndef AGENT_SPAN_H
#define AGENT_SPAN_H

#include "ctserve/list.h"
#include "ctserve/slot.h"

struct ring;

/* Whose span it is: one OTLP Resource per process, encoded once. */
struct resource {
    uint32_t references;
    int32_t pid;
    int32_t slot_index;            /* -1: the master */
    uint32_t generation;
    char service_name[256];
    char instance_id[40];
    uint32_t encoded_bytes;
    uint8_t encoded[];             /* a Resource message */
};

enum span_state {
    SPAN_OPEN,                     /* its fate is not known yet */
    SPAN_ACKED,
    SPAN_REJECTED,                 /* by the collector, in a partial success */
    SPAN_DROPPED,                  /* `drop_reason` says why */
};

struct span {
    struct cts_list in_ring;
    struct cts_list in_queue;
    struct ring *ring;             /* NULL once the ring was forgotten */
    struct resource *resource;
    uint32_t references;
    enum span_state state;
    enum cts_drop_reason drop_reason;
    uint64_t end_position;         /* the ring's tail once this one is done with */
    bool is_row;                   /* made from an open row of a dead worker */
    bool in_heap;                  /* the ring has its bytes back already */
    bool is_error;
    uint8_t kind;                  /* OTLP's SpanKind */
    bool has_parent;
    uint16_t http_status;          /* 0: none */
    uint8_t trace_id[16], span_id[8], parent_span_id[8];
    uint64_t start_ns, end_ns;     /* since 1970 */
    char name[96];                 /* cut; the whole one is in `encoded` */
    uint32_t encoded_bytes;
    uint8_t encoded[];
};

#define SPAN_KIND_INTERNAL 1
#define SPAN_KIND_SERVER 2

/* What one span costs in memory, for every bound that counts bytes. */
static inline size_t span_bytes(const struct span *span)
{
    return sizeof(*span) + span->encoded_bytes + 32;
}

struct span *span_take(struct span *span);   /* one more reference */
void span_give(struct span *span);           /* one less; the last one frees. NULL is fine */
struct resource *resource_take(struct resource *resource);
void resource_give(struct resource *resource);

#endif
