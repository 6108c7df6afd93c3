/* serving.c - see serving.h. */
#include "serving.h"

#include "ctserve/log.h"

#include <errno.h>
#include <stdio.h>

/* -- spans ---------------------------------------------------------------------------------- */
/* A row of the request table is taken when the application is about to run, or when the request
 * ends before that: clients that are slow with their bodies must not use up the table, nor look
 * like requests that hang. */
static void begin_trace(struct job *job)
{
    struct connection *connection = job->connection;
    const struct cts_request *request = &job->request;
    struct cts_trace_start start = {
        .scheme = {"http", 4},
        .peer_address = cts_bytes_of(connection->peer.remote_address),
        .peer_port = connection->peer.remote_port,
        .server_port = connection->peer.server_port,
        .accept_ns = connection->accept_ns,
        .start_ns = job->start_ns,
        .version_minor = 1,
    };
    if (connection->peer.proxy != NULL && connection->peer.proxy->client_address[0] != '\0') {
        start.peer_address = cts_bytes_of(connection->peer.proxy->client_address);
        start.peer_port = connection->peer.proxy->client_port;
    }
    if (job->has_head) {
        start.method = request->method;
        start.path = request->path;
        start.query = request->query;
        start.host = request->host;
        start.user_agent = request->user_agent;
        start.traceparent = request->traceparent;
        start.version_minor = (uint8_t)request->version_minor;
    }
    connection->accept_ns = 0;
    cts_trace_begin(&job->trace, &start);
    if (job->head_ns != 0)
        job->trace.head_ns = job->trace.body_ns = job->head_ns;
    job->has_open_trace = true;
}

void serving_end(struct job *job, const char *failure)
{
    const struct cts_exchange *exchange = &job->exchange;
    if (!job->has_open_trace)
        return;
    job->has_open_trace = false;
    const char *error_type = exchange->error_type[0] != '\0' ? exchange->error_type : failure;
    struct cts_trace_end end = {
        .status = exchange->status,
        .is_refused = exchange->is_refused,
        .request_body_bytes = job->body.total_bytes,
        .response_body_bytes = exchange->body_sent_bytes,
        .error_type = error_type != NULL ? cts_bytes_of(error_type) : (struct cts_bytes){"", 0},
        .error_message = cts_bytes_of(exchange->error_message),
        .route = cts_bytes_of(exchange->route),
    };
    cts_trace_end(&job->trace, &end);
}

void serving_give_up(struct job *job, const char *failure)
{
    memset(&job->exchange, 0, sizeof(job->exchange));
    begin_trace(job);
    serving_end(job, failure);
}

/* -- refusals ------------------------------------------------------------------------------- */
/* Put an error page where this reply begins. Without memory for one, what was answered before
 * leaves, and a ready-made page follows it. */
static void put_page(struct job *job, size_t mark, int status, const char *detail)
{
    struct cts_buffer *out = &job->out.bytes;
    if (cts_http_refusal(out, status, detail) == 0)
        return;
    out->end -= cts_buffer_count(out) - mark;
    job->exchange.status = 503;
    snprintf(job->exchange.error_type, sizeof(job->exchange.error_type), "ctserve.no_memory");
    job->owes_no_memory = true;
}

enum connection_state serving_refuse(struct job *job, int status, const char *code)
{
    struct cts_exchange *exchange = &job->exchange;

    if (!job->has_open_trace) {
        memset(exchange, 0, sizeof(*exchange));
        if (!job->has_head)
            job->body.total_bytes = 0;
        begin_trace(job);
    }
    exchange->is_refused = true;
    exchange->status = status;
    exchange->body_sent_bytes = 0;
    if (exchange->error_type[0] == '\0')
        snprintf(exchange->error_type, sizeof(exchange->error_type), "http.parse.%s",
                 code != NULL ? code : "unknown");
    cts_warning("Invalid request from ip=%s: %s (%d)", job->connection->peer.remote_address,
                code != NULL ? code : "unknown", status);
    atomic_store(&job->answer, JOB_ANSWER_OPEN);
    job->rest.count = 0;
    put_page(job, cts_buffer_count(&job->out.bytes), status, code);
    return CONNECTION_LINGER;
}

/* Put another reply in the place of the one that was made, none of which has left. Status 0: no
 * reply at all. */
static enum connection_state replace_reply(struct job *job, int status, const char *code)
{
    struct cts_buffer *out = &job->out.bytes;
    out->end -= cts_buffer_count(out) - job->out_mark;
    if (status != 0)
        return serving_refuse(job, status, code);
    job->exchange.status = 0;
    return CONNECTION_CLOSED;
}

/* -- before the application ----------------------------------------------------------------- */
static bool may_keep(const struct job *job)
{
    const struct service *service = job->connection->service;
    if (!service->keeps_connections || !job->request.keep_alive ||
        !atomic_load_explicit(&service->is_alive, memory_order_relaxed))
        return false;
    /* As gunicorn's gthread: leave room for clients that are not here yet. */
    int open = atomic_load_explicit(&service->connections_count, memory_order_relaxed);
    return open <= service->connections_max - service->threads_count;
}

static void count_request(struct service *service)
{
    uint64_t count =
        1 + atomic_fetch_add_explicit(&service->requests_count, 1, memory_order_relaxed);
    if (service->requests_max == 0 || count < service->requests_max)
        return;
    if (atomic_load(&service->is_alive))
        cts_info("Autorestarting worker after current request.");
    service_leave(service, CTS_GONE_MAX_REQUESTS);
}

static void prepare_exchange(struct job *job)
{
    struct cts_exchange *exchange = &job->exchange;
    struct service *service = job->connection->service;

    exchange->request = &job->request;
    exchange->peer = &job->connection->peer;
    exchange->ops = &job_exchange_ops;
    exchange->trace = &job->trace;
    exchange->body_is_whole = body_is_whole(&job->body);
    exchange->body = exchange->body_is_whole ? job->body.ready : (struct cts_bytes){"", 0};
    exchange->body_object = exchange->body_is_whole ? job->body.object : NULL;
    exchange->worker_is_multithread = service->is_gthread;
    exchange->worker_is_multiprocess = service->is_multiprocess;
    exchange->out = &job->out.bytes;
    exchange->status = 0;
    exchange->body_sent_bytes = 0;
    exchange->head_sent = exchange->must_close = exchange->abort = exchange->wants_exit = false;
    exchange->is_refused = false;
    exchange->exit_code = 0;
    exchange->error_type[0] = exchange->error_message[0] = exchange->route[0] = '\0';
    count_request(service);
    exchange->may_keep_alive = may_keep(job);
}

/* -- the application ------------------------------------------------------------------------ */
static void call_app(struct job *job, struct hand *hand)
{
    struct service *service = hand->service;

    cts_trace_phase(&job->trace, CTS_PHASE_APP);
    atomic_store_explicit(&job->answer, JOB_ANSWER_OPEN, memory_order_relaxed);
    job->out_mark = cts_buffer_count(&job->out.bytes);
    job->was_streamed = false;
    job->hand = hand;
    job->exchange.access = service->access.fd >= 0 ? &hand->access : NULL;
    if (cts_buffer_count(&hand->access) >= ACCESS_BUFFER_BYTES_MAX)
        access_flush(&service->access, &hand->access);
    uint64_t now_ns = job->trace.app_ns != 0 ? job->trace.app_ns : cts_clock_mono_ns();
    atomic_store_explicit(&hand->current_since_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&hand->current, job->connection, memory_order_release);
    if (!hand->holds_lock) {
        atomic_store_explicit(&hand->lock_wanted_since_ns, now_ns, memory_order_relaxed);
        service->gateway->lock_take(hand->lock_token);
        atomic_store_explicit(&hand->lock_wanted_since_ns, 0, memory_order_relaxed);
        hand->app_enters(hand);
    }
    service->gateway->handle(&job->exchange);
    if (!hand->holds_lock) {
        hand->lock_token = service->gateway->lock_give();
        hand->app_leaves(hand);
    }
    atomic_store_explicit(&hand->current, NULL, memory_order_release);
    cts_trace_phase(&job->trace, CTS_PHASE_SEND);
}

/* -- after it ------------------------------------------------------------------------------- */
/* The body did not come as promised. True when *ret_state says how that ends the connection. */
static bool body_failed(struct job *job, enum connection_state *ret_state)
{
    struct cts_exchange *exchange = &job->exchange;
    bool app_answered = exchange->head_sent && exchange->error_type[0] == '\0';

    if (job->body.error == 0)
        return false;
    if (job->was_streamed || (app_answered && exchange->status >= 400)) {
        exchange->must_close = true;
        return false;
    }
    exchange->error_type[0] = '\0';
    if (job->body.error == -ETIMEDOUT) {
        *ret_state = replace_reply(job, 408, "body_timeout");
    } else if (job->body.status != 0) {
        *ret_state = replace_reply(job, job->body.status, job->body.code);
    } else {
        snprintf(exchange->error_type, sizeof(exchange->error_type), "ctserve.client_disconnect");
        *ret_state = replace_reply(job, 0, NULL);
    }
    return true;
}

/* SIGABRT has told the client. When the worker leaves because of it, the row stays open: the agent
 * makes the span of it, with the stack and the reason, which this process does not know. */
static enum connection_state was_aborted(struct job *job)
{
    struct cts_exchange *exchange = &job->exchange;
    exchange->status = 500;
    if (exchange->error_type[0] == '\0')
        snprintf(exchange->error_type, sizeof(exchange->error_type), "ctserve.timeout");
    outbox_empty(&job->out);
    if (exchange->wants_exit)
        job->has_open_trace = false;
    return CONNECTION_LINGER;
}

/* Bytes behind a chunked body that the application read by itself lie in `raw`: make it `in`. */
static void adopt_raw(struct job *job)
{
    if (!job->body.has_ended || cts_buffer_count(&job->body.raw) == 0)
        return;
    struct cts_buffer old = job->in;
    job->in = job->body.raw;
    job->body.raw = old;
    job->body.raw.start = job->body.raw.end = 0;
    job->rest = cts_buffer_view(&job->in);
}

/* The application has not read all of the body: read a little on, or close. */
static enum connection_state leave_body(struct job *job)
{
    struct body *body = &job->body;

    if (body->owes_continue ||
        (body->kind == BODY_LENGTH && body->left > SERVICE_DISCARD_BYTES_MAX))
        return CONNECTION_LINGER;
    if (cts_buffer_count(&body->raw) > 0) {
        struct cts_bytes raw = cts_buffer_view(&body->raw);
        if (body_discard(body, &raw) > 0)
            return CONNECTION_LINGER;
        job->rest = raw;
    }
    return body->has_ended ? CONNECTION_IDLE : CONNECTION_DRAIN;
}

static enum connection_state decide(struct job *job)
{
    struct cts_exchange *exchange = &job->exchange;
    enum connection_state state;

    if (atomic_load_explicit(&job->answer, memory_order_relaxed) == JOB_ANSWER_ABORTED)
        return was_aborted(job);
    if (body_failed(job, &state))
        return state;
    if (exchange->abort) {
        /* What the application sent before still goes out; the client must see that it ends. */
        if (exchange->error_type[0] == '\0')
            snprintf(exchange->error_type, sizeof(exchange->error_type), "ctserve.aborted");
        return CONNECTION_CLOSED;
    }
    if (!exchange->head_sent && !job->was_streamed &&
        cts_buffer_count(&job->out.bytes) == job->out_mark) {
        exchange->status = 500;
        exchange->must_close = true;
        put_page(job, job->out_mark, 500, "");
    }
    if (!exchange->may_keep_alive || exchange->must_close || exchange->wants_exit) {
        /* A client that said it goes on may have sent more already. */
        bool lingers = job->request.keep_alive || job->rest.count > 0 || !job->body.has_ended;
        job->rest.count = 0;
        return lingers ? CONNECTION_LINGER : CONNECTION_CLOSED;
    }
    if (!job->body.has_ended)
        return leave_body(job);
    adopt_raw(job);
    return CONNECTION_IDLE;
}

enum connection_state serving_run(struct job *job, struct hand *hand)
{
    begin_trace(job);
    prepare_exchange(job);
    call_app(job, hand);
    if (job->exchange.wants_exit)
        service_exit(hand->service, job->exchange.exit_code);
    enum connection_state state = decide(job);
    if (job->body.kind != BODY_NONE)
        body_drop(&job->body);
    return state;
}
