/* retry_after_test.c - Retry-After is seconds or a date, and comes from outside. */
#include "channel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#define NOW_S 1795442400   /* Mon, 23 Nov 2026 14:00:00 GMT */

static void seconds_and_dates_are_read(void **state)
{
    assert_int_equal(channel_retry_after_ms("3", NOW_S), 3000);
    assert_int_equal(channel_retry_after_ms(" 0 ", NOW_S), 0);
    assert_int_equal(channel_retry_after_ms("Mon, 23 Nov 2026 14:00:07 GMT", NOW_S), 7000);
    assert_int_equal(channel_retry_after_ms("Mon, 23 Nov 2026 13:00:07 GMT", NOW_S), 0);
}

static void nonsense_is_nothing_and_a_century_is_a_day(void **state)
{
    assert_int_equal(channel_retry_after_ms("", NOW_S), -1);
    assert_int_equal(channel_retry_after_ms("3x", NOW_S), -1);
    assert_int_equal(channel_retry_after_ms("-3", NOW_S), -1);
    assert_int_equal(channel_retry_after_ms("soon", NOW_S), -1);
    assert_int_equal(channel_retry_after_ms("99999999999999999999999", NOW_S), 86400000);
    assert_int_equal(channel_retry_after_ms("Mon, 23 Nov 2126 13:00:07 GMT", NOW_S), 86400000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_and_dates_are_read),
        cmocka_unit_test(nonsense_is_nothing_and_a_century_is_a_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
