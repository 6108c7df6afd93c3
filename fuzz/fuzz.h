/* fuzz.h - what the targets share: splits from the input itself, and exact copies so that
 * AddressSanitizer sees a read behind the last byte. */
#ifndef CTSERVE_FUZZ_H
#define CTSERVE_FUZZ_H

#include "ctserve/http.h"

#include <stdio.h>
#include <stdlib.h>

#define FUZZ_CHECK(what)                                                                           \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define FUZZ_PREFIX_BYTES 3   /* rules, and two bytes that seed the splits */

/* The first byte of an input chooses the policy (bit 0) and small limits (bit 1). */
static inline struct cts_http_rules fuzz_rules(uint8_t choice)
{
    struct cts_http_rules rules = {
        .line_bytes_max = 4094, .fields_count_max = 100, .field_bytes_max = 8190};

    rules.gunicorn_policy = (choice & 1) != 0;
    if ((choice & 2) != 0) {
        rules.line_bytes_max = 40;
        rules.fields_count_max = 4;
        rules.field_bytes_max = 32;
        rules.head_bytes_max = 150;
    }
    return rules;
}

struct fuzz_splits {
    uint32_t seed;
    bool byte_by_byte;
};

static inline struct fuzz_splits fuzz_splits_of(const uint8_t *data)
{
    uint32_t seed = data[1] | (uint32_t)data[2] << 8;

    return (struct fuzz_splits){seed * 2654435761u + 1u, (seed & 3) == 0};
}

/* How many bytes the next piece has: 1 to 64. */
static inline size_t fuzz_next(struct fuzz_splits *splits)
{
    if (splits->byte_by_byte)
        return 1;
    splits->seed = splits->seed * 1664525u + 1013904223u;
    return 1 + (splits->seed >> 26);
}

/* A copy that ends where its memory ends. */
static inline char *fuzz_copy(const uint8_t *data, size_t count)
{
    char *copy = malloc(count == 0 ? 1 : count);

    FUZZ_CHECK(copy != NULL);
    if (count != 0)
        memcpy(copy, data, count);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

#endif
