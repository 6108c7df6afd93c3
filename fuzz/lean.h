/* lean.h - what the lean targets share: many executions a second on small inputs.
 *
 * A lean target parses its input once whole and once in two pieces, and allocates nothing: the
 * input lies where it ends in libFuzzer's own copy, and the first piece is copied to the end of a
 * room, so that AddressSanitizer sees a read behind the last byte of either. Every split, the
 * rewritten request and the leak check belong to the thorough targets (parser.c, chunked.c). */
#ifndef CTSERVE_FUZZ_LEAN_H
#define CTSERVE_FUZZ_LEAN_H

#include "fuzz.h"

#define LEAN_BYTES_MAX 4096u
#define LEAN_RULES_COUNT 4u      /* policy and small limits: the two bits of fuzz_rules */

/* A multiple of 32 bytes long: the red zone begins right behind it. */
static char lean_room[LEAN_BYTES_MAX];

/* Where the input is cut: anywhere, both ends included. */
static inline size_t lean_cut(const uint8_t *data, size_t count)
{
    return (data[1] | (size_t)data[2] << 8) % (count + 1);
}

/* The first `count` bytes at another place. */
static inline const char *lean_move(const uint8_t *data, size_t count)
{
    char *to = lean_room + (LEAN_BYTES_MAX - count);

    memcpy(to, data, count);
    return to;
}

#endif
