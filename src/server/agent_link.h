/* agent_link.h - the master's line to ctserve-agent, and the rings that both look at.
 *
 * What must be said is kept as state, not as a queue of packets: every ring remembers which of
 * its facts the present agent has heard. So memory is bounded by construction, and an agent that
 * was restarted is told everything again. A ring lives from before the fork until the agent has
 * emptied it (or, without an agent, until its worker is gone). */
#ifndef SERVER_AGENT_LINK_H
#define SERVER_AGENT_LINK_H

#include "ctserve/agent_wire.h"
#include "ctserve/list.h"
#include "ctserve/slot_read.h"
#include "ctserve/tracing.h"

#include <ev.h>
#include <sys/types.h>

#define AGENT_RINGS_RETAINED_MAX 64
#define AGENT_STACK_BYTES_MAX (48u << 10)
#define AGENT_FORGETS_MAX 128

/* One ring: a worker's, a dead worker's, or the master's own. */
struct ring {
    struct cts_list link;
    struct cts_slot slot;
    struct cts_slot_view view;
    struct cts_agent_ring facts;
    bool is_dead;
    bool is_said;                                   /* the present agent has its descriptor */
    struct cts_agent_worker events[CTS_WORKER_EVENT_GONE + 1];   /* .event 0: did not happen */
    uint32_t events_said;                           /* bit per enum cts_worker_event */
    char *stack;                                    /* for STUCK and GONE, or NULL */
    size_t stack_bytes;
};

struct agent_link_plan {
    struct ev_loop *loop;
    const char *agent_path;
    const char *hello;                 /* "key=value\n" lines but api and token; copied */
    const char *api;                   /* "off", "auto", "HOST:PORT"; copied */
    void (*on_ready)(void *user, const char *api, const char *token);  /* api "" when off */
    void (*on_recycle)(void *user, struct ring *ring);
    void *user;
};

struct agent_link {
    struct agent_link_plan plan;
    char *hello;
    char asked_api[128];
    char api[128], token[128];         /* as the agent said: kept over its restarts */
    pid_t pid;                         /* 0: none runs */
    int fd;
    ev_io io;
    ev_timer timer;                    /* next start, or the end of the wait after STOP */
    double delay_s;                    /* back-off of the next start */
    double started_at;
    bool is_wanted;
    bool is_stopping;
    bool hello_said;
    bool stop_said;
    uint32_t stop_deadline_ms;
    struct cts_list rings;
    size_t dead_count;
    uint64_t next_ring_id;
    struct cts_agent_totals totals;    /* of rings that are gone */
    uint64_t forgets[AGENT_FORGETS_MAX];
    size_t forgets_count;
};

/* An empty line: rings can be made, nobody listens. */
void agent_link_init(struct agent_link *link);
/* Start the agent and keep one running. It stays silent about failures but for one log line. */
void agent_link_start(struct agent_link *link, const struct agent_link_plan *plan);
/* Everything is said: ask the agent to drain and leave within `deadline_ms`; it is killed soon
 * after. agent_link_is_idle() tells when that is over. */
void agent_link_stop(struct agent_link *link, uint32_t deadline_ms);
bool agent_link_is_idle(const struct agent_link *link);
/* Once in a while: listen again, when the kernel had refused to watch the line. */
void agent_link_watch(struct agent_link *link);
/* waitpid gave `pid`: was it the agent? */
bool agent_link_reaped(struct agent_link *link, pid_t pid, int status);
/* Close and free everything that is left. */
void agent_link_done(struct agent_link *link);

/* Make a slot and put it on the list. NULL with -errno in *ret_r when that fails. `plan->ring_id`
 * is chosen here. */
struct ring *agent_link_ring_new(struct agent_link *link, struct cts_slot_plan *plan, int *ret_r);
/* pid is known: tell the agent about the ring. */
void agent_link_ring_begin(struct agent_link *link, struct ring *ring, pid_t pid);
/* Nobody was forked for it after all. */
void agent_link_ring_cancel(struct agent_link *link, struct ring *ring);
/* Something happened to its worker. GONE makes the ring a dead one: it may be freed at once, so
 * do not touch it afterwards. */
void agent_link_event(struct agent_link *link, struct ring *ring, enum cts_worker_event event,
                      enum cts_gone_reason reason, int wait_status);
/* The stacks of a worker that hung, kept with the ring (copied, cut to AGENT_STACK_BYTES_MAX). */
void agent_link_stack(struct ring *ring, const char *text, size_t bytes, int thread_id);

#endif
