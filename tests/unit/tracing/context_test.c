/* `traceparent` as W3C Trace Context level 2 wants it. */
#include "help.h"

#include <stdio.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static bool is_valid(const char *field)
{
    struct cts_trace_context context;
    cts_traceparent_read(cts_bytes_of(field), &context);
    assert_int_equal(cts_traceparent_is_unsampled(cts_bytes_of(field)),
                     context.is_valid && (context.flags & 1) == 0);
    return context.is_valid;
}

static void a_right_field_is_read_and_written_back(void **state)
{
    const char *field = "00-" TRACE "-" SPAN "-03";
    char written[CTS_TRACEPARENT_BYTES];
    struct cts_trace_context context;
    cts_traceparent_read(cts_bytes_of(field), &context);
    assert_int_equal(cts_traceparent_is_unsampled(cts_bytes_of(field)),
                     context.is_valid && (context.flags & 1) == 0);
    assert_true(context.is_valid);
    assert_int_equal(context.flags, 3);
    cts_traceparent_write(context.trace_id, context.span_id, context.flags, written);
    assert_memory_equal(written, field, CTS_TRACEPARENT_BYTES);
}

static void every_byte_at_every_place_is_written_as_printf_writes_it(void **state)
{
    for (unsigned value = 0; value < 256; value++) {
        for (size_t place = 0; place < 24; place++) {
            uint8_t ids[24];
            char wanted[CTS_TRACEPARENT_BYTES + 1], written[CTS_TRACEPARENT_BYTES];
            size_t at = (size_t)snprintf(wanted, sizeof(wanted), "00-");
            memset(ids, 0x5a, sizeof(ids));
            ids[place] = (uint8_t)value;
            for (size_t i = 0; i < sizeof(ids); i++)
                at += (size_t)snprintf(wanted + at, sizeof(wanted) - at, "%02x%s", ids[i],
                                       i == 15 || i == 23 ? "-" : "");
            snprintf(wanted + at, sizeof(wanted) - at, "%02x", 1);
            cts_traceparent_write(ids, ids + 16, 1, written);
            assert_memory_equal(written, wanted, CTS_TRACEPARENT_BYTES);
        }
    }
}

static void a_higher_version_may_be_longer_and_version_00_may_not(void **state)
{
    assert_true(is_valid("01-" TRACE "-" SPAN "-01"));
    assert_true(is_valid("01-" TRACE "-" SPAN "-01-what-the-future-adds"));
    assert_false(is_valid("01-" TRACE "-" SPAN "-01.what"));
    assert_false(is_valid("00-" TRACE "-" SPAN "-01-more"));
    assert_false(is_valid("ff-" TRACE "-" SPAN "-01"));
}

static void anything_else_is_not_valid(void **state)
{
    static const char *const fields[] = {
        "",
        "00",
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-0G",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01",
        "00-" TRACE "_" SPAN "-01",
        "00-" TRACE "-" SPAN "_01",
        "0x-" TRACE "-" SPAN "-01",
        " 00-" TRACE "-" SPAN "-01",
        "00-" TRACE "-" SPAN "-01 ",
    };
    for (size_t i = 0; i < CTS_COUNT(fields); i++)
        assert_false(is_valid(fields[i]));
    /* Every single byte of a right one matters but for the flags' unknown bits. */
    char field[] = "00-" TRACE "-" SPAN "-01";
    for (size_t i = 0; i < sizeof(field) - 1; i++) {
        char right = field[i];
        field[i] = 'g';
        assert_false(is_valid(field));
        field[i] = (char)0xb0;
        assert_false(is_valid(field));
        field[i] = right;
    }
}

static bool is_unsampled(const char *field, size_t count)
{
    return cts_traceparent_is_unsampled((struct cts_bytes){field, count});
}

static void only_lower_case_hex_is_read_and_every_value_of_it(void **state)
{
    static const char right[] = "00-" TRACE "-" SPAN "-01";
    for (size_t place = 3; place < 52; place++) {
        if (right[place] == '-')
            continue;
        for (unsigned value = 0; value < 256; value++) {
            const char *digits = "0123456789abcdef";
            const char *digit = value == 0 ? NULL : strchr(digits, (int)value);
            struct cts_trace_context context;
            char field[sizeof(right)], written[CTS_TRACEPARENT_BYTES];
            memcpy(field, right, sizeof(right));
            field[place] = (char)value;
            cts_traceparent_read((struct cts_bytes){field, sizeof(right) - 1}, &context);
            assert_int_equal(context.is_valid, digit != NULL);
            assert_false(is_unsampled(field, sizeof(right) - 1));
            field[sizeof(right) - 2] = '0';
            assert_int_equal(is_unsampled(field, sizeof(right) - 1), digit != NULL);
            field[sizeof(right) - 2] = '1';
            if (digit == NULL)
                continue;
            cts_traceparent_write(context.trace_id, context.span_id, context.flags, written);
            assert_memory_equal(written, field, CTS_TRACEPARENT_BYTES);
        }
    }
}

static void flags_nobody_knows_are_cleared(void **state)
{
    struct cts_trace_context context;
    cts_traceparent_read(cts_bytes_of("00-" TRACE "-" SPAN "-ff"), &context);
    assert_true(context.is_valid);
    assert_int_equal(context.flags, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_field_is_read_and_written_back),
        cmocka_unit_test(every_byte_at_every_place_is_written_as_printf_writes_it),
        cmocka_unit_test(a_higher_version_may_be_longer_and_version_00_may_not),
        cmocka_unit_test(anything_else_is_not_valid),
        cmocka_unit_test(only_lower_case_hex_is_read_and_every_value_of_it),
        cmocka_unit_test(flags_nobody_knows_are_cleared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
