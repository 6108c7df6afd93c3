/* A worker may be killed between any two instructions: the identity must hold exactly then. */
#include "help.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 300
#define STEPS_MAX 400000

static struct cts_record_copy record;

static void work_forever(void)
{
    for (uint64_t i = 0;; i++) {
        help_request();
        if (i % 5 == 0)
            help_request_unsampled();
        if (i % 7 == 0)
            help_span();
    }
}

static void *thread_main(void *unused)
{
    work_forever();
    return unused;
}

static pid_t fork_worker(struct cts_slot *slot, int threads_count)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid != 0)
        return pid;
    if (cts_tracer_attach(slot, threads_count > 1) < 0)
        _exit(1);
    cts_tracer_enable(true);
    for (int i = 1; i < threads_count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
            _exit(1);
    }
    work_forever();
    _exit(1);
}

static void kill_and_wait(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* One life: work until the ring moved by a random amount, a random number of turns more, killed.
 * In every second round we drain meanwhile, so that records go round and nothing is full. */
static void one_kill(int round, int threads_count)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    int64_t drained = 0;
    help_slot_create(&slot, ROWS);
    pid_t pid = fork_worker(&slot, threads_count);
    uint64_t enough = (uint64_t)(random() % (round % 2 == 0 ? 60000 : 400000));
    struct cts_worker_copy worker = {0};
    while (worker.head < enough) {
        cts_worker_read(&slot.view, &worker);
        if (round % 2 != 0)
            drained += help_drain(&slot.view, &record);
    }
    for (volatile long turns = random() % 20000; turns > 0; turns--)
        continue;
    kill_and_wait(pid);

    assert_true(help_identity_holds(&slot.view, &counts));
    assert_true(counts.rowless_open <= 1);
    assert_true(counts.open <= (uint64_t)threads_count);
    int64_t rest = help_drain(&slot.view, &record);
    assert_true(rest >= 0);
    assert_int_equal(drained + rest, counts.committed);
    assert_true(help_identity_holds(&slot.view, &counts));
    cts_slot_free(&slot);
}

static void the_identity_holds_after_a_kill_at_a_random_moment(void **state)
{
    srandom(20261123);
    for (int round = 0; round < ROUNDS; round++)
        one_kill(round, 1);
}

static void the_identity_holds_after_a_kill_of_four_threads(void **state)
{
    srandom(3);
    for (int round = 0; round < ROUNDS / 3; round++)
        one_kill(round, 4);
}

/* -- every instruction ------------------------------------------------------------------------- */

static void fill_ring(void)
{
    for (int i = 0; i < 1000; i++)
        help_request();
}

struct scenario {
    void (*before)(void);
    void (*steps)(void);
    uint64_t started, committed, dropped; /* by `steps` */
};

static void stepped_child(struct cts_slot *slot, const struct scenario *scenario)
{
    if (cts_tracer_attach(slot, true) < 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(1);
    cts_tracer_enable(true);
    if (scenario->before != NULL)
        scenario->before();
    raise(SIGSTOP);
    scenario->steps();
    raise(SIGSTOP);
    _exit(0);
}

/* The row's state may only go forwards: free, open, committed or dropped, free. */
static void check_moment(const struct cts_slot_view *view, const struct cts_slot_counts *first,
                         enum cts_row_state *state)
{
    struct cts_slot_counts counts;
    struct cts_row_copy row;
    assert_true(help_identity_holds(view, &counts));
    assert_true(counts.started - first->started <= 1);
    assert_true(counts.committed + counts.dropped_ring_full + counts.open + counts.rowless_open ==
                counts.started);
    enum cts_row_state now = cts_row_read(view, 0, &row);
    if (now != *state) {
        bool is_forward = (*state == CTS_ROW_FREE && now == CTS_ROW_OPEN) ||
                          (*state == CTS_ROW_OPEN && now != CTS_ROW_FREE) ||
                          (*state == CTS_ROW_OPEN && !row.is_traced) ||
                          (*state == CTS_ROW_COMMITTED && now == CTS_ROW_FREE) ||
                          (*state == CTS_ROW_DROPPED && now == CTS_ROW_FREE);
        assert_true(is_forward);
        *state = now;
    }
}

static void step_through(const struct scenario *scenario)
{
    struct cts_slot slot;
    struct cts_slot_counts first, last;
    enum cts_row_state state = CTS_ROW_FREE;
    int status, steps = 0;
    help_slot_create(&slot, 1);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        stepped_child(&slot, scenario);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    cts_slot_count(&slot.view, &first);
    for (; steps < STEPS_MAX; steps++) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        check_moment(&slot.view, &first, &state);
    }
    assert_true(steps > 100 && steps < STEPS_MAX);
    cts_slot_count(&slot.view, &last);
    assert_int_equal(last.started - first.started, scenario->started);
    assert_int_equal(last.committed - first.committed, scenario->committed);
    assert_int_equal(last.dropped_ring_full - first.dropped_ring_full, scenario->dropped);
    assert_int_equal(state, CTS_ROW_FREE);
    print_message("# %d instructions, each a moment to die\n", steps);
    kill_and_wait(pid);
    cts_slot_free(&slot);
}

static void after_every_instruction_of_a_request_its_fate_is_decided(void **state)
{
    step_through(&(struct scenario){NULL, help_request, 1, 1, 0});
}

static void after_every_instruction_of_a_dropped_request_its_fate_is_decided(void **state)
{
    step_through(&(struct scenario){fill_ring, help_request, 1, 0, 1});
}

static void after_every_instruction_of_an_untraced_request_nothing_was_started(void **state)
{
    step_through(&(struct scenario){NULL, help_request_unsampled, 0, 0, 0});
}

static void after_every_instruction_of_a_rowless_span_its_fate_is_decided(void **state)
{
    step_through(&(struct scenario){NULL, help_span, 1, 1, 0});
    step_through(&(struct scenario){fill_ring, help_span, 1, 0, 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_every_instruction_of_a_request_its_fate_is_decided),
        cmocka_unit_test(after_every_instruction_of_a_dropped_request_its_fate_is_decided),
        cmocka_unit_test(after_every_instruction_of_an_untraced_request_nothing_was_started),
        cmocka_unit_test(after_every_instruction_of_a_rowless_span_its_fate_is_decided),
        cmocka_unit_test(the_identity_holds_after_a_kill_at_a_random_moment),
        cmocka_unit_test(the_identity_holds_after_a_kill_of_four_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
