/* master_link.h - the socket to the master: its packets in, our answers out.
 *
 * What cannot be sent at once waits in a bounded queue; a packet that makes no sense is counted
 * and ignored. */
#ifndef AGENT_MASTER_LINK_H
#define AGENT_MASTER_LINK_H

#include "ctserve/agent_wire.h"

#include <ev.h>

#define MASTER_LINK_QUEUE_MAX 1024

struct master_link;

struct hello {
    struct cts_agent_totals totals;
    int32_t master_pid;
    int64_t uid, gid;                /* -1: not said */
    uint64_t started_real_ns;
    int64_t workers;
    char server_version[64], app[256], service_name[256], endpoint[1024], protocol[32], api[256],
        token[128], bind[512];
};

struct master_link_plan {
    struct ev_loop *loop;
    int fd;
    void (*hello)(void *context, const struct hello *hello);
    void (*ring)(void *context, const struct cts_agent_ring *ring, int fd);  /* fd is lent */
    void (*worker)(void *context, const struct cts_agent_worker *worker, struct cts_bytes stack);
    void (*forget)(void *context, uint64_t ring_id, const struct cts_agent_totals *totals);
    void (*stop)(void *context, uint32_t deadline_ms);
    void (*lost)(void *context);     /* the master is gone; nothing is called after this */
    void *context;
};

struct master_link *master_link_new(const struct master_link_plan *plan);   /* NULL: no memory */
void master_link_free(struct master_link *link);
void master_link_say(struct master_link *link, enum cts_agent_message kind, const void *body,
                     size_t body_bytes);
/* A line for the master's log; on our own stderr once the master is gone. */
void master_link_note(struct master_link *link, int level, const char *line);
uint64_t master_link_bad_packets(const struct master_link *link);

/* HELLO's "key=value" lines. Unknown keys are ignored. */
void hello_read(struct cts_bytes body, struct hello *ret_hello);

#endif
