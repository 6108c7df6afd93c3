/* agent_link.c - see agent_link.h. Wire: ctserve/agent_wire.h. */
#include "agent_link.h"

#include "fork.h"

#include "ctserve/buffer.h"
#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DELAY_MIN_S 0.1
#define DELAY_MAX_S 10.0
#define HEALTHY_S 10.0
#define PACKETS_PER_TURN_MAX 64

extern char **environ;

static void say(struct agent_link *link);
static void start_agent(struct agent_link *link);

/* -- rings ------------------------------------------------------------------------------------- */
void agent_link_init(struct agent_link *link)
{
    *link = (struct agent_link){.fd = -1, .next_ring_id = 1, .delay_s = DELAY_MIN_S};
    cts_list_init(&link->rings);
}

struct ring *agent_link_ring_new(struct agent_link *link, struct cts_slot_plan *plan, int *ret_r)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL) {
        *ret_r = -ENOMEM;
        return NULL;
    }
    plan->ring_id = link->next_ring_id;
    int r = cts_slot_create(plan, &ring->slot);
    if (r < 0) {
        free(ring);
        *ret_r = r;
        return NULL;
    }
    cts_list_init(&ring->link);
    r = cts_slot_view_open(ring->slot.map, ring->slot.map_bytes, false, &ring->view);
    if (r == 0)
        r = fork_list_put(ring->slot.fd, FORK_RING, ring);
    if (r == 0)
        r = fork_list_put(ring->slot.read_only_fd, FORK_RING, ring);
    if (r < 0) {
        agent_link_ring_cancel(link, ring);
        *ret_r = r;
        return NULL;
    }
    link->next_ring_id++;
    ring->facts = (struct cts_agent_ring){.ring_id = plan->ring_id, .slot_index = plan->slot_index,
                                          .generation = plan->generation, .age = plan->age};
    *ret_r = 0;
    return ring;
}

void agent_link_ring_begin(struct agent_link *link, struct ring *ring, pid_t pid)
{
    ring->facts.pid = pid;
    cts_list_put_last(&link->rings, &ring->link);
    say(link);
}

static void ring_free(struct ring *ring)
{
    cts_list_take(&ring->link);
    fork_list_take(ring->slot.fd);
    fork_list_take(ring->slot.read_only_fd);
    cts_slot_free(&ring->slot);
    free(ring->stack);
    free(ring);
}

void agent_link_ring_cancel(struct agent_link *link, struct ring *ring)
{
    ring_free(ring);
}

/* What the ring counted belongs to the totals from now on. `is_lost`: nobody emptied it; what was
 * begun and never told of is counted as lost with the agent. */
static void fold(struct agent_link *link, const struct ring *ring, bool is_lost)
{
    struct cts_slot_counts counts;
    struct cts_consumer_counts consumer;
    cts_slot_count(&ring->view, &counts);
    cts_consumer_read(&ring->view, &consumer);
    struct cts_agent_totals *totals = &link->totals;
    uint64_t told = consumer.acked + consumer.rejected + consumer.lost_uncommitted +
                    counts.dropped_ring_full;
    totals->started += counts.started;
    totals->acked += consumer.acked;
    totals->rejected += consumer.rejected;
    totals->lost_uncommitted += consumer.lost_uncommitted;
    totals->rows_full += counts.rows_full;
    totals->dropped_ring_full += counts.dropped_ring_full;
    for (size_t i = 0; i < CTS_DROP_REASONS_COUNT; i++) {
        totals->dropped[i] += consumer.dropped[i];
        told += consumer.dropped[i];
    }
    if (is_lost && counts.started > told)
        totals->dropped[CTS_DROP_AGENT_LOST] += counts.started - told;
    totals->rings_retired++;
}

static void retire(struct agent_link *link, struct ring *ring, bool is_lost)
{
    fold(link, ring, is_lost);
    link->dead_count--;
    if (ring->is_said && link->forgets_count < AGENT_FORGETS_MAX)
        link->forgets[link->forgets_count++] = ring->facts.ring_id;
    ring_free(ring);
}

/* A collector that is away for hours must not make the master keep every ring of a crash loop. */
static void bound_dead_rings(struct agent_link *link)
{
    size_t allowed = link->is_wanted ? AGENT_RINGS_RETAINED_MAX : 0;
    CTS_LIST_EACH(&link->rings, at) {
        struct ring *ring = CTS_CONTAINER(at, struct ring, link);
        if (link->dead_count <= allowed)
            return;
        if (!ring->is_dead)
            continue;
        if (link->is_wanted)
            cts_warning("ctserve-agent has not emptied ring %llu: given up, its spans are lost",
                        (unsigned long long)ring->facts.ring_id);
        retire(link, ring, true);
    }
}

void agent_link_event(struct agent_link *link, struct ring *ring, enum cts_worker_event event,
                      enum cts_gone_reason reason, int wait_status)
{
    ring->events[event] = (struct cts_agent_worker){
        .ring_id = ring->facts.ring_id, .pid = ring->facts.pid, .event = event, .reason = reason,
        .wait_status = wait_status, .mono_ns = cts_clock_mono_ns(),
        .thread_id = ring->events[CTS_WORKER_EVENT_STUCK].thread_id,
    };
    ring->events_said &= ~(1u << event);
    if (event == CTS_WORKER_EVENT_GONE && !ring->is_dead) {
        ring->is_dead = true;
        link->dead_count++;
        say(link);
        bound_dead_rings(link);
        return;
    }
    say(link);
}

void agent_link_stack(struct ring *ring, const char *text, size_t bytes, int thread_id)
{
    ring->events[CTS_WORKER_EVENT_STUCK].thread_id = thread_id;
    if (bytes > AGENT_STACK_BYTES_MAX)
        bytes = AGENT_STACK_BYTES_MAX;
    char *copy = malloc(bytes + 1);
    if (copy == NULL)
        return;
    memcpy(copy, text, bytes);
    free(ring->stack);
    ring->stack = copy;
    ring->stack_bytes = bytes;
}

/* -- speaking ---------------------------------------------------------------------------------- */
static int say_hello(struct agent_link *link)
{
    struct cts_buffer lines = CTS_BUFFER_EMPTY;
    const char *api = link->api[0] != '\0' ? link->api : link->asked_api;
    int r = cts_buffer_printf(&lines, "%sapi=%s\ntoken=%s\n", link->hello, api, link->token);
    if (r == 0) {
        struct cts_bytes view = cts_buffer_view(&lines);
        r = cts_agent_send(link->fd, CTS_AGENT_HELLO, &link->totals, sizeof(link->totals), view.at,
                           view.count, -1);
    }
    cts_buffer_free(&lines);
    if (r == 0) {
        link->hello_said = true;
        link->forgets_count = 0; /* the totals of this HELLO hold them already */
    }
    return r;
}

static int say_ring(struct agent_link *link, struct ring *ring)
{
    if (!ring->is_said) {
        int r = cts_agent_send(link->fd, CTS_AGENT_RING, &ring->facts, sizeof(ring->facts), NULL,
                               0, ring->slot.fd);
        if (r < 0)
            return r;
        ring->is_said = true;
    }
    for (int event = CTS_WORKER_EVENT_BOOTING; event <= CTS_WORKER_EVENT_GONE; event++) {
        struct cts_agent_worker *body = &ring->events[event];
        if (body->event == 0 || (ring->events_said & (1u << event)))
            continue;
        bool has_stack = event >= CTS_WORKER_EVENT_STUCK && ring->stack != NULL;
        body->stack_bytes = has_stack ? (uint32_t)ring->stack_bytes : 0;
        int r = cts_agent_send(link->fd, CTS_AGENT_WORKER, body, sizeof(*body),
                               has_stack ? ring->stack : NULL, body->stack_bytes, -1);
        if (r < 0)
            return r;
        ring->events_said |= 1u << event;
    }
    return 0;
}

static int say_forgets(struct agent_link *link)
{
    while (link->forgets_count > 0) {
        uint64_t ring_id = link->forgets[link->forgets_count - 1];
        int r = cts_agent_send(link->fd, CTS_AGENT_FORGET, &ring_id, sizeof(ring_id),
                               &link->totals, sizeof(link->totals), -1);
        if (r < 0)
            return r;
        link->forgets_count--;
    }
    return 0;
}

static int say_all(struct agent_link *link)
{
    int r = link->hello_said ? 0 : say_hello(link);
    CTS_LIST_EACH(&link->rings, at) {
        if (r == 0)
            r = say_ring(link, CTS_CONTAINER(at, struct ring, link));
    }
    if (r == 0)
        r = say_forgets(link);
    if (r == 0 && link->is_stopping && !link->stop_said) {
        r = cts_agent_send(link->fd, CTS_AGENT_STOP, &link->stop_deadline_ms,
                           sizeof(link->stop_deadline_ms), NULL, 0, -1);
        link->stop_said = r == 0;
    }
    return r;
}

static void watch(struct agent_link *link, int events)
{
    if (link->io.events == events && ev_is_active(&link->io))
        return;
    ev_io_stop(link->plan.loop, &link->io);
    ev_io_set(&link->io, link->fd, events);
    ev_io_start(link->plan.loop, &link->io);
}

/* Say what the agent has not heard; what does not fit now is said when it reads on. */
static void say(struct agent_link *link)
{
    if (link->fd < 0)
        return;
    int r = say_all(link);
    watch(link, r == -EAGAIN ? EV_READ | EV_WRITE : EV_READ);
    /* Any other failure: it is dying. waitpid tells, and the next one hears everything. */
}

/* -- listening --------------------------------------------------------------------------------- */
static struct ring *ring_called(struct agent_link *link, struct cts_bytes body)
{
    uint64_t ring_id;
    if (body.count < sizeof(ring_id))
        return NULL;
    memcpy(&ring_id, body.at, sizeof(ring_id));
    CTS_LIST_EACH(&link->rings, at) {
        struct ring *ring = CTS_CONTAINER(at, struct ring, link);
        if (ring->facts.ring_id == ring_id)
            return ring;
    }
    return NULL;
}

/* The value of `key` ("api=") among the lines of `body`, copied if it fits. */
static void copy_value(struct cts_bytes body, const char *key, char *to, size_t to_bytes)
{
    size_t key_bytes = strlen(key);
    const char *at = body.at, *end = body.at + body.count;
    to[0] = '\0';
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (line_end == NULL)
            line_end = end;
        size_t bytes = (size_t)(line_end - at);
        if (bytes > key_bytes && memcmp(at, key, key_bytes) == 0 && bytes - key_bytes < to_bytes) {
            struct cts_bytes value = {at + key_bytes, bytes - key_bytes};
            cts_bytes_escape(value, to, to_bytes);
            return;
        }
        at = line_end + 1;
    }
}

static void hear_ready(struct agent_link *link, struct cts_bytes body)
{
    char api[sizeof(link->api)];
    copy_value(body, "api=", api, sizeof(api));
    copy_value(body, "token=", link->token, sizeof(link->token));
    bool is_off = strcmp(api, "off") == 0 || api[0] == '\0';
    bool is_news = strcmp(api, link->api) != 0;
    if (!is_off)
        memcpy(link->api, api, sizeof(api));
    if (is_news && link->plan.on_ready != NULL)
        link->plan.on_ready(link->plan.user, is_off ? "" : link->api, link->token);
}

static void hear_note(struct cts_bytes body)
{
    uint32_t level;
    char text[1024];
    if (body.count <= sizeof(level))
        return;
    memcpy(&level, body.at, sizeof(level));
    struct cts_bytes line = {body.at + sizeof(level), body.count - sizeof(level)};
    cts_bytes_escape(line, text, sizeof(text));
    cts_log(level > CTS_LOG_CRITICAL ? CTS_LOG_WARNING : (enum cts_log_level)level, "agent: %s",
            text);
}

static void hear(struct agent_link *link, enum cts_agent_message kind, struct cts_bytes body)
{
    struct ring *ring;
    switch (kind) {
    case CTS_AGENT_READY:
        hear_ready(link, body);
        break;
    case CTS_AGENT_RETIRED:
        ring = ring_called(link, body);
        if (ring != NULL && ring->is_dead)
            retire(link, ring, false);
        break;
    case CTS_AGENT_RECYCLE:
        ring = ring_called(link, body);
        if (ring != NULL && !ring->is_dead && link->plan.on_recycle != NULL)
            link->plan.on_recycle(link->plan.user, ring);
        break;
    case CTS_AGENT_NOTE:
        hear_note(body);
        break;
    default:
        break;
    }
}

static void hang_up(struct agent_link *link)
{
    if (link->fd < 0)
        return;
    ev_io_stop(link->plan.loop, &link->io);
    fork_list_close(&link->fd);
}

static void on_socket(struct ev_loop *loop, ev_io *io, int events)
{
    struct agent_link *link = io->data;
    static _Alignas(16) unsigned char space[CTS_AGENT_PACKET_BYTES_MAX];
    for (int i = 0; (events & EV_READ) && i < PACKETS_PER_TURN_MAX && link->fd >= 0; i++) {
        enum cts_agent_message kind;
        struct cts_bytes body;
        int attached_fd = -1;
        int r = cts_agent_receive(link->fd, space, &kind, &body, &attached_fd);
        cts_fd_close(&attached_fd);
        if (r == 0)
            hear(link, kind, body);
        else if (r == -EAGAIN)
            break;
        else if (r != -EBADMSG)
            hang_up(link);
    }
    /* Refused by the kernel: agent_link_watch() asks again. A service that stops is not looked at any
     * more, and lets the agent no longer than its deadline. */
    if ((events & EV_ERROR) == 0 || link->is_stopping)
        say(link);
}

void agent_link_watch(struct agent_link *link)
{
    if (link->fd >= 0 && !ev_is_active(&link->io))
        say(link);
}

/* -- its life ---------------------------------------------------------------------------------- */
static int spawn(const char *path, int socket_fd, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char *const arguments[] = {"ctserve-agent", NULL};
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -ENOMEM;
    if (posix_spawnattr_init(&attributes) != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -ENOMEM;
    }
    /* Its own process group: Ctrl-C ends the master, and the master tells the agent when. */
    int r = posix_spawn_file_actions_adddup2(&actions, socket_fd, CTS_AGENT_FD);
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(&actions, CTS_AGENT_FD + 1);
    if (r == 0)
        r = posix_spawnattr_setsigmask(&attributes, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(&attributes, &all);
    if (r == 0)
        r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                      POSIX_SPAWN_SETPGROUP);
    if (r == 0)
        r = posix_spawn(ret_pid, path, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

static void start_later(struct agent_link *link)
{
    ev_timer_stop(link->plan.loop, &link->timer);
    ev_timer_set(&link->timer, link->delay_s, 0);
    ev_timer_start(link->plan.loop, &link->timer);
    link->delay_s = link->delay_s * 2 > DELAY_MAX_S ? DELAY_MAX_S : link->delay_s * 2;
}

static int open_line(struct agent_link *link)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    int r = spawn(link->plan.agent_path, ends[1], &link->pid);
    close(ends[1]);
    if (r == 0)
        r = fork_list_put(ends[0], FORK_AGENT, NULL);
    if (r < 0) {
        close(ends[0]);
        return r;
    }
    link->fd = ends[0];
    return 0;
}

static void start_agent(struct agent_link *link)
{
    link->hello_said = link->stop_said = false;
    link->forgets_count = 0;
    CTS_LIST_EACH(&link->rings, at) {
        struct ring *ring = CTS_CONTAINER(at, struct ring, link);
        ring->is_said = false;
        ring->events_said = 0;
    }
    link->pid = 0;
    int r = open_line(link);
    if (r < 0) {
        bool is_final = r == -ENOENT || r == -EACCES || r == -ENOEXEC;
        cts_warning("can't start ctserve-agent (%s): %s%s", link->plan.agent_path, strerror(-r),
                    is_final ? "; traces are not collected" : "");
        if (is_final) {
            link->is_wanted = false;
            bound_dead_rings(link);
        } else {
            start_later(link);
        }
        return;
    }
    link->started_at = ev_now(link->plan.loop);
    ev_io_set(&link->io, link->fd, EV_READ);
    ev_io_start(link->plan.loop, &link->io);
    say(link);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct agent_link *link = timer->data;
    if (!link->is_stopping) {
        start_agent(link);
    } else if (link->pid > 0) {
        cts_debug("ctserve-agent did not leave in time: killed");
        kill(link->pid, SIGKILL);
        hang_up(link);
    }
}

void agent_link_start(struct agent_link *link, const struct agent_link_plan *plan)
{
    link->plan = *plan;
    /* A reload frees the settings that it was taken from. */
    snprintf(link->asked_api, sizeof(link->asked_api), "%s", plan->api);
    link->plan.api = link->asked_api;
    link->hello = strdup(plan->hello);
    if (link->hello == NULL)
        return;
    link->is_wanted = true;
    ev_init(&link->io, on_socket);
    link->io.data = link;
    ev_init(&link->timer, on_timer);
    link->timer.data = link;
    start_agent(link);
}

bool agent_link_reaped(struct agent_link *link, pid_t pid, int status)
{
    if (link->pid == 0 || pid != link->pid)
        return false;
    link->pid = 0;
    hang_up(link);
    if (link->is_stopping || !link->is_wanted) {
        ev_timer_stop(link->plan.loop, &link->timer);
        return true;
    }
    if (WIFSIGNALED(status))
        cts_warning("ctserve-agent (pid: %d) was ended by signal %d; starting another", (int)pid,
                    WTERMSIG(status));
    else
        cts_warning("ctserve-agent (pid: %d) exited with code %d; starting another", (int)pid,
                    WEXITSTATUS(status));
    if (ev_now(link->plan.loop) - link->started_at > HEALTHY_S)
        link->delay_s = DELAY_MIN_S;
    start_later(link);
    return true;
}

void agent_link_stop(struct agent_link *link, uint32_t deadline_ms)
{
    if (link->is_stopping)
        return;
    link->is_stopping = true;
    link->stop_deadline_ms = deadline_ms;
    if (!link->is_wanted)
        return;
    ev_timer_stop(link->plan.loop, &link->timer);
    if (link->pid == 0)
        return;
    ev_timer_set(&link->timer, deadline_ms / 1000.0 + 0.2, 0);
    ev_timer_start(link->plan.loop, &link->timer);
    say(link);
}

bool agent_link_is_idle(const struct agent_link *link)
{
    return link->pid == 0;
}

void agent_link_done(struct agent_link *link)
{
    if (link->is_wanted || link->fd >= 0) {
        ev_timer_stop(link->plan.loop, &link->timer);
        hang_up(link);
    }
    CTS_LIST_EACH(&link->rings, at)
        ring_free(CTS_CONTAINER(at, struct ring, link));
    free(link->hello);
    link->hello = NULL;
    link->is_wanted = false;
}
