/* service.h - what every connection of one worker shares: the plan it was forked with, the rules
 * taken from the settings, and the wish to leave.
 *
 * One per process. Written before the first connection is accepted; afterwards only the fields
 * marked atomic change, from any thread. */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include "access.h"
#include "body.h"
#include "trust.h"
#include "worker.h"

#include "ctserve/agent_wire.h"

#include <stdatomic.h>

#define SERVICE_THREADS_MAX 240
#define SERVICE_BODIES_BYTES_MAX (256ull << 20)    /* in memory, of all that wait, per worker */
#define SERVICE_SPOOLED_BYTES_MAX (4ull << 30)     /* on the disk, bodies and replies, per worker */
#define SERVICE_DISCARD_BYTES_MAX 65536            /* of an unread body, or behind a refusal */
#define SERVICE_SYNC_CONNECTIONS_MAX 16384

struct service {
    const struct worker_plan *plan;
    const struct cts_gateway *gateway;
    struct cts_http_rules rules;
    struct trust forwarded;            /* forwarded_allow_ips */
    struct trust proxies;              /* proxy_allow_ips */
    enum cts_proxy_mode proxy_mode;
    struct access access;
    bool is_gthread;
    bool is_multiprocess;
    bool keeps_connections;
    int threads_count;                 /* 0 for sync: the main thread serves */
    int connections_max;
    int64_t keepalive_s;
    uint64_t requests_max;             /* 0: never */
    uint64_t turn_wait_ns;             /* waiting for a client ends so long after the application was
                                          called; 0: not by this limit */
    uint64_t request_wait_ns;          /* the same, after the call or the last piece of its reply */
    _Atomic uint64_t requests_count;   /* given to the application: worker.nr */
    _Atomic int connections_count;     /* open now */
    _Atomic bool is_last;              /* the whole service stops */
    _Atomic bool owns_backlog;         /* nobody takes in who waits in the backlog but us */
    _Atomic bool is_alive;             /* false: announce Connection: close, drain, leave */
    _Atomic bool exit_wanted;          /* the application raised SystemExit, or a quick stop */
    _Atomic int exit_code;
    _Atomic int leave_reason;          /* enum cts_gone_reason, 0 when told to leave */
    struct body_keeper keeper;
    _Atomic uint64_t bodies_bytes;     /* in memory, of requests that wait for their body */
    _Atomic uint64_t spooled_bytes;
    void (*wake)(struct service *service);  /* something above changed: look. Async-signal-safe */
};

void service_init(struct service *service, const struct worker_plan *plan);

/* Stop accepting, finish what runs, then leave. Only the first reason counts. */
void service_leave(struct service *service, enum cts_gone_reason reason);
/* Leaving, does this worker answer who waits in the backlog? Only when the service stops, or the
 * socket with this worker: else it stays open in others, and under load the backlog has no end. */
bool service_takes_backlog(const struct service *service);
/* Leave as soon as the request at hand is answered, with this exit code. */
void service_exit(struct service *service, int exit_code);

#endif
