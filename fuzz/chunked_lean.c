/* chunked_lean.c - a chunked body, whole and in two pieces: the same data and the same verdict. */
#include "lean.h"

struct outcome {
    struct cts_chunked chunked;
    int verdict;
    size_t data_bytes, used;
    char data[LEAN_BYTES_MAX];
};

static struct outcome whole, split;

static void start(struct outcome *outcome, const struct cts_http_rules *rules)
{
    cts_chunked_init(&outcome->chunked, rules);
    outcome->verdict = CTS_NEED_MORE;
    outcome->data_bytes = outcome->used = 0;
}

/* Decode `in` to its last byte or to a verdict. */
static void decode(struct outcome *outcome, struct cts_bytes in)
{
    size_t used;
    struct cts_bytes data;

    while (outcome->verdict == CTS_NEED_MORE && in.count != 0) {
        outcome->verdict = cts_chunked_decode(&outcome->chunked, in, &used, &data);
        FUZZ_CHECK(used > 0 && used <= in.count);
        FUZZ_CHECK(data.at >= in.at && data.at + data.count <= in.at + used);
        memcpy(outcome->data + outcome->data_bytes, data.at, data.count);
        outcome->data_bytes += data.count;
        outcome->used += used;
        in.at += used;
        in.count -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct cts_http_rules rules;
    const char *bytes;
    size_t cut;

    if (count < FUZZ_PREFIX_BYTES + 1 || count > LEAN_BYTES_MAX)
        return 0;
    rules = fuzz_rules(data[0]);
    count -= FUZZ_PREFIX_BYTES;
    cut = lean_cut(data, count);
    data += FUZZ_PREFIX_BYTES;
    bytes = (const char *)data;

    start(&whole, &rules);
    start(&split, &rules);
    decode(&whole, (struct cts_bytes){bytes, count});
    decode(&split, (struct cts_bytes){lean_move(data, cut), cut});
    decode(&split, (struct cts_bytes){bytes + cut, count - cut});
    FUZZ_CHECK(whole.verdict == split.verdict && whole.used == split.used);
    FUZZ_CHECK(whole.data_bytes == split.data_bytes);
    FUZZ_CHECK(memcmp(whole.data, split.data, whole.data_bytes) == 0);
    FUZZ_CHECK(whole.chunked.data_bytes == whole.data_bytes);
    FUZZ_CHECK(whole.chunked.wire_bytes == whole.used);
    if (whole.verdict > 0)
        FUZZ_CHECK(strcmp(whole.chunked.code, split.chunked.code) == 0);
    return 0;
}
