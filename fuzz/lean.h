/* lean.h - what the lean targets share: many executions a second on small inputs.
 *
 * An execution parses one input once whole and once in two pieces, and allocates nothing: the
 * bytes lie where libFuzzer's own copy or a room ends, and the first piece is copied to the end of
 * another room, so that AddressSanitizer sees a read behind the last byte of either. Every split,
 * the rewritten request and the leak check belong to the thorough targets (parser.c, chunked.c).
 *
 * libFuzzer spends seven times longer on choosing an input and reading its coverage than the
 * parser on both its runs. So each of its inputs is followed by LEAN_VARIANTS_COUNT more, made of
 * it by the same kinds of change that libFuzzer makes: each is parsed and checked like the first,
 * what they cover counts for the input they come from, and they depend on nothing else, so what
 * breaks one is found again from the file that libFuzzer leaves. */
#ifndef CTSERVE_FUZZ_LEAN_H
#define CTSERVE_FUZZ_LEAN_H

#include "fuzz.h"

#define LEAN_BYTES_MAX 4096u
#define LEAN_RULES_COUNT 4u      /* policy and small limits: the two bits of fuzz_rules */
#define LEAN_VARIANTS_COUNT 63u
#define LEAN_CHANGES_MAX 4u      /* of one variant; one adds at most LEAN_REPEAT_BYTES_MAX */
#define LEAN_REPEAT_BYTES_MAX 16u

struct lean_input {
    uint8_t choice;              /* of the rules */
    size_t cut;                  /* anywhere, both ends included */
    const char *bytes;
    size_t count;
};

/* Multiples of 32 bytes long: the red zone begins right behind them. */
static char lean_piece_room[LEAN_BYTES_MAX];
static char lean_input_room[LEAN_BYTES_MAX];
static uint64_t lean_executions;

/* For record.py; libFuzzer counts its own inputs only. */
static void __attribute__((destructor)) lean_tell(void)
{
    fprintf(stderr, "stat::inputs_parsed: %llu\n", (unsigned long long)lean_executions);
}

/* Copy between rooms that are known to be large enough: no sanitizer need look at that. */
typedef uint64_t lean_word __attribute__((aligned(1), may_alias));
static __attribute__((no_sanitize("address", "undefined", "coverage"), no_builtin)) void
lean_copy(char *to, const char *from, size_t count)
{
    size_t i = 0;

    for (; i + sizeof(lean_word) <= count; i += sizeof(lean_word))
        *(lean_word *)(to + i) = *(const lean_word *)(from + i);
    for (; i < count; i++)
        to[i] = from[i];
}

/* The bytes before the cut, at another place. */
static inline struct cts_bytes lean_first_piece(const struct lean_input *input)
{
    char *to = lean_piece_room + (LEAN_BYTES_MAX - input->cut);

    lean_copy(to, input->bytes, input->cut);
    return (struct cts_bytes){to, input->cut};
}

/* Codes are static: most often they are the same one. */
static inline bool lean_same_code(const char *left, const char *right)
{
    return left == right || strcmp(left, right) == 0;
}

static inline uint32_t lean_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Half of the new bytes are those that a parser looks for. */
static inline char lean_byte(uint64_t *state)
{
    static const char telling[] = "\r\n\r\n\t  ::;;,,=\"\"\\_-/?#%@[]()0129afAFXxz\0\1\x7f\x80\xff";
    uint32_t random = lean_random(state);

    if ((random & 1) != 0)
        return (char)(random >> 8);
    return telling[(random >> 8) % (sizeof(telling) - 1)];
}

/* One change of `work`; returns how many bytes it has then. */
static inline size_t lean_change(char *work, size_t count, uint64_t *state)
{
    uint32_t random = lean_random(state);
    size_t at = lean_random(state) % (count + 1), more = 1 + (random >> 8) % LEAN_REPEAT_BYTES_MAX;

    more = more < count - at ? more : count - at;
    switch (random % 8) {
    case 0:     /* bytes are gone */
        memmove(work + at, work + at + more, count - at - more);
        return count - more;
    case 1:     /* bytes stand twice */
        memmove(work + at + more, work + at, count - at);
        return count + more;
    case 2:     /* a byte more */
        memmove(work + at + 1, work + at, count - at);
        work[at] = lean_byte(state);
        return count + 1;
    case 3:     /* bytes from elsewhere */
        memmove(work + at, work + lean_random(state) % (count - more + 1), more);
        return count;
    case 4:     /* one bit */
        if (at < count)
            work[at] ^= (char)(1u << ((random >> 16) & 7));
        return count;
    default:    /* another byte */
        if (at < count)
            work[at] = lean_byte(state);
        return count;
    }
}

/* A variant of `base` at the end of its room. */
static inline struct lean_input lean_variant(const struct lean_input *base, uint64_t *state)
{
    static char work[LEAN_BYTES_MAX + LEAN_CHANGES_MAX * LEAN_REPEAT_BYTES_MAX];
    uint32_t changes = 1 + lean_random(state) % LEAN_CHANGES_MAX;
    size_t count = base->count;

    lean_copy(work, base->bytes, count);
    while (changes-- > 0)
        count = lean_change(work, count, state);
    count = count < LEAN_BYTES_MAX ? count : LEAN_BYTES_MAX;
    lean_copy(lean_input_room + (LEAN_BYTES_MAX - count), work, count);
    return (struct lean_input){.choice = base->choice, .cut = lean_random(state) % (count + 1),
                               .bytes = lean_input_room + (LEAN_BYTES_MAX - count),
                               .count = count};
}

/* Let `try` see libFuzzer's input and its variants. */
static inline int lean_each(const uint8_t *data, size_t count,
                            void (*try)(const struct lean_input *input))
{
    struct lean_input input;
    uint64_t state = 0xcbf29ce484222325u;

    if (count < FUZZ_PREFIX_BYTES + 1 || count > LEAN_BYTES_MAX)
        return 0;
    for (size_t i = 0; i < count; i++)
        state = (state ^ data[i]) * 0x100000001b3u;
    input = (struct lean_input){.choice = data[0], .bytes = (const char *)data + FUZZ_PREFIX_BYTES,
                                .count = count - FUZZ_PREFIX_BYTES};
    input.cut = (data[1] | (size_t)data[2] << 8) % (input.count + 1);
    try(&input);
    for (uint32_t i = 0; i < LEAN_VARIANTS_COUNT; i++) {
        struct lean_input variant = lean_variant(&input, &state);
        try(&variant);
    }
    lean_executions += 1 + LEAN_VARIANTS_COUNT;
    return 0;
}

#endif
