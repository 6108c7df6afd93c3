/* hand.h - one thread that serves, with what it needs for it and lends to connections. */
#ifndef SERVER_HAND_H
#define SERVER_HAND_H

#include "connection.h"

#define HAND_SCRATCH_BYTES 65536

struct hand {
    struct service *service;
    char *scratch;             /* HAND_SCRATCH_BYTES: every first read goes here */
    struct job *spare_job;
    struct cts_buffer access;  /* lines of the access log that are not written yet */
    uint64_t turn_ns;          /* sync: the clock as this turn began, read for all; else 0 */
    bool holds_lock;           /* sync: always. gthread: only inside the application */
    bool is_main;
    void *lock_token;
    struct connection *_Atomic current;        /* whose application runs here, for SIGABRT */
    _Atomic uint64_t current_since_ns;
    _Atomic uint64_t lock_wanted_since_ns;     /* waiting for the lock since; 0: not waiting */
    void (*app_enters)(struct hand *hand);     /* gthread's book of busy threads, or NULL */
    void (*app_leaves)(struct hand *hand);
    void *pool;
};

int hand_init(struct hand *hand, struct service *service) CTS_MUST_USE;
void hand_done(struct hand *hand);

/* The job of the connection, lent if it has none. NULL: no memory. */
struct job *hand_lend(struct hand *hand, struct connection *connection);
/* The connection needs no job any more: the hand keeps it. Without a hand it is freed. */
void hand_take_back(struct hand *hand, struct connection *connection);

/* SIGABRT: tell the client of the request that runs in `hand` that it failed, if not a byte of an
 * answer was sent. Async-signal-safe. */
void hand_abort_notice(struct hand *hand);

#endif
