/* chunked_lean.c - a chunked body, whole and in two pieces: the same data, the same trailers and
 * the same verdict. */
#include "lean.h"

struct outcome {
    struct cts_chunked chunked;
    int verdict;
    size_t data_bytes, used;
    char data[LEAN_BYTES_MAX];
    struct cts_buffer trailers;   /* stays from run to run */
};

static struct outcome whole, split;

static void start(struct outcome *outcome, const struct cts_http_rules *rules)
{
    cts_chunked_init(&outcome->chunked, rules);
    cts_buffer_drop(&outcome->trailers, cts_buffer_count(&outcome->trailers));
    outcome->chunked.trailers = &outcome->trailers;
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

static void try(const struct lean_input *input)
{
    struct cts_http_rules rules = fuzz_rules(input->choice);

    start(&whole, &rules);
    start(&split, &rules);
    decode(&whole, (struct cts_bytes){input->bytes, input->count});
    decode(&split, lean_first_piece(input));
    decode(&split, (struct cts_bytes){input->bytes + input->cut, input->count - input->cut});
    FUZZ_CHECK(whole.verdict == split.verdict && whole.used == split.used);
    FUZZ_CHECK(whole.data_bytes == split.data_bytes);
    FUZZ_CHECK(memcmp(whole.data, split.data, whole.data_bytes) == 0);
    FUZZ_CHECK(cts_bytes_equal(cts_buffer_view(&whole.trailers),
                               cts_buffer_view(&split.trailers)));
    FUZZ_CHECK(whole.chunked.data_bytes == whole.data_bytes);
    FUZZ_CHECK(whole.chunked.wire_bytes == whole.used);
    if (whole.verdict > 0)
        FUZZ_CHECK(lean_same_code(whole.chunked.code, split.chunked.code));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    return lean_each(data, count, try);
}
