/* loop.h - who polls: one libev loop with the listeners, every connection that waits, and the
 * clocks. Only one thread at a time touches it (sync: the main thread; gthread: the leader).
 *
 * A turn of the loop serves nobody: it collects connections for which something can be done into
 * `batch`. Whoever serves them calls connection_turn() and gives them back with loop_settle().
 *
 * Clocks are lists, one per length of time, so a request costs no timer: a connection is moved to
 * the end of a list, and a tick looks at the front.
 *
 * Whether the loop watches the listeners is decided before it sleeps: not while it pauses, is full
 * or leaves, and not while siblings have fewer connections (siblings.h). Then it has stepped back,
 * and looks again when a client leaves and every 60 ms. When a client waits at such a moment and
 * still 40 ms later, and nobody has let one in meanwhile, we take it: the siblings do not do what
 * was expected of them (a stopped process seems to sleep for ever). Whoever has not polled since
 * that moment is doubted until it does.
 *
 * The loop is never the default one, because
 * that would reap the application's own children. */
#ifndef SERVER_LOOP_H
#define SERVER_LOOP_H

#include "exclusive.h"
#include "hand.h"
#include "siblings.h"

#include <ev.h>

#define LOOP_LISTENERS_MAX 64

struct loop_listener {
    struct exclusive_watch watch;
    struct loop *loop;
    const struct listener *listener;
    bool is_ready;             /* a client waits, as of the last poll */
};

struct loop {
    struct ev_loop *ev;
    struct service *service;
    struct loop_listener listeners[LOOP_LISTENERS_MAX];
    size_t listeners_count;
    size_t next_listener;      /* which one may accept first */
    struct cts_list clocks[CLOCKS_COUNT];
    uint64_t clock_lengths_ns[CLOCKS_COUNT];
    struct cts_list batch;     /* connections to serve */
    size_t batch_count;
    int connections_count;
    ev_timer clock_timer;      /* ticks while a clock runs */
    ev_timer beat_timer;       /* 1 s: the loop turns even when nothing happens */
    ev_timer accept_pause;     /* no descriptors left: a moment without accepting */
    ev_timer look_timer;       /* while we have stepped back */
    ev_timer drain_timer;      /* the last wait for clients that were active a moment ago */
    ev_async wake;
    bool accepts;
    bool listens;              /* the listeners are watched: accepts, and none of the next three */
    bool is_paused;
    bool is_full;              /* at the limit of connections */
    bool has_stepped_back;     /* siblings have fewer */
    bool shares_listeners;     /* with siblings */
    bool has_grown;            /* connections came in since the last poll */
    bool saw_client_waiting;   /* at the last look; so many had been let in by then: */
    unsigned accepted_count;
    double doubt_since;        /* ev_time(): siblings that have not polled since are not believed */
    struct exclusive exclusive;
    struct sibling *place;     /* what siblings see of us */
    bool is_draining;
    bool is_emptying;          /* draining, and the backlog is still taken in */
    uint64_t emptying_until_ns;
    double drain_grace_s;      /* for clients that were active a moment ago */
    uint64_t accept_wanted_since_ns;
    uint64_t settled_ns;       /* the clock as the last connection was settled, 0: was not read */
    void *owner;               /* for the callbacks below */
    void (*on_busy_event)(struct loop *loop, struct connection *connection);  /* gthread */
    void (*on_wake)(struct loop *loop);
    void (*on_beat)(struct loop *loop);
};

/* 0 or -errno. */
int loop_init(struct loop *loop, struct service *service) CTS_MUST_USE;
void loop_done(struct loop *loop);

/* Poll once; sleeps when `may_sleep` and nothing waits in the batch. */
void loop_turn(struct loop *loop, bool may_sleep);

/* The next connection to serve, or NULL. */
struct connection *loop_take(struct loop *loop);
/* Its turn is over: arm what it waits for, or free it. */
void loop_settle(struct loop *loop, struct connection *connection);

/* Is a client waiting at a listener, and may it come in? */
bool loop_may_accept(const struct loop *loop);
/* Accept one; NULL when nobody was there after all. Not settled yet: give it a turn first. */
struct connection *loop_accept(struct loop *loop);

/* Let what runs finish. With `takes_backlog` clients that wait in the backlog are still taken in,
 * one at a time as ever, until it was seen empty (siblings may help) or two thirds of
 * `graceful_timeout` are over: nobody is taken in who could not be answered. Then nobody listens.
 * Idle connections are closed, recently active ones after a moment. Again, it only hastens. */
void loop_drain(struct loop *loop, bool takes_backlog);
bool loop_is_empty(const struct loop *loop);

#endif
