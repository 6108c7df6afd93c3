/* tracing.h - the tracing that runs inside the master and the workers. Room: tracing.
 *
 * Nothing here blocks, allocates or makes a system call once a slot is attached; what does not
 * fit is counted. Nothing but cts_tracer_detach may be called from a signal handler: the handler
 * may have interrupted the owner of the lock. Nothing here knows gRPC, Python or sockets. The layout of the shared memory is
 * in ctserve/slot.h, which the agent reads too. */
#ifndef CTSERVE_TRACING_H
#define CTSERVE_TRACING_H

#include "ctserve/base.h"
#include "ctserve/slot.h"
#include "ctserve/slot_read.h"

/* -- W3C trace context --------------------------------------------------------------------- */
struct cts_trace_context {
    uint8_t trace_id[16];
    uint8_t span_id[8];       /* the remote parent's */
    uint8_t flags;            /* bit 0 sampled, bit 1 random */
    bool is_valid;
};

/* Read a `traceparent` field (55 bytes, version 00, lower-case hex, no zero ids; a higher version
 * may be longer). Anything else leaves is_valid false. Source: W3C Trace Context level 2. */
void cts_traceparent_read(struct cts_bytes field, struct cts_trace_context *ret_context);
/* Is it such a field, and says that nobody wants to see this trace? The same verdict as read's, for
 * less, because then nobody asks for the ids. */
bool cts_traceparent_is_unsampled(struct cts_bytes field);
/* Write 55 bytes, not terminated. */
#define CTS_TRACEPARENT_BYTES 55
void cts_traceparent_write(const uint8_t trace_id[16], const uint8_t span_id[8], uint8_t flags,
                           char to[CTS_TRACEPARENT_BYTES]);

/* -- slots (made by the master) ------------------------------------------------------------ */
/* One sealed memfd: header, worker page, request table, span ring, consumer page. A new one for
 * every forked worker (so a dead worker's rows stay readable while its successor runs) and one
 * for the master itself. */
struct cts_slot {
    int fd;                       /* read-write, master only; -1 in workers */
    int read_only_fd;             /* O_RDONLY reopen, for the worker's view of the consumer page */
    struct cts_slot_header *map;  /* master: whole mapping, read-write. Not inherited by a fork
                                     (MADV_DONTFORK): in a child NULL it or attach */
    size_t map_bytes;
    struct cts_slot_view view;    /* master: for supervision, see slot_read.h. The layout in it was
                                     noted before the worker could write; read through it, not
                                     through `map` */
};

struct cts_slot_plan {
    uint64_t ring_id;             /* counts slots since boot; 1 is the master's */
    int32_t slot_index;           /* worker slot, -1 for the master */
    uint32_t generation;          /* how often this slot index was filled, first is 1 */
    uint64_t age;                 /* worker.age */
    uint32_t ring_bytes;          /* power of two, trace_ring_bytes */
    uint32_t rows_count;          /* request rows: threads + spare */
    uint8_t fork_trace_id[16], fork_span_id[8];   /* the master's span of this fork */
};

/* 0 or -errno (-EINVAL: a number of the plan is out of bounds); nothing is left open on failure. */
int cts_slot_create(const struct cts_slot_plan *plan, struct cts_slot *ret_slot) CTS_MUST_USE;
/* Master: unmap and close. */
void cts_slot_free(struct cts_slot *slot);
/* In a forked child, for every slot that is not its own: close the descriptors and forget the
 * mapping, which did not come along. */
void cts_slot_disown(struct cts_slot *slot);

/* -- the tracer of this process ------------------------------------------------------------ */
/* There is one per process. Detached (the default) every call below is a cheap no-op. */

/* In a worker, right after the fork: map the slot (own part read-write, consumer page read-only
 * from the reopened descriptor), close both descriptors, reseed ids, write the pid. `slot` is
 * zeroed but for its closed descriptors.
 * thread_safe: several threads of this process will end requests (gthread).
 * 0 or -errno (then the tracer stays detached and the master counts the failure). */
int cts_tracer_attach(struct cts_slot *slot, bool thread_safe) CTS_MUST_USE;
/* In the master, for its own slot. */
int cts_tracer_attach_master(struct cts_slot *slot) CTS_MUST_USE;
/* In a process that was forked by the application, or a worker's child before it knows its own
 * slot: forget everything without touching the shared memory. Async-signal-safe. Happens by
 * itself in every child of fork(3) (pthread_atfork), and the mapping does not come along. */
void cts_tracer_detach(void);
bool cts_tracer_is_attached(void);

/* Spans off (the default) or on (setting `tracing`, OTEL_SDK_DISABLED); remembered over forks, so
 * the master says it once. The request table, the heartbeat and the counters work in both cases:
 * supervision needs them. */
void cts_tracer_enable(bool on);
bool cts_tracer_is_enabled(void);

/* New random non-zero ids (xoshiro seeded by getrandom, reseeded by attach). */
void cts_trace_id_new(uint8_t trace_id[16]);
void cts_span_id_new(uint8_t span_id[8]);

/* -- one request ---------------------------------------------------------------------------- */
/* Lives in the connection; zero it before the first use. */
struct cts_trace_request {
    struct cts_row *row;           /* NULL while none is open (or the table is full) */
    uint8_t trace_id[16];          /* zero when not recording: then a `traceparent` that the client
                                      sent is handed on to the application as it came */
    uint8_t span_id[8];
    uint8_t parent_span_id[8];
    uint8_t flags;
    bool has_parent;
    bool is_recording;             /* tracing on and sampled */
    /* CLOCK_MONOTONIC, when each began: connection accepted, first byte of the request, head was
     * whole (begin), body being read, application entered, reply. Set by begin and phase, once. */
    uint64_t accept_ns, start_ns, head_ns, body_ns, app_ns, first_byte_ns;
};

struct cts_trace_start {
    struct cts_bytes method;
    struct cts_bytes path;             /* undecoded */
    struct cts_bytes query;
    struct cts_bytes scheme;           /* "http" */
    struct cts_bytes host;             /* Host or authority, may be empty */
    struct cts_bytes user_agent;
    struct cts_bytes traceparent;      /* field value or empty */
    struct cts_bytes peer_address;     /* "127.0.0.1", "" on unix sockets */
    uint16_t peer_port;
    uint16_t server_port;
    uint8_t version_minor;
    uint64_t accept_ns;                /* connection accepted, 0 for a later request */
    uint64_t start_ns;                 /* first byte of the request */
};

/* Open a row, choose ids. Never fails; without a free row the request is counted as
 * `rows_full` and runs untraced. With tracing off the row still opens (supervision). */
void cts_trace_begin(struct cts_trace_request *request, const struct cts_trace_start *start);
/* The request moved on; kept in the row so that a dead worker's span can say where it stood.
 * BODY, APP and SEND read the clock the first time; for a request that is not recorded only APP
 * has a time, that of begin unless the body was waited for. */
void cts_trace_phase(struct cts_trace_request *request, enum cts_phase phase);
/* Are so many requests open that the table may run short? */
bool cts_trace_is_crowded(void);
/* A streamed reply got bytes out: from now on request_timeout counts from the last of these. */
void cts_trace_progress(struct cts_trace_request *request);

struct cts_trace_end {
    int status;                        /* sent to the client; 0 when nothing was sent */
    bool is_refused;                   /* the server said so, not the application */
    uint64_t request_body_bytes;
    uint64_t response_body_bytes;
    struct cts_bytes error_type;       /* "" when fine; e.g. "http.parse.bad_method",
                                          "ValueError", "ctserve.client_disconnect" */
    struct cts_bytes error_message;
    struct cts_bytes route;            /* "" when not known */
};

/* Commit the span and close the row. The identity of slot.h holds at every instruction. Does
 * nothing when no row is open, so it may be called twice. Texts that are too long are cut. */
void cts_trace_end(struct cts_trace_request *request, const struct cts_trace_end *end);

/* -- spans of the master and of a worker's own life ----------------------------------------- */
enum cts_attribute_kind { CTS_ATTRIBUTE_TEXT, CTS_ATTRIBUTE_INT, CTS_ATTRIBUTE_BOOL };
struct cts_attribute {
    const char *key;
    enum cts_attribute_kind kind;
    struct cts_bytes text;
    int64_t number;
};

struct cts_span {
    const char *name;                  /* "ctserve.fork"; docs/lifecycle.md lists them */
    uint8_t trace_id[16], span_id[8], parent_span_id[8];   /* zero parent: a root */
    uint8_t link_trace_id[16], link_span_id[8];            /* zero: no link */
    uint64_t start_mono_ns, end_mono_ns;
    bool is_error;
    const char *error_type;            /* or NULL */
    const char *status_message;        /* or NULL */
    const struct cts_attribute *attributes;
    size_t attributes_count;           /* at most 16, more are dropped and counted */
};
/* Commit one finished span into this process's ring. Trace and span id are chosen if all zero, so
 * that children can refer to it, attached or not. Not recorded, nor counted, with tracing off. */
void cts_span_put(struct cts_span *span);

/* -- supervision ----------------------------------------------------------------------------- */
/* Worker side. */
void cts_beat(void);                          /* the loop turned: now */
void cts_beat_required(bool yes);             /* is silence a fault right now? see slot.h */
void cts_worker_connections(int32_t count);   /* open connections, for the accept rule */
void cts_worker_state(enum cts_worker_state state);   /* attach has set CTS_WORKER_BOOTING */
uint64_t cts_worker_requests(void);           /* requests begun here: worker.nr */

#endif
