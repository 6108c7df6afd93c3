/* chunked.c - a chunked body: whole and split must give the same data and the same verdict. */
#include "fuzz.h"

struct outcome {
    int verdict;
    const char *code;
    size_t data_bytes, used;
    uint64_t hash;
    struct cts_buffer trailers;
};

/* Every field that was kept is one, and none is there that was not counted. */
static void check_trailers(const struct cts_chunked *chunked, const struct outcome *outcome)
{
    struct cts_bytes section = cts_buffer_view(&outcome->trailers);
    struct cts_header field;
    uint32_t count = 0;

    for (; cts_trailer_next(&section, &field); count++) {
        FUZZ_CHECK(cts_http_name_ok(field.name) && cts_http_value_ok(field.value));
        FUZZ_CHECK(memchr(field.name.at, '_', field.name.count) == NULL);
    }
    FUZZ_CHECK(count <= chunked->trailers_count && count <= chunked->rules->fields_count_max);
    FUZZ_CHECK(cts_buffer_count(&outcome->trailers) <= chunked->trailer_bytes);
}

static void take(struct outcome *outcome, struct cts_bytes data)
{
    for (size_t i = 0; i < data.count; i++)
        outcome->hash = (outcome->hash ^ (unsigned char)data.at[i]) * 0x100000001b3u;
    outcome->data_bytes += data.count;
}

/* Decode `in` to its last byte or to a verdict. */
static void decode(struct cts_chunked *chunked, struct cts_bytes in, struct outcome *outcome)
{
    size_t at = 0, used;
    struct cts_bytes data;

    outcome->verdict = CTS_NEED_MORE;
    while (outcome->verdict == CTS_NEED_MORE && at < in.count) {
        outcome->verdict = cts_chunked_decode(
            chunked, (struct cts_bytes){in.at + at, in.count - at}, &used, &data);
        FUZZ_CHECK(used <= in.count - at);
        FUZZ_CHECK(used > 0 || outcome->verdict != CTS_NEED_MORE);
        FUZZ_CHECK(data.count <= used);
        take(outcome, data);
        at += used;
    }
    outcome->used += at;
    outcome->code = chunked->code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct outcome whole = {.hash = 1}, split = {.hash = 1, .verdict = CTS_NEED_MORE};
    struct cts_chunked first, second;
    struct cts_http_rules rules;
    struct fuzz_splits splits;
    size_t given = 0;
    char *bytes;

    if (count < FUZZ_PREFIX_BYTES + 1 || count > 200000)
        return 0;
    rules = fuzz_rules(data[0]);
    splits = fuzz_splits_of(data);
    data += FUZZ_PREFIX_BYTES;
    count -= FUZZ_PREFIX_BYTES;

    cts_chunked_init(&first, &rules);
    cts_chunked_init(&second, &rules);
    first.trailers = &whole.trailers;
    second.trailers = &split.trailers;
    bytes = fuzz_copy(data, count);
    decode(&first, (struct cts_bytes){bytes, count}, &whole);
    free(bytes);
    while (split.verdict == CTS_NEED_MORE && given < count) {
        size_t more = fuzz_next(&splits);
        more = more < count - given ? more : count - given;
        bytes = fuzz_copy(data + given, more);
        decode(&second, (struct cts_bytes){bytes, more}, &split);
        free(bytes);
        given += more;
    }
    FUZZ_CHECK(whole.verdict == split.verdict);
    FUZZ_CHECK(whole.data_bytes == split.data_bytes && whole.hash == split.hash);
    FUZZ_CHECK(whole.used == split.used);
    FUZZ_CHECK(first.data_bytes == whole.data_bytes && first.wire_bytes >= first.data_bytes);
    FUZZ_CHECK(cts_bytes_equal(cts_buffer_view(&whole.trailers),
                               cts_buffer_view(&split.trailers)));
    if (whole.verdict > 0)
        FUZZ_CHECK(strcmp(whole.code, split.code) == 0);
    if (whole.verdict == 0)
        check_trailers(&first, &whole);
    cts_buffer_free(&whole.trailers);
    cts_buffer_free(&split.trailers);
    return 0;
}
