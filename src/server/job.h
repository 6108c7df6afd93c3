/* job.h - what a connection owns while it has a request: parser, views, body, reply, span.
 *
 * Lent by a hand. Where the bytes of the request at hand lie:
 *   head    in the hand's scratch when it came whole with one read and the application runs in the
 *           same turn; else in `in`
 *   body    behind the head in the same bytes, or where `body` keeps it
 *   rest    behind the request: pipelined bytes, in scratch or in `in`; copied to `in` when the
 *           turn ends, because the scratch belongs to the hand */
#ifndef SERVER_JOB_H
#define SERVER_JOB_H

#include "body.h"
#include "connection.h"
#include "outbox.h"

enum job_answer {
    JOB_ANSWER_OPEN,     /* nobody sent a byte of this reply */
    JOB_ANSWER_OURS,     /* the connection did */
    JOB_ANSWER_ABORTED,  /* the SIGABRT handler did: nothing else may follow */
};

struct job {
    struct cts_exchange exchange;
    struct cts_request request;
    struct cts_head_parser parser;
    struct cts_trace_request trace;
    struct body body;
    struct cts_buffer in;
    struct outbox out;
    struct cts_bytes rest;
    struct connection *connection;
    struct hand *hand;             /* whose turn it is */
    uint64_t start_ns;             /* first byte of the request */
    uint64_t head_ns;              /* its head was whole, when the body took longer; else 0 */
    uint64_t sent_ns;              /* the last piece of a streamed reply, where somebody asks */
    size_t out_mark;               /* where this reply begins in `out.bytes` */
    uint8_t after;                 /* enum connection_state to enter when `out` is written */
    bool has_open_trace;
    bool was_streamed;             /* bytes of this reply left through ops->send */
    bool has_head;                 /* `request` is filled */
    bool owes_no_memory;           /* a refusal that could not be made: a ready-made one follows */
    _Atomic int answer;            /* enum job_answer */
};

struct job *job_new(struct service *service);
void job_free(struct job *job);
/* Small again, and without anything of its last connection. */
void job_rest(struct job *job);

/* The bytes behind the request must outlive the turn: they move to `in`. 0 or -ENOMEM. */
int job_keep_rest(struct job *job) CTS_MUST_USE;

/* Hand what waits to the kernel. 0, -EAGAIN, or -EPIPE. */
int job_flush(struct job *job) CTS_MUST_USE;

/* The functions of ops, for the application. */
extern const struct cts_exchange_ops job_exchange_ops;

#endif
