/* A slot is sealed, seen as it was made, and belongs to exactly one process. */
#include "help.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Run `body` in a child; it returns the exit code. */
static int in_child(int (*body)(struct cts_slot *slot), struct cts_slot *slot)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(body(slot));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void a_slot_cannot_grow_or_shrink(void **state)
{
    struct cts_slot slot;
    help_slot_create(&slot, ROWS);
    assert_int_equal(ftruncate(slot.fd, 0), -1);
    assert_int_equal(ftruncate(slot.fd, 1 << 30), -1);
    assert_int_equal(fcntl(slot.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(fcntl(slot.read_only_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_true((fcntl(slot.fd, F_GETFD) & fcntl(slot.read_only_fd, F_GETFD) & FD_CLOEXEC) != 0);
    cts_slot_free(&slot);
}

static void the_agent_sees_what_the_master_planned(void **state)
{
    struct cts_slot slot;
    struct cts_slot_view view;
    help_slot_create(&slot, ROWS);
    assert_int_equal(cts_slot_view_map(slot.fd, true, &view), 0);
    assert_int_equal(view.ring_id, 7);
    assert_int_equal(view.slot_index, 2);
    assert_int_equal(view.generation, 3);
    assert_int_equal(view.age, 11);
    assert_int_equal(view.fork_trace_id[0], 0xab);
    assert_int_equal(view.rows_count, ROWS);
    assert_int_equal(cts_slot_real_ns(&view, view.created_mono_ns + 5), view.created_real_ns + 5);
    cts_slot_view_unmap(&view);
    assert_int_equal(cts_slot_view_map(slot.read_only_fd, false, &view), 0);
    assert_null(view.consumer);
    cts_slot_view_unmap(&view);
    cts_slot_free(&slot);
}

static void a_plan_out_of_bounds_makes_no_slot(void **state)
{
    struct cts_slot slot;
    struct cts_slot_plan plans[] = {
        {.ring_bytes = CTS_RING_BYTES_MIN, .rows_count = 0},
        {.ring_bytes = CTS_RING_BYTES_MIN, .rows_count = CTS_SLOT_ROWS_MAX + 1},
        {.ring_bytes = CTS_RING_BYTES_MIN / 2, .rows_count = 1},
        {.ring_bytes = CTS_RING_BYTES_MIN + 4096, .rows_count = 1},
        {.ring_bytes = CTS_RING_BYTES_MAX * 2u, .rows_count = 1},
    };
    for (size_t i = 0; i < CTS_COUNT(plans); i++) {
        assert_int_equal(cts_slot_create(&plans[i], &slot), -EINVAL);
        assert_int_equal(slot.fd, -1);
        cts_slot_free(&slot);
    }
}

static void a_header_that_lies_is_refused(void **state)
{
    struct {
        size_t at;
        uint32_t value;
    } lies[] = {
        {offsetof(struct cts_slot_header, magic), 1},
        {offsetof(struct cts_slot_header, version), CTS_SLOT_VERSION + 1},
        {offsetof(struct cts_slot_header, header_bytes), 1},
        {offsetof(struct cts_slot_header, map_bytes), 1},
        {offsetof(struct cts_slot_header, rows_offset), 0},
        {offsetof(struct cts_slot_header, rows_count), 0xffffffffu},
        {offsetof(struct cts_slot_header, rows_count), 0},
        {offsetof(struct cts_slot_header, ring_offset), 0xfffffff0u},
        {offsetof(struct cts_slot_header, ring_bytes), 0x80000000u},
        {offsetof(struct cts_slot_header, ring_bytes), CTS_RING_BYTES_MIN * 2},
        {offsetof(struct cts_slot_header, consumer_offset), 64},
    };
    struct cts_slot slot;
    struct cts_slot_view view;
    help_slot_create(&slot, ROWS);
    for (size_t i = 0; i < CTS_COUNT(lies); i++) {
        uint32_t *word = (uint32_t *)(void *)((char *)slot.map + lies[i].at);
        uint32_t truth = *word;
        *word = lies[i].value;
        assert_int_equal(cts_slot_view_map(slot.fd, true, &view), -EBADMSG);
        assert_null(view.map);
        *word = truth;
    }
    assert_int_equal(cts_slot_view_open(slot.map, 100, false, &view), -EBADMSG);
    cts_slot_free(&slot);
}

static void a_descriptor_that_could_shrink_is_refused(void **state)
{
    struct cts_slot_view view;
    int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    assert_int_equal(cts_slot_view_map(fd, true, &view), -EPERM);
    assert_int_equal(cts_slot_view_map(0, true, &view), -EPERM);
    assert_int_equal(cts_slot_view_map(-1, true, &view), -EPERM);
    close(fd);
}

/* 0 when everything is as it should be, else the number of the step. */
static int worker_body(struct cts_slot *slot)
{
    int fd = slot->fd, read_only_fd = slot->read_only_fd;
    size_t consumer_at = slot->view.consumer_offset;
    if (cts_tracer_attach(slot, false) < 0)
        return 1;
    if (fcntl(fd, F_GETFD) != -1 || fcntl(read_only_fd, F_GETFD) != -1)
        return 2;
    if (slot->map != NULL || slot->fd != -1)
        return 3;
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    cts_trace_begin(&request, &start);
    if (request.row == NULL)
        return 4;
    char *map = (char *)request.row - 4096;
    if (mprotect(map + consumer_at, 4096, PROT_READ | PROT_WRITE) != -1 || errno != EACCES)
        return 5;
    return mprotect(map, 4096, PROT_READ | PROT_WRITE) == 0 ? 0 : 6;
}

static void a_worker_keeps_no_descriptor_and_cannot_write_the_consumer_page(void **state)
{
    struct cts_slot slot;
    struct cts_worker_copy worker;
    struct cts_slot_counts counts;
    help_slot_create(&slot, ROWS);
    cts_tracer_enable(true);
    assert_int_equal(in_child(worker_body, &slot), 0);
    cts_worker_read(&slot.view, &worker);
    assert_true(worker.pid > 0);
    assert_int_equal(worker.state, CTS_WORKER_BOOTING);
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.open, 1);
    cts_slot_free(&slot);
}

static int forked_by_the_application(struct cts_slot *slot)
{
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    if (cts_tracer_is_attached())
        return 1;
    help_request();
    help_span();
    cts_beat();
    cts_trace_begin(&request, &start);
    return request.row == NULL ? 0 : 2;
}

static void a_process_that_the_application_forks_writes_nothing_into_our_ring(void **state)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    help_attach_here(&slot);
    help_request();
    assert_int_equal(in_child(forked_by_the_application, &slot), 0);
    assert_true(cts_tracer_is_attached());
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.started, 1);
    help_detach_here(&slot);
}

static int end_of_the_parents_request(struct cts_slot *slot)
{
    struct cts_trace_request *request = (void *)slot;
    cts_trace_phase(request, CTS_PHASE_SEND);
    cts_trace_progress(request);
    cts_trace_end(request, &help_end);
    return 0;
}

static void a_forked_process_may_end_the_request_it_was_born_in(void **state)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    help_attach_here(&slot);
    cts_trace_begin(&request, &start);
    assert_int_equal(in_child(end_of_the_parents_request, (struct cts_slot *)&request), 0);
    cts_slot_count(&slot.view, &counts);
    assert_int_equal(counts.open, 1);
    cts_trace_end(&request, &help_end);
    assert_int_equal(cts_ring_count(&slot.view, 0), 1);
    help_detach_here(&slot);
}

static int print_an_id(struct cts_slot *slot)
{
    uint8_t span_id[8];
    cts_span_id_new(span_id);
    return span_id[0] ^ span_id[7];
}

static void two_children_of_one_process_draw_different_ids(void **state)
{
    uint8_t own[8];
    int differ = 0;
    cts_span_id_new(own);
    for (int i = 0; i < 16; i++)
        differ += in_child(print_an_id, NULL) != in_child(print_an_id, NULL);
    assert_true(differ > 8);
}

static void detached_every_call_is_a_no_op(void **state)
{
    struct cts_trace_request request;
    struct cts_trace_start start = help_start();
    cts_tracer_detach();
    cts_trace_begin(&request, &start);
    assert_null(request.row);
    cts_trace_phase(&request, CTS_PHASE_APP);
    cts_trace_end(&request, &help_end);
    help_span();
    cts_beat();
    cts_beat_required(true);
    cts_worker_connections(3);
    cts_worker_state(CTS_WORKER_READY);
    assert_int_equal(cts_worker_requests(), 0);
}

static void an_update_of_the_consumer_page_is_all_or_nothing(void **state)
{
    struct cts_slot slot;
    struct cts_consumer_counts counts = {.tail = 64, .acked = 2}, seen;
    help_slot_create(&slot, ROWS);
    cts_consumer_write(&slot.view, &counts);
    /* A killed agent has written the spare copy and not flipped. */
    struct cts_consumer *consumer = slot.view.consumer;
    consumer->counts[(consumer->selector & 1) ^ 1].acked = 99;
    cts_consumer_read(&slot.view, &seen);
    assert_int_equal(seen.acked, 2);
    assert_int_equal(consumer->tail_hint, 64);
    /* Killed between the flip and the hint: the next agent completes it. */
    consumer->tail_hint = 0;
    cts_consumer_resume(&slot.view);
    assert_int_equal(consumer->tail_hint, 64);
    counts.tail = 8;
    cts_consumer_write(&slot.view, &counts);
    assert_int_equal(consumer->tail_hint, 64);
    cts_consumer_quarantine(&slot.view);
    assert_true(cts_consumer_is_quarantined(&slot.view));
    cts_slot_free(&slot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slot_cannot_grow_or_shrink),
        cmocka_unit_test(the_agent_sees_what_the_master_planned),
        cmocka_unit_test(a_plan_out_of_bounds_makes_no_slot),
        cmocka_unit_test(a_header_that_lies_is_refused),
        cmocka_unit_test(a_descriptor_that_could_shrink_is_refused),
        cmocka_unit_test(a_worker_keeps_no_descriptor_and_cannot_write_the_consumer_page),
        cmocka_unit_test(a_process_that_the_application_forks_writes_nothing_into_our_ring),
        cmocka_unit_test(a_forked_process_may_end_the_request_it_was_born_in),
        cmocka_unit_test(two_children_of_one_process_draw_different_ids),
        cmocka_unit_test(detached_every_call_is_a_no_op),
        cmocka_unit_test(an_update_of_the_consumer_page_is_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
