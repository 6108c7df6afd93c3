/* master_link.c - packets. */
#include "master_link.h"

#include "ctserve/list.h"
#include "ctserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PACKETS_PER_TURN_MAX 64

struct waiting {
    struct cts_list link;
    enum cts_agent_message kind;
    size_t bytes;
    char body[];
};

struct master_link {
    struct master_link_plan plan;
    struct ev_io in, out;
    struct cts_list queue;
    size_t queue_count;
    uint64_t bad_packets, lost_packets;
    bool is_lost;
    char space[CTS_AGENT_PACKET_BYTES_MAX] __attribute__((aligned(8)));
};

/* -- HELLO ------------------------------------------------------------------------------------ */
static void copy(struct cts_bytes value, char *to, size_t to_bytes)
{
    size_t count = value.count < to_bytes ? value.count : to_bytes - 1;
    memcpy(to, value.at, count);
    to[count] = '\0';
}

static int64_t number_of(struct cts_bytes value)
{
    char text[32];
    copy(value, text, sizeof(text));
    return strtoll(text, NULL, 10);
}

static void hello_set(struct hello *hello, struct cts_bytes key, struct cts_bytes value)
{
    const struct {
        const char *key;
        char *text;
        size_t bytes;
    } texts[] = {
        {"server_version", hello->server_version, sizeof(hello->server_version)},
        {"app", hello->app, sizeof(hello->app)},
        {"service_name", hello->service_name, sizeof(hello->service_name)},
        {"otlp_endpoint", hello->endpoint, sizeof(hello->endpoint)},
        {"otlp_protocol", hello->protocol, sizeof(hello->protocol)},
        {"api", hello->api, sizeof(hello->api)},
        {"token", hello->token, sizeof(hello->token)},
        {"bind", hello->bind, sizeof(hello->bind)},
    };
    for (size_t i = 0; i < CTS_COUNT(texts); i++) {
        if (cts_bytes_equal(key, cts_bytes_of(texts[i].key)))
            copy(value, texts[i].text, texts[i].bytes);
    }
    if (cts_bytes_equal(key, cts_bytes_of("master_pid")))
        hello->master_pid = (int32_t)number_of(value);
    else if (cts_bytes_equal(key, cts_bytes_of("uid")))
        hello->uid = number_of(value);
    else if (cts_bytes_equal(key, cts_bytes_of("gid")))
        hello->gid = number_of(value);
    else if (cts_bytes_equal(key, cts_bytes_of("workers")))
        hello->workers = number_of(value);
    else if (cts_bytes_equal(key, cts_bytes_of("started_real_ns")))
        hello->started_real_ns = (uint64_t)number_of(value);
}

void hello_read(struct cts_bytes body, struct hello *ret_hello)
{
    *ret_hello = (struct hello){.uid = -1, .gid = -1};
    if (body.count < sizeof(ret_hello->totals))
        return;
    memcpy(&ret_hello->totals, body.at, sizeof(ret_hello->totals));
    const char *at = body.at + sizeof(ret_hello->totals);
    const char *end = body.at + body.count;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL)
            line_end = end;
        const char *equals = memchr(at, '=', (size_t)(line_end - at));
        if (equals != NULL)
            hello_set(ret_hello, (struct cts_bytes){at, (size_t)(equals - at)},
                      (struct cts_bytes){equals + 1, (size_t)(line_end - equals) - 1});
        at = line_end + 1;
    }
}

/* -- in --------------------------------------------------------------------------------------- */
static void take_forget(struct master_link *link, struct cts_bytes body)
{
    uint64_t ring_id;
    struct cts_agent_totals totals;
    memcpy(&ring_id, body.at, sizeof(ring_id));
    memcpy(&totals, body.at + sizeof(ring_id), sizeof(totals));
    link->plan.forget(link->plan.context, ring_id, &totals);
}

static void take_worker(struct master_link *link, struct cts_bytes body)
{
    struct cts_agent_worker worker;
    memcpy(&worker, body.at, sizeof(worker));
    size_t left = body.count - sizeof(worker);
    struct cts_bytes stack = {body.at + sizeof(worker),
                              worker.stack_bytes < left ? worker.stack_bytes : left};
    link->plan.worker(link->plan.context, &worker, stack);
}

/* False for a packet that is too short or unknown. */
static bool take_packet(struct master_link *link, enum cts_agent_message kind,
                        struct cts_bytes body, int fd)
{
    struct hello hello;
    struct cts_agent_ring ring;
    uint32_t deadline_ms;
    switch ((int)kind) {
    case CTS_AGENT_HELLO:
        if (body.count < sizeof(struct cts_agent_totals))
            return false;
        hello_read(body, &hello);
        link->plan.hello(link->plan.context, &hello);
        return true;
    case CTS_AGENT_RING:
        if (body.count < sizeof(ring) || fd < 0)
            return false;
        memcpy(&ring, body.at, sizeof(ring));
        link->plan.ring(link->plan.context, &ring, fd);
        return true;
    case CTS_AGENT_WORKER:
        if (body.count < sizeof(struct cts_agent_worker))
            return false;
        take_worker(link, body);
        return true;
    case CTS_AGENT_FORGET:
        if (body.count < sizeof(uint64_t) + sizeof(struct cts_agent_totals))
            return false;
        take_forget(link, body);
        return true;
    case CTS_AGENT_STOP:
        if (body.count < sizeof(deadline_ms))
            return false;
        memcpy(&deadline_ms, body.at, sizeof(deadline_ms));
        link->plan.stop(link->plan.context, deadline_ms);
        return true;
    default:
        return false;
    }
}

static void become_lost(struct master_link *link)
{
    link->is_lost = true;
    ev_io_stop(link->plan.loop, &link->in);
    ev_io_stop(link->plan.loop, &link->out);
    link->plan.lost(link->plan.context);
}

static void on_readable(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct master_link *link = CTS_CONTAINER(io, struct master_link, in);
    for (int i = 0; i < PACKETS_PER_TURN_MAX; i++) {
        enum cts_agent_message kind;
        struct cts_bytes body;
        int fd = -1;
        int r = cts_agent_receive(link->plan.fd, link->space, &kind, &body, &fd);
        if (r == -EAGAIN)
            return;
        if (r == -EBADMSG || (r == 0 && !take_packet(link, kind, body, fd)))
            link->bad_packets++;
        cts_fd_close(&fd);
        if (r < 0 && r != -EBADMSG) {
            become_lost(link);
            return;
        }
    }
}

/* -- out -------------------------------------------------------------------------------------- */
static void on_writable(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct master_link *link = CTS_CONTAINER(io, struct master_link, out);
    CTS_LIST_EACH(&link->queue, each) {
        struct waiting *waiting = CTS_CONTAINER(each, struct waiting, link);
        if (cts_agent_send(link->plan.fd, waiting->kind, waiting->body, waiting->bytes, NULL, 0,
                           -1) == -EAGAIN)
            return;
        cts_list_take(&waiting->link);
        link->queue_count--;
        free(waiting);
    }
    ev_io_stop(loop, io);
}

void master_link_say(struct master_link *link, enum cts_agent_message kind, const void *body,
                     size_t body_bytes)
{
    if (link->is_lost)
        return;
    if (cts_list_is_empty(&link->queue) &&
        cts_agent_send(link->plan.fd, kind, body, body_bytes, NULL, 0, -1) != -EAGAIN)
        return;
    struct waiting *waiting =
        link->queue_count < MASTER_LINK_QUEUE_MAX ? malloc(sizeof(*waiting) + body_bytes) : NULL;
    if (waiting == NULL) {
        link->lost_packets++;
        return;
    }
    waiting->kind = kind;
    waiting->bytes = body_bytes;
    memcpy(waiting->body, body, body_bytes);
    cts_list_put_last(&link->queue, &waiting->link);
    link->queue_count++;
    ev_io_start(link->plan.loop, &link->out);
}

void master_link_note(struct master_link *link, int level, const char *line)
{
    char body[sizeof(uint32_t) + 1024];
    uint32_t number = (uint32_t)level;
    size_t count = strlen(line);
    if (link->is_lost) {
        cts_log((enum cts_log_level)level, "%s", line);
        return;
    }
    if (count > sizeof(body) - sizeof(number))
        count = sizeof(body) - sizeof(number);
    memcpy(body, &number, sizeof(number));
    memcpy(body + sizeof(number), line, count);
    master_link_say(link, CTS_AGENT_NOTE, body, sizeof(number) + count);
}

uint64_t master_link_bad_packets(const struct master_link *link)
{
    return link->bad_packets;
}

struct master_link *master_link_new(const struct master_link_plan *plan)
{
    struct master_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        return NULL;
    link->plan = *plan;
    cts_list_init(&link->queue);
    ev_io_init(&link->in, on_readable, plan->fd, EV_READ);
    ev_io_init(&link->out, on_writable, plan->fd, EV_WRITE);
    ev_io_start(plan->loop, &link->in);
    return link;
}

void master_link_free(struct master_link *link)
{
    if (link == NULL)
        return;
    ev_io_stop(link->plan.loop, &link->in);
    ev_io_stop(link->plan.loop, &link->out);
    CTS_LIST_EACH(&link->queue, each) {
        free(CTS_CONTAINER(each, struct waiting, link));
    }
    free(link);
}
