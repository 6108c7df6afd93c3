/* job.c - a job's memory, and what the application may do while it runs: read the body, send a
 * piece of the reply. These two are the only places of a connection that may sleep, and they give
 * the lock away for it. */
#include "job.h"
#include "hand.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define JOB_WAIT_MS 30000
#define JOB_RAW_READ_BYTES 16384
#define JOB_IN_KEPT_BYTES_MAX 65536

struct job *job_new(struct service *service)
{
    struct job *job = calloc(1, sizeof(*job));
    if (job == NULL)
        return NULL;
    cts_head_parser_init(&job->parser, &service->rules);
    body_init(&job->body, &service->keeper);
    outbox_init(&job->out);
    return job;
}

void job_free(struct job *job)
{
    if (job == NULL)
        return;
    cts_head_parser_done(&job->parser);
    body_free(&job->body);
    cts_buffer_free(&job->in);
    outbox_free(&job->out);
    free(job);
}

void job_rest(struct job *job)
{
    cts_head_parser_reset(&job->parser);
    body_rest(&job->body);
    outbox_empty(&job->out);
    job->in.start = job->in.end = 0;
    if (job->in.capacity > JOB_IN_KEPT_BYTES_MAX)
        cts_buffer_free(&job->in);
}

int job_keep_rest(struct job *job)
{
    struct cts_bytes rest = job->rest;
    const char *from = job->in.at;
    job->rest.count = 0;
    if (rest.count > 0 && from != NULL && rest.at >= from && rest.at < from + job->in.capacity) {
        job->in.start = (size_t)(rest.at - from);
        job->in.end = job->in.start + rest.count;
        return 0;
    }
    job->in.start = job->in.end = 0;
    return rest.count == 0 ? 0 : cts_buffer_put(&job->in, rest.at, rest.count);
}

static struct job *job_of(struct cts_exchange *exchange)
{
    return CTS_CONTAINER(exchange, struct job, exchange);
}

/* -- sleeping ------------------------------------------------------------------------------- */
/* A signal came while the main thread slept: the callables of Python run here as they would in
 * any blocking call. -1 when one asked to leave. */
static int run_signals(struct job *job)
{
    struct service *service = job->hand->service;
    struct cts_error error = {0};
    if (!job->hand->is_main || service->gateway->run_pending(&error) == 0)
        return 0;
    job->exchange.wants_exit = true;
    job->exchange.exit_code = error.exit_code;
    return -1;
}

/* When the patience with a client ends for whom an application waits. Before the request is over
 * its time limit: a client must not be able to get a worker taken for hung. */
static uint64_t patience_end_ns(const struct job *job)
{
    const struct service *service = job->hand->service;
    uint64_t since_ns = atomic_load_explicit(&job->hand->current_since_ns, memory_order_relaxed);
    uint64_t end_ns = cts_clock_mono_ns() + JOB_WAIT_MS * 1000000ull;

    if (service->turn_wait_ns != 0 && since_ns + service->turn_wait_ns < end_ns)
        end_ns = since_ns + service->turn_wait_ns;
    if (job->sent_ns > since_ns)
        since_ns = job->sent_ns;
    if (service->request_wait_ns != 0 && since_ns + service->request_wait_ns < end_ns)
        end_ns = since_ns + service->request_wait_ns;
    return end_ns;
}

/* Sleep until the descriptor is ready, lock given away. 0, -ETIMEDOUT or -ECANCELED. */
static int wait_for(struct job *job, short events)
{
    const struct cts_gateway *gateway = job->hand->service->gateway;
    uint64_t end_ns = patience_end_ns(job);
    struct pollfd ask = {.fd = job->connection->fd, .events = events};

    for (;;) {
        uint64_t now_ns = cts_clock_mono_ns();
        if (now_ns >= end_ns)
            return -ETIMEDOUT;
        void *token = gateway->lock_give();
        int count = poll(&ask, 1, (int)((end_ns - now_ns) / 1000000) + 1);
        int failed = count < 0 ? errno : 0;
        gateway->lock_take(token);
        if (count > 0)
            return 0;
        if (failed == EINTR && run_signals(job) < 0)
            return -ECANCELED;
        if (failed != 0 && failed != EINTR)
            return -ETIMEDOUT;
    }
}

/* -- writing -------------------------------------------------------------------------------- */
/* Only the first byte of an answer is contended: SIGABRT may say 500 in its place. */
static bool claim_answer(struct job *job)
{
    int open = JOB_ANSWER_OPEN;
    return atomic_compare_exchange_strong(&job->answer, &open, JOB_ANSWER_OURS) ||
           open != JOB_ANSWER_ABORTED;
}

int job_flush(struct job *job)
{
    struct connection *connection = job->connection;
    if (outbox_is_empty(&job->out))
        return 0;
    if (!claim_answer(job))
        return -EPIPE;
    return outbox_flush(&job->out, connection->transport, connection->fd);
}

/* All of `out`, then all of `bytes`: to the kernel, or put by. A client that is too slow even for
 * that is waited for. 0 or -EPIPE. */
static int send_all(struct job *job, struct cts_bytes bytes)
{
    struct connection *connection = job->connection;
    struct service *service = job->hand->service;
    for (;;) {
        int r = outbox_send(&job->out, connection->transport, connection->fd, &bytes,
                            &service->spooled_bytes, SERVICE_SPOOLED_BYTES_MAX);
        if (r != -EAGAIN)
            return r;
        if (wait_for(job, POLLOUT) < 0)
            return -EPIPE;
    }
}

static int exchange_send(struct cts_exchange *exchange, struct cts_bytes bytes)
{
    struct job *job = job_of(exchange);

    if (!claim_answer(job))
        return -EPIPE;
    job->was_streamed = true;
    if (send_all(job, bytes) < 0) {
        exchange->abort = true;
        return -EPIPE;
    }
    job->out_mark = 0;
    if (job->hand->service->request_wait_ns != 0)
        job->sent_ns = cts_clock_mono_ns();
    cts_trace_progress(&job->trace);
    return 0;
}

static int exchange_send_file(struct cts_exchange *exchange, int file_fd, uint64_t at,
                              uint64_t count)
{
    struct job *job = job_of(exchange);

    if (job->connection->transport->send_file == NULL)
        return -ENOTSUP;
    if (!claim_answer(job))
        return -EPIPE;
    int r = outbox_put_file(&job->out, file_fd, at, count);
    if (r < 0)
        return r;
    job->was_streamed = true;
    job->out_mark = 0;
    return 0;
}

/* -- reading -------------------------------------------------------------------------------- */
static int send_continue(struct job *job)
{
    job->body.owes_continue = false;
    if (job->request.version_minor == 0 || job->was_streamed)
        return 0;
    if (send_all(job, cts_bytes_of("HTTP/1.1 100 Continue\r\n\r\n")) < 0)
        return -ECONNRESET;
    job->out_mark = 0;
    return 0;
}

/* Bytes from the client, now or after a sleep. Count, or the error that ends the body. A client
 * that ends its half before the body is whole may still hear why that is no request. */
static ssize_t read_wire(struct job *job, void *to, size_t count)
{
    struct connection *connection = job->connection;
    struct body *body = &job->body;
    for (;;) {
        ssize_t n = connection->transport->read(connection->fd, to, count);
        if (n > 0)
            return n;
        if (n == 0)
            body_cut_short(body);
        if (n != -EAGAIN)
            return -ECONNRESET;
        body_wait_begins(body, cts_clock_mono_ns());
        int r = wait_for(job, POLLIN);
        body_wait_ends(body, cts_clock_mono_ns());
        if (r < 0)
            return r == -ETIMEDOUT ? -ETIMEDOUT : -ECONNRESET;
        if (body_is_too_slow(body, 0))
            return -ETIMEDOUT;
    }
}

static ssize_t read_length(struct job *job, char *to, size_t count)
{
    struct body *body = &job->body;
    size_t wanted = count < body->left ? count : (size_t)body->left;
    ssize_t n = read_wire(job, to, wanted);
    if (n < 0)
        return n;
    body->left -= (uint64_t)n;
    body->total_bytes += (uint64_t)n;
    body->wire_bytes += (uint64_t)n;
    body->has_ended = body->left == 0;
    return n;
}

/* Read more of a chunked body into `raw`. */
static int fill_raw(struct job *job)
{
    struct cts_buffer *raw = &job->body.raw;
    if (cts_buffer_reserve(raw, JOB_RAW_READ_BYTES) < 0) {
        job->body.status = 503;
        job->body.code = "no_memory";
        return -ECONNRESET;
    }
    ssize_t n = read_wire(job, raw->at + raw->end, JOB_RAW_READ_BYTES);
    if (n < 0)
        return (int)n;
    raw->end += (size_t)n;
    return 0;
}

/* Undo the framing of the next piece in `raw`; what was used up is dropped, the piece stays where
 * it is until `raw` is filled again. */
static int decode_raw(struct job *job)
{
    struct body *body = &job->body;
    struct cts_bytes view = cts_buffer_view(&body->raw);
    size_t before = view.count;
    int r = body_decode(body, &view, &body->ready);
    cts_buffer_drop(&body->raw, before - view.count);
    return r > 0 ? -EBADMSG : 0;
}

/* Make `body.ready` or the end of the body true, or fail. */
static int advance_chunked(struct job *job)
{
    int r = 0;
    if (cts_buffer_count(&job->body.raw) == 0)
        r = fill_raw(job);
    return r < 0 ? r : decode_raw(job);
}

static ssize_t exchange_read_body(struct cts_exchange *exchange, char *to, size_t count)
{
    struct job *job = job_of(exchange);
    struct body *body = &job->body;

    if (count == 0)
        return 0;
    while (body->error == 0) {
        if (body->ready.count > 0) {
            size_t taken = count < body->ready.count ? count : body->ready.count;
            memcpy(to, body->ready.at, taken);
            body->ready.at += taken;
            body->ready.count -= taken;
            return (ssize_t)taken;
        }
        if (spool_count(&body->spool) > 0) {
            ssize_t n = spool_take(&body->spool, to, count);
            if (n > 0)
                return n;
            body->error = -ECONNRESET;
            body->status = 500;
            body->code = "disk_failed";
            break;
        }
        if (body->has_ended)
            return 0;
        if (body->owes_continue) {
            body->error = send_continue(job);
        } else if (body->kind == BODY_LENGTH) {
            ssize_t n = read_length(job, to, count);
            if (n > 0)
                return n;
            body->error = (int)n;
        } else {
            body->error = advance_chunked(job);
        }
    }
    return body->error;
}

static struct cts_bytes exchange_trailers(const struct cts_exchange *exchange)
{
    return body_trailers(&CTS_CONTAINER(exchange, struct job, exchange)->body);
}

const struct cts_exchange_ops job_exchange_ops = {
    .read_body = exchange_read_body,
    .send = exchange_send,
    .send_file = exchange_send_file,
    .trailers = exchange_trailers,
};
