/* siblings_test.c - who steps back, as a function of what the workers say of themselves. */
#include "../../../src/server/siblings.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define NOW 1000.0

/* A worker that polled a moment ago and has so many connections. */
static struct sibling busy_with(int connections_count)
{
    return (struct sibling){.connections_count = connections_count, .accepts = true,
                            .polled_at = NOW - 0.05};
}

static void set(struct sibling *places, size_t count, const int *counts)
{
    for (size_t i = 0; i < count; i++)
        places[i] = busy_with(counts[i]);
}

static void above_nine_eighths_of_the_mean_a_worker_steps_back(void **state)
{
    struct sibling places[4];
    set(places, 4, (int[]){19, 16, 16, 13});   /* mean 16, limit 18 */
    assert_true(siblings_outweighed(places, 4, 0, NOW, 0));
    assert_false(siblings_outweighed(places, 4, 1, NOW, 0));
    set(places, 4, (int[]){18, 16, 16, 14});
    assert_false(siblings_outweighed(places, 4, 0, NOW, 0));
    set(places, 4, (int[]){16, 16, 16, 16});
    for (size_t own = 0; own < 4; own++)
        assert_false(siblings_outweighed(places, 4, own, NOW, 0));
}

static void one_connection_more_is_no_imbalance(void **state)
{
    struct sibling places[4];
    set(places, 4, (int[]){1, 0, 0, 0});
    assert_false(siblings_outweighed(places, 4, 0, NOW, 0));
    set(places, 4, (int[]){2, 1, 1, 1});
    assert_false(siblings_outweighed(places, 4, 0, NOW, 0));
    set(places, 4, (int[]){2, 0, 1, 1});
    assert_true(siblings_outweighed(places, 4, 0, NOW, 0));
}

static void a_hung_sibling_stops_nobody(void **state)
{
    struct sibling places[4];
    set(places, 4, (int[]){10, 10, 10, 0});
    assert_true(siblings_outweighed(places, 4, 0, NOW, 0));
    places[3].polled_at = NOW - 0.2;
    for (size_t own = 0; own < 3; own++)
        assert_false(siblings_outweighed(places, 4, own, NOW, 0));
}

static void a_sleeper_is_believed_for_two_beats_and_a_half(void **state)
{
    struct sibling places[2];
    set(places, 2, (int[]){4, 0});
    places[1].sleeps = true;
    places[1].polled_at = NOW - 2.4;
    assert_true(siblings_outweighed(places, 2, 0, NOW, 0));
    places[1].polled_at = NOW - 2.6;
    assert_false(siblings_outweighed(places, 2, 0, NOW, 0));
}

/* The one that looks asleep has not looked up since a client came. */
static void who_has_not_polled_since_is_not_believed(void **state)
{
    struct sibling places[3];
    set(places, 3, (int[]){8, 8, 0});
    places[2].sleeps = true;
    assert_true(siblings_outweighed(places, 3, 0, NOW, NOW - 0.06));
    assert_false(siblings_outweighed(places, 3, 0, NOW, NOW - 0.04));
}

static void who_boots_or_leaves_stops_nobody(void **state)
{
    struct sibling places[2];
    set(places, 2, (int[]){4, 0});
    places[1].accepts = false;
    assert_false(siblings_outweighed(places, 2, 0, NOW, 0));
}

static void alone_nobody_steps_back(void **state)
{
    struct sibling places[1];
    set(places, 1, (int[]){1000});
    assert_false(siblings_outweighed(places, 1, 0, NOW, 0));
    assert_false(siblings_outweighed(places, 1, 7, NOW, 0));
}

static void numbers_that_no_worker_can_have_are_harmless(void **state)
{
    const double stamps[] = {NAN, INFINITY, -INFINITY, 0, -1e300, 1e300};
    struct sibling places[3];
    for (size_t i = 0; i < CTS_COUNT(stamps); i++) {
        set(places, 3, (int[]){4, 4, 0});
        places[2].sleeps = true;
        places[2].polled_at = stamps[i];
        assert_false(siblings_outweighed(places, 3, 0, NOW, 0));
    }
    set(places, 3, (int[]){4, 4, -2147483647 - 1});
    assert_true(siblings_outweighed(places, 3, 0, NOW, 0));
    set(places, 3, (int[]){4, 2147483647, 2147483647});
    assert_false(siblings_outweighed(places, 3, 0, NOW, 0));
    assert_true(siblings_outweighed(places, 3, 1, NOW, 0));
}

static void a_place_that_was_cleared_is_believed_no_more(void **state)
{
    assert_int_equal(siblings_make(), 0);
    siblings_clear(0);
    siblings_clear(1);
    *siblings_own(0) = busy_with(4);
    *siblings_own(1) = busy_with(0);
    assert_true(siblings_say_step_back(0, NOW, 0));
    siblings_clear(1);
    assert_false(siblings_say_step_back(0, NOW, 0));
    assert_false(siblings_say_step_back(-1, NOW, 0));
    assert_false(siblings_say_step_back(SIBLINGS_MAX, NOW, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(above_nine_eighths_of_the_mean_a_worker_steps_back),
        cmocka_unit_test(one_connection_more_is_no_imbalance),
        cmocka_unit_test(a_hung_sibling_stops_nobody),
        cmocka_unit_test(a_sleeper_is_believed_for_two_beats_and_a_half),
        cmocka_unit_test(who_has_not_polled_since_is_not_believed),
        cmocka_unit_test(who_boots_or_leaves_stops_nobody),
        cmocka_unit_test(alone_nobody_steps_back),
        cmocka_unit_test(numbers_that_no_worker_can_have_are_harmless),
        cmocka_unit_test(a_place_that_was_cleared_is_believed_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
