/* connection.h - one client: bytes in, requests to the gateway, replies out.
 *
 * A connection does not know who turns the loop. Whoever found that something can be done calls
 * connection_turn() once; it reads at most once, serves what is whole (serving.c), writes what it
 * can, and leaves in the struct what it waits for. The loop (loop.c) looks at that and arms a
 * watcher and a clock. It never sleeps, but for `ops->read_body` and `ops->send` inside the
 * application.
 *
 *     IDLE -> HEAD -> [BODY] -> (application) -> [WRITE] -> IDLE | DRAIN -> IDLE | LINGER -> CLOSED
 *
 * An idle connection owns this struct and nothing else; everything that belongs to a request is
 * in its `job`, which a hand lends it and takes back. */
#ifndef SERVER_CONNECTION_H
#define SERVER_CONNECTION_H

#include "service.h"
#include "transport.h"

#include "ctserve/list.h"

#include <ev.h>

enum connection_state {
    CONNECTION_IDLE,    /* no byte of a request yet */
    CONNECTION_HEAD,    /* some bytes of a head */
    CONNECTION_BODY,    /* a head, and a body that is not whole */
    CONNECTION_WRITE,   /* the kernel did not take all of the reply */
    CONNECTION_DRAIN,   /* replied; the rest of the body is thrown away */
    CONNECTION_LINGER,  /* we said our last word and wait for the peer's end */
    CONNECTION_CLOSED,  /* to be freed by the loop */
};

/* Time limits. One list per clock, every member has the same length of time, so that the lists
 * stay ordered by themselves. */
enum connection_clock {
    CLOCK_FRESH,   /* accepted, no byte yet: 10 s, closed silently */
    CLOCK_KEPT,    /* idle between requests: `keepalive` */
    CLOCK_HEAD,    /* 10 s for the whole head, from its first byte: 408 */
    CLOCK_BODY,    /* 30 s between reads, and not too slow on average: 408 */
    CLOCK_WRITE,   /* 30 s without progress: closed */
    CLOCK_LINGER,  /* 2 s: closed */
    CLOCKS_COUNT,
    CLOCK_NONE = CLOCKS_COUNT,
};

struct job;

struct connection {
    ev_io watcher;             /* the loop's */
    struct cts_list clock_link;  /* the loop's: in the list of `clock_armed` */
    struct cts_list turn_link;   /* batch, ready list or done list */
    uint64_t deadline_ns;      /* the loop's */
    uint64_t accept_ns;        /* 0 after the first request */
    struct service *service;
    const struct transport *transport;
    const struct listener *listener;
    struct job *job;           /* NULL while idle */
    int fd;
    uint32_t discard_left;     /* DRAIN, LINGER: bytes that we still read for nothing */
    uint8_t state;             /* enum connection_state */
    uint8_t clock;             /* wanted: enum connection_clock */
    uint8_t clock_armed;       /* the loop's */
    bool clock_restarts;       /* wanted: start that clock anew */
    bool is_busy;              /* in a turn, or queued for one */
    bool is_done;              /* the turn is over, the loop has not looked yet (gthread) */
    bool is_watched;           /* the loop's: the watcher is active */
    bool has_expired;          /* the clock ran out: the next turn is about that */
    bool wants_turn;           /* whole bytes wait in memory: no need to ask the kernel */
    bool awaits_proxy;         /* PROXY protocol: nothing else was read yet */
    bool closes_when_idle;     /* the worker leaves: read once more, then close */
    struct cts_peer peer;
};

struct hand;

/* Take over `fd`, accepted from `listener`. NULL when there is no memory (fd is then closed). */
struct connection *connection_new(struct service *service, const struct listener *listener, int fd,
                                  const void *address, unsigned address_bytes);
void connection_free(struct connection *connection);

/* Do what can be done now; afterwards state, clock and wants_turn say how to go on. */
void connection_turn(struct connection *connection, struct hand *hand);

/* Which libev events the state waits for. */
int connection_events(const struct connection *connection);

#endif
