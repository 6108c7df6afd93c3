/* fork.h - the only place in the program that forks.
 *
 * Whoever opens a descriptor in the master writes it into the inheritance list here; what a child
 * may keep is decided by the table in fork.c and by nothing else. */
#ifndef SERVER_FORK_H
#define SERVER_FORK_H

#include "ctserve/gateway.h"

#include <ev.h>
#include <sys/types.h>

/* What a descriptor of the master is. The table in fork.c says who inherits it. */
enum fork_kind {
    FORK_LISTENER,       /* a listening socket */
    FORK_RESERVATION,    /* a bound socket that does not listen */
    FORK_BERTH,          /* a listening socket of one place: for the worker that gets it */
    FORK_CONTROL,        /* the master's end of a worker's control socket */
    FORK_WORKER_PART,    /* the worker's end, its slot, its dump file: for that worker only */
    FORK_AGENT,          /* the socket to ctserve-agent */
    FORK_RING,           /* a dead worker's or the master's own slot */
    FORK_KINDS_COUNT,
};

/* Write `fd` into the list. `owner` tells the parts of one worker from another's. 0 or -ENOMEM. */
int fork_list_put(int fd, enum fork_kind kind, const void *owner) CTS_MUST_USE;
/* Out of the list; a no-op for -1 and for what does not stand in it. */
void fork_list_take(int fd);
/* Out of the list and closed; *fd becomes -1. */
void fork_list_close(int *fd);
/* Change what stands in the list (a worker's slot becomes a dead worker's). */
void fork_list_move(int fd, enum fork_kind kind);
/* The next child with this owner keeps it. */
void fork_list_give(int fd, const void *owner);
size_t fork_list_count(void);

/* Once per process image, before the first handler of ours: what the application forks later does
 * not keep our signal handlers. 0 or -errno. */
int fork_watch(void) CTS_MUST_USE;

/* Fork a worker. The hook pre_fork has run. In the child (0 comes back): Python's at-fork work is
 * done, everything that is not for `owner` is closed, the loop is destroyed, the tracer detached,
 * signals stand at their defaults and are all blocked. In the parent: the pid, or -errno. */
pid_t fork_worker(const struct cts_gateway *gateway, struct ev_loop *loop, const void *owner);

/* Fork a child that will exec: as above, but listening sockets survive the exec, everything else
 * of the master closes with it, and signals are unblocked. */
pid_t fork_for_exec(const struct cts_gateway *gateway, struct ev_loop *loop);

/* Go into the background: fork twice, a session of our own, umask 022 and (unless keep_stdio)
 * /dev/null for the three. Returns 0 in the daemon, 1 in the process that should leave now,
 * or -errno. */
int fork_daemon(const struct cts_gateway *gateway, bool keep_stdio);

#endif
