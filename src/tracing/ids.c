/* ids.c - trace and span ids: random, never zero, never the same in two workers.
 *
 * xoshiro256** (Blackman and Vigna, public domain description), one state per thread, seeded from
 * the kernel at a thread's first id after an attach, a detach or a fork. No lock, and no system
 * call after that. */
#include "tracer.h"

struct id_source {
    uint32_t generation; /* tracer_generation() when it was seeded, plus one; 0: never */
    uint64_t state[4];
};

static _Thread_local struct id_source source;

static uint64_t rotate_left(uint64_t x, int by)
{
    return (x << by) | (x >> (64 - by));
}

/* Without the kernel's help (never seen) at least two processes must not agree. */
static void seed_poorly(uint64_t state[4])
{
    state[0] ^= cts_clock_real_ns();
    state[1] ^= cts_clock_mono_ns();
    state[2] ^= (uint64_t)(uintptr_t)state;
    state[3] ^= (uint64_t)(uint32_t)tracer_thread_id() * 0x9e3779b97f4a7c15ull;
}

static void __attribute__((noinline)) seed(struct id_source *ids)
{
    if (cts_random_fill(ids->state, sizeof(ids->state)) < 0)
        seed_poorly(ids->state);
    ids->state[0] |= ids->state[1] == 0; /* all zero would stay zero */
    ids->generation = tracer_generation() + 1;
}

static uint64_t next(struct id_source *ids)
{
    uint64_t *s = ids->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

static struct id_source *own_source(void)
{
    struct id_source *ids = &source;
    if (CTS_UNLIKELY(ids->generation != tracer_generation() + 1))
        seed(ids);
    return ids;
}

void cts_trace_id_new(uint8_t trace_id[16])
{
    struct id_source *ids = own_source();
    uint64_t words[2] = {next(ids), next(ids)};
    words[1] += words[1] == 0;
    memcpy(trace_id, words, 16);
}

void cts_span_id_new(uint8_t span_id[8])
{
    uint64_t word = next(own_source());
    word += word == 0;
    memcpy(span_id, &word, 8);
}
