/* supervisor.c - see supervisor.h. */
#include "supervisor.h"

#include "berths.h"
#include "siblings.h"
#include "signals.h"
#include "stall.h"

#include "ctserve/log.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

/* Back-off of one seat: at once, then 0.1 s, five times longer each time, 30 s at most. Four
 * seats that crash at start make 20 forks in the first ten seconds. */
#define BACKOFF_FIRST_S 0.1
#define BACKOFF_FACTOR 5.0
#define BACKOFF_MAX_S 30.0
#define HEALTHY_S 60.0   /* ready for so long: the place is fine, even if nobody asked anything */

_Static_assert(SUPERVISOR_SLOTS_MAX <= SIBLINGS_MAX, "every slot has a place in the page");

static void on_spawn_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    /* The master calls supervisor_manage after every turn of the loop. */
}

void supervisor_init(struct supervisor *supervisor)
{
    for (int state = 0; state < MEMBER_STATES_COUNT; state++)
        cts_list_init(&supervisor->lists[state]);
    ev_init(&supervisor->spawn_timer, on_spawn_timer);
    supervisor->halt_code = -1;
    supervisor->generation = supervisor->serving_generation = 1;
    supervisor->fork_delay_s = BACKOFF_FIRST_S;
}

/* The one function that changes a state. */
void supervisor_move(struct member *member, enum member_state state)
{
    struct supervisor *supervisor = member->supervisor;
    if (member->state != state || cts_list_is_empty(&member->link)) {
        if (!cts_list_is_empty(&member->link))
            supervisor->counts[member->state]--;
        cts_list_take(&member->link);
        cts_list_put_last(&supervisor->lists[state], &member->link);
        supervisor->counts[state]++;
        member->state = state;
    }
}

/* -- counting ---------------------------------------------------------------------------------- */
static bool is_counted(const struct member *member, uint64_t generation)
{
    return member->config_generation == generation && !member->is_written_off;
}

static int64_t counted(const struct supervisor *supervisor, uint64_t generation)
{
    int64_t count = 0;
    for (int state = MEMBER_BOOTING; state < MEMBER_GONE; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at)
            count += is_counted(SUPERVISOR_MEMBER(at), generation);
    return count;
}

static int64_t ready_count(const struct supervisor *supervisor, uint64_t generation)
{
    int64_t count = 0;
    CTS_LIST_EACH(&supervisor->lists[MEMBER_READY], at)
        count += is_counted(SUPERVISOR_MEMBER(at), generation);
    return count;
}

int64_t supervisor_alive_count(const struct supervisor *supervisor)
{
    return supervisor->counts[MEMBER_BOOTING] + supervisor->counts[MEMBER_READY] +
           supervisor->counts[MEMBER_DRAINING] + supervisor->counts[MEMBER_STUCK];
}

struct member *supervisor_by_pid(struct supervisor *supervisor, pid_t pid)
{
    for (int state = MEMBER_BOOTING; state < MEMBER_GONE; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at)
            if (SUPERVISOR_MEMBER(at)->pid == pid)
                return SUPERVISOR_MEMBER(at);
    return NULL;
}

struct member *supervisor_by_ring(struct supervisor *supervisor, const struct ring *ring)
{
    return supervisor_by_pid(supervisor, ring->facts.pid);
}

/* -- places, when each has sockets of its own --------------------------------------------------- */
static bool holds(const struct member *member, const struct berths *berths, int berth)
{
    return !member->is_written_off && member->berths == berths && member->berth == berth;
}

static bool is_held(const struct supervisor *supervisor, const struct berths *berths, int berth)
{
    for (int state = MEMBER_BOOTING; state < MEMBER_GONE; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at)
            if (holds(SUPERVISOR_MEMBER(at), berths, berth))
                return true;
    return false;
}

/* The first place that has no worker of the current generation. */
static int free_berth(const struct supervisor *supervisor)
{
    bool taken[BERTHS_MAX] = {false};
    int berth = 0;
    for (int state = MEMBER_BOOTING; state < MEMBER_GONE; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at)
            if (is_counted(SUPERVISOR_MEMBER(at), supervisor->generation))
                taken[SUPERVISOR_MEMBER(at)->berth] = true;
    while (berth < BERTHS_MAX - 1 && taken[berth])
        berth++;
    return berth;
}

/* A socket whose worker is gone, or waits for its next try, must not get clients. */
static void close_unheld(struct supervisor *supervisor)
{
    bool held[BERTHS_MAX] = {false};
    struct berths *berths = supervisor->listeners->berths;
    if (berths == NULL)
        return;
    for (int state = MEMBER_BOOTING; state < MEMBER_GONE; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at) {
            const struct member *member = SUPERVISOR_MEMBER(at);
            held[member->berth] |= holds(member, berths, member->berth);
        }
    berths_close_unheld(supervisor->listeners, held);
}

/* -- letting go -------------------------------------------------------------------------------- */
static void set_timer(struct member *member, double seconds)
{
    struct ev_loop *loop = member->supervisor->loop;
    ev_timer_stop(loop, &member->timer);
    ev_timer_set(&member->timer, seconds, 0);
    ev_timer_start(loop, &member->timer);
}

static void begin_draining(struct member *member, enum cts_gone_reason reason)
{
    if (member->state == MEMBER_DRAINING)
        return;
    supervisor_move(member, MEMBER_DRAINING);
    member->reason = reason;
    agent_link_event(member->supervisor->agent, member->ring, CTS_WORKER_EVENT_DRAINING, reason, 0);
}

void supervisor_drain(struct member *member, enum cts_gone_reason reason)
{
    member->is_written_off = true;
    if (member->state == MEMBER_STUCK)
        return;
    const struct cts_settings *settings = member->supervisor->settings;
    begin_draining(member, reason);
    set_timer(member, (double)cts_settings_int(settings, CTS_SETTING_graceful_timeout));
    /* Nobody else answers who waits in a socket that goes with it. */
    if (member->berths != NULL && !is_held(member->supervisor, member->berths, member->berth))
        member_tell_backlog(member, false);
    member_signal(member, SIGTERM);
}

static struct member *oldest_alive(struct supervisor *supervisor, uint64_t generation)
{
    struct member *oldest = NULL;
    for (int state = MEMBER_BOOTING; state <= MEMBER_READY; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at) {
            struct member *member = SUPERVISOR_MEMBER(at);
            if (is_counted(member, generation) &&
                (oldest == NULL || member->facts.age < oldest->facts.age))
                oldest = member;
        }
    return oldest;
}

static void drain_excess(struct supervisor *supervisor)
{
    int64_t excess = counted(supervisor, supervisor->generation) - supervisor->target;
    for (; excess > 0; excess--) {
        struct member *oldest = oldest_alive(supervisor, supervisor->generation);
        if (oldest == NULL)
            return;
        supervisor_drain(oldest, CTS_GONE_STOPPED);
    }
}

/* Everybody of another generation goes. */
static void drain_others(struct supervisor *supervisor, uint64_t generation)
{
    for (int state = MEMBER_BOOTING; state <= MEMBER_READY; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at)
            if (SUPERVISOR_MEMBER(at)->config_generation != generation)
                supervisor_drain(SUPERVISOR_MEMBER(at), CTS_GONE_STOPPED);
}

/* -- reload ------------------------------------------------------------------------------------ */
void supervisor_reload_begin(struct supervisor *supervisor)
{
    if (supervisor->reload == RELOAD_RUNS) {
        /* The half-built generation is out of date before it served. */
        CTS_LIST_EACH(&supervisor->lists[MEMBER_BOOTING], at)
            if (SUPERVISOR_MEMBER(at)->config_generation != supervisor->serving_generation)
                supervisor_drain(SUPERVISOR_MEMBER(at), CTS_GONE_STOPPED);
        CTS_LIST_EACH(&supervisor->lists[MEMBER_READY], at)
            if (SUPERVISOR_MEMBER(at)->config_generation != supervisor->serving_generation)
                supervisor_drain(SUPERVISOR_MEMBER(at), CTS_GONE_STOPPED);
    }
    supervisor->generation++;
    supervisor->vacant_count = 0;
    supervisor->reload = RELOAD_RUNS;
}

void supervisor_reload_abort(struct supervisor *supervisor)
{
    supervisor->reload = RELOAD_NONE;
    supervisor->generation = supervisor->serving_generation;
    supervisor->vacant_count = 0;
    drain_others(supervisor, supervisor->generation);
}

static void finish_reload(struct supervisor *supervisor)
{
    if (ready_count(supervisor, supervisor->generation) < supervisor->target)
        return;
    supervisor->serving_generation = supervisor->generation;
    if (supervisor->reload == RELOAD_RUNS) {
        supervisor->reload = RELOAD_DONE;
        drain_others(supervisor, supervisor->generation);
    }
}

static void fail_reload(struct supervisor *supervisor, const struct member *member)
{
    supervisor->reload = RELOAD_FAILED;
    snprintf(supervisor->reload_failure, sizeof(supervisor->reload_failure), "%s",
             member->boot_failed ? member->failure.text : "a new worker died before it was ready");
}

/* -- forking ----------------------------------------------------------------------------------- */
static void due_in(struct supervisor *supervisor, double seconds)
{
    ev_timer_stop(supervisor->loop, &supervisor->spawn_timer);
    ev_timer_set(&supervisor->spawn_timer, seconds > 0 ? seconds : 0, 0);
    ev_timer_start(supervisor->loop, &supervisor->spawn_timer);
}

/* The seat that may be filled now. False: not yet, the timer is set. */
static bool take_seat(struct supervisor *supervisor, struct member_seat *ret_seat)
{
    *ret_seat = (struct member_seat){0};
    if (supervisor->vacant_count == 0)
        return true;
    size_t first = 0;
    for (size_t i = 1; i < supervisor->vacant_count; i++)
        if (supervisor->vacant[i].not_before < supervisor->vacant[first].not_before)
            first = i;
    double wait_s = supervisor->vacant[first].not_before - ev_time();
    if (wait_s > 0) {
        due_in(supervisor, wait_s);
        return false;
    }
    *ret_seat = supervisor->vacant[first];
    supervisor->vacant[first] = supervisor->vacant[--supervisor->vacant_count];
    return true;
}

static int take_slot(struct supervisor *supervisor)
{
    for (int i = 0; i < SUPERVISOR_SLOTS_MAX; i++)
        if (!supervisor->slot_taken[i]) {
            supervisor->slot_taken[i] = true;
            supervisor->slot_generation[i]++;
            siblings_clear(i);
            return i;
        }
    return -1;
}

static void leave_vacant(struct supervisor *supervisor, struct member_seat seat)
{
    if (supervisor->vacant_count < SUPERVISOR_SLOTS_MAX)
        supervisor->vacant[supervisor->vacant_count++] = seat;
}

static void fork_failed(struct supervisor *supervisor, struct member_seat seat,
                        const struct cts_error *error)
{
    cts_error_log("%s; trying again in %.1f s", error->text, supervisor->fork_delay_s);
    seat.not_before = ev_time() + supervisor->fork_delay_s;
    leave_vacant(supervisor, seat);
    supervisor->fork_delay_s *= 2;
    if (supervisor->fork_delay_s > 1)
        supervisor->fork_delay_s = 1;
}

/* One worker more. In the child: the member that we are. */
static struct member *fork_one(struct supervisor *supervisor, struct member_seat seat)
{
    struct cts_error error = {0};
    struct member *member = NULL;
    struct member_plan plan = {
        .supervisor = supervisor,
        .age = supervisor->last_age + 1,
        .slot_index = take_slot(supervisor),
        .config_generation = supervisor->generation,
        .seat = seat,
        .berth = free_berth(supervisor),
        .parent = supervisor->parent,
        .app_is_loaded = supervisor->app_is_loaded,
    };
    if (plan.slot_index < 0) {
        cts_error_set(&error, CTS_EXIT_FAILURE, "more than %d workers", SUPERVISOR_SLOTS_MAX);
        fork_failed(supervisor, seat, &error);
        return NULL;
    }
    plan.slot_generation = supervisor->slot_generation[plan.slot_index];
    supervisor->last_age++;
    enum member_birth birth = member_fork(&plan, &member, &error);
    if (birth == MEMBER_IS_ME)
        return member;
    if (birth == MEMBER_BORN) {
        supervisor->fork_delay_s = BACKOFF_FIRST_S;
        supervisor_move(member, MEMBER_BOOTING);
        return NULL;
    }
    supervisor->slot_taken[plan.slot_index] = false;
    if (birth == MEMBER_HOOK_RAISED) {
        cts_error_log("Unhandled exception in main loop\n%s", error.text);
        supervisor->halt_code = CTS_EXIT_FORK_HOOK;
    } else {
        fork_failed(supervisor, seat, &error);
    }
    return NULL;
}

const struct worker_plan *supervisor_manage(struct supervisor *supervisor)
{
    if (supervisor->is_stopping || supervisor->halt_code >= 0 ||
        supervisor->reload == RELOAD_FAILED)
        return NULL;
    int64_t missing = supervisor->target - counted(supervisor, supervisor->generation);
    if (missing <= 0)
        supervisor->vacant_count = 0;
    for (; missing > 0 && supervisor->halt_code < 0; missing--) {
        struct member_seat seat;
        if (!take_seat(supervisor, &seat))
            break;
        struct member *me = fork_one(supervisor, seat);
        if (me != NULL)
            return &me->plan;
    }
    drain_excess(supervisor);
    finish_reload(supervisor);
    close_unheld(supervisor);
    return NULL;
}

void supervisor_set_target(struct supervisor *supervisor, int64_t target)
{
    supervisor->target = target > SUPERVISOR_SLOTS_MAX / 2 ? SUPERVISOR_SLOTS_MAX / 2 : target;
}

/* -- what workers say and do ------------------------------------------------------------------- */
void supervisor_ready(struct member *member)
{
    struct supervisor *supervisor = member->supervisor;
    if (member->was_ready)
        return;
    member->was_ready = true;
    member->ready_at = ev_time();
    supervisor->ever_ready = true;
    if (member->state == MEMBER_BOOTING)
        supervisor_move(member, MEMBER_READY);
    agent_link_event(supervisor->agent, member->ring, CTS_WORKER_EVENT_READY, CTS_GONE_UNKNOWN, 0);
    struct span_mark mark;
    spans_begin(&mark, &member->fork_mark);
    mark.start_mono_ns = member->fork_mark.start_mono_ns;
    struct cts_attribute attributes[] = {
        spans_int("process.pid", member->pid),
        spans_int("ctserve.worker.age", (int64_t)member->facts.age),
    };
    spans_end(&mark, &(struct span_story){.name = "ctserve.worker.ready",
                                          .parent = &member->fork_mark,
                                          .attributes = attributes,
                                          .attributes_count = CTS_COUNT(attributes)});
}

void supervisor_leaving(struct member *member, enum cts_gone_reason reason)
{
    if (member->state != MEMBER_BOOTING && member->state != MEMBER_READY)
        return;
    begin_draining(member, reason);
    /* One that had its fill of requests may take its time over the last ones. For any other
     * reason the next one comes, as in gunicorn, when this one is gone. */
    member->is_written_off = reason == CTS_GONE_MAX_REQUESTS;
}

void supervisor_watch_lines(struct supervisor *supervisor)
{
    for (size_t i = 0; i < MEMBER_STATES_COUNT; i++)
        CTS_LIST_EACH(&supervisor->lists[i], at)
            member_watch(SUPERVISOR_MEMBER(at));
    agent_link_watch(supervisor->agent);
}

void supervisor_timer(struct member *member)
{
    if (member->state == MEMBER_STUCK) {
        stall_next_stage(member);
        if (member->stage == STUCK_KILLED)
            member->is_written_off = true; /* not even KILL may make others wait */
    } else if (member->state == MEMBER_DRAINING) {
        cts_warning("worker (pid:%d) did not leave in time: killed", (int)member->pid);
        kill(member->pid, SIGKILL);
    }
}

static void log_end(const struct member *member, int status)
{
    int pid = (int)member->pid;
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
        cts_error_log("Worker (pid:%d) exited with code %d.", pid, WEXITSTATUS(status));
    } else if (WIFSIGNALED(status)) {
        char name[32];
        const char *abbreviated = sigabbrev_np(WTERMSIG(status));
        if (abbreviated != NULL)
            snprintf(name, sizeof(name), "SIG%s", abbreviated);
        else
            snprintf(name, sizeof(name), "signal %d", WTERMSIG(status));
        enum cts_log_level level = WTERMSIG(status) == SIGKILL   ? CTS_LOG_ERROR
                                   : WTERMSIG(status) == SIGTERM ? CTS_LOG_INFO
                                                                 : CTS_LOG_WARNING;
        cts_log(level, "Worker (pid:%d) was sent %s!%s", pid, name,
                WTERMSIG(status) == SIGKILL ? " Perhaps out of memory?" : "");
    }
}

static enum cts_gone_reason reason_of(const struct member *member, int status)
{
    if (member->boot_failed)
        return CTS_GONE_BOOT_FAILED;
    if (member->reason != CTS_GONE_UNKNOWN)
        return member->reason;
    return WIFSIGNALED(status) ? CTS_GONE_SIGNAL : CTS_GONE_UNKNOWN;
}

static const char *const reason_names[] = {
    [CTS_GONE_UNKNOWN] = "unknown",           [CTS_GONE_STOPPED] = "stopped",
    [CTS_GONE_MAX_REQUESTS] = "max_requests", [CTS_GONE_TIMEOUT] = "timeout",
    [CTS_GONE_REQUEST_TIMEOUT] = "request_timeout", [CTS_GONE_SIGNAL] = "signal",
    [CTS_GONE_BOOT_FAILED] = "boot_failed",   [CTS_GONE_RING_DAMAGED] = "ring_damaged",
};

static void tell_of_end(struct member *member, enum cts_gone_reason reason, int status)
{
    struct span_mark mark;
    spans_begin(&mark, NULL);
    bool is_fine = (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                   (reason == CTS_GONE_STOPPED && WIFSIGNALED(status) &&
                    WTERMSIG(status) == SIGTERM);
    const char *name = (size_t)reason < CTS_COUNT(reason_names) ? reason_names[reason] : "unknown";
    struct cts_attribute attributes[] = {
        spans_int("process.pid", member->pid),
        spans_int("ctserve.worker.age", (int64_t)member->facts.age),
        spans_text("ctserve.worker.reason", name),
        spans_int(WIFSIGNALED(status) ? "ctserve.worker.signal" : "process.exit.code",
                  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
    };
    spans_end(&mark, &(struct span_story){.name = "ctserve.worker.exit",
                                          .link = &member->fork_mark,
                                          .error_type = is_fine ? NULL : name,
                                          .message = is_fine ? NULL : "the worker did not end well",
                                          .attributes = attributes,
                                          .attributes_count = CTS_COUNT(attributes)});
}

/* A death before the first answered request makes the seat wait; the first time it does not. */
static void update_seat(struct member *member)
{
    struct cts_worker_copy worker;
    cts_worker_read(&member->ring->view, &worker);
    bool was_healthy = member->was_ready && ev_time() - member->ready_at > HEALTHY_S;
    if (worker.answered_count > 0 || was_healthy) {
        member->seat = (struct member_seat){0};
        return;
    }
    member->seat.failures++;
    double delay_s = 0;
    for (unsigned i = 1; i < member->seat.failures && delay_s < BACKOFF_MAX_S; i++)
        delay_s = delay_s == 0 ? BACKOFF_FIRST_S : delay_s * BACKOFF_FACTOR;
    if (delay_s > BACKOFF_MAX_S)
        delay_s = BACKOFF_MAX_S;
    member->seat.not_before = delay_s > 0 ? ev_time() + delay_s : 0;
    if (delay_s > 0 && !member->is_written_off && !member->supervisor->is_stopping)
        cts_warning("worker (pid:%d) died before it answered a request, %u times in a row in its "
                    "place: the next one starts in %.1f s",
                    (int)member->pid, member->seat.failures, delay_s);
}

/* Does this death end the service, or a reload? */
static bool judge(struct member *member, int status)
{
    struct supervisor *supervisor = member->supervisor;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    bool is_boot_code = code == CTS_EXIT_WORKER_BOOT || code == CTS_EXIT_APP_LOAD;
    if (member->was_ready || member->is_written_off || supervisor->is_stopping)
        return false;
    if (supervisor->reload == RELOAD_RUNS && member->config_generation == supervisor->generation) {
        fail_reload(supervisor, member);
        return false;
    }
    if (member->boot_failed && supervisor->halt_code < 0)
        cts_error_log("%s", member->failure.text);
    if (!is_boot_code || supervisor->ever_ready)
        return false;
    if (supervisor->halt_code < 0) {
        supervisor->halt_code = code;
        snprintf(supervisor->halt_reason, sizeof(supervisor->halt_reason), "%s",
                 code == CTS_EXIT_WORKER_BOOT ? "Worker failed to boot." : "App failed to load.");
    }
    return true;
}

static void run_child_exit(struct supervisor *supervisor, struct member *member)
{
    struct cts_error error = {0};
    struct cts_hook_call call = {.worker = member->object};
    if (supervisor->gateway->run_hook(CTS_HOOK_CHILD_EXIT, &call, &error) < 0)
        cts_error_log("child_exit hook failed:\n%s", error.text);
}

bool supervisor_reaped(struct supervisor *supervisor, pid_t pid, int status)
{
    struct member *member = supervisor_by_pid(supervisor, pid);
    if (member == NULL)
        return false;
    member_listen(member);
    log_end(member, status);
    bool counted_until_now = is_counted(member, supervisor->generation);
    enum cts_gone_reason reason = reason_of(member, status);
    tell_of_end(member, reason, status);
    update_seat(member);
    bool ends_service = judge(member, status);
    supervisor_move(member, MEMBER_GONE);
    supervisor->slot_taken[member->facts.slot_index] = false;
    siblings_clear(member->facts.slot_index);
    if (counted_until_now && !supervisor->is_stopping)
        leave_vacant(supervisor, member->seat);
    agent_link_event(supervisor->agent, member->ring, CTS_WORKER_EVENT_GONE, reason, status);
    member->ring = NULL;
    supervisor->gateway->worker_gone(member->object);
    if (!ends_service)
        run_child_exit(supervisor, member);
    supervisor->counts[MEMBER_GONE]--;
    cts_list_take(&member->link);
    member_free(member);
    return true;
}

void supervisor_signal_all(struct supervisor *supervisor, int signo)
{
    for (int state = MEMBER_BOOTING; state < MEMBER_GONE; state++)
        CTS_LIST_EACH(&supervisor->lists[state], at)
            member_signal(SUPERVISOR_MEMBER(at), signo);
}

void supervisor_stop(struct supervisor *supervisor, int signo, double limit_s)
{
    supervisor->is_stopping = true;
    ev_timer_stop(supervisor->loop, &supervisor->spawn_timer);
    /* Backwards, because everybody moves to DRAINING and is to be told once. */
    for (int state = MEMBER_DRAINING; state >= MEMBER_BOOTING; state--)
        CTS_LIST_EACH(&supervisor->lists[state], at) {
            struct member *member = SUPERVISOR_MEMBER(at);
            begin_draining(member, CTS_GONE_STOPPED);
            if (signo == SIGTERM)
                member_tell_backlog(member, true);
            if (signo != SIGTERM || !member->is_written_off)
                member_signal(member, signo);
            member->is_written_off = true;
            set_timer(member, limit_s);
        }
}
