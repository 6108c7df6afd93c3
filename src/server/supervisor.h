/* supervisor.h - how many workers there should be, and what is done about it.
 *
 * Every worker stands in exactly one of the lists; move() in supervisor.c is the one function
 * that changes that. Nothing here waits: what takes time has a timer in the loop. */
#ifndef SERVER_SUPERVISOR_H
#define SERVER_SUPERVISOR_H

#include "listener.h"
#include "member.h"

#define SUPERVISOR_SLOTS_MAX 1024

enum supervisor_reload {
    RELOAD_NONE,
    RELOAD_RUNS,
    RELOAD_DONE,          /* the new generation serves */
    RELOAD_FAILED,        /* a worker of the new generation did not become ready */
};

struct supervisor {
    const struct cts_gateway *gateway;
    const struct cts_settings *settings;   /* of the current generation; the master changes it */
    struct listeners *listeners;
    struct agent_link *agent;
    struct ev_loop *loop;
    uint32_t ring_bytes;
    bool app_is_loaded;
    const struct span_mark *parent;        /* for the forks of a boot or a reload, or NULL */

    struct cts_list lists[MEMBER_STATES_COUNT];
    int64_t counts[MEMBER_STATES_COUNT];
    int64_t target;
    uint64_t last_age;
    uint64_t generation;                   /* what new workers belong to */
    uint64_t serving_generation;           /* the one whose workers were all ready once */
    enum supervisor_reload reload;
    bool is_stopping;
    bool ever_ready;
    char app_kind[200];                  /* "WSGI (callable takes 2 arguments)", once known */
    struct member_seat vacant[SUPERVISOR_SLOTS_MAX];
    size_t vacant_count;
    bool slot_taken[SUPERVISOR_SLOTS_MAX];
    uint32_t slot_generation[SUPERVISOR_SLOTS_MAX];
    ev_timer spawn_timer;                  /* the next vacant seat is due */
    ev_timer stall_timer;
    double fork_delay_s;

    /* what the master looks at after every turn */
    int halt_code;                         /* not -1: end the service with this code */
    char halt_reason[256];
    char reload_failure[4096];             /* RELOAD_FAILED: why */
};

void supervisor_init(struct supervisor *supervisor);

/* Bring the number of workers to the target: fork what is missing and due, let the oldest go if
 * there are too many, finish a reload whose workers are all ready. In a child: its plan, to be
 * run at once. In the master: NULL. */
const struct worker_plan *supervisor_manage(struct supervisor *supervisor);

/* Change the target (nworkers_changed is called by the master). */
void supervisor_set_target(struct supervisor *supervisor, int64_t target);

/* A new generation begins; the workers of the old one stay until it is ready. */
void supervisor_reload_begin(struct supervisor *supervisor);
/* The new generation will not be: its workers go, the old ones stay. */
void supervisor_reload_abort(struct supervisor *supervisor);

/* Every worker gets `signo`. */
void supervisor_signal_all(struct supervisor *supervisor, int signo);
/* No more forks; workers get `signo` (TERM or QUIT) and, after `limit_s`, KILL. */
void supervisor_stop(struct supervisor *supervisor, int signo, double limit_s);

/* waitpid gave `pid`. Returns false when it is none of ours. Logs, hooks, back-off. */
bool supervisor_reaped(struct supervisor *supervisor, pid_t pid, int status);

int64_t supervisor_alive_count(const struct supervisor *supervisor);
struct member *supervisor_by_pid(struct supervisor *supervisor, pid_t pid);
struct member *supervisor_by_ring(struct supervisor *supervisor, const struct ring *ring);

/* Let one worker go (TERM, then KILL after graceful_timeout). */
void supervisor_drain(struct member *member, enum cts_gone_reason reason);

/* -- called by member.c and stall.c ------------------------------------------------------------ */
void supervisor_ready(struct member *member);
void supervisor_leaving(struct member *member, enum cts_gone_reason reason);
void supervisor_timer(struct member *member);
void supervisor_move(struct member *member, enum member_state state);
/* The kernel may have refused to watch the line of a worker, or of the agent (out of memory, out of
 * watches): ask again. Now and then and not at once, or a kernel that goes on refusing would keep
 * the master busy. */
void supervisor_watch_lines(struct supervisor *supervisor);

/* The member that a link of supervisor->lists belongs to. */
#define SUPERVISOR_MEMBER(at) CTS_CONTAINER(at, struct member, link)

#endif
