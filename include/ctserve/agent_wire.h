/* agent_wire.h - what master and agent say to each other. Room: tracing.
 *
 * One SOCK_SEQPACKET socketpair, descriptor 3 in the agent. One message per packet: this header,
 * then the body. Both ends treat the other as able to die at any byte: a short or unknown packet
 * is counted and ignored. The master sends non-blocking and keeps a bounded queue; after an agent
 * died it says HELLO and every RING that was not forgotten again to the next one. */
#ifndef CTSERVE_AGENT_WIRE_H
#define CTSERVE_AGENT_WIRE_H

#include "ctserve/base.h"
#include "ctserve/slot.h"

#define CTS_AGENT_FD 3
#define CTS_AGENT_WIRE_MAGIC 0x43545357u
#define CTS_AGENT_PACKET_BYTES_MAX 65536u

enum cts_agent_message {
    /* master -> agent */
    CTS_AGENT_HELLO = 1,    /* body: struct cts_agent_totals, then "key=value\n" lines (below) */
    CTS_AGENT_RING = 2,     /* body: struct cts_agent_ring; one descriptor (the memfd) attached */
    CTS_AGENT_WORKER = 3,   /* body: struct cts_agent_worker, then the stack text (may be empty) */
    CTS_AGENT_FORGET = 4,   /* body: u64 ring_id, struct cts_agent_totals: drop that ring, these
                               totals now hold everything of rings that are gone */
    CTS_AGENT_STOP = 5,     /* body: u32 deadline_ms: drain, send, exit 0 within it */
    /* agent -> master */
    CTS_AGENT_READY = 65,   /* body: "api=HOST:PORT\ntoken=...\n" or "api=off\n" */
    CTS_AGENT_RETIRED = 66, /* body: u64 ring_id: a dead worker's ring is drained and acked */
    CTS_AGENT_RECYCLE = 67, /* body: u64 ring_id: ring is damaged, please replace that worker */
    CTS_AGENT_NOTE = 68,    /* body: u32 enum cts_log_level, then a line for the log */
};

/* Keys of HELLO: master_pid, server_version, app, uid, gid (numbers; drop to them before reading
 * any ring), service_name, otlp_endpoint, otlp_protocol ("grpc"|"http/protobuf"|""), api
 * ("off"|"HOST:PORT"|"auto"), token (may be empty: make one), workers, bind, started_real_ns.
 * OTEL_* variables are read by the agent from its own environment; a setting wins over them. */

struct cts_agent_packet {
    uint32_t magic;
    uint32_t kind;
    uint32_t body_bytes;
    uint32_t reserved;
};

struct cts_agent_totals {
    uint64_t started, acked, rejected, lost_uncommitted, rows_full;
    uint64_t dropped_ring_full;
    uint64_t dropped[CTS_DROP_REASONS_COUNT];
    uint64_t rings_retired;
};

struct cts_agent_ring {
    uint64_t ring_id;
    int32_t slot_index;      /* -1: the master's own */
    uint32_t generation;
    uint64_t age;
    int32_t pid;
    int32_t reserved;
};

enum cts_worker_event {
    CTS_WORKER_EVENT_BOOTING = 1,
    CTS_WORKER_EVENT_READY,
    CTS_WORKER_EVENT_DRAINING,
    CTS_WORKER_EVENT_STUCK,
    CTS_WORKER_EVENT_GONE,
};
enum cts_gone_reason {
    CTS_GONE_UNKNOWN, CTS_GONE_STOPPED, CTS_GONE_MAX_REQUESTS, CTS_GONE_TIMEOUT,
    CTS_GONE_REQUEST_TIMEOUT, CTS_GONE_SIGNAL, CTS_GONE_BOOT_FAILED, CTS_GONE_RING_DAMAGED,
};

struct cts_agent_worker {
    uint64_t ring_id;
    int32_t pid;
    uint32_t event;          /* enum cts_worker_event */
    uint32_t reason;         /* enum cts_gone_reason, GONE and STUCK only */
    int32_t wait_status;     /* waitpid's, GONE only */
    uint64_t mono_ns;
    uint32_t stack_bytes;    /* text behind this struct, at most 48 KiB */
    int32_t thread_id;       /* of the request that hung, 0 if unknown */
};

/* One packet out, with an optional descriptor (-1: none). 0, -EAGAIN, or -errno. */
int cts_agent_send(int socket_fd, enum cts_agent_message kind, const void *head, size_t head_bytes,
                   const void *tail, size_t tail_bytes, int attached_fd) CTS_MUST_USE;

/* One packet in. Sets *ret_kind and *ret_body (a view into `space`, which has
 * CTS_AGENT_PACKET_BYTES_MAX bytes) and *ret_attached_fd (-1, or owned by the caller).
 * 0, -EAGAIN, -EPIPE at end of stream, -EBADMSG for a packet to ignore. A descriptor that comes
 * with anything but RING is closed and its packet ignored. `space` is read with memcpy: the body
 * has no alignment to rely on. */
int cts_agent_receive(int socket_fd, void *space, enum cts_agent_message *ret_kind,
                      struct cts_bytes *ret_body, int *ret_attached_fd) CTS_MUST_USE;

#endif
