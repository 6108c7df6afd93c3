/* fork.c - the one fork.
 *
 * A process that the master makes must start clean: no signal handler of the master may run in it,
 * no descriptor of a sibling may stay open in it, no span of it may reach the master's ring. So
 * all signals are blocked around the fork, the inheritance list is worked off before Python wakes
 * up (a callback of os.register_at_fork may log), and only then run the at-fork callbacks. */
#include "fork.h"

#include "signals.h"

#include "ctserve/tracing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum fork_rule { CLOSES, KEEPS, KEEPS_ITS_OWN };

/* The inheritance list, as written down: what a worker gets, what survives an exec. Descriptors
 * that stand nowhere here are not ours: 0, 1, 2 and the log stay, libev's own go with the loop,
 * and what a config file or hook opened is inherited as under gunicorn. */
static const struct {
    const char *what;
    enum fork_rule worker;
    enum fork_rule exec;
} inheritance[FORK_KINDS_COUNT] = {
    [FORK_LISTENER] = {"listening socket", KEEPS, KEEPS},
    [FORK_RESERVATION] = {"bound socket that does not listen", CLOSES, KEEPS},
    [FORK_BERTH] = {"listening socket of one worker", KEEPS_ITS_OWN, CLOSES},
    [FORK_CONTROL] = {"master's end of a control socket", CLOSES, CLOSES},
    [FORK_WORKER_PART] = {"one worker's control socket, slot and dump", KEEPS_ITS_OWN, CLOSES},
    [FORK_AGENT] = {"socket to the agent", CLOSES, CLOSES},
    [FORK_RING] = {"slot of the master or of a dead worker", CLOSES, CLOSES},
};

static struct entry {
    int fd;
    enum fork_kind kind;
    const void *owner;
} *entries;
static _Thread_local bool fork_is_ours;
static size_t entries_count;
static size_t entries_capacity;

int fork_list_put(int fd, enum fork_kind kind, const void *owner)
{
    if (entries_count == entries_capacity) {
        size_t capacity = entries_capacity == 0 ? 32 : entries_capacity * 2;
        struct entry *more = realloc(entries, capacity * sizeof(*more));
        if (more == NULL)
            return -ENOMEM;
        entries = more;
        entries_capacity = capacity;
    }
    entries[entries_count++] = (struct entry){fd, kind, owner};
    return 0;
}

static struct entry *entry_of(int fd)
{
    for (size_t i = 0; i < entries_count; i++)
        if (entries[i].fd == fd)
            return &entries[i];
    return NULL;
}

void fork_list_take(int fd)
{
    struct entry *entry = fd >= 0 ? entry_of(fd) : NULL;
    if (entry != NULL)
        *entry = entries[--entries_count];
}

void fork_list_close(int *fd)
{
    fork_list_take(*fd);
    cts_fd_close(fd);
}

void fork_list_move(int fd, enum fork_kind kind)
{
    struct entry *entry = fd >= 0 ? entry_of(fd) : NULL;
    if (entry != NULL)
        entry->kind = kind;
}

void fork_list_give(int fd, const void *owner)
{
    struct entry *entry = fd >= 0 ? entry_of(fd) : NULL;
    if (entry != NULL)
        entry->owner = owner;
}

size_t fork_list_count(void)
{
    return entries_count;
}

static bool is_kept(const struct entry *entry, bool for_exec, const void *owner)
{
    enum fork_rule rule =
        for_exec ? inheritance[entry->kind].exec : inheritance[entry->kind].worker;
    return rule == KEEPS || (rule == KEEPS_ITS_OWN && entry->owner == owner);
}

static void work_off_list(bool for_exec, const void *owner)
{
    for (size_t i = 0; i < entries_count; i++) {
        if (!is_kept(&entries[i], for_exec, owner))
            close(entries[i].fd);
        else if (for_exec && cts_fd_set_cloexec(entries[i].fd, false) < 0)
            _exit(255);
    }
    free(entries);
    entries = NULL;
    entries_count = entries_capacity = 0;
}

/* Around every fork(3) that the application makes, in whatever thread. Signals are blocked until
 * the child has let go of our handlers: multiprocessing's terminate() often comes before the child
 * had its first turn, and the order would be swallowed. A fork of ours blocks for itself and does
 * more, once it knows what the child is to become. */
static _Thread_local sigset_t foreign_mask;

static void before_foreign_fork(void)
{
    sigset_t all;
    if (fork_is_ours)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &foreign_mask);
}

static void after_in_parent(void)
{
    if (!fork_is_ours)
        pthread_sigmask(SIG_SETMASK, &foreign_mask, NULL);
}

static void after_in_child(void)
{
    if (fork_is_ours)
        return;
    signals_forget_in_foreign_child();
    pthread_sigmask(SIG_SETMASK, &foreign_mask, NULL);
}

int fork_watch(void)
{
    return -pthread_atfork(before_foreign_fork, after_in_parent, after_in_child);
}

/* Both kinds of child, up to the point where they part. Returns in parent and child; the caller's
 * signal mask is in *ret_mask, all signals are blocked. */
static pid_t fork_with_python(const struct cts_gateway *gateway, sigset_t *ret_mask)
{
    gateway->flush_stdio();
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, ret_mask);
    gateway->before_fork();
    fork_is_ours = true;
    pid_t pid = fork();
    int failed_errno = errno;
    fork_is_ours = false;
    if (pid != 0) {
        gateway->after_fork_parent();
        pthread_sigmask(SIG_SETMASK, ret_mask, NULL);
    }
    return pid < 0 ? -failed_errno : pid;
}

pid_t fork_worker(const struct cts_gateway *gateway, struct ev_loop *loop, const void *owner)
{
    sigset_t mask;
    pid_t pid = fork_with_python(gateway, &mask);
    if (pid != 0)
        return pid;
    cts_tracer_detach();
    work_off_list(false, owner);
    signals_reset_in_child();
    ev_loop_destroy(loop);
    gateway->after_fork_child();
    return 0;
}

pid_t fork_for_exec(const struct cts_gateway *gateway, struct ev_loop *loop)
{
    sigset_t mask;
    pid_t pid = fork_with_python(gateway, &mask);
    if (pid != 0)
        return pid;
    cts_tracer_detach();
    work_off_list(true, NULL);
    signals_reset_in_child();
    ev_loop_destroy(loop);
    gateway->after_fork_child();
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    return 0;
}

static int stdio_to_null(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (int standard = 0; standard <= 2; standard++)
        if (dup2(fd, standard) < 0)
            return -errno;
    if (fd > 2)
        close(fd);
    return 0;
}

int fork_daemon(const struct cts_gateway *gateway, bool keep_stdio)
{
    sigset_t mask;
    for (int round = 0; round < 2; round++) {
        pid_t pid = fork_with_python(gateway, &mask);
        if (pid < 0)
            return pid;
        if (pid > 0)
            return 1;
        gateway->after_fork_child();
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
        if (round == 0 && setsid() < 0)
            return -errno;
    }
    umask(022);
    return keep_stdio ? 0 : stdio_to_null();
}
