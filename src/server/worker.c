/* worker.c - see worker.h. The order of a worker's life, its signals, and the main thread's loop
 * for both kinds: sync turns the libev loop and serves; gthread waits here for signals and for the
 * master while its threads serve. */
#include "worker.h"
#include "control.h"
#include "gthread.h"
#include "hardship.h"
#include "loop.h"
#include "signals.h"

#include "ctserve/log.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Busy clients keep a new one waiting at most so long. */
#define WORKER_ACCEPT_WAIT_NS_MAX 10000000ull
#define WORKER_BEAT_EVERY_NS 100000000ull
#define WORKER_WAIT_MS 1000
#define WORKER_MMAP_BYTES_MIN (2 << 20)
#define WORKER_SPARE_BYTES_MAX (16 << 20)
/* An orphan has graceful_timeout to leave by itself, and this more before it is killed. */
#define WORKER_ORPHAN_EXTRA_NS 300000000

/* What signals asked for since we last looked. */
enum worker_notice {
    NOTICE_TERM = 1,
    NOTICE_QUICK = 2,
    NOTICE_REOPEN = 4,
    NOTICE_ABORT = 8,
};

/* One per process, like the signal dispositions it serves. */
static struct worker {
    const struct worker_plan *plan;
    struct service service;
    struct loop loop;
    struct pool pool;
    struct hand main_hand;
    struct ev_io control_watcher;
    void *poll_token;              /* of the lock, while the sync loop sleeps */
    volatile bool has_loop, has_pool;
    int wake_fd;                   /* gthread: wakes the main thread */
    int control_fd;
    _Atomic unsigned notices;
    _Atomic bool quick_is_seen;    /* the order comes twice, by signal and letter: one worker_int */
    bool was_interrupted;          /* a signal ended a sleep of the main thread */
    bool has_end_timer;
    timer_t end_timer;             /* SIGKILL for an orphan that does not come to an end */
    bool leaves_now;
    bool has_said_leaving;
    bool master_is_gone;
    uint64_t master_gone_ns;
    uint64_t last_beat_ns;
    int exit_code;
} self = {.wake_fd = -1, .control_fd = -1};

/* -- what others ask ------------------------------------------------------------------------ */
uint64_t worker_requests_count(void)
{
    return self.plan == NULL ? 0 : atomic_load(&self.service.requests_count);
}

bool worker_is_alive(void)
{
    return self.plan == NULL || atomic_load(&self.service.is_alive);
}

void worker_set_alive(bool alive)
{
    if (self.plan != NULL && !alive)
        service_leave(&self.service, CTS_GONE_STOPPED);
}

/* -- waking --------------------------------------------------------------------------------- */
/* Async-signal-safe, from any thread. */
static void wake(struct service *service)
{
    uint64_t one = 1;
    if (self.has_loop)
        ev_async_send(self.loop.ev, &self.loop.wake);
    if (self.wake_fd >= 0 && write(self.wake_fd, &one, sizeof(one)) < 0)
        return;
}

/* -- signals -------------------------------------------------------------------------------- */
static unsigned notice_of(int signo)
{
    switch (signo) {
    case SIGTERM:
        return NOTICE_TERM;
    case SIGINT:
    case SIGQUIT:
        return NOTICE_QUICK;
    case SIGUSR1:
        return NOTICE_REOPEN;
    case SIGABRT:
        return NOTICE_ABORT;
    default:
        return 0;
    }
}

/* The clients whose requests are over the limit hear 500; without a limit, the longest one. */
static void notice_clients(void)
{
    struct hand *oldest = NULL;
    if (!self.has_pool) {
        hand_abort_notice(&self.main_hand);
        return;
    }
    for (int i = 0; i < self.service.threads_count; i++) {
        struct hand *hand = &self.pool.hands[i];
        if (atomic_load(&hand->current) == NULL)
            continue;
        if (oldest == NULL ||
            atomic_load(&hand->current_since_ns) < atomic_load(&oldest->current_since_ns))
            oldest = hand;
    }
    if (oldest != NULL)
        hand_abort_notice(oldest);
}

static bool master_is_here(void)
{
    return self.plan->facts.master_pid <= 0 || getppid() == self.plan->facts.master_pid;
}

/* Without a master nobody ends a request that never does. Async-signal-safe. */
static void bound_orphan(void)
{
    int64_t limit_s = cts_settings_int(self.plan->settings, CTS_SETTING_graceful_timeout);
    struct itimerspec end = {.it_value = {limit_s, WORKER_ORPHAN_EXTRA_NS}};
    if (self.has_end_timer)
        timer_settime(self.end_timer, 0, &end, NULL);
}

static void on_signal(int signo)
{
    int saved_errno = errno;
    if (signo == SIGABRT)
        notice_clients();
    if (signo == SIGTERM && !master_is_here())
        bound_orphan();
    bool is_new = notice_of(signo) != NOTICE_QUICK || !atomic_exchange(&self.quick_is_seen, true);
    atomic_fetch_or(&self.notices, notice_of(signo));
    if (is_new)
        self.service.gateway->interrupt(signo);
    wake(&self.service);
    errno = saved_errno;
}

static void on_nothing(int signo)
{
}

static void handle_signal(int signo, void (*handler)(int))
{
    /* No SA_RESTART: a view that sleeps must wake, so that Python can run its callable. */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(signo, &action, NULL);
    signals_remember(handler);
}

/* HUP, USR2 and CHLD keep their default action, as in gunicorn's workers. The ignored ones get a
 * function, because a disposition of 'ignore' would be inherited by what the application runs. */
static int own_signals(struct cts_error *error)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGABRT};
    static const int ignored[] = {SIGTTIN, SIGTTOU, SIGWINCH};
    const struct worker_plan *plan = self.plan;

    if (plan->gateway->own_signals(true, error) < 0)
        return -1;
    for (size_t i = 0; i < CTS_COUNT(ours); i++)
        handle_signal(ours[i], on_signal);
    for (size_t i = 0; i < CTS_COUNT(ignored); i++)
        handle_signal(ignored[i], on_nothing);
    if (plan->dump_fd >= 0 && plan->gateway->dump_on_signal(plan->dump_signo, plan->dump_fd) < 0)
        cts_warning("No stack dump for this worker (pid: %d)", (int)getpid());
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}

/* -- the master ----------------------------------------------------------------------------- */
static void master_gone(void)
{
    if (self.master_is_gone)
        return;
    self.master_is_gone = true;
    atomic_store(&self.service.is_last, true);
    self.master_gone_ns = cts_clock_mono_ns();
    bound_orphan();
    cts_fd_close(&self.control_fd);
    cts_info("Parent changed, shutting down: the master is gone (pid: %d)", (int)getpid());
    service_leave(&self.service, CTS_GONE_UNKNOWN);
}

static void tell_master(const void *packet, size_t count)
{
    if (self.control_fd < 0)
        return;
    if (send(self.control_fd, packet, count, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        cts_debug("The master did not take a message: errno %d", errno);
}

static void take_order(char letter)
{
    switch (letter) {
    case CONTROL_LAST:
        atomic_store(&self.service.is_last, true);
        break;
    case CONTROL_EMPTY:
        atomic_store(&self.service.owns_backlog, true);
        break;
    case CONTROL_STOP:
        atomic_fetch_or(&self.notices, NOTICE_TERM);
        break;
    case CONTROL_QUIT:
        /* As the signal: the callable of Python calls worker_int. */
        if (!atomic_exchange(&self.quick_is_seen, true))
            self.service.gateway->interrupt(SIGQUIT);
        atomic_fetch_or(&self.notices, NOTICE_QUICK);
        break;
    case CONTROL_REOPEN:
        atomic_fetch_or(&self.notices, NOTICE_REOPEN);
        break;
    default:
        break;
    }
}

static void read_control(void)
{
    char packet[64];
    for (int i = 0; i < 16 && self.control_fd >= 0; i++) {
        ssize_t n = recv(self.control_fd, packet, sizeof(packet), MSG_DONTWAIT);
        if (n > 0)
            take_order(packet[0]);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            master_gone();
        else
            return;
    }
}

/* Nobody else ends us now. */
static bool orphan_is_overdue(void)
{
    int64_t limit_s = cts_settings_int(self.plan->settings, CTS_SETTING_graceful_timeout);
    return self.master_is_gone &&
           cts_clock_mono_ns() - self.master_gone_ns > (uint64_t)limit_s * 1000000000ull;
}

/* -- looking at what happened --------------------------------------------------------------- */
static void leave_now(int exit_code)
{
    self.leaves_now = true;
    self.exit_code = exit_code;
}

static void act_on(unsigned notices)
{
    struct cts_error error = {0};

    if (notices & NOTICE_REOPEN && access_reopen(&self.service.access) < 0)
        cts_warning("The access log could not be opened again (pid: %d)", (int)getpid());
    if (notices & NOTICE_REOPEN && cts_log_reopen() < 0)
        cts_warning("The error log could not be opened again (pid: %d)", (int)getpid());
    if (self.service.gateway->run_pending(&error) < 0)
        leave_now(error.exit_code);
    else if (notices & NOTICE_ABORT)
        leave_now(CTS_EXIT_FAILURE);
    else if (notices & NOTICE_QUICK)
        leave_now(CTS_EXIT_OK);
    if (notices & NOTICE_TERM) {
        read_control(); /* is it the whole service that stops? */
        if (master_is_here())
            service_leave(&self.service, CTS_GONE_STOPPED);
        else
            master_gone();
    }
}

/* Lock held. A sleep that was interrupted without a notice of ours: the application handles some
 * signal by itself, and its callable runs as promptly as in any blocking call. */
static void take_notices(void)
{
    if (CTS_LIKELY(atomic_load_explicit(&self.notices, memory_order_relaxed) == 0 &&
                   !self.was_interrupted))
        return;
    self.was_interrupted = false;
    act_on(atomic_exchange(&self.notices, 0));
}

/* Leaving was decided, here or in a thread: say so once. */
static void look_at_service(void)
{
    struct service *service = &self.service;

    if (atomic_load(&service->exit_wanted) && !self.has_pool)
        leave_now(atomic_load(&service->exit_code));
    if (atomic_load(&service->is_alive) || self.has_said_leaving)
        return;
    self.has_said_leaving = true;
    cts_worker_state(CTS_WORKER_DRAINING);
    char packet[2] = {CONTROL_LEAVING, (char)atomic_load(&service->leave_reason)};
    tell_master(packet, sizeof(packet));
}

/* -- sync ----------------------------------------------------------------------------------- */
static void lock_release(struct ev_loop *ev)
{
    self.poll_token = self.service.gateway->lock_give();
    errno = 0;
}

/* libev looks at errno behind us. */
static void lock_acquire(struct ev_loop *ev)
{
    int saved_errno = errno;
    self.service.gateway->lock_take(self.poll_token);
    if (saved_errno == EINTR)
        self.was_interrupted = true;
    errno = saved_errno;
}

static void on_control(struct ev_loop *ev, ev_io *watcher, int events)
{
    read_control();
    if (self.control_fd < 0)
        ev_io_stop(ev, watcher);
}

/* The kernel may have refused to watch it. */
static void watch_control(struct loop *loop)
{
    if (self.control_fd >= 0 && !ev_is_active(&self.control_watcher))
        ev_io_start(loop->ev, &self.control_watcher);
}

static void on_sync_beat(struct loop *loop)
{
    cts_beat();
    /* A signal that comes between two sleeps interrupts none: look once a beat. */
    self.was_interrupted = true;
    watch_control(loop);
    if (!master_is_here())
        master_gone();
    if (orphan_is_overdue())
        leave_now(CTS_EXIT_OK);
}

/* The clock was read: the next turn begins now. */
static void beat_now_and_then(uint64_t now_ns)
{
    self.main_hand.turn_ns = now_ns;
    if (now_ns - self.last_beat_ns < WORKER_BEAT_EVERY_NS)
        return;
    self.last_beat_ns = now_ns;
    cts_beat();
}

static void serve_connection(struct connection *connection)
{
    self.loop.settled_ns = 0;
    connection_turn(connection, &self.main_hand);
    loop_settle(&self.loop, connection);
    take_notices();
    if (!atomic_load_explicit(&self.service.is_alive, memory_order_relaxed))
        look_at_service();
    beat_now_and_then(self.loop.settled_ns != 0 ? self.loop.settled_ns : cts_clock_mono_ns());
}

/* New clients come in one at a time and only while nothing else is to be done, so that a sibling
 * with time gets them; but busy clients must not shut the others out for ever. */
static bool should_accept(void)
{
    struct loop *loop = &self.loop;
    if (!loop_may_accept(loop))
        return false;
    return loop->batch_count == 0 ||
           cts_clock_mono_ns() - loop->accept_wanted_since_ns > WORKER_ACCEPT_WAIT_NS_MAX;
}

static void sync_turn(void)
{
    struct loop *loop = &self.loop;
    bool was_quiet = true;

    access_flush(&self.service.access, &self.main_hand.access);
    loop_turn(loop, true);
    beat_now_and_then(cts_clock_mono_ns());
    take_notices();
    for (size_t left = loop->batch_count; left > 0 && !self.leaves_now; left--) {
        struct connection *connection = loop_take(loop);
        if (connection == NULL)
            break;
        was_quiet = false;
        serve_connection(connection);
    }
    if (self.leaves_now || !should_accept())
        return;
    if (was_quiet ||
        cts_clock_mono_ns() - loop->accept_wanted_since_ns > WORKER_ACCEPT_WAIT_NS_MAX) {
        struct connection *connection = loop_accept(loop);
        if (connection == NULL)
            return;
        self.main_hand.turn_ns = connection->accept_ns;
        serve_connection(connection);
    }
}

static int serve_sync(void)
{
    struct service *service = &self.service;
    struct loop *loop = &self.loop;

    self.main_hand.holds_lock = true;
    loop->on_beat = on_sync_beat;
    ev_set_loop_release_cb(loop->ev, lock_release, lock_acquire);
    if (self.control_fd >= 0) {
        ev_io_init(&self.control_watcher, on_control, self.control_fd, EV_READ);
        ev_set_priority(&self.control_watcher, EV_MAXPRI);
        ev_io_start(loop->ev, &self.control_watcher);
    }
    cts_beat_required(true);
    while (!self.leaves_now) {
        look_at_service();
        if (!atomic_load(&service->is_alive)) {
            loop_drain(loop, service_takes_backlog(service));
            if (loop_is_empty(loop))
                break;
        }
        sync_turn();
    }
    return self.exit_code;
}

/* -- gthread -------------------------------------------------------------------------------- */
static void wait_for_something(void)
{
    struct pollfd asks[2] = {
        {.fd = self.wake_fd, .events = POLLIN},
        {.fd = self.control_fd, .events = POLLIN},
    };
    uint64_t count;
    int count_ready = poll(asks, 2, WORKER_WAIT_MS);
    if ((count_ready < 0 && errno == EINTR) || count_ready == 0)
        self.was_interrupted = true; /* 0: it may have come just before the sleep */
    if (count_ready <= 0)
        return;
    if (asks[0].revents != 0 && read(self.wake_fd, &count, sizeof(count)) < 0)
        return;
    if (asks[1].revents != 0)
        read_control();
}

/* Without the lock, which the main thread takes only when Python has a callable to run. */
static int serve_gthread(void)
{
    const struct cts_gateway *gateway = self.service.gateway;
    int r = pool_start(&self.pool, &self.service, &self.loop);
    if (r < 0)
        cts_error_log("The worker's threads could not be started: errno %d", -r);
    self.has_pool = r >= 0;
    cts_beat_required(true);

    void *token = gateway->lock_give();
    while (!pool_has_ended(&self.pool) && !self.leaves_now) {
        wait_for_something();
        if (!master_is_here())
            master_gone();
        if (orphan_is_overdue())
            leave_now(CTS_EXIT_OK);
        if (atomic_load(&self.notices) != 0 || self.was_interrupted) {
            gateway->lock_take(token);
            take_notices();
            token = gateway->lock_give();
        }
        look_at_service();
    }
    gateway->lock_take(token);
    if (self.leaves_now)
        return self.exit_code;
    token = gateway->lock_give();
    pool_join(&self.pool);
    gateway->lock_take(token);
    self.has_pool = false;
    if (r < 0)
        return CTS_EXIT_FAILURE;
    return atomic_load(&self.service.exit_code);
}

/* -- boot and end --------------------------------------------------------------------------- */
static void set_title(void)
{
    const struct cts_settings *settings = self.plan->settings;
    char title[256];
    snprintf(title, sizeof(title), "ctserve: worker [%s]", cts_settings_process_name(settings));
    cts_title_set(title);
}

static int run_hook(enum cts_hook hook, struct cts_error *error)
{
    struct cts_hook_call call = {.worker = self.plan->worker, .old_count = -1};
    return self.plan->gateway->run_hook(hook, &call, error);
}

static void attach_slot(void)
{
    if (self.plan->slot == NULL)
        return;
    int r = cts_tracer_attach(self.plan->slot, self.service.is_gthread);
    if (r < 0)
        cts_warning("No tracing in this worker: errno %d (pid: %d)", -r, (int)getpid());
    const char *disabled = getenv("OTEL_SDK_DISABLED");
    cts_tracer_enable(cts_settings_bool(self.plan->settings, CTS_SETTING_tracing) &&
                      (disabled == NULL || strcasecmp(disabled, "true") != 0));
}

/* Bodies of up to a megabyte come and go with every request. By itself the allocator gives their
 * pages back each time, and the kernel clears new ones for the next body, which costs more than
 * reading it. Whoever set a limit by the environment knows better. */
static void keep_some_memory(void)
{
    if (getenv("MALLOC_TRIM_THRESHOLD_") != NULL || getenv("MALLOC_MMAP_THRESHOLD_") != NULL ||
        getenv("GLIBC_TUNABLES") != NULL)
        return;
    mallopt(M_MMAP_THRESHOLD, WORKER_MMAP_BYTES_MIN);
    mallopt(M_TRIM_THRESHOLD, WORKER_SPARE_BYTES_MAX);
}

static void tie_to_master(void)
{
    struct sigevent end = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    self.has_end_timer = timer_create(CLOCK_MONOTONIC, &end, &self.end_timer) == 0;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (!master_is_here())
        master_gone();
}

/* Up to the point where requests may come. 0, or -1 with `error`. */
static int boot(struct cts_error *error)
{
    const struct cts_gateway *gateway = self.plan->gateway;

    if (own_signals(error) < 0)
        return -1;
    cts_info("Booting worker with pid: %d", (int)getpid());
    if (run_hook(CTS_HOOK_POST_FORK, error) < 0)
        return -1;
    tie_to_master();
    if (!self.plan->app_is_loaded && gateway->load_app(error) < 0)
        return -1;
    if (gateway->start(self.plan->worker, error) < 0)
        return -1;
    return run_hook(CTS_HOOK_POST_WORKER_INIT, error);
}

static int prepare_to_serve(struct cts_error *error)
{
    int r = hand_init(&self.main_hand, &self.service);
    self.main_hand.is_main = true;
    if (r == 0 && self.service.is_gthread) {
        self.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = self.wake_fd < 0 ? -errno : 0;
    }
    if (r == 0)
        r = loop_init(&self.loop, &self.service);
    if (r < 0)
        return cts_error_set(error, CTS_EXIT_WORKER_BOOT, "worker: no loop: %s", strerror(-r));
    self.has_loop = true;
    return 0;
}

static int boot_failed(const struct cts_error *error)
{
    struct {
        char letter;
        struct control_failure failure;
    } __attribute__((packed)) packet = {.letter = CONTROL_BOOT_FAILED};
    int exit_code = error->exit_code;

    if (self.leaves_now || (exit_code == 0 && error->text[0] == '\0'))
        return exit_code;
    /* A hook that raised is as fatal to a worker as an application that does. */
    if (exit_code != CTS_EXIT_APP_LOAD)
        exit_code = CTS_EXIT_WORKER_BOOT;
    packet.failure.exit_code = exit_code;
    snprintf(packet.failure.text, sizeof(packet.failure.text), "%.*s",
             (int)sizeof(packet.failure.text) - 1, error->text);
    tell_master(&packet, sizeof(packet));
    return exit_code;
}

static void tell_ready(void)
{
    char packet[200] = {CONTROL_READY};
    const char *why = NULL;
    const char *kind = self.plan->gateway->app_kind(&why);
    int count = snprintf(packet + 1, sizeof(packet) - 1, "%s (%s)", kind, why != NULL ? why : "");
    tell_master(packet, count < (int)sizeof(packet) - 1 ? (size_t)count + 1 : sizeof(packet) - 1);
}

static int serve(struct cts_error *error)
{
    if (prepare_to_serve(error) < 0)
        return boot_failed(error);
    cts_worker_state(CTS_WORKER_READY);
    cts_beat();
    tell_ready();
    int exit_code = self.service.is_gthread ? serve_gthread() : serve_sync();
    self.plan->gateway->stop();
    return exit_code;
}

static void say_goodbye(void)
{
    struct cts_error error = {0};
    cts_info("Worker exiting (pid: %d)", (int)getpid());
    if (run_hook(CTS_HOOK_WORKER_EXIT, &error) < 0)
        cts_warning("Exception during worker exit:\n%s", error.text);
    /* Threads that still run after a quick stop use these; the process ends in a moment. */
    if (self.has_pool)
        return;
    self.has_loop = false;
    loop_done(&self.loop);
    hand_done(&self.main_hand);
}

int worker_run(const struct worker_plan *plan)
{
    struct cts_error error = {0};
    int exit_code;

    memset(&self, 0, sizeof(self));
    self.plan = plan;
    self.wake_fd = -1;
    self.control_fd = plan->control_fd;
    hardship_prepare();
    keep_some_memory();
    service_init(&self.service, plan);
    self.service.wake = wake;
    attach_slot();
    set_title();
    if (boot(&error) < 0)
        exit_code = boot_failed(&error);
    else
        exit_code = serve(&error);
    say_goodbye();
    return exit_code;
}
