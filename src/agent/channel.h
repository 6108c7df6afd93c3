/* channel.h - one way to a collector. Two exist: channel_http.c and channel_grpc.c.
 *
 * The exporter hands a channel an encoded request with a cookie, and is told exactly once, later
 * and from the loop, how it went. Who asks for what to be tried again is decided here by protocol
 * (OTLP's tables of retryable codes); when it is tried again is the exporter's business. */
#ifndef AGENT_CHANNEL_H
#define AGENT_CHANNEL_H

#include "env.h"

#include <ev.h>

enum outcome_kind {
    OUTCOME_DELIVERED,
    OUTCOME_RETRY,          /* also: nobody answered */
    OUTCOME_REFUSED,        /* trying again would not help */
    OUTCOME_TOO_LARGE,      /* a smaller one may be taken */
};

struct outcome {
    enum outcome_kind kind;
    int64_t retry_after_ms;          /* what the collector asked for, -1: nothing */
    int64_t rejected_count;          /* DELIVERED: of a partial success */
    bool is_nonsense;                /* DELIVERED, but with an answer nobody can read */
    char text[256];                  /* for people, escaped */
};

typedef void channel_done(void *context, void *cookie, const struct outcome *outcome);

struct channel {
    /* `body` stays valid until done was called for `cookie`. Never fails: what cannot be sent is
     * told through done, later. */
    void (*send)(struct channel *channel, const void *body, size_t body_bytes, void *cookie);
    void (*free)(struct channel *channel);   /* what still flies is forgotten, done not called */
};

struct channel_plan {
    struct ev_loop *loop;
    const struct env_plan *env;
    channel_done *done;
    void *context;
};

/* NULL when it cannot be had (no memory). */
struct channel *channel_http_new(const struct channel_plan *plan);
struct channel *channel_grpc_new(const struct channel_plan *plan);

/* Retry-After: seconds or an HTTP date, in milliseconds from now (real time); -1 when neither. */
int64_t channel_retry_after_ms(const char *value, int64_t now_s);

#endif
