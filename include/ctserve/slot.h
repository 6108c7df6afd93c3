/* slot.h - the shared memory between a worker (or the master) and the agent. Room: tracing.
 *
 * One memfd, sealed against grow and shrink, laid out as
 *
 *   page 0        struct cts_slot_header   written by the master before the fork, then constant,
 *                                          but for `worker` (written by the worker)
 *   next pages    struct cts_row[rows_count]                         (written by the worker)
 *   next pages    ring bytes                                         (written by the worker)
 *   last page     struct cts_consumer      written by the agent; read-only in the worker
 *
 * Everything in it is hostile to the agent and, what the worker can write, to the master: they
 * copy out, then check. ctserve/slot_read.h does that for both.
 *
 * The identity, exact at every instruction of either side, for one slot:
 *
 *   started = open + in_ring + in_heap + acked + rejected + dropped{reason} + lost_uncommitted
 *
 * started, open and dropped{ring_full} come from the rows and from `rowless`, in_ring is the
 * number of records between tail and head, the rest stands in the consumer page, whose counts
 * move together with the tail in one store. How each count is made atomic is told at its field. */
#ifndef CTSERVE_SLOT_H
#define CTSERVE_SLOT_H

#include "ctserve/base.h"

#include <stdatomic.h>

#define CTS_SLOT_MAGIC 0x3154534c53544343ull
#define CTS_SLOT_VERSION 2u
#define CTS_SLOT_ROWS_MAX 256u
#define CTS_RECORD_BYTES_MAX 16384u
#define CTS_RING_BYTES_MIN 65536u
#define CTS_RING_BYTES_MAX (256u << 20)

enum cts_phase {
    CTS_PHASE_HEAD = 1,   /* head being read or just parsed */
    CTS_PHASE_BODY,       /* request body being read */
    CTS_PHASE_APP,        /* application running */
    CTS_PHASE_SEND,       /* reply being written */
    CTS_PHASE_SENT,       /* reply fully written, span not committed yet */
};

enum cts_worker_state {
    CTS_WORKER_BOOTING = 1,
    CTS_WORKER_READY = 2,
    CTS_WORKER_DRAINING = 3,
};

/* How one span at a time begins and ends, so that a kill between any two stores can be decided
 * afterwards (the ADR on the row and commit protocol has the proof). Written by one thread.
 *
 *   begin    commit_head = 0, drop_target = 0, then sequence += 1 (odd: begun)
 *   commit   record bytes, commit_head = the head to be, then the worker page's head = that
 *   drop     drop_target = dropped_count + 1, then dropped_count = that
 *   close    sequence += 1 (even)
 *
 * While the sequence is odd: committed iff commit_head != 0 and head >= commit_head; dropped iff
 * drop_target != 0 and dropped_count >= drop_target; else it has not ended. Spans begun here ever:
 * (sequence + 1) / 2. All four words only grow or go back to 0. */
struct cts_commit {
    _Atomic uint64_t sequence;
    _Atomic uint64_t commit_head;
    _Atomic uint64_t drop_target;
    _Atomic uint64_t dropped_count;
};

#define CTS_ROW_METHOD_BYTES 24
#define CTS_ROW_TARGET_BYTES 2048
#define CTS_ROW_QUERY_BYTES 2048
#define CTS_ROW_SCHEME_BYTES 8
#define CTS_ROW_HOST_BYTES 256
#define CTS_ROW_AGENT_BYTES 512
#define CTS_ROW_PEER_BYTES 48

/* One running request. A request that is traced moves `sequence`, one that is not (tracing off,
 * not sampled) moves `untraced_sequence`; the row is open while either is odd, and only the first
 * counts in the identity. Everything below the flags is written while both are even, so a reader
 * copies, looks at both again, and has a whole row if they did not move. The texts are kept here
 * from begin to end (the connection may have lost its buffer by then), and a dead worker's span
 * has them too. */
struct cts_row {
    union {
        struct cts_commit commit;
        struct {                         /* the same four words, for short */
            _Atomic uint64_t sequence;
            _Atomic uint64_t commit_head;
            _Atomic uint64_t drop_target;
            _Atomic uint64_t dropped_count;  /* of this row, ring full */
        };
    };
    _Atomic uint64_t untraced_sequence;
    _Atomic uint64_t progress_mono_ns;   /* last byte of a streamed reply that went out */
    _Atomic uint64_t app_mono_ns;        /* application entered (0: not yet) */
    _Atomic uint32_t phase;              /* enum cts_phase */
    _Atomic uint32_t flags;              /* CTS_ROW_* */

    uint64_t start_mono_ns;
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t parent_span_id[8];
    uint8_t has_parent, sampled, version_minor, method_bytes;
    int32_t thread_id;                   /* kernel tid that runs it */
    uint16_t target_bytes, query_bytes, scheme_bytes, host_bytes, agent_bytes, peer_bytes;
    uint16_t peer_port, server_port;
    char method[CTS_ROW_METHOD_BYTES];
    char scheme[CTS_ROW_SCHEME_BYTES];
    char peer[CTS_ROW_PEER_BYTES];
    char host[CTS_ROW_HOST_BYTES];
    char agent[CTS_ROW_AGENT_BYTES];     /* User-Agent */
    char target[CTS_ROW_TARGET_BYTES];   /* path, cut */
    char query[CTS_ROW_QUERY_BYTES];
} __attribute__((aligned(64)));
#define CTS_ROW_STREAMING 1u             /* exempt from request_timeout while it makes progress */
#define CTS_ROW_UNTRACED 2u              /* open for supervision only: not in the identity */

/* What the worker tells about itself. */
struct cts_worker_page {
    _Atomic uint64_t head;               /* bytes ever committed; release store = commit */
    struct cts_commit rowless;           /* spans without a row (master, worker's life): one at a
                                            time, under the tracer's lock. One that was begun and
                                            never ended is lost_uncommitted once we are dead */
    _Atomic uint64_t rows_full;          /* requests that found no free row (never started) */
    _Atomic uint64_t attributes_dropped; /* more than fit, and texts that were cut */
    _Atomic uint64_t beat_mono_ns;       /* last time the loop turned */
    _Atomic uint64_t beat_required_since_ns;  /* 0: silence is fine now (all threads in the app) */
    _Atomic uint64_t requests_count;     /* worker.nr: requests begun */
    _Atomic uint64_t answered_count;     /* requests that ended with a status */
    _Atomic uint64_t refused_count;      /* of these, by us: the application had no say */
    _Atomic int32_t connections_count;
    _Atomic int32_t pid;
    _Atomic uint32_t state;              /* enum cts_worker_state */
};

struct cts_slot_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t map_bytes;
    uint64_t ring_id;
    int32_t slot_index;
    uint32_t generation;
    uint64_t age;
    uint32_t rows_offset, rows_count;
    uint32_t ring_offset, ring_bytes;
    uint32_t consumer_offset, reserved;
    uint8_t fork_trace_id[16], fork_span_id[8];
    uint64_t created_mono_ns, created_real_ns;  /* pair that turns monotonic into wall time */
    struct cts_worker_page worker __attribute__((aligned(64)));
};

enum cts_drop_reason {
    CTS_DROP_BAD_RECORD,      /* did not pass the checks */
    CTS_DROP_HEAP_FULL,
    CTS_DROP_STORE_FULL,
    CTS_DROP_REFUSED,         /* not retryable at the collector (rejected) */
    CTS_DROP_AGENT_LOST,      /* were in the heap of an agent that was killed */
    CTS_DROP_REASONS_COUNT,
};

/* Two copies and a selector: the agent writes the spare copy, then flips `selector` with one
 * release store, so a killed agent never leaves half an update. A record is counted as acked,
 * rejected, dropped or heap_taken in the same update in which the tail passes it. */
struct cts_consumer_counts {
    uint64_t tail;                        /* bytes given back to the writer */
    uint64_t acked;                       /* acknowledged by the collector, or stored locally
                                             when no exporter is configured */
    uint64_t rejected;
    uint64_t dropped[CTS_DROP_REASONS_COUNT];
    uint64_t lost_uncommitted;            /* rowless span of a dead worker: 0 or 1 */
    uint64_t heap_taken;                  /* now in the agent's heap and no longer in the ring */
    uint64_t open_closed;                 /* how many of a dead worker's open rows, in row order,
                                             were turned into spans and stand in acked, ... now */
};

struct cts_consumer {
    _Atomic uint32_t selector;            /* 0 or 1 */
    _Atomic uint32_t quarantined;
    struct cts_consumer_counts counts[2];
    _Atomic uint64_t tail_hint;           /* copy of tail for the writer, one load */
};

/* -- records in the ring ---------------------------------------------------------------------
 * 8-byte aligned, never wraps: a PAD record fills the end (an end shorter than struct cts_record
 * is skipped without one), committed by the same store as the record behind it and not counted.
 * Little endian. `crc32c` covers the record without its first 8 bytes; of a PAD only its head. */
enum cts_record_kind {
    CTS_RECORD_PAD = 1,
    CTS_RECORD_SERVER_SPAN = 2,
    CTS_RECORD_SPAN = 3,
};

#define CTS_SPAN_ATTRIBUTES_MAX 16u

struct cts_record {
    uint32_t magic;           /* CTS_RECORD_MAGIC */
    uint32_t crc32c;
    uint32_t bytes;           /* whole record, padding included */
    uint16_t kind;
    uint16_t flags;
    uint64_t index;           /* counts records of this ring, first is 1; 0 in a PAD */
    uint64_t row_sequence;    /* server spans: the row's odd sequence */
    uint32_t row_index;
    uint32_t payload_bytes;
};
#define CTS_RECORD_MAGIC 0x52545343u

/* A server span's payload: this struct, then the texts one after another in this order. */
struct cts_server_span_payload {
    uint8_t trace_id[16], span_id[8], parent_span_id[8];
    uint8_t has_parent, trace_flags, version_minor, reserved0;
    int32_t status;
    uint64_t accept_ns, start_ns, head_ns, body_ns, app_ns, first_byte_ns, end_ns;
    uint64_t request_body_bytes, response_body_bytes;
    uint16_t peer_port, server_port;
    uint16_t method_bytes, path_bytes, query_bytes, scheme_bytes, host_bytes, user_agent_bytes;
    uint16_t peer_bytes, route_bytes, error_type_bytes, error_message_bytes;
};

/* Any other span's payload: this struct, then name, error_type, status_message, then
 * attributes_count times { struct cts_attribute_payload, key, value }. */
struct cts_span_payload {
    uint8_t trace_id[16], span_id[8], parent_span_id[8];
    uint8_t link_trace_id[16], link_span_id[8];
    uint64_t start_ns, end_ns;
    uint8_t is_error, reserved0;
    uint16_t name_bytes, error_type_bytes, status_message_bytes, attributes_count;
    uint16_t reserved1[3];
};
struct cts_attribute_payload {
    uint16_t kind;            /* enum cts_attribute_kind */
    uint16_t key_bytes;
    uint32_t value_bytes;     /* TEXT; 8 for INT and BOOL */
};

uint32_t cts_crc32c(const void *bytes, size_t count);

#endif
