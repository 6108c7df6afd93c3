/* connection.c - heads, bodies and pipelining on one connection: whole and split must give the
 * same answers, and nothing may be understood after a refusal. */
#include "fuzz.h"
#include "drive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct drive whole, split;
    struct cts_http_rules rules;
    struct fuzz_splits splits;
    char *bytes, *piece = NULL;
    size_t given = 0;

    if (count < FUZZ_PREFIX_BYTES || count > 20000)
        return 0;
    rules = fuzz_rules(data[0]);
    splits = fuzz_splits_of(data);
    splits.byte_by_byte = splits.byte_by_byte && count < 600;
    data += FUZZ_PREFIX_BYTES;
    count -= FUZZ_PREFIX_BYTES;

    drive_init(&whole, &rules);
    drive_init(&split, &rules);
    bytes = fuzz_copy(data, count);
    drive_feed(&whole, (struct cts_bytes){bytes, count});
    while (given < count) {
        size_t more = fuzz_next(&splits);
        given += more < count - given ? more : count - given;
        free(piece);
        piece = fuzz_copy(data, given);
        drive_feed(&split, (struct cts_bytes){piece, given});
    }
    FUZZ_CHECK(whole.answers_count == split.answers_count && whole.phase == split.phase);
    FUZZ_CHECK(whole.hash == split.hash);
    for (size_t i = 0; i < whole.answers_count; i++) {
        FUZZ_CHECK(whole.answers[i] == split.answers[i]);
        FUZZ_CHECK(whole.answers[i] == 200 || i + 1 == whole.answers_count);
    }
    drive_done(&whole);
    drive_done(&split);
    free(bytes);
    free(piece);
    return 0;
}
