/* connection.c - see connection.h. */
#include "connection.h"
#include "serving.h"

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

static const struct cts_bytes nothing = {"", 0};

/* For when there is no memory to make one. */
static const char no_memory_reply[] =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/html\r\n"
    "Content-Length: 137\r\n\r\n"
    "<html>\n  <head>\n    <title>Service Unavailable</title>\n  </head>\n  <body>\n"
    "    <h1><p>Service Unavailable</p></h1>\n    \n  </body>\n</html>\n";

/* -- birth and death ------------------------------------------------------------------------ */
/* "192.0.2.1" of four bytes in network order; inet_ntop() does it through printf, a tenth of what a
 * new connection costs us. `to` holds INET_ADDRSTRLEN bytes. */
static void write_v4(const uint8_t address[4], char *to)
{
    for (int i = 0; i < 4; i++) {
        unsigned part = address[i];
        if (part >= 100)
            *to++ = (char)('0' + part / 100);
        if (part >= 10)
            *to++ = (char)('0' + part / 10 % 10);
        *to++ = (char)('0' + part % 10);
        *to++ = i < 3 ? '.' : '\0';
    }
}

static void fill_peer(struct cts_peer *peer, const struct listener *listener, int fd,
                      const struct sockaddr *address)
{
    peer->fd = fd;
    peer->is_unix = listener->is_unix;
    peer->server_port = listener->server_port;
    _Static_assert(sizeof(peer->server_name) == sizeof(listener->server_name), "copied whole");
    memcpy(peer->server_name, listener->server_name, sizeof(peer->server_name));
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        write_v4((const uint8_t *)&v4->sin_addr, peer->remote_address);
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
    connection->peer.is_trusted = trust_has_peer(&service->forwarded, address);
    connection->awaits_proxy = service->proxy_mode != CTS_PROXY_OFF;
    return connection;
}

void connection_free(struct connection *connection)
{
    if (connection->job != NULL)
        hand_take_back(NULL, connection);
    cts_fd_close(&connection->fd);
    free((void *)(uintptr_t)connection->peer.proxy);
    free(connection);
}

int connection_events(const struct connection *connection)
{
    return connection->state == CONNECTION_WRITE ? EV_WRITE : EV_READ;
}

/* -- from state to state -------------------------------------------------------------------- */
static void set_clock(struct connection *connection, enum connection_clock clock, bool restart)
{
    connection->clock = (uint8_t)clock;
    connection->clock_restarts = connection->clock_restarts || restart;
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
            nothing, false);
    enter_linger(connection);
}

/* Another request came whole or in part behind this one. */
static void enter_next_head(struct connection *connection, struct job *job)
{
    connection->state = CONNECTION_HEAD;
    connection->wants_turn = true;
    job->start_ns = cts_clock_mono_ns();
    set_clock(connection, CLOCK_HEAD, true);
}

static void enter(struct connection *connection, struct job *job, enum connection_state state)
{
    bool bytes_wait = job->rest.count > 0;

    if (state != CONNECTION_CLOSED && state != CONNECTION_LINGER && state != CONNECTION_BODY &&
        job_keep_rest(job) < 0) {
        no_memory(connection, state != CONNECTION_DRAIN);
        return;
    }
    connection->state = (uint8_t)state;
    connection->wants_turn = false;
    switch (state) {
    case CONNECTION_IDLE:
        if (bytes_wait)
            enter_next_head(connection, job);
        else
            set_clock(connection, CLOCK_KEPT, true);
        break;
    case CONNECTION_HEAD:
        set_clock(connection, CLOCK_HEAD, false);
        break;
    case CONNECTION_BODY:
        set_clock(connection, CLOCK_BODY, true);
        break;
    case CONNECTION_DRAIN:
        set_clock(connection, CLOCK_BODY, true);
        body_wait_begins(&job->body, cts_clock_mono_ns());
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

/* The kernel is full: wait until the client has read some. `sent` says that it has. */
static void enter_write(struct connection *connection, struct job *job, enum connection_state after,
                        bool sent)
{
    if (after != CONNECTION_BODY && job_keep_rest(job) < 0)
        after = CONNECTION_LINGER;
    job->after = (uint8_t)after;
    connection->state = CONNECTION_WRITE;
    connection->wants_turn = false;
    set_clock(connection, CLOCK_WRITE, sent);
    /* Many clients that read slowly must not use up the table of running requests: what is still
     * to be told of this one is only whether it read to the end. */
    if (cts_trace_is_crowded())
        serving_end(job, NULL);
}

/* Write what there is, then go to `state`; stop in WRITE when the kernel is full. */
static void finish(struct connection *connection, struct job *job, enum connection_state state)
{
    bool waited = connection->state == CONNECTION_WRITE;
    uint64_t before = CTS_UNLIKELY(waited) ? outbox_count(&job->out) : 0;
    int r = job_flush(job);

    if (CTS_UNLIKELY(r == -EAGAIN)) {
        enter_write(connection, job, state, !waited || outbox_count(&job->out) < before);
        return;
    }
    if (CTS_UNLIKELY(r < 0)) {
        serving_end(job, "ctserve.client_disconnect");
        enter_closed(connection);
        return;
    }
    serving_end(job, NULL);
    if (CTS_UNLIKELY(job->owes_no_memory)) {
        job->owes_no_memory = false;
        no_memory(connection, true);
        return;
    }
    enter(connection, job, state);
}

static void refuse(struct connection *connection, struct job *job, int status, const char *code)
{
    finish(connection, job, serving_refuse(job, status, code));
}

/* -- bytes that came ------------------------------------------------------------------------ */
enum verdict { VERDICT_GOES_ON, VERDICT_TURN_ENDED };

static enum verdict run(struct connection *connection, struct hand *hand, struct job *job)
{
    enum connection_state state = serving_run(job, hand);
    if (CTS_LIKELY(state == CONNECTION_IDLE && outbox_is_plain(&job->out)))
        return VERDICT_GOES_ON;
    finish(connection, job, state);
    return VERDICT_TURN_ENDED;
}

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

/* A head is whole, `tail` is what came behind it. */
static enum verdict serve_head(struct connection *connection, struct hand *hand, struct job *job,
                               struct cts_bytes head, struct cts_bytes tail)
{
    struct body *body = &job->body;

    job->has_head = true;
    job->head_ns = 0;
    body_begin(body, &job->request);
    job->rest = tail;
    if (body->has_ended)
        return run(connection, hand, job);
    if (body->kind == BODY_LENGTH && tail.count >= body->left) {
        (void)!body_decode(body, &job->rest, &body->ready);
        body->owes_continue = false;
        return run(connection, hand, job);
    }
    if (!body->owes_continue)
        body_expect(body);
    int r = body_store(body, &job->rest);
    if (r > 0) {
        refuse(connection, job, r, body->code);
        return VERDICT_TURN_ENDED;
    }
    if (body->has_ended)
        body->owes_continue = false;
    if (body->has_ended || body->owes_continue)
        return run(connection, hand, job);
    job->head_ns = cts_clock_mono_ns();
    body_wait_begins(body, job->head_ns);
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
            cts_buffer_count(&job->out.bytes) >= CONNECTION_REPLIES_GATHERED_BYTES_MAX) {
            finish(connection, job, CONNECTION_IDLE);
            return;
        }
        if (served > 0) {
            /* The reply before this one is gathered, not written; its span must not wait. */
            serving_end(job, NULL);
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
    struct job *job = hand_lend(hand, connection);
    if (job == NULL) {
        no_memory(connection, true);
        return;
    }
    job->start_ns = hand->turn_ns != 0 ? hand->turn_ns : cts_clock_mono_ns();
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

/* One read: straight to where the body is kept, if it has such a place. A count, 0 at the end, or
 * -errno; *ret_verdict is as body_store's. */
static ssize_t read_body(struct connection *connection, struct hand *hand, struct job *job,
                         int *ret_verdict)
{
    struct body_room room = body_room(&job->body);
    if (room.count > 0) {
        ssize_t n = connection->transport->read(connection->fd, room.at, room.count);
        if (n > 0)
            *ret_verdict = body_filled(&job->body, (size_t)n);
        return n;
    }
    ssize_t n = connection->transport->read(connection->fd, hand->scratch, HAND_SCRATCH_BYTES);
    if (n > 0) {
        job->rest = (struct cts_bytes){hand->scratch, (size_t)n};
        *ret_verdict = body_store(&job->body, &job->rest);
    }
    return n;
}

static void body_turn(struct connection *connection, struct hand *hand)
{
    struct job *job = connection->job;
    struct body *body = &job->body;
    int verdict = CTS_NEED_MORE;

    job->rest.count = 0;
    ssize_t n = read_body(connection, hand, job, &verdict);
    if (n == -EAGAIN)
        return;
    if (n < 0) {
        serving_give_up(job, "ctserve.client_disconnect");
        enter_closed(connection);
        return;
    }
    uint64_t now_ns = cts_clock_mono_ns();
    if (n == 0)
        body_cut_short(body);
    if (n == 0 || verdict > 0) {
        refuse(connection, job, body->status, body->code);
        return;
    }
    if (verdict == CTS_NEED_MORE && body_is_too_slow(body, now_ns)) {
        refuse(connection, job, 408, "body_too_slow");
        return;
    }
    if (verdict == CTS_NEED_MORE && !body_is_full(body)) {
        set_clock(connection, CLOCK_BODY, true);
        return;
    }
    body_wait_ends(body, now_ns);
    if (run(connection, hand, job) == VERDICT_TURN_ENDED)
        return;
    if (job->rest.count == 0) {
        finish(connection, job, CONNECTION_IDLE);
        return;
    }
    serving_end(job, NULL);
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
    if (r > 0 || (r != 0 && (used > connection->discard_left ||
                             body_is_too_slow(&job->body, cts_clock_mono_ns())))) {
        enter_linger(connection);
        return;
    }
    connection->discard_left -=
        used < connection->discard_left ? (uint32_t)used : connection->discard_left;
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
        serving_end(job, "ctserve.write_timeout");
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
        hand_take_back(hand, connection);
}
