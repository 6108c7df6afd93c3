/* stall.c - see stall.h. */
#include "stall.h"

#include "signals.h"

#include "ctserve/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LOOK_MIN_S 0.02
#define LOOK_MAX_S 1.0
#define DUMP_WAIT_S 0.05
#define DUMP_LOOKS_MAX 6    /* on a busy machine the worker may get its turn late */
#define ABORT_WAIT_S 1.0
#define NS_PER_S 1000000000ull

static void again_after(struct member *member, double seconds)
{
    struct ev_loop *loop = member->supervisor->loop;
    ev_timer_stop(loop, &member->timer);
    ev_timer_set(&member->timer, seconds, 0);
    ev_timer_start(loop, &member->timer);
}

static void tell_of_timeout(struct member *member, bool by_request, const char *stack)
{
    struct span_mark mark;
    spans_begin(&mark, NULL);
    struct cts_attribute attributes[] = {
        spans_int("process.pid", member->pid),
        spans_int("ctserve.worker.age", (int64_t)member->facts.age),
        spans_text("ctserve.limit", by_request ? "request_timeout" : "timeout"),
        spans_text("exception.stacktrace", stack != NULL ? stack : ""),
    };
    if (attributes[3].text.count > 4096)
        attributes[3].text.count = 4096;
    spans_end(&mark, &(struct span_story){.name = "ctserve.worker.timeout",
                                          .link = &member->fork_mark,
                                          .error_type = by_request ? "ctserve.request_timeout"
                                                                   : "ctserve.timeout",
                                          .message = "the worker hung and is being replaced",
                                          .attributes = attributes,
                                          .attributes_count = stack != NULL ? 4 : 3});
}

static void begin(struct member *member, enum cts_gone_reason reason, int thread_id)
{
    cts_critical("WORKER TIMEOUT (pid:%d)", (int)member->pid);
    member->reason = reason;
    member->stuck_thread_id = thread_id;
    member->stage = STUCK_DUMPING;
    supervisor_move(member, MEMBER_STUCK);
    kill(member->pid, signals_dump_signo());
    kill(member->pid, SIGCONT);
    again_after(member, DUMP_WAIT_S);
}

/* One log line per line of the stack: bytes come from a process that hangs. */
static void log_stack(const struct member *member, const char *text, size_t bytes)
{
    char line[512];
    const char *end = text + bytes;
    cts_error_log("Stacks of worker (pid:%d):", (int)member->pid);
    for (int i = 0; i < 400 && text < end; i++) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        if (line_end == NULL)
            line_end = end;
        cts_bytes_escape((struct cts_bytes){text, (size_t)(line_end - text)}, line, sizeof(line));
        if (line[0] != '\0')
            cts_error_log("  %s", line);
        text = line_end + 1;
    }
}

static void abort_worker(struct member *member)
{
    struct supervisor *supervisor = member->supervisor;
    size_t bytes = 0;
    char *stack = member_dump_text(member, &bytes);
    if (stack != NULL) {
        log_stack(member, stack, bytes);
        agent_link_stack(member->ring, stack, bytes, member->stuck_thread_id);
        stack[bytes < AGENT_STACK_BYTES_MAX ? bytes : AGENT_STACK_BYTES_MAX - 1] = '\0';
    } else {
        cts_error_log("worker (pid:%d) could not write its stacks", (int)member->pid);
    }
    agent_link_event(supervisor->agent, member->ring, CTS_WORKER_EVENT_STUCK, member->reason, 0);
    tell_of_timeout(member, member->reason == CTS_GONE_REQUEST_TIMEOUT, stack);
    free(stack);
    member->stage = STUCK_ABORTED;
    kill(member->pid, SIGABRT);
    again_after(member, ABORT_WAIT_S);
}

void stall_next_stage(struct member *member)
{
    if (member->stage == STUCK_DUMPING) {
        struct stat dump;
        bool is_empty = fstat(member->dump_fd, &dump) == 0 && dump.st_size == 0;
        if (is_empty && ++member->dump_looks < DUMP_LOOKS_MAX)
            again_after(member, DUMP_WAIT_S);
        else
            abort_worker(member);
    } else if (member->stage == STUCK_ABORTED) {
        member->stage = STUCK_KILLED;
        kill(member->pid, SIGKILL);
    }
}

/* Look at one worker. Returns the seconds after which it could be over a limit. */
static double look(struct member *member, uint64_t now_ns)
{
    const struct cts_slot_view *view = &member->ring->view;
    const struct cts_settings *settings = member->supervisor->settings;
    uint64_t timeout_ns = (uint64_t)member->facts.timeout_s * NS_PER_S;
    uint64_t request_ns =
        (uint64_t)cts_settings_int(settings, CTS_SETTING_request_timeout) * NS_PER_S;
    double next_s = LOOK_MAX_S;

    if (timeout_ns > 0) {
        uint64_t silence_ns = cts_worker_silence_ns(view, now_ns);
        if (silence_ns > timeout_ns) {
            struct cts_row_copy row;
            bool has_row = cts_row_find_hung(view, now_ns, timeout_ns, &row);
            begin(member, CTS_GONE_TIMEOUT, has_row ? row.thread_id : 0);
            return next_s;
        }
        next_s = (double)(timeout_ns - silence_ns) / NS_PER_S;
    }
    if (request_ns > 0) {
        struct cts_row_copy row;
        if (cts_row_find_hung(view, now_ns, request_ns, &row)) {
            begin(member, CTS_GONE_REQUEST_TIMEOUT, row.thread_id);
            return next_s;
        }
        /* A row that is not hung now is at most request_ns away from it. */
        double tick_s = (double)request_ns / NS_PER_S / 10;
        if (tick_s < next_s)
            next_s = tick_s;
    }
    return next_s;
}

static void on_look(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct supervisor *supervisor = timer->data;
    uint64_t now_ns = cts_clock_mono_ns();
    double next_s = LOOK_MAX_S;
    supervisor_watch_lines(supervisor);
    static const enum member_state looked_at[] = {MEMBER_READY, MEMBER_DRAINING};
    for (size_t i = 0; i < CTS_COUNT(looked_at); i++)
        CTS_LIST_EACH(&supervisor->lists[looked_at[i]], at) {
            struct member *member = SUPERVISOR_MEMBER(at);
            if (!member->was_ready)
                continue; /* boot is exempt, as in gunicorn */
            double s = look(member, now_ns);
            if (s < next_s)
                next_s = s;
        }
    timer->repeat = next_s < LOOK_MIN_S ? LOOK_MIN_S : next_s;
    ev_timer_again(loop, timer);
}

void stall_start(struct supervisor *supervisor)
{
    ev_init(&supervisor->stall_timer, on_look);
    supervisor->stall_timer.data = supervisor;
    supervisor->stall_timer.repeat = LOOK_MAX_S;
    ev_timer_again(supervisor->loop, &supervisor->stall_timer);
}

void stall_stop(struct supervisor *supervisor)
{
    ev_timer_stop(supervisor->loop, &supervisor->stall_timer);
}
