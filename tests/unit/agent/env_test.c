/* env_test.c - OTEL_* variables: what they mean, and what wins. */
#include "env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

static const char *names[8], *values[8];
static int warnings;

static const char *get(const char *name)
{
    for (size_t i = 0; i < 8 && names[i] != NULL; i++) {
        if (strcmp(names[i], name) == 0)
            return values[i];
    }
    return NULL;
}

static void warn(void *context, const char *sentence)
{
    warnings++;
}

/* Pairs of name and value, ended by NULL, then read. */
static struct env_plan read_plan(struct env_settings settings, ...)
{
    struct env_plan plan;
    va_list arguments;
    va_start(arguments, settings);
    memset(names, 0, sizeof(names));
    warnings = 0;
    for (size_t i = 0; i < 8; i++) {
        names[i] = va_arg(arguments, const char *);
        if (names[i] == NULL)
            break;
        values[i] = va_arg(arguments, const char *);
    }
    va_end(arguments);
    env_read(&settings, get, warn, NULL, &plan);
    return plan;
}

#define NOTHING ((struct env_settings){0})
#define ENDPOINT "OTEL_EXPORTER_OTLP_ENDPOINT"

static void nothing_set_means_nothing_is_sent(void **state)
{
    struct env_plan plan = read_plan(NOTHING, NULL);
    assert_false(plan.is_exporting);
    assert_string_equal(plan.service_name, "unknown_service:ctserve");
    assert_int_equal(plan.timeout_ms, 10000);
    assert_int_equal(warnings, 0);
    env_plan_done(&plan);
}

static void a_base_gets_the_path_and_a_traces_endpoint_is_taken_as_it_is(void **state)
{
    struct env_plan plan = read_plan(NOTHING, ENDPOINT, "http://c:4318/", NULL);
    assert_string_equal(plan.url, "http://c:4318/v1/traces");
    assert_int_equal(plan.protocol, ENV_PROTOCOL_HTTP);
    plan = read_plan(NOTHING, ENDPOINT, "http://c:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                     "http://d:2/in", NULL);
    assert_string_equal(plan.url, "http://d:2/in");
    plan = read_plan(NOTHING, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:2", NULL);
    assert_string_equal(plan.url, "http://d:2/");
    plan = read_plan(NOTHING, ENDPOINT, "https://c/v1/traces", NULL);
    assert_string_equal(plan.url, "https://c/v1/traces");
}

static void port_4317_or_the_word_means_grpc(void **state)
{
    struct env_plan plan = read_plan(NOTHING, ENDPOINT, "http://c:4317", NULL);
    assert_int_equal(plan.protocol, ENV_PROTOCOL_GRPC);
    assert_string_equal(plan.target, "c:4317");
    assert_false(plan.use_tls);
    plan = read_plan(NOTHING, ENDPOINT, "https://c", "OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC", NULL);
    assert_int_equal(plan.protocol, ENV_PROTOCOL_GRPC);
    assert_string_equal(plan.target, "c:4317");
    assert_true(plan.use_tls);
    plan = read_plan(NOTHING, ENDPOINT, "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL",
                     "http/protobuf", NULL);
    assert_int_equal(plan.protocol, ENV_PROTOCOL_HTTP);
    plan = read_plan(NOTHING, ENDPOINT, "http://c:1", "OTEL_EXPORTER_OTLP_PROTOCOL", "smoke", NULL);
    assert_int_equal(plan.protocol, ENV_PROTOCOL_HTTP);
    assert_int_equal(warnings, 1);
}

static void a_setting_wins_over_every_variable(void **state)
{
    struct env_settings settings = {"http://mine:9", "grpc", "mine"};
    struct env_plan plan = read_plan(settings, ENDPOINT, "http://c:1", "OTEL_SERVICE_NAME", "other",
                                     "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", NULL);
    assert_string_equal(plan.target, "mine:9");
    assert_int_equal(plan.protocol, ENV_PROTOCOL_GRPC);
    assert_string_equal(plan.service_name, "mine");
}

static void off_switches_switch_off(void **state)
{
    assert_false(read_plan(NOTHING, ENDPOINT, "http://c:1", "OTEL_SDK_DISABLED", "TRUE", NULL)
                     .is_exporting);
    assert_true(read_plan(NOTHING, ENDPOINT, "http://c:1", "OTEL_SDK_DISABLED", "1", NULL)
                    .is_exporting);
    assert_false(read_plan(NOTHING, ENDPOINT, "http://c:1", "OTEL_TRACES_EXPORTER", "none", NULL)
                     .is_exporting);
    assert_false(read_plan(NOTHING, ENDPOINT, "", NULL).is_exporting);
}

static void a_bad_endpoint_is_named_and_nothing_is_sent(void **state)
{
    assert_false(read_plan(NOTHING, ENDPOINT, "ftp://c:1", NULL).is_exporting);
    assert_int_equal(warnings, 1);
}

static void the_timeout_counts_milliseconds_and_a_small_one_is_warned_about(void **state)
{
    const char *name = "OTEL_EXPORTER_OTLP_TIMEOUT";
    assert_int_equal(read_plan(NOTHING, name, "2500", NULL).timeout_ms, 2500);
    assert_int_equal(warnings, 0);
    assert_int_equal(read_plan(NOTHING, name, "10", NULL).timeout_ms, 10);
    assert_int_equal(warnings, 1);
    assert_int_equal(read_plan(NOTHING, name, "10s", NULL).timeout_ms, 10000);
    assert_int_equal(warnings, 1);
}

static void pairs_are_decoded_and_bad_headers_left_out(void **state)
{
    struct env_plan plan =
        read_plan(NOTHING, "OTEL_EXPORTER_OTLP_HEADERS", " a = b%20c ,bad,x%0d%0ay=1,k=v%0aw",
                  "OTEL_RESOURCE_ATTRIBUTES", "service.name=s,t=u%3D1%", NULL);
    assert_int_equal(plan.headers_count, 1);
    assert_string_equal(plan.headers[0].name, "a");
    assert_string_equal(plan.headers[0].value, "b c");
    assert_int_equal(warnings, 3);
    assert_int_equal(plan.attributes_count, 2);
    assert_string_equal(plan.attributes[1].value, "u=1%");
    assert_string_equal(plan.service_name, "s");
    env_plan_done(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_means_nothing_is_sent),
        cmocka_unit_test(a_base_gets_the_path_and_a_traces_endpoint_is_taken_as_it_is),
        cmocka_unit_test(port_4317_or_the_word_means_grpc),
        cmocka_unit_test(a_setting_wins_over_every_variable),
        cmocka_unit_test(off_switches_switch_off),
        cmocka_unit_test(a_bad_endpoint_is_named_and_nothing_is_sent),
        cmocka_unit_test(the_timeout_counts_milliseconds_and_a_small_one_is_warned_about),
        cmocka_unit_test(pairs_are_decoded_and_bad_headers_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
