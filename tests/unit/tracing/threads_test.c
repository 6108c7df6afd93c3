/* One process writes with several threads while another thread reads. Run under ThreadSanitizer
 * too, where it shows that ring and tail are ordered and that the lock covers what it must. */
#include "help.h"

#include <pthread.h>

#define PRODUCERS 4
#define REQUESTS_EACH 5000

static struct cts_record_copy record;
static _Atomic int finished_count;

static void *produce(void *unused)
{
    for (int i = 0; i < REQUESTS_EACH; i++) {
        help_request();
        if (i % 11 == 0)
            help_request_unsampled();
        if (i % 13 == 0)
            help_span();
    }
    atomic_fetch_add(&finished_count, 1);
    return unused;
}

/* Drain and look at the rows until the producers are done, then once more. */
static uint64_t consume(const struct cts_slot_view *view, int producers_count)
{
    uint64_t drained = 0;
    bool is_last = false;
    struct cts_row_copy row;
    while (!is_last) {
        is_last = atomic_load(&finished_count) == producers_count;
        int64_t count = help_drain(view, &record);
        assert_true(count >= 0);
        drained += (uint64_t)count;
        for (uint32_t i = 0; i < view->rows_count; i++) {
            if (cts_row_read(view, i, &row) == CTS_ROW_FREE)
                continue;
            assert_int_equal(row.path.count, 8);
            assert_memory_equal(row.path.at, "/items/7", 8);
        }
    }
    return drained;
}

static void run(int producers_count)
{
    struct cts_slot slot;
    struct cts_slot_counts counts;
    pthread_t threads[PRODUCERS];
    uint64_t spans_each = REQUESTS_EACH + (REQUESTS_EACH + 12) / 13;
    atomic_store(&finished_count, 0);
    help_attach_here(&slot);
    for (int i = 0; i < producers_count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, produce, NULL), 0);
    uint64_t drained = consume(&slot.view, producers_count);
    for (int i = 0; i < producers_count; i++)
        pthread_join(threads[i], NULL);
    assert_true(help_identity_holds(&slot.view, &counts));
    assert_int_equal(counts.started, (uint64_t)producers_count * spans_each);
    assert_int_equal(counts.open + counts.rowless_open, 0);
    assert_int_equal(counts.committed, drained);
    help_detach_here(&slot);
}

static void what_one_thread_commits_another_reads_whole(void **state)
{
    run(1);
}

static void four_threads_share_one_ring_and_nothing_is_lost_uncounted(void **state)
{
    run(PRODUCERS);
}

struct ids {
    uint8_t span_ids[1000][8];
};

static void *draw(void *to)
{
    struct ids *ids = to;
    for (int i = 0; i < 1000; i++)
        cts_span_id_new(ids->span_ids[i]);
    return NULL;
}

static void two_threads_never_draw_the_same_ids(void **state)
{
    static struct ids first, second;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, draw, &first), 0);
    draw(&second);
    pthread_join(thread, NULL);
    for (int i = 0; i < 1000; i++)
        assert_memory_not_equal(first.span_ids[i], second.span_ids[i], 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_thread_commits_another_reads_whole),
        cmocka_unit_test(four_threads_share_one_ring_and_nothing_is_lost_uncounted),
        cmocka_unit_test(two_threads_never_draw_the_same_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
