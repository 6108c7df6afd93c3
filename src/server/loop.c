/* loop.c - see loop.h. */
#include "loop.h"

#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull
#define LOOP_CLOCK_TICK_S 0.25
#define LOOP_ACCEPT_PAUSE_S 0.1
#define LOOP_LOOK_S 0.06
#define LOOP_LOOK_TWICE_S 0.04
#define LOOP_DRAIN_GRACE_S 0.25      /* the service stops: nobody is there for them anyway */
#define LOOP_DRAIN_GRACE_MIN_S 2.    /* others go on serving: as long as `keepalive` within these */
#define LOOP_DRAIN_GRACE_MAX_S 5.
#define LOOP_DRAIN_TICK_S 0.05
#define LOOP_DRAIN_LINGER_NS 200000000ull  /* a client that stays does not keep us */
#define LOOP_DRAIN_ACTIVE_NS SECOND_NS     /* heard from within this time: may be about to speak */

static void put_in_batch(struct loop *loop, struct connection *connection)
{
    connection->is_busy = true;
    cts_list_put_last(&loop->batch, &connection->turn_link);
    loop->batch_count++;
}

static void count_connections(struct loop *loop, int change)
{
    loop->connections_count += change;
    atomic_store_explicit(&loop->service->connections_count, loop->connections_count,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->place->connections_count, loop->connections_count,
                          memory_order_relaxed);
    cts_worker_connections(loop->connections_count);
}

/* -- callbacks of libev --------------------------------------------------------------------- */
static void on_connection(struct ev_loop *ev, ev_io *watcher, int events)
{
    struct connection *connection = CTS_CONTAINER(watcher, struct connection, watcher);
    struct loop *loop = ev_userdata(ev);

    /* The kernel refused to watch it, and libev has stopped: the next turn asks again. */
    if (events & EV_ERROR)
        connection->is_watched = false;
    if (connection->is_busy && loop->on_busy_event != NULL)
        loop->on_busy_event(loop, connection);
    if (!connection->is_busy)
        put_in_batch(loop, connection);
}

static void decide_listening(struct loop *loop);
static void pause_accepting(struct loop *loop);

static void on_listener(struct ev_loop *ev, ev_io *watcher, int events)
{
    struct loop_listener *ready = CTS_CONTAINER(watcher, struct loop_listener, watch.io);
    struct loop *loop = ready->loop;
    if (events & EV_ERROR) {
        pause_accepting(loop);
        return;
    }
    ready->is_ready = true;
    if (ready->loop->accept_wanted_since_ns == 0)
        ready->loop->accept_wanted_since_ns = cts_clock_mono_ns();
}

static void on_wake(struct ev_loop *ev, ev_async *watcher, int events)
{
    struct loop *loop = ev_userdata(ev);
    if (loop->on_wake != NULL)
        loop->on_wake(loop);
}

static void on_beat(struct ev_loop *ev, ev_timer *watcher, int events)
{
    struct loop *loop = ev_userdata(ev);
    for (size_t i = 0; i < loop->listeners_count && loop->listens; i++)
        exclusive_refresh(&loop->exclusive, ev, &loop->listeners[i].watch);
    if (loop->on_beat != NULL)
        loop->on_beat(loop);
}

/* Take what has expired from the front of one list; true when somebody is left in it. */
static bool tick_clock(struct loop *loop, struct cts_list *clock, uint64_t now_ns)
{
    CTS_LIST_EACH(clock, link) {
        struct connection *connection = CTS_CONTAINER(link, struct connection, clock_link);
        if (connection->deadline_ns > now_ns)
            break;
        if (connection->is_busy)
            continue;
        connection->has_expired = true;
        put_in_batch(loop, connection);
    }
    return !cts_list_is_empty(clock);
}

static void on_clock(struct ev_loop *ev, ev_timer *watcher, int events)
{
    struct loop *loop = ev_userdata(ev);
    uint64_t now_ns = cts_clock_mono_ns();
    bool runs = false;
    for (int i = 0; i < CLOCKS_COUNT; i++)
        runs = tick_clock(loop, &loop->clocks[i], now_ns) || runs;
    if (!runs)
        ev_timer_stop(ev, watcher);
}

/* -- listeners ------------------------------------------------------------------------------ */
static void watch_listeners(struct loop *loop, bool on)
{
    loop->listens = on;
    for (size_t i = 0; i < loop->listeners_count; i++) {
        struct loop_listener *member = &loop->listeners[i];
        member->is_ready = on && loop->is_emptying;
        if (on)
            exclusive_watch(&loop->exclusive, loop->ev, &member->watch);
        else
            exclusive_ignore(&loop->exclusive, loop->ev, &member->watch);
    }
    loop->accept_wanted_since_ns = on && loop->is_emptying ? cts_clock_mono_ns() : 0;
}

static void decide_listening(struct loop *loop)
{
    bool accepts = loop->accepts && !loop->is_paused && !loop->is_full;
    bool listens = accepts && !loop->has_stepped_back;
    atomic_store_explicit(&loop->place->accepts, accepts && !loop->is_draining,
                          memory_order_relaxed);
    if (listens != loop->listens)
        watch_listeners(loop, listens);
}

static void on_accept_pause(struct ev_loop *ev, ev_timer *watcher, int events)
{
    struct loop *loop = ev_userdata(ev);
    ev_timer_stop(ev, watcher);
    loop->is_paused = false;
    decide_listening(loop);
}

static void pause_accepting(struct loop *loop)
{
    if (loop->is_paused || !loop->accepts)
        return;
    loop->is_paused = true;
    decide_listening(loop);
    ev_timer_set(&loop->accept_pause, LOOP_ACCEPT_PAUSE_S, 0.);
    ev_timer_start(loop->ev, &loop->accept_pause);
}

/* -- stepping back -------------------------------------------------------------------------- */
static bool siblings_have_fewer(const struct loop *loop)
{
    return loop->shares_listeners && loop->accepts && !loop->is_draining &&
           loop->connections_count > 1 &&
           siblings_say_step_back(loop->service->plan->facts.slot_index, ev_time(),
                                  loop->doubt_since);
}

static void look_in(struct loop *loop, double seconds)
{
    ev_timer_stop(loop->ev, &loop->look_timer);
    ev_timer_set(&loop->look_timer, seconds, 0.);
    ev_timer_start(loop->ev, &loop->look_timer);
}

static void step_forward(struct loop *loop)
{
    loop->has_stepped_back = false;
    loop->saw_client_waiting = false;
    ev_timer_stop(loop->ev, &loop->look_timer);
}

/* Connections came in since the last poll. Whoever was woken by a client must take it, so nobody
 * steps back with one at the door. */
static void weigh(struct loop *loop)
{
    loop->has_grown = loop->accept_wanted_since_ns != 0;
    loop->is_full = loop->connections_count >= loop->service->connections_max;
    if (!loop->has_grown && !loop->has_stepped_back && siblings_have_fewer(loop)) {
        loop->has_stepped_back = true;
        look_in(loop, LOOP_LOOK_S);
    }
    decide_listening(loop);
}

/* A connection went while nobody was let in. */
static void weigh_again(struct loop *loop)
{
    loop->is_full = loop->connections_count >= loop->service->connections_max;
    if (loop->has_stepped_back && !siblings_have_fewer(loop))
        step_forward(loop);
    decide_listening(loop);
}

static bool has_client_waiting(const struct loop *loop)
{
    struct pollfd asks[LOOP_LISTENERS_MAX];
    for (size_t i = 0; i < loop->listeners_count; i++)
        asks[i] = (struct pollfd){.fd = loop->listeners[i].listener->fd, .events = POLLIN};
    return poll(asks, loop->listeners_count, 0) > 0;
}

/* Has a client waited since the last look, and nobody came for anybody? */
static bool siblings_let_down(struct loop *loop)
{
    unsigned accepted_count = siblings_accepted_count();
    bool waits = has_client_waiting(loop);
    bool is_let_down =
        waits && loop->saw_client_waiting && accepted_count == loop->accepted_count;
    loop->saw_client_waiting = waits && !loop->saw_client_waiting;
    loop->accepted_count = accepted_count;
    return is_let_down;
}

static void on_look(struct ev_loop *ev, ev_timer *watcher, int events)
{
    struct loop *loop = ev_userdata(ev);
    if (siblings_have_fewer(loop)) {
        if (!siblings_let_down(loop)) {
            look_in(loop, loop->saw_client_waiting ? LOOP_LOOK_TWICE_S : LOOP_LOOK_S);
            return;
        }
        loop->doubt_since = ev_time();
    }
    step_forward(loop);
    decide_listening(loop);
}

static void init_listener(struct loop *loop, const struct listener *listener)
{
    struct loop_listener *member = &loop->listeners[loop->listeners_count++];
    int one = 1;

    member->loop = loop;
    member->listener = listener;
    int backlog = (int)cts_settings_int(loop->service->plan->settings, CTS_SETTING_backlog);

    if (listener->is_own && listen(listener->fd, backlog) < 0)
        cts_error_log("%s: listen: %s", listener->name, strerror(errno));
    loop->shares_listeners = loop->shares_listeners && !listener->is_own;
    /* Accepted sockets inherit it, so no connection pays a system call for it. */
    if (!listener->is_unix)
        (void)setsockopt(listener->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)!cts_fd_set_nonblocking(listener->fd);
    ev_io_init(&member->watch.io, on_listener, listener->fd, EV_READ);
    ev_set_priority(&member->watch.io, EV_MINPRI);
}

/* -- the loop ------------------------------------------------------------------------------- */
static void on_drain_grace(struct ev_loop *ev, ev_timer *watcher, int events);

static void set_clock_lengths(struct loop *loop)
{
    loop->clock_lengths_ns[CLOCK_FRESH] = 10 * SECOND_NS;
    loop->clock_lengths_ns[CLOCK_KEPT] = (uint64_t)loop->service->keepalive_s * SECOND_NS;
    loop->clock_lengths_ns[CLOCK_HEAD] = 10 * SECOND_NS;
    loop->clock_lengths_ns[CLOCK_BODY] = 30 * SECOND_NS;
    loop->clock_lengths_ns[CLOCK_WRITE] = 30 * SECOND_NS;
    loop->clock_lengths_ns[CLOCK_LINGER] = 2 * SECOND_NS;
}

int loop_init(struct loop *loop, struct service *service)
{
    memset(loop, 0, sizeof(*loop));
    loop->service = service;
    loop->ev = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
    if (loop->ev == NULL)
        return -ENOMEM;
    ev_set_userdata(loop->ev, loop);
    cts_list_init(&loop->batch);
    for (int i = 0; i < CLOCKS_COUNT; i++)
        cts_list_init(&loop->clocks[i]);
    set_clock_lengths(loop);
    loop->place = siblings_own(service->plan->facts.slot_index);
    loop->shares_listeners = service->plan->control_fd >= 0;
    exclusive_init(&loop->exclusive, loop->shares_listeners);
    for (size_t i = 0; i < service->plan->listeners_count && i < LOOP_LISTENERS_MAX; i++)
        init_listener(loop, &service->plan->listeners[i]);
    ev_timer_init(&loop->clock_timer, on_clock, LOOP_CLOCK_TICK_S, LOOP_CLOCK_TICK_S);
    /* Twice per timeout, as gunicorn: an idle worker under `--timeout 1` is not silent. */
    double beat_s = service->plan->facts.timeout_s == 1 ? .4 : 1.;
    ev_timer_init(&loop->beat_timer, on_beat, beat_s, beat_s);
    ev_timer_start(loop->ev, &loop->beat_timer);
    ev_init(&loop->accept_pause, on_accept_pause);
    ev_init(&loop->look_timer, on_look);
    ev_timer_init(&loop->drain_timer, on_drain_grace, LOOP_DRAIN_GRACE_S, 0.);
    ev_async_init(&loop->wake, on_wake);
    ev_async_start(loop->ev, &loop->wake);
    loop->accepts = true;
    decide_listening(loop);
    return 0;
}

static void free_connection(struct loop *loop, struct connection *connection)
{
    if (connection->is_watched)
        ev_io_stop(loop->ev, &connection->watcher);
    cts_list_take(&connection->clock_link);
    connection_free(connection);
    count_connections(loop, -1);
    if (!loop->listens)
        weigh_again(loop);
}

void loop_done(struct loop *loop)
{
    if (loop->ev == NULL)
        return;
    struct connection *connection;
    while ((connection = loop_take(loop)) != NULL)
        free_connection(loop, connection);
    for (int i = 0; i < CLOCKS_COUNT; i++)
        CTS_LIST_EACH(&loop->clocks[i], link)
            free_connection(loop, CTS_CONTAINER(link, struct connection, clock_link));
    ev_loop_destroy(loop->ev);
    loop->ev = NULL;
}

static void poll_once(struct loop *loop, bool may_sleep)
{
    struct sibling *place = loop->place;
    atomic_store_explicit(&place->sleeps, may_sleep, memory_order_relaxed);
    ev_run(loop->ev, may_sleep ? EVRUN_ONCE : EVRUN_NOWAIT);
    atomic_store_explicit(&place->sleeps, false, memory_order_relaxed);
    atomic_store_explicit(&place->polled_at, ev_now(loop->ev), memory_order_relaxed);
}

static void poll_and_take_over(struct loop *loop, bool may_sleep)
{
    for (size_t i = 0; i < loop->listeners_count; i++)
        exclusive_turn_begins(&loop->exclusive, &loop->listeners[i].watch);
    poll_once(loop, may_sleep);
    for (size_t i = 0; i < loop->listeners_count; i++)
        exclusive_turn_ends(&loop->exclusive, &loop->listeners[i].watch);
}

void loop_turn(struct loop *loop, bool may_sleep)
{
    if (CTS_UNLIKELY(loop->has_grown))
        weigh(loop);
    bool has_work = !cts_list_is_empty(&loop->batch) ||
                    (loop->is_emptying && loop_may_accept(loop));
    if (CTS_UNLIKELY(loop->exclusive.is_due))
        poll_and_take_over(loop, may_sleep && !has_work);
    else
        poll_once(loop, may_sleep && !has_work);
}

struct connection *loop_take(struct loop *loop)
{
    if (cts_list_is_empty(&loop->batch))
        return NULL;
    struct cts_list *link = loop->batch.next;
    cts_list_take(link);
    loop->batch_count--;
    return CTS_CONTAINER(link, struct connection, turn_link);
}

static void start_drain_timer(struct loop *loop)
{
    if (ev_is_active(&loop->drain_timer))
        return;
    ev_timer_set(&loop->drain_timer, loop->drain_grace_s, 0.);
    ev_timer_start(loop->ev, &loop->drain_timer);
}

static void start_clock_timer(struct loop *loop)
{
    double tick_s = loop->is_draining ? LOOP_DRAIN_TICK_S : LOOP_CLOCK_TICK_S;
    ev_timer_stop(loop->ev, &loop->clock_timer);
    ev_timer_set(&loop->clock_timer, tick_s, tick_s);
    ev_timer_start(loop->ev, &loop->clock_timer);
}

static void arm_clock(struct loop *loop, struct connection *connection)
{
    if (connection->clock == connection->clock_armed && !connection->clock_restarts)
        return;
    connection->clock_restarts = false;
    connection->clock_armed = connection->clock;
    loop->settled_ns = cts_clock_mono_ns();
    connection->deadline_ns = loop->settled_ns + loop->clock_lengths_ns[connection->clock];
    cts_list_take(&connection->clock_link);
    cts_list_put_last(&loop->clocks[connection->clock], &connection->clock_link);
    if (!ev_is_active(&loop->clock_timer))
        start_clock_timer(loop);
}

void loop_settle(struct loop *loop, struct connection *connection)
{
    int events = connection_events(connection);

    connection->is_busy = connection->is_done = false;
    if (connection->state == CONNECTION_CLOSED) {
        free_connection(loop, connection);
        return;
    }
    if (loop->is_draining && connection->state == CONNECTION_IDLE)
        start_drain_timer(loop);
    arm_clock(loop, connection);
    if (connection->wants_turn) {
        put_in_batch(loop, connection);
        return;
    }
    if (connection->is_watched &&
        (connection->watcher.events & (EV_READ | EV_WRITE)) != events) {
        ev_io_stop(loop->ev, &connection->watcher);
        connection->is_watched = false;
    }
    if (!connection->is_watched) {
        ev_io_init(&connection->watcher, on_connection, connection->fd, events);
        ev_io_start(loop->ev, &connection->watcher);
        connection->is_watched = true;
    }
}

/* The kernel must not send clients to a socket of ours any more. The number stays taken, because
 * the application may hold it. */
static void let_go(const struct listener *listener)
{
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0)
        return;
    (void)dup3(null_fd, listener->fd, O_CLOEXEC);
    close(null_fd);
}

static void stop_listening(struct loop *loop)
{
    loop->accepts = loop->is_emptying = false;
    step_forward(loop);
    decide_listening(loop);
    for (size_t i = 0; i < loop->listeners_count; i++)
        if (loop->listeners[i].listener->is_own)
            let_go(loop->listeners[i].listener);
}

/* -- accepting ------------------------------------------------------------------------------ */
bool loop_may_accept(const struct loop *loop)
{
    return loop->accept_wanted_since_ns != 0 && loop->accepts && !loop->is_paused &&
           loop->connections_count < loop->service->connections_max;
}

static struct connection *accept_from(struct loop *loop, struct loop_listener *member)
{
    const struct listener *listener = member->listener;
    struct sockaddr_storage address = {0};
    socklen_t address_bytes = sizeof(address);
    int fd = accept4(listener->fd, (struct sockaddr *)(void *)&address, &address_bytes,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(loop);
        member->is_ready = false;
        return NULL;
    }
    member->is_ready = loop->is_emptying;
    struct connection *connection =
        connection_new(loop->service, listener, fd, &address, address_bytes);
    if (connection == NULL)
        return NULL;
    connection->is_busy = true;
    loop->has_grown = true;
    atomic_fetch_add_explicit(&loop->place->accepted_count, 1, memory_order_relaxed);
    count_connections(loop, 1);
    return connection;
}

struct connection *loop_accept(struct loop *loop)
{
    struct connection *connection = NULL;

    loop->accept_wanted_since_ns = 0;
    for (size_t i = 0; i < loop->listeners_count && connection == NULL && !loop->is_paused; i++) {
        struct loop_listener *member = &loop->listeners[loop->next_listener];
        loop->next_listener = (loop->next_listener + 1) % loop->listeners_count;
        if (!member->is_ready)
            continue;
        connection = accept_from(loop, member);
    }
    for (size_t i = 0; i < loop->listeners_count; i++)
        if (loop->listeners[i].is_ready)
            loop->accept_wanted_since_ns = cts_clock_mono_ns();
    if (loop->is_emptying && !loop->is_paused &&
        (loop->accept_wanted_since_ns == 0 ||
         loop->accept_wanted_since_ns > loop->emptying_until_ns))
        stop_listening(loop);
    return connection;
}

/* -- leaving -------------------------------------------------------------------------------- */
/* Everybody who waits idle is looked at once more: a request that is already here is served, the
 * others are closed. With `active_too` also those who spoke a moment ago. */
static bool close_idle(struct loop *loop, enum connection_clock clock, bool active_too)
{
    uint64_t now_ns = cts_clock_mono_ns();
    bool some_left = false;
    CTS_LIST_EACH(&loop->clocks[clock], link) {
        struct connection *connection = CTS_CONTAINER(link, struct connection, clock_link);
        uint64_t since_ns = connection->deadline_ns - loop->clock_lengths_ns[clock];
        if (!active_too && now_ns - since_ns < LOOP_DRAIN_ACTIVE_NS) {
            some_left = true;
            continue;
        }
        connection->closes_when_idle = true;
        if (!connection->is_busy)
            put_in_batch(loop, connection);
    }
    return some_left;
}

static void on_drain_grace(struct ev_loop *ev, ev_timer *watcher, int events)
{
    struct loop *loop = ev_userdata(ev);
    close_idle(loop, CLOCK_KEPT, true);
    close_idle(loop, CLOCK_FRESH, true);
}

/* Who has had our last word may read it, but not keep us by staying. */
static void hurry_lingering(struct loop *loop)
{
    uint64_t latest_ns = cts_clock_mono_ns() + LOOP_DRAIN_LINGER_NS;

    loop->clock_lengths_ns[CLOCK_LINGER] = LOOP_DRAIN_LINGER_NS;
    CTS_LIST_EACH(&loop->clocks[CLOCK_LINGER], link) {
        struct connection *connection = CTS_CONTAINER(link, struct connection, clock_link);
        if (connection->deadline_ns > latest_ns)
            connection->deadline_ns = latest_ns;
    }
    start_clock_timer(loop);
}

/* A client that was active a moment ago believes that its connection is kept, and its next request
 * may be under way: it gets the time that it was promised, within reason. So does one who has only
 * just connected. */
static double drain_grace_s(const struct service *service)
{
    double promised_s = service->keeps_connections ? (double)service->keepalive_s : 0;
    if (atomic_load(&service->is_last))
        return LOOP_DRAIN_GRACE_S;
    if (promised_s < LOOP_DRAIN_GRACE_MIN_S)
        return LOOP_DRAIN_GRACE_MIN_S;
    return promised_s < LOOP_DRAIN_GRACE_MAX_S ? promised_s : LOOP_DRAIN_GRACE_MAX_S;
}

/* The others have been told to stop since. */
static void hasten(struct loop *loop, double grace_s)
{
    if (grace_s >= loop->drain_grace_s)
        return;
    loop->drain_grace_s = grace_s;
    ev_timer_stop(loop->ev, &loop->drain_timer);
    start_drain_timer(loop);
}

void loop_drain(struct loop *loop, bool takes_backlog)
{
    double grace_s = drain_grace_s(loop->service);

    if (loop->is_draining) {
        hasten(loop, grace_s);
        return;
    }
    loop->is_draining = true;
    loop->drain_grace_s = grace_s;
    if (takes_backlog && !loop->is_paused) {
        int64_t graceful_s =
            cts_settings_int(loop->service->plan->settings, CTS_SETTING_graceful_timeout);
        uint64_t now_ns = cts_clock_mono_ns();
        loop->is_emptying = true;
        loop->emptying_until_ns = now_ns + (uint64_t)graceful_s * SECOND_NS * 2 / 3;
        loop->accept_wanted_since_ns = now_ns;
        for (size_t i = 0; i < loop->listeners_count; i++)
            loop->listeners[i].is_ready = true;
        step_forward(loop);
        decide_listening(loop);
    } else {
        stop_listening(loop);
    }
    close_idle(loop, CLOCK_KEPT, false);
    close_idle(loop, CLOCK_FRESH, false);
    hurry_lingering(loop);
    start_drain_timer(loop);
}

bool loop_is_empty(const struct loop *loop)
{
    return loop->connections_count == 0 && !loop->is_emptying;
}
