/* member.h - one worker as the master sees it, from the plan to the last of its spans.
 *
 * A member stands in exactly one list of the supervisor; which one is its state. */
#ifndef SERVER_MEMBER_H
#define SERVER_MEMBER_H

#include "agent_link.h"
#include "control.h"
#include "spans.h"
#include "worker.h"

#include <ev.h>

enum member_state {
    MEMBER_BOOTING,
    MEMBER_READY,
    MEMBER_DRAINING,    /* told to go, or going by itself */
    MEMBER_STUCK,       /* hangs: on its way through dump, ABRT and KILL */
    MEMBER_GONE,        /* reaped; only until its hook has run */
    MEMBER_STATES_COUNT,
};

/* How often the place of a worker had to be filled again in vain. */
struct member_seat {
    unsigned failures;      /* deaths before the first answered request, in a row */
    double not_before;      /* ev_time of the next try */
};

enum stuck_stage { STUCK_NOT, STUCK_DUMPING, STUCK_ABORTED, STUCK_KILLED };

struct supervisor;

struct member {
    struct cts_list link;
    enum member_state state;
    struct supervisor *supervisor;
    pid_t pid;
    uint64_t config_generation;      /* which reload it belongs to */
    struct member_seat seat;
    int berth;                       /* reuse_port: which of `berths`, else of no interest */
    const struct berths *berths;     /* only to be compared; NULL without reuse_port */
    struct cts_worker_facts facts;
    void *object;                    /* gateway->worker_new's */
    struct ring *ring;
    int control_fd;
    int dump_fd;
    ev_io control_io;
    ev_timer timer;                  /* end of draining, or next stage of being stuck */
    enum stuck_stage stage;
    int dump_looks;                  /* how often the dump file was found empty */
    double ready_at;
    enum cts_gone_reason reason;
    int stuck_thread_id;
    bool was_ready;
    bool is_written_off;             /* on its way out and not counted any more: replace it now */
    bool boot_failed;
    struct control_failure failure;
    struct span_mark fork_mark;
    struct worker_plan plan;         /* what the child gets; read there only */
};

struct member_plan {
    struct supervisor *supervisor;
    uint64_t age;
    int slot_index;
    uint32_t slot_generation;
    uint64_t config_generation;
    struct member_seat seat;
    int berth;
    const struct span_mark *parent;  /* boot or reload span, or NULL */
    bool app_is_loaded;
};

enum member_birth {
    MEMBER_BORN,          /* in the master: *ret_member runs */
    MEMBER_IS_ME,         /* in the child: *ret_member->plan is what to run */
    MEMBER_HOOK_RAISED,   /* pre_fork raised; error is set */
    MEMBER_FAILED,        /* no memory, no process, no descriptor: try again later; error is set */
};

/* Make everything one worker needs, run pre_fork, fork. */
enum member_birth member_fork(const struct member_plan *plan, struct member **ret_member,
                              struct cts_error *error);

/* SIGTERM, SIGQUIT, SIGUSR1: by signal and over the control socket. Anything else: by signal. */
void member_signal(struct member *member, int signo);
/* Who waits in the backlog is this worker's to answer: `is_last`, because the whole service stops;
 * else because its own sockets go with it. Before member_signal(). */
void member_tell_backlog(struct member *member, bool is_last);

/* Look whether it has said something (also what it said before it died). */
void member_listen(struct member *member);
/* Be woken when it says something; again, when the kernel has refused that (libev has stopped). */
void member_watch(struct member *member);

/* What its dump file holds by now, up to AGENT_STACK_BYTES_MAX; malloc'ed or NULL. */
char *member_dump_text(const struct member *member, size_t *ret_bytes);

/* Close and free; it stands in no list any more. The ring goes its own way. */
void member_free(struct member *member);

#endif
