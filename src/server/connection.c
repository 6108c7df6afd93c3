/* connection.c - see connection.h. */
#include "connection.h"
#include "job.h"

#include "ctserve/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTION_REPLIES_GATHERED_BYTES_MAX 65536
#define CONNECTION_REQUESTS_PER_TURN_MAX 64
#define CONNECTION_PARTIAL_READ_BYTES 8192
#define CONNECTION_OUT_KEPT_BYTES_MAX 65536

static const char abort_reply[] =
    "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Type: text/html\r\n"
    "Content-Length: 141\r\n\r\n"
    "<html>\n  <head>\n    <title>Internal Server Error</title>\n  </head>\n  <body>\n"
    "    <h1><p>Internal Server Error</p></h1>\n    \n  </body>\n</html>\n";

/* For when there is no memory to make one. */
static const char no_memory_reply[] =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/html\r\n"
    "Content-Length: 137\r\n\r\n"
    "<html>\n  <head>\n    <title>Service Unavailable</title>\n  </head>\n  <body>\n"
    "    <h1><p>Service Unavailable</p></h1>\n    \n  </body>\n</html>\n";

/* -- hands ---------------------------------------------------------------------------------- */
int hand_init(struct hand *hand, struct service *service)
{
    memset(hand, 0, sizeof(*hand));
    hand->service = service;
    hand->scratch = malloc(HAND_SCRATCH_BYTES);
    return hand->scratch == NULL ? -ENOMEM : 0;
}

void hand_done(struct hand *hand)
{
    if (hand->service != NULL)
        access_flush(&hand->service->access, &hand->access);
    cts_buffer_free(&hand->access);
    job_free(hand->spare_job);
    free(hand->scratch);
    hand->spare_job = NULL;
    hand->scratch = NULL;
}

static struct job *job_lend(struct connection *connection, struct hand *hand)
{
    if (connection->job == NULL) {
        connection->job = hand->spare_job;
        hand->spare_job = NULL;
    }
    if (connection->job == NULL)
        connection->job = job_new(hand->service);
    if (connection->job != NULL) {
        connection->job->connection = connection;
        connection->job->parser.is_trusted = connection->peer.is_trusted;
    }
    return connection->job;
}

static void forget_buffered_body(struct job *job)
{
    if (job->bodies_bytes > 0)
        atomic_fetch_sub(&job->connection->service->bodies_bytes, job->bodies_bytes);
    job->bodies_bytes = 0;
}

/* The connection needs no job any more: the hand keeps it, small again. */
static void job_take_back(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;
    connection->job = NULL;
    forget_buffered_body(job);
    if (hand == NULL || hand->spare_job != NULL) {
        job_free(job);
        return;
    }
    cts_head_parser_reset(&job->parser);
    body_rest(&job->body);
    cts_buffer_drop(&job->in, cts_buffer_count(&job->in));
    cts_buffer_drop(&job->out, cts_buffer_count(&job->out));
    if (job->in.capacity > CONNECTION_OUT_KEPT_BYTES_MAX)
        cts_buffer_free(&job->in);
    if (job->out.capacity > CONNECTION_OUT_KEPT_BYTES_MAX)
        cts_buffer_free(&job->out);
    hand->spare_job = job;
}

/* -- birth and death ------------------------------------------------------------------------ */
static void fill_peer(struct cts_peer *peer, const struct listener *listener, int fd,
                      const struct sockaddr *address)
{
    peer->fd = fd;
    peer->is_unix = listener->is_unix;
    peer->server_port = listener->server_port;
    snprintf(peer->server_name, sizeof(peer->server_name), "%s", listener->server_name);
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        inet_ntop(AF_INET, &v4->sin_addr, peer->remote_address, sizeof(peer->remote_address));
        peer->remote_port = ntohs(v4->sin_port);
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, peer->remote_address, sizeof(peer->remote_address));
        peer->remote_port = ntohs(v6->sin6_port);
    }
}

struct connection *connection_new(struct service *service, const struct listener *listener, int fd,
                                  const void *address, unsigned address_bytes)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        close(fd);
        return NULL;
    }
    connection->service = service;
    connection->transport = &transport_plain;
    connection->listener = listener;
    connection->fd = fd;
    connection->state = CONNECTION_IDLE;
    connection->clock = CLOCK_FRESH;
    connection->clock_armed = CLOCK_NONE;
    connection->accept_ns = cts_clock_mono_ns();
    cts_list_init(&connection->clock_link);
    cts_list_init(&connection->turn_link);
    fill_peer(&connection->peer, listener, fd, address);
    connection->peer.is_trusted = trust_has(&service->forwarded, connection->peer.remote_address);
    connection->awaits_proxy = service->proxy_mode != CTS_PROXY_OFF;
    return connection;
}

void connection_free(struct connection *connection)
{
    if (connection->job != NULL)
        job_take_back(connection, NULL);
    cts_fd_close(&connection->fd);
    free((void *)(uintptr_t)connection->peer.proxy);
    free(connection);
}

int connection_events(const struct connection *connection)
{
    return connection->state == CONNECTION_WRITE ? EV_WRITE : EV_READ;
}

/* -- spans ---------------------------------------------------------------------------------- */
/* A row of the request table is taken when the application is about to run, or when the request
 * ends before that: clients that are slow with their bodies must not use up the table, nor look
 * like requests that hang. */
static void begin_trace(struct connection *connection, struct job *job)
{
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

/* The request is over. `failure` is what happened to the connection, or NULL; what happened in
 * the application is told first. */
static void end_trace(struct job *job, const char *failure)
{
    const struct cts_exchange *exchange = &job->exchange;
    if (!job->has_open_trace)
        return;
    job->has_open_trace = false;
    const char *error_type = exchange->error_type[0] != '\0' ? exchange->error_type : failure;
    struct cts_trace_end end = {
        .status = exchange->status,
        .request_body_bytes = job->body.total_bytes,
        .response_body_bytes = exchange->body_sent_bytes,
        .error_type = error_type != NULL ? cts_bytes_of(error_type) : (struct cts_bytes){"", 0},
        .error_message = cts_bytes_of(exchange->error_message),
        .route = cts_bytes_of(exchange->route),
    };
    cts_trace_end(&job->trace, &end);
}

/* -- the end of a turn ---------------------------------------------------------------------- */
static void set_clock(struct connection *connection, enum connection_clock clock, bool restart)
{
    connection->clock = (uint8_t)clock;
    connection->clock_restarts = connection->clock_restarts || restart;
}

/* The bytes behind the request must outlive the turn. */
static int keep_rest(struct job *job)
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

static void enter_closed(struct connection *connection)
{
    connection->state = CONNECTION_CLOSED;
    connection->wants_turn = false;
}

/* The last word is said: close our half and give the peer time to read it. Closing at once with
 * bytes unread would make the kernel send a reset, which destroys the reply on its way. */
static void enter_linger(struct connection *connection)
{
    connection->transport->shut_down(connection->fd);
    connection->state = CONNECTION_LINGER;
    connection->discard_left = SERVICE_DISCARD_BYTES_MAX;
    connection->wants_turn = false;
    set_clock(connection, CLOCK_LINGER, true);
}

/* No memory to go on with. What was answered before is on its way; whatever we have of another
 * request hears that it came at a bad time. */
static void no_memory(struct connection *connection, bool owes_answer)
{
    cts_warning("No memory for a client: its connection is closed");
    if (owes_answer)
        (void)connection->transport->write(
            connection->fd, (struct cts_bytes){no_memory_reply, sizeof(no_memory_reply) - 1},
            (struct cts_bytes){"", 0});
    enter_linger(connection);
}

static void enter(struct connection *connection, struct job *job, enum connection_state state)
{
    bool bytes_wait = job->rest.count > 0;

    if (state != CONNECTION_CLOSED && state != CONNECTION_LINGER && state != CONNECTION_BODY &&
        keep_rest(job) < 0) {
        no_memory(connection, state != CONNECTION_DRAIN);
        return;
    }
    connection->state = (uint8_t)state;
    connection->wants_turn = false;
    switch (state) {
    case CONNECTION_IDLE:
        if (bytes_wait) {
            /* Another request came whole or in part behind this one. */
            connection->state = CONNECTION_HEAD;
            connection->wants_turn = true;
            job->start_ns = cts_clock_mono_ns();
            set_clock(connection, CLOCK_HEAD, true);
        } else {
            set_clock(connection, CLOCK_KEPT, true);
        }
        break;
    case CONNECTION_HEAD:
        set_clock(connection, CLOCK_HEAD, false);
        break;
    case CONNECTION_BODY:
        set_clock(connection, CLOCK_BODY, true);
        break;
    case CONNECTION_DRAIN:
        set_clock(connection, CLOCK_BODY, true);
        connection->discard_left = SERVICE_DISCARD_BYTES_MAX;
        connection->wants_turn = bytes_wait;
        break;
    case CONNECTION_LINGER:
        enter_linger(connection);
        break;
    default:
        enter_closed(connection);
        break;
    }
}

/* Hand `out` to the kernel. 0, -EAGAIN, or -EPIPE. */
static int flush_out(struct connection *connection, struct job *job)
{
    struct cts_bytes view = cts_buffer_view(&job->out);
    int open = JOB_ANSWER_OPEN;

    if (view.count == 0)
        return 0;
    if (!atomic_compare_exchange_strong(&job->answer, &open, JOB_ANSWER_OURS) &&
        open == JOB_ANSWER_ABORTED)
        return -EPIPE;
    ssize_t n = connection->transport->write(connection->fd, view, (struct cts_bytes){"", 0});
    if (n < 0)
        return n == -EAGAIN ? -EAGAIN : -EPIPE;
    cts_buffer_drop(&job->out, (size_t)n);
    return (size_t)n == view.count ? 0 : -EAGAIN;
}

/* Write what there is, then go to `state`; stop in WRITE when the kernel is full. */
static void finish(struct connection *connection, struct job *job, enum connection_state state)
{
    size_t before = cts_buffer_count(&job->out);
    int r = flush_out(connection, job);

    if (r == -EAGAIN) {
        bool moved = connection->state != CONNECTION_WRITE || cts_buffer_count(&job->out) < before;
        if (state != CONNECTION_BODY && keep_rest(job) < 0)
            state = CONNECTION_LINGER;
        job->after = (uint8_t)state;
        connection->state = CONNECTION_WRITE;
        connection->wants_turn = false;
        set_clock(connection, CLOCK_WRITE, moved);
        return;
    }
    if (r < 0) {
        end_trace(job, "ctserve.client_disconnect");
        enter_closed(connection);
        return;
    }
    end_trace(job, NULL);
    enter(connection, job, state);
}

/* -- refusals ------------------------------------------------------------------------------- */
/* A refusal that could not be made: what was answered before it leaves, then the ready-made one. */
static void refuse_without_memory(struct connection *connection, struct job *job, size_t mark)
{
    job->out.end -= cts_buffer_count(&job->out) - mark;
    job->exchange.status = 503;
    bool owes_answer = flush_out(connection, job) == 0;
    end_trace(job, "ctserve.no_memory");
    no_memory(connection, owes_answer);
}

/* One answer, then not another byte of this client is parsed. */
static void refuse(struct connection *connection, struct job *job, int status, const char *code)
{
    struct cts_exchange *exchange = &job->exchange;
    size_t mark = cts_buffer_count(&job->out);

    if (!job->has_open_trace) {
        memset(exchange, 0, sizeof(*exchange));
        if (!job->has_head)
            job->body.total_bytes = 0;
        begin_trace(connection, job);
    }
    exchange->status = status;
    exchange->body_sent_bytes = 0;
    if (exchange->error_type[0] == '\0')
        snprintf(exchange->error_type, sizeof(exchange->error_type), "http.parse.%s",
                 code != NULL ? code : "unknown");
    cts_warning("Invalid request from ip=%s: %s (%d)", connection->peer.remote_address,
                code != NULL ? code : "unknown", status);
    atomic_store(&job->answer, JOB_ANSWER_OPEN);
    job->rest.count = 0;
    if (cts_http_refusal(&job->out, status, code) < 0) {
        refuse_without_memory(connection, job, mark);
        return;
    }
    finish(connection, job, CONNECTION_LINGER);
}

/* -- the application ------------------------------------------------------------------------ */
static bool may_keep(struct connection *connection, struct job *job)
{
    const struct service *service = connection->service;
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

static void prepare_exchange(struct connection *connection, struct job *job)
{
    struct cts_exchange *exchange = &job->exchange;
    struct service *service = connection->service;

    exchange->request = &job->request;
    exchange->peer = &connection->peer;
    exchange->ops = &job_exchange_ops;
    exchange->trace = &job->trace;
    exchange->body_is_whole = job->body.has_ended;
    exchange->body = job->body.has_ended ? job->body.ready : (struct cts_bytes){"", 0};
    exchange->worker_is_multithread = service->is_gthread;
    exchange->worker_is_multiprocess = service->is_multiprocess;
    exchange->out = &job->out;
    exchange->status = 0;
    exchange->body_sent_bytes = 0;
    exchange->head_sent = exchange->must_close = exchange->abort = exchange->wants_exit = false;
    exchange->exit_code = 0;
    exchange->error_type[0] = exchange->error_message[0] = exchange->route[0] = '\0';
    count_request(service);
    exchange->may_keep_alive = may_keep(connection, job);
}

static void call_app(struct connection *connection, struct hand *hand, struct job *job)
{
    struct service *service = connection->service;

    cts_trace_phase(&job->trace, CTS_PHASE_APP);
    atomic_store_explicit(&job->answer, JOB_ANSWER_OPEN, memory_order_relaxed);
    job->out_mark = cts_buffer_count(&job->out);
    job->was_streamed = false;
    job->hand = hand;
    job->exchange.access = service->access.fd >= 0 ? &hand->access : NULL;
    if (cts_buffer_count(&hand->access) >= ACCESS_BUFFER_BYTES_MAX)
        access_flush(&service->access, &hand->access);
    uint64_t now_ns = job->trace.app_ns != 0 ? job->trace.app_ns : cts_clock_mono_ns();
    atomic_store_explicit(&hand->current_since_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&hand->current, connection, memory_order_release);
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

/* Put another reply in the place of the one that was made, if none of it has left. */
static void replace_reply(struct connection *connection, struct job *job, int status,
                          const char *code)
{
    job->out.end -= cts_buffer_count(&job->out) - job->out_mark;
    if (status == 0) {
        job->exchange.status = 0;
        finish(connection, job, CONNECTION_CLOSED);
        return;
    }
    refuse(connection, job, status, code);
}

/* The body did not come as promised. True when that ended the connection. */
static bool body_failed(struct connection *connection, struct job *job)
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
    switch (job->body.error) {
    case -ETIMEDOUT:
        replace_reply(connection, job, 408, "body_timeout");
        break;
    default:
        if (job->body.status != 0) {
            replace_reply(connection, job, job->body.status, job->body.code);
            break;
        }
        snprintf(exchange->error_type, sizeof(exchange->error_type), "ctserve.client_disconnect");
        replace_reply(connection, job, 0, NULL);
        break;
    }
    return true;
}

enum verdict { VERDICT_GOES_ON, VERDICT_TURN_ENDED };

static enum verdict settle_unread_body(struct connection *connection, struct job *job)
{
    struct body *body = &job->body;

    if (body->owes_continue || (body->kind == BODY_LENGTH &&
                                body->left > SERVICE_DISCARD_BYTES_MAX)) {
        finish(connection, job, CONNECTION_LINGER);
        return VERDICT_TURN_ENDED;
    }
    if (cts_buffer_count(&body->raw) > 0) {
        struct cts_bytes raw = cts_buffer_view(&body->raw);
        if (body_discard(body, &raw) > 0) {
            finish(connection, job, CONNECTION_LINGER);
            return VERDICT_TURN_ENDED;
        }
        job->rest = raw;
    }
    if (body->has_ended)
        return VERDICT_GOES_ON;
    finish(connection, job, CONNECTION_DRAIN);
    return VERDICT_TURN_ENDED;
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

/* Let the application answer, and decide how the connection goes on. */
static enum verdict run(struct connection *connection, struct hand *hand, struct job *job)
{
    struct cts_exchange *exchange = &job->exchange;

    begin_trace(connection, job);
    prepare_exchange(connection, job);
    call_app(connection, hand, job);
    forget_buffered_body(job);
    if (exchange->wants_exit)
        service_exit(connection->service, exchange->exit_code);
    if (atomic_load_explicit(&job->answer, memory_order_relaxed) == JOB_ANSWER_ABORTED) {
        exchange->status = 500;
        if (exchange->error_type[0] == '\0')
            snprintf(exchange->error_type, sizeof(exchange->error_type), "ctserve.timeout");
        cts_buffer_drop(&job->out, cts_buffer_count(&job->out));
        /* When the worker leaves because of it, the row stays open: the agent makes the span of
         * it, with the stack and the reason, which this process does not know. */
        if (exchange->wants_exit)
            job->has_open_trace = false;
        end_trace(job, NULL);
        enter_linger(connection);
        return VERDICT_TURN_ENDED;
    }
    if (body_failed(connection, job))
        return VERDICT_TURN_ENDED;
    if (exchange->abort) {
        if (job->was_streamed || exchange->head_sent)
            (void)flush_out(connection, job);
        end_trace(job, "ctserve.aborted");
        enter_closed(connection);
        return VERDICT_TURN_ENDED;
    }
    if (!exchange->head_sent && cts_buffer_count(&job->out) == job->out_mark) {
        exchange->status = 500;
        exchange->must_close = true;
        if (cts_http_refusal(&job->out, 500, "") < 0) {
            refuse_without_memory(connection, job, job->out_mark);
            return VERDICT_TURN_ENDED;
        }
    }
    if (!exchange->may_keep_alive || exchange->must_close || exchange->wants_exit) {
        /* A client that said it goes on may have sent more already. */
        bool lingers = job->request.keep_alive || job->rest.count > 0 || !job->body.has_ended;
        job->rest.count = 0;
        finish(connection, job, lingers ? CONNECTION_LINGER : CONNECTION_CLOSED);
        return VERDICT_TURN_ENDED;
    }
    if (!job->body.has_ended)
        return settle_unread_body(connection, job);
    adopt_raw(job);
    return VERDICT_GOES_ON;
}

/* -- heads ---------------------------------------------------------------------------------- */
/* The body is not whole yet: keep the head where it stays, and wait. */
static enum verdict wait_for_body(struct connection *connection, struct job *job,
                                  struct cts_bytes head)
{
    const char *from = job->in.at;

    if (from != NULL && head.at >= from && head.at < from + job->in.capacity) {
        job->in.end = (size_t)(head.at - from) + head.count;
    } else {
        job->in.start = job->in.end = 0;
        cts_head_parser_reset(&job->parser);
        if (cts_buffer_put(&job->in, head.at, head.count) < 0 ||
            cts_http_parse_head(&job->parser, cts_buffer_view(&job->in), &job->request) != 0) {
            refuse(connection, job, 503, "no_memory");
            return VERDICT_TURN_ENDED;
        }
    }
    job->rest.count = 0;
    finish(connection, job, CONNECTION_BODY);
    return VERDICT_TURN_ENDED;
}

static bool body_is_enough(struct connection *connection, struct job *job)
{
    struct service *service = connection->service;
    size_t count = cts_buffer_count(&job->body.store);
    if (job->body.has_ended || count >= SERVICE_BODY_BUFFERED_MAX)
        return true;
    uint64_t all = atomic_fetch_add(&service->bodies_bytes, count - job->bodies_bytes) + count -
                   job->bodies_bytes;
    job->bodies_bytes = count;
    return all > SERVICE_BODIES_BUFFERED_MAX;
}

/* A head is whole, `tail` is what came behind it. */
static enum verdict serve_head(struct connection *connection, struct hand *hand, struct job *job,
                               struct cts_bytes head, struct cts_bytes tail)
{
    struct body *body = &job->body;

    job->has_head = true;
    job->head_ns = 0;
    body_begin(body, &job->request, &connection->service->rules);
    job->rest = tail;
    if (body->has_ended)
        return run(connection, hand, job);
    if (body->kind == BODY_LENGTH && tail.count >= body->left) {
        (void)body_decode(body, &job->rest, &body->ready);
        body->owes_continue = false;
        return run(connection, hand, job);
    }
    int r = body_store(body, &job->rest);
    if (r > 0) {
        refuse(connection, job, r, body->code);
        return VERDICT_TURN_ENDED;
    }
    if (body->has_ended)
        body->owes_continue = false;
    if (body->owes_continue || body_is_enough(connection, job))
        return run(connection, hand, job);
    job->head_ns = cts_clock_mono_ns();
    return wait_for_body(connection, job, head);
}

/* A proxy says first who the client is; that holds for the whole connection. */
static enum verdict read_proxy(struct connection *connection, struct job *job)
{
    const struct service *service = connection->service;
    struct cts_proxy proxy, *kept;
    const char *code = NULL;
    size_t used;
    int r = cts_http_proxy_read(job->rest, service->proxy_mode, &proxy, &used, &code);

    if (r == CTS_NEED_MORE) {
        finish(connection, job, CONNECTION_HEAD);
        return VERDICT_TURN_ENDED;
    }
    connection->awaits_proxy = false;
    if ((r > 0 || used > 0) && !trust_has(&service->proxies, connection->peer.remote_address)) {
        refuse(connection, job, 403, "forbidden_proxy");
        return VERDICT_TURN_ENDED;
    }
    if (r > 0) {
        refuse(connection, job, r, code);
        return VERDICT_TURN_ENDED;
    }
    if (used == 0)
        return VERDICT_GOES_ON;
    kept = malloc(sizeof(*kept));
    if (kept == NULL) {
        refuse(connection, job, 503, "no_memory");
        return VERDICT_TURN_ENDED;
    }
    *kept = proxy;
    connection->peer.proxy = kept;
    job->rest.at += used;
    job->rest.count -= used;
    if (job->rest.count > 0)
        return VERDICT_GOES_ON;
    finish(connection, job, CONNECTION_HEAD);
    return VERDICT_TURN_ENDED;
}

/* Serve every whole request in `job->rest`; the replies leave in one write. */
static void serve_bytes(struct connection *connection, struct hand *hand, struct job *job)
{
    if (CTS_UNLIKELY(connection->awaits_proxy)) {
        job->has_head = false;
        if (read_proxy(connection, job) == VERDICT_TURN_ENDED)
            return;
    }
    for (int served = 0;; served++) {
        struct cts_bytes bytes = job->rest;
        if (bytes.count == 0 || served == CONNECTION_REQUESTS_PER_TURN_MAX ||
            cts_buffer_count(&job->out) >= CONNECTION_REPLIES_GATHERED_BYTES_MAX) {
            finish(connection, job, CONNECTION_IDLE);
            return;
        }
        if (served > 0) {
            /* The reply before this one is gathered, not written; its span must not wait. */
            end_trace(job, NULL);
            job->start_ns = cts_clock_mono_ns();
            cts_head_parser_reset(&job->parser);
        }
        job->has_head = false;
        job->head_ns = 0;
        int r = cts_http_parse_head(&job->parser, bytes, &job->request);
        if (r == CTS_NEED_MORE) {
            if (served > 0)
                set_clock(connection, CLOCK_HEAD, true);
            finish(connection, job, CONNECTION_HEAD);
            return;
        }
        if (r > 0) {
            refuse(connection, job, r, job->parser.code);
            return;
        }
        struct cts_bytes head = {bytes.at, job->request.head_bytes};
        struct cts_bytes tail = {bytes.at + head.count, bytes.count - head.count};
        if (serve_head(connection, hand, job, head, tail) == VERDICT_TURN_ENDED)
            return;
    }
}

/* -- turns ---------------------------------------------------------------------------------- */
static void idle_turn(struct connection *connection, struct hand *hand)
{
    ssize_t n = connection->transport->read(connection->fd, hand->scratch, HAND_SCRATCH_BYTES);
    if (n == -EAGAIN) {
        if (connection->closes_when_idle)
            enter_closed(connection);
        return;
    }
    if (n <= 0) {
        enter_closed(connection);
        return;
    }
    struct job *job = job_lend(connection, hand);
    if (job == NULL) {
        no_memory(connection, true);
        return;
    }
    job->start_ns = cts_clock_mono_ns();
    job->rest = (struct cts_bytes){hand->scratch, (size_t)n};
    connection->state = CONNECTION_HEAD;
    serve_bytes(connection, hand, job);
}

static void head_turn(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;

    if (!connection->wants_turn) {
        if (cts_buffer_reserve(&job->in, CONNECTION_PARTIAL_READ_BYTES) < 0) {
            no_memory(connection, true);
            return;
        }
        ssize_t n = connection->transport->read(connection->fd, job->in.at + job->in.end,
                                                CONNECTION_PARTIAL_READ_BYTES);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            enter_closed(connection);
            return;
        }
        job->in.end += (size_t)n;
    } else {
        cts_head_parser_reset(&job->parser);
    }
    connection->wants_turn = false;
    job->rest = cts_buffer_view(&job->in);
    serve_bytes(connection, hand, job);
}

static void body_turn(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;
    ssize_t n = connection->transport->read(connection->fd, hand->scratch, HAND_SCRATCH_BYTES);

    if (n == -EAGAIN)
        return;
    if (n == 0) {
        body_cut_short(&job->body);
        refuse(connection, job, job->body.status, job->body.code);
        return;
    }
    if (n < 0) {
        memset(&job->exchange, 0, sizeof(job->exchange));
        begin_trace(connection, job);
        end_trace(job, "ctserve.client_disconnect");
        enter_closed(connection);
        return;
    }
    job->rest = (struct cts_bytes){hand->scratch, (size_t)n};
    int r = body_store(&job->body, &job->rest);
    if (r > 0) {
        refuse(connection, job, r, job->body.code);
        return;
    }
    if (!body_is_enough(connection, job)) {
        set_clock(connection, CLOCK_BODY, true);
        return;
    }
    if (run(connection, hand, job) == VERDICT_TURN_ENDED)
        return;
    if (job->rest.count == 0) {
        finish(connection, job, CONNECTION_IDLE);
        return;
    }
    end_trace(job, NULL);
    job->start_ns = cts_clock_mono_ns();
    cts_head_parser_reset(&job->parser);
    serve_bytes(connection, hand, job);
}

static void write_turn(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;
    if (job->after != CONNECTION_BODY)
        job->rest = cts_buffer_view(&job->in);
    finish(connection, job, job->after);
}

static void drain_turn(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;
    struct cts_bytes bytes = cts_buffer_view(&job->in);

    if (!connection->wants_turn) {
        ssize_t n = connection->transport->read(connection->fd, hand->scratch, HAND_SCRATCH_BYTES);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            enter_closed(connection);
            return;
        }
        bytes = (struct cts_bytes){hand->scratch, (size_t)n};
    }
    connection->wants_turn = false;
    size_t before = bytes.count;
    int r = body_discard(&job->body, &bytes);
    size_t used = before - bytes.count;
    if (r > 0 || (r != 0 && used > connection->discard_left)) {
        enter_linger(connection);
        return;
    }
    connection->discard_left -= used < connection->discard_left ? (uint32_t)used
                                                                : connection->discard_left;
    job->rest = bytes;
    if (r == 0) {
        cts_head_parser_reset(&job->parser);
        enter(connection, job, CONNECTION_IDLE);
    } else {
        set_clock(connection, CLOCK_BODY, true);
        job->in.start = job->in.end = 0;
    }
}

static void linger_turn(struct connection *connection, struct hand *hand)
{
    ssize_t n = connection->transport->read(connection->fd, hand->scratch, HAND_SCRATCH_BYTES);
    if (n == -EAGAIN)
        return;
    if (n <= 0 || (size_t)n >= connection->discard_left)
        enter_closed(connection);
    else
        connection->discard_left -= (uint32_t)n;
}

static void expired_turn(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;
    connection->has_expired = false;
    switch (connection->state) {
    case CONNECTION_HEAD:
        job->has_head = false;
        job->head_ns = 0;
        refuse(connection, job, 408, "head_timeout");
        break;
    case CONNECTION_BODY:
        refuse(connection, job, 408, "body_timeout");
        break;
    case CONNECTION_WRITE:
        end_trace(job, "ctserve.write_timeout");
        enter_closed(connection);
        break;
    default:
        enter_closed(connection);
        break;
    }
}

static void (*const turns[])(struct connection *, struct hand *) = {
    [CONNECTION_IDLE] = idle_turn,   [CONNECTION_HEAD] = head_turn,
    [CONNECTION_BODY] = body_turn,   [CONNECTION_WRITE] = write_turn,
    [CONNECTION_DRAIN] = drain_turn, [CONNECTION_LINGER] = linger_turn,
};

void connection_turn(struct connection *connection, struct hand *hand)
{
    if (connection->state == CONNECTION_CLOSED)
        return;
    if (connection->has_expired)
        expired_turn(connection, hand);
    else
        turns[connection->state](connection, hand);
    if (connection->job == NULL)
        return;
    if (connection->state == CONNECTION_IDLE || connection->state == CONNECTION_LINGER ||
        connection->state == CONNECTION_CLOSED)
        job_take_back(connection, hand);
}

void connection_abort_notice(struct hand *hand)
{
    struct connection *connection = atomic_load_explicit(&hand->current, memory_order_acquire);
    int open = JOB_ANSWER_OPEN;

    if (connection == NULL || !connection->transport->is_plain || connection->job->out_mark != 0)
        return;
    if (!atomic_compare_exchange_strong(&connection->job->answer, &open, JOB_ANSWER_ABORTED))
        return;
    if (send(connection->fd, abort_reply, sizeof(abort_reply) - 1,
             MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}
