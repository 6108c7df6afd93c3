/* otlp_test.c - messages out of hostile facts, and answers that are none. */
#include "otlp.h"
#include "otlp.pb-c.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static struct resource *resource_for(int32_t slot_index, uint32_t generation)
{
    static struct env_plan plan;
    struct otlp_process process = {.pid = 7, .slot_index = slot_index, .generation = generation,
                                   .master_started_real_ns = 1000, .master_pid = 6, .app = "a:b"};
    strcpy(plan.service_name, "shop");
    return otlp_resource_new(&process, &plan);
}

static void an_instance_id_is_stable_and_each_process_has_its_own(void **state)
{
    struct resource *one = resource_for(0, 1), *again = resource_for(0, 1);
    struct resource *next = resource_for(0, 2), *other = resource_for(1, 1);
    assert_string_equal(one->instance_id, again->instance_id);
    assert_string_not_equal(one->instance_id, next->instance_id);
    assert_string_not_equal(one->instance_id, other->instance_id);
    assert_int_equal(strlen(one->instance_id), 36);
    assert_int_equal(one->instance_id[14], '8');
    resource_give(one);
    resource_give(again);
    resource_give(next);
    resource_give(other);
}

/* Whatever bytes the texts have, what is packed is UTF-8 and can be unpacked. */
static void texts_that_are_not_utf8_become_utf8(void **state)
{
    static struct cts_record_copy record;
    static char noise[2000];
    struct otlp_clock clock = {0, 1000};
    struct resource *resource = resource_for(0, 1);
    srand(3);
    for (int round = 0; round < 500; round++) {
        memset(&record, 0, sizeof(record));
        record.kind = CTS_RECORD_SERVER_SPAN;
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (char)(rand() >> 5);
        record.server.path = (struct cts_bytes){noise, (size_t)rand() % sizeof(noise)};
        record.server.query = (struct cts_bytes){noise, (size_t)rand() % sizeof(noise)};
        record.server.method = (struct cts_bytes){noise + 3, 5};
        record.server.route = (struct cts_bytes){noise, 600};
        record.server.host = (struct cts_bytes){noise, 40};
        record.server.head.start_ns = 500;
        record.server.head.end_ns = 100;
        struct span *span = otlp_span_new(&record, &clock, resource);
        assert_non_null(span);
        assert_int_equal(span->start_ns, span->end_ns);
        Otlp__Span *message = otlp__span__unpack(NULL, span->encoded_bytes, span->encoded);
        assert_non_null(message);
        for (size_t i = 0; i < message->n_attributes; i++) {
            Otlp__AnyValue *value = message->attributes[i]->value;
            if (value->value_case != OTLP__ANY_VALUE__VALUE_STRING_VALUE)
                continue;
            wchar_t *wide = calloc(8192, sizeof(*wide));
            assert_true(mbstowcs(wide, value->string_value, 8192) != (size_t)-1);
            free(wide);
        }
        otlp__span__free_unpacked(message, NULL);
        span_give(span);
    }
    resource_give(resource);
}

static void a_secret_in_the_query_is_never_packed(void **state)
{
    static struct cts_record_copy record;
    struct otlp_clock clock = {0};
    struct resource *resource = resource_for(0, 1);
    record.kind = CTS_RECORD_SERVER_SPAN;
    record.server.query = cts_bytes_of("X-Amz-Signature=hushhush&q=1&sig=hushhush");
    struct span *span = otlp_span_new(&record, &clock, resource);
    assert_null(memmem(span->encoded, span->encoded_bytes, "hushhush", 8));
    assert_non_null(memmem(span->encoded, span->encoded_bytes,
                           "X-Amz-Signature=REDACTED&q=1&sig=REDACTED", 41));
    span_give(span);
    resource_give(resource);
}

static void an_answer_is_read_and_nonsense_is_told(void **state)
{
    struct otlp_answer answer;
    assert_int_equal(otlp_answer_decode("", 0, &answer), 0);
    assert_int_equal(answer.rejected_count, 0);
    assert_int_equal(otlp_answer_decode("\x0a\x06\x08\x05\x12\x02no", 8, &answer), 0);
    assert_int_equal(answer.rejected_count, 5);
    assert_string_equal(answer.message, "no");
    assert_true(otlp_answer_decode("<html>", 6, &answer) < 0);
}

static void a_retry_delay_is_found_in_the_details(void **state)
{
    char bytes[128] = "\x08\x08\x1a";
    const char *type = "type.googleapis.com/google.rpc.RetryInfo";
    size_t type_bytes = strlen(type), at = 4;
    bytes[at++] = 0x0a;
    bytes[at++] = (char)type_bytes;
    memcpy(bytes + at, type, type_bytes);
    at += type_bytes;
    memcpy(bytes + at, "\x12\x09\x0a\x07\x08\x02\x10\x80\xca\xb5\xee\x01", 12);
    at += 11;
    bytes[3] = (char)(at - 4);
    assert_int_equal(otlp_retry_delay_ms(bytes, at), -1);   /* cut short inside the number */
    memcpy(bytes + 4 + 2 + type_bytes, "\x12\x0a\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01", 12);
    at = 4 + 2 + type_bytes + 12;
    bytes[3] = (char)(at - 4);
    assert_int_equal(otlp_retry_delay_ms(bytes, at), 2500);
    assert_int_equal(otlp_retry_delay_ms("\xff\xff", 2), -1);
    assert_int_equal(otlp_retry_delay_ms("", 0), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_instance_id_is_stable_and_each_process_has_its_own),
        cmocka_unit_test(texts_that_are_not_utf8_become_utf8),
        cmocka_unit_test(a_secret_in_the_query_is_never_packed),
        cmocka_unit_test(an_answer_is_read_and_nonsense_is_told),
        cmocka_unit_test(a_retry_delay_is_found_in_the_details),
    };
    setlocale(LC_ALL, "C.UTF-8");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
