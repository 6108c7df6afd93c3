/* clock.c - two clocks in nanoseconds: one that never jumps, one that people read. */
#include "ctserve/base.h"

#include <time.h>

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    /* Both clocks exist on every kernel we run on, so the call cannot fail. */
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t cts_clock_mono_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cts_clock_real_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
