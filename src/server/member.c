/* member.c - see member.h. */
#include "member.h"

#include "berths.h"
#include "fork.h"
#include "signals.h"
#include "supervisor.h"

#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SPARE_ROWS 48u
#define LETTERS_PER_TURN_MAX 16

/* -- making ------------------------------------------------------------------------------------ */
static int64_t draw_max_requests(const struct cts_settings *settings)
{
    int64_t limit = cts_settings_int(settings, CTS_SETTING_max_requests);
    int64_t jitter = cts_settings_int(settings, CTS_SETTING_max_requests_jitter);
    uint64_t drawn = 0;
    if (limit <= 0)
        return 0;
    if (jitter > 0 && cts_random_fill(&drawn, sizeof(drawn)) < 0)
        drawn = 0;
    return limit + (jitter > 0 ? (int64_t)(drawn % ((uint64_t)jitter + 1)) : 0);
}

static uint32_t rows_count(const struct cts_settings *settings)
{
    int64_t threads = cts_settings_int(settings, CTS_SETTING_threads);
    uint64_t rows = (uint64_t)(threads < 1 ? 1 : threads) * 2 + SPARE_ROWS;
    return rows > CTS_SLOT_ROWS_MAX ? CTS_SLOT_ROWS_MAX : (uint32_t)rows;
}

static int make_ring(struct member *member, const struct member_plan *plan)
{
    struct supervisor *supervisor = plan->supervisor;
    struct cts_slot_plan slot_plan = {
        .slot_index = plan->slot_index,
        .generation = plan->slot_generation,
        .age = plan->age,
        .ring_bytes = supervisor->ring_bytes,
        .rows_count = rows_count(supervisor->settings),
    };
    memcpy(slot_plan.fork_trace_id, member->fork_mark.trace_id, sizeof(slot_plan.fork_trace_id));
    memcpy(slot_plan.fork_span_id, member->fork_mark.span_id, sizeof(slot_plan.fork_span_id));
    int r;
    member->ring = agent_link_ring_new(supervisor->agent, &slot_plan, &r);
    return r;
}

static int make_descriptors(struct member *member, int *ret_child_fd)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    member->control_fd = ends[0];
    *ret_child_fd = ends[1];
    int r = fork_list_put(ends[0], FORK_CONTROL, NULL);
    if (r == 0)
        r = fork_list_put(ends[1], FORK_WORKER_PART, member->ring);
    if (r < 0)
        return r;
    member->dump_fd = memfd_create("ctserve-dump", MFD_CLOEXEC);
    if (member->dump_fd < 0)
        return -errno;
    return fork_list_put(member->dump_fd, FORK_WORKER_PART, member->ring);
}

/* What it will accept from: sockets of its place, or those that all share. */
static int find_listeners(struct member *member, const struct listener **ret_at)
{
    struct listeners *listeners = member->supervisor->listeners;
    *ret_at = listeners->at;
    if (!berths_are_wanted(listeners))
        return 0;
    int r = berths_take(listeners, member->berth, member->ring, ret_at);
    member->berths = listeners->berths;
    return r;
}

static void fill_plan(struct member *member, const struct member_plan *plan, int child_fd,
                      const struct listener *listeners)
{
    struct supervisor *supervisor = plan->supervisor;
    member->plan = (struct worker_plan){
        .gateway = supervisor->gateway,
        .settings = supervisor->settings,
        .listeners = listeners,
        .listeners_count = supervisor->listeners->count,
        .slot = &member->ring->slot,
        .facts = member->facts,
        .worker = member->object,
        .control_fd = child_fd,
        .dump_fd = member->dump_fd,
        .dump_signo = signals_dump_signo(),
        .app_is_loaded = plan->app_is_loaded,
    };
}

static struct member *member_new(const struct member_plan *plan)
{
    struct member *member = calloc(1, sizeof(*member));
    if (member == NULL)
        return NULL;
    cts_list_init(&member->link);
    member->supervisor = plan->supervisor;
    member->control_fd = member->dump_fd = -1;
    member->config_generation = plan->config_generation;
    member->seat = plan->seat;
    member->berth = plan->berth;
    const struct cts_settings *settings = plan->supervisor->settings;
    member->facts = (struct cts_worker_facts){
        .age = plan->age,
        .slot_index = plan->slot_index,
        .max_requests = draw_max_requests(settings),
        .timeout_s = cts_settings_int(settings, CTS_SETTING_timeout),
        .master_pid = getpid(),
    };
    return member;
}

static void on_control(struct ev_loop *loop, ev_io *io, int events)
{
    member_listen(io->data);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    supervisor_timer(timer->data);
}

static void tell_of_fork(struct member *member, const struct member_plan *plan, const char *failure)
{
    struct cts_attribute attributes[] = {
        spans_int("process.pid", member->pid),
        spans_int("ctserve.worker.age", (int64_t)member->facts.age),
        spans_int("ctserve.worker.slot", member->facts.slot_index),
    };
    spans_end(&member->fork_mark,
              &(struct span_story){.name = "ctserve.fork", .parent = plan->parent,
                                   .error_type = failure != NULL ? "ctserve.fork_failed" : NULL,
                                   .message = failure, .attributes = attributes,
                                   .attributes_count = CTS_COUNT(attributes)});
}

/* The fork itself; everything it needs stands ready. */
static enum member_birth fork_now(struct member *member, const struct member_plan *plan,
                                  int *child_fd, struct cts_error *error)
{
    struct supervisor *supervisor = plan->supervisor;
    struct ring *ring = member->ring;
    fork_list_move(ring->slot.fd, FORK_WORKER_PART);
    fork_list_move(ring->slot.read_only_fd, FORK_WORKER_PART);
    pid_t pid = fork_worker(supervisor->gateway, supervisor->loop, ring);
    if (pid == 0) {
        supervisor->gateway->worker_forked(member->object, getpid());
        return MEMBER_IS_ME;
    }
    fork_list_move(ring->slot.fd, FORK_RING);
    fork_list_move(ring->slot.read_only_fd, FORK_RING);
    fork_list_close(child_fd);
    if (pid < 0) {
        tell_of_fork(member, plan, strerror(-pid));
        cts_error_set(error, CTS_EXIT_FAILURE, "can't fork a worker: %s", strerror(-pid));
        return MEMBER_FAILED;
    }
    member->pid = pid;
    supervisor->gateway->worker_forked(member->object, pid);
    ev_init(&member->timer, on_timer);
    member->timer.data = member;
    ev_init(&member->control_io, on_control);
    member->control_io.data = member;
    member_watch(member);
    tell_of_fork(member, plan, NULL);
    agent_link_ring_begin(supervisor->agent, ring, pid);
    agent_link_event(supervisor->agent, ring, CTS_WORKER_EVENT_BOOTING, CTS_GONE_UNKNOWN, 0);
    return MEMBER_BORN;
}

enum member_birth member_fork(const struct member_plan *plan, struct member **ret_member,
                              struct cts_error *error)
{
    const struct cts_gateway *gateway = plan->supervisor->gateway;
    enum member_birth birth = MEMBER_FAILED;
    int child_fd = -1, r = -ENOMEM;
    const struct listener *listeners = NULL;
    struct member *member = member_new(plan);
    if (member == NULL)
        goto failed;
    spans_begin(&member->fork_mark, plan->parent);
    r = make_ring(member, plan);
    if (r == 0)
        r = make_descriptors(member, &child_fd);
    if (r == 0)
        r = find_listeners(member, &listeners);
    if (r < 0)
        goto failed;
    member->object = gateway->worker_new(&member->facts, error);
    if (member->object == NULL)
        goto undo;
    struct cts_hook_call call = {.worker = member->object};
    if (gateway->run_hook(CTS_HOOK_PRE_FORK, &call, error) < 0) {
        birth = MEMBER_HOOK_RAISED;
        goto undo;
    }
    fill_plan(member, plan, child_fd, listeners);
    birth = fork_now(member, plan, &child_fd, error);
    if (birth != MEMBER_BORN && birth != MEMBER_IS_ME)
        goto undo;
    *ret_member = member;
    return birth;
failed:
    cts_error_set(error, CTS_EXIT_FAILURE, "can't prepare a worker: %s", strerror(-r));
undo:
    fork_list_close(&child_fd);
    if (member != NULL && member->ring != NULL)
        agent_link_ring_cancel(plan->supervisor->agent, member->ring);
    if (member != NULL)
        member_free(member);
    return birth;
}

void member_free(struct member *member)
{
    struct supervisor *supervisor = member->supervisor;
    if (ev_is_active(&member->control_io))
        ev_io_stop(supervisor->loop, &member->control_io);
    if (member->pid != 0)
        ev_timer_stop(supervisor->loop, &member->timer);
    fork_list_close(&member->control_fd);
    fork_list_close(&member->dump_fd);
    if (member->object != NULL)
        supervisor->gateway->worker_free(member->object);
    free(member);
}

/* -- speaking and listening -------------------------------------------------------------------- */
void member_signal(struct member *member, int signo)
{
    static const struct {
        int signo;
        char letter;
    } letters[] = {{SIGTERM, CONTROL_STOP}, {SIGQUIT, CONTROL_QUIT}, {SIGUSR1, CONTROL_REOPEN}};
    /* The signal first: a letter may be enough for the worker to leave, and the signal would find
     * it where the interpreter has taken its handlers down. */
    if (member->pid > 0)
        kill(member->pid, signo);
    for (size_t i = 0; i < CTS_COUNT(letters); i++)
        if (letters[i].signo == signo && member->control_fd >= 0 &&
            send(member->control_fd, &letters[i].letter, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            cts_debug("worker (pid:%d) does not listen: %s", (int)member->pid, strerror(errno));
}

void member_tell_backlog(struct member *member, bool is_last)
{
    char letter = is_last ? CONTROL_LAST : CONTROL_EMPTY;
    if (member->control_fd >= 0 &&
        send(member->control_fd, &letter, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        cts_debug("worker (pid:%d) does not listen: %s", (int)member->pid, strerror(errno));
}

/* Letters come from a process that runs other people's code: nothing in them is taken on trust. */
static enum cts_gone_reason reason_in(const char *packet, size_t bytes)
{
    unsigned reason = bytes >= 2 ? (unsigned char)packet[1] : CTS_GONE_UNKNOWN;
    return reason <= CTS_GONE_RING_DAMAGED ? (enum cts_gone_reason)reason : CTS_GONE_UNKNOWN;
}

/* The first worker to be ready tells what it found; escaped, because a terminal will show it. */
static void take_app_kind(struct supervisor *supervisor, const char *text, size_t bytes)
{
    struct cts_bytes view = {text, strnlen(text, bytes)};
    if (supervisor->app_kind[0] == '\0')
        cts_bytes_escape(view, supervisor->app_kind, sizeof(supervisor->app_kind));
}

static void take_letter(struct member *member, const char *packet, size_t bytes)
{
    switch (packet[0]) {
    case CONTROL_READY:
        take_app_kind(member->supervisor, packet + 1, bytes - 1);
        supervisor_ready(member);
        break;
    case CONTROL_BOOT_FAILED:
        if (bytes >= 1 + offsetof(struct control_failure, text)) {
            size_t count = bytes - 1 < sizeof(member->failure) ? bytes - 1
                                                               : sizeof(member->failure);
            memcpy(&member->failure, packet + 1, count);
        }
        member->failure.text[sizeof(member->failure.text) - 1] = '\0';
        member->boot_failed = !member->was_ready;
        break;
    case CONTROL_LEAVING:
        supervisor_leaving(member, reason_in(packet, bytes));
        break;
    default:
        break;
    }
}

void member_listen(struct member *member)
{
    char packet[CONTROL_PACKET_BYTES_MAX];
    for (int i = 0; i < LETTERS_PER_TURN_MAX && member->control_fd >= 0; i++) {
        ssize_t count = recv(member->control_fd, packet, sizeof(packet), MSG_DONTWAIT);
        if (count > 0) {
            take_letter(member, packet, (size_t)count);
            continue;
        }
        if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
            ev_io_stop(member->supervisor->loop, &member->control_io);
            fork_list_close(&member->control_fd);
        }
        return;
    }
}

void member_watch(struct member *member)
{
    if (member->control_fd < 0 || ev_is_active(&member->control_io))
        return;
    /* Set anew, libev adds it even when it has not noticed yet that it was stopped. */
    ev_io_set(&member->control_io, member->control_fd, EV_READ);
    ev_io_start(member->supervisor->loop, &member->control_io);
}

char *member_dump_text(const struct member *member, size_t *ret_bytes)
{
    char *text = malloc(AGENT_STACK_BYTES_MAX);
    if (text == NULL)
        return NULL;
    ssize_t count = pread(member->dump_fd, text, AGENT_STACK_BYTES_MAX, 0);
    if (count <= 0) {
        free(text);
        return NULL;
    }
    *ret_bytes = (size_t)count;
    return text;
}
