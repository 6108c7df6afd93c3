/* signals.c - from a C handler into the master's loop.
 *
 * A ring of signal numbers keeps their order; when somebody sends more than it holds between two
 * turns of the loop, a bit per signal remembers that at least one came. */
#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

#define SIGNALS_QUEUE_MAX 64u
#define OUR_HANDLERS_MAX 8u

static const struct {
    int signo;
    const char *name;
} owned[] = {
    {SIGHUP, "hup"},   {SIGINT, "int"},   {SIGQUIT, "quit"}, {SIGTERM, "term"},
    {SIGTTIN, "ttin"}, {SIGTTOU, "ttou"}, {SIGUSR1, "usr1"}, {SIGUSR2, "usr2"},
    {SIGWINCH, "winch"}, {SIGCHLD, "chld"},
};

static _Atomic int queue[SIGNALS_QUEUE_MAX];
static _Atomic unsigned put_count;
static _Atomic unsigned taken_count;
static _Atomic unsigned overflow_bits;
static void (*our_handlers[OUR_HANDLERS_MAX])(int);
static struct ev_loop *woken_loop;
static ev_async wake;

static void woken(struct ev_loop *loop, ev_async *watcher, int events)
{
    /* Waking was the point: the master looks at the queue after every turn. */
}

void signals_put(int signo)
{
    int kept_errno = errno;
    unsigned place = atomic_load(&put_count);
    bool has_room;
    do {
        has_room = place - atomic_load(&taken_count) < SIGNALS_QUEUE_MAX;
    } while (has_room && !atomic_compare_exchange_weak(&put_count, &place, place + 1));
    if (has_room)
        atomic_store(&queue[place % SIGNALS_QUEUE_MAX], signo);
    else
        atomic_fetch_or(&overflow_bits, 1u << signo);
    if (woken_loop != NULL)
        ev_async_send(woken_loop, &wake);
    errno = kept_errno;
}

int signals_take(void)
{
    unsigned place = atomic_load(&taken_count);
    if (place != atomic_load(&put_count)) {
        int signo = atomic_exchange(&queue[place % SIGNALS_QUEUE_MAX], 0);
        if (signo == 0)
            return 0; /* its place is taken, the number not written yet: it wakes us again */
        atomic_store(&taken_count, place + 1);
        return signo;
    }
    unsigned bits = atomic_load(&overflow_bits);
    if (bits == 0)
        return 0;
    int signo = __builtin_ctz(bits);
    atomic_fetch_and(&overflow_bits, ~(1u << signo));
    return signo;
}

void signals_remember(void (*handler)(int))
{
    for (size_t i = 0; i < OUR_HANDLERS_MAX; i++) {
        if (our_handlers[i] == handler)
            return;
        if (our_handlers[i] == NULL) {
            our_handlers[i] = handler;
            return;
        }
    }
}

static bool is_ours(void (*handler)(int))
{
    for (size_t i = 0; i < OUR_HANDLERS_MAX && our_handlers[i] != NULL; i++)
        if (our_handlers[i] == handler)
            return true;
    return false;
}

void signals_forget_in_foreign_child(void)
{
    struct sigaction plain = {.sa_handler = SIG_DFL};
    woken_loop = NULL;
    for (int signo = 1; signo < NSIG; signo++) {
        struct sigaction now;
        if (sigaction(signo, NULL, &now) == 0 && is_ours(now.sa_handler))
            sigaction(signo, &plain, NULL);
    }
}

int signals_start(struct ev_loop *loop)
{
    signals_remember(signals_put);
    ev_async_init(&wake, woken);
    ev_async_start(loop, &wake);
    woken_loop = loop;

    sigset_t ours;
    sigemptyset(&ours);
    struct sigaction action = {.sa_handler = signals_put, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < CTS_COUNT(owned); i++) {
        sigaddset(&ours, owned[i].signo);
        if (sigaction(owned[i].signo, &action, NULL) < 0)
            return -errno;
    }
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    if (sigaction(SIGPIPE, &ignore, NULL) < 0)
        return -errno;
    return -pthread_sigmask(SIG_UNBLOCK, &ours, NULL);
}

void signals_stop(void)
{
    if (woken_loop == NULL)
        return;
    ev_async_stop(woken_loop, &wake);
    woken_loop = NULL;
}

void signals_reset_in_child(void)
{
    woken_loop = NULL;
    struct sigaction plain = {.sa_handler = SIG_DFL};
    for (int signo = 1; signo < NSIG; signo++) {
        struct sigaction now;
        if (signo == SIGKILL || signo == SIGSTOP || sigaction(signo, NULL, &now) < 0)
            continue;
        if (now.sa_handler != SIG_IGN && now.sa_handler != SIG_DFL)
            sigaction(signo, &plain, NULL);
    }
}

const char *signals_name(int signo)
{
    for (size_t i = 0; i < CTS_COUNT(owned); i++)
        if (owned[i].signo == signo)
            return owned[i].name;
    return "unknown";
}

int signals_dump_signo(void)
{
    return SIGRTMIN + 7;
}
