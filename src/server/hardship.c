/* hardship.c - see hardship.h. */
#include "hardship.h"

#include "ctserve/base.h"
#include "ctserve/entry.h"
#include "ctserve/log.h"

#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_TRIES_MAX 100
#define MEMORY_PAUSE_NS 1000000
/* So many failures within a second are no shortage that passes. */
#define FAILURES_PER_SECOND_MAX 1000

/* Of the process, as libev's own hooks are. */
static uint64_t window_ns;
static unsigned failures_count;

static void give_up(const char *what)
{
    cts_critical("%s: %s; this process cannot go on (pid: %d)", what, strerror(errno),
                 (int)getpid());
    _exit(CTS_EXIT_FAILURE);
}

/* libev cannot go on without, so a moment of waiting is all that we can offer. */
static void *take_memory(void *old, long bytes)
{
    if (bytes == 0) {
        free(old);
        return NULL;
    }
    for (int i = 0; i < MEMORY_TRIES_MAX; i++) {
        void *fresh = realloc(old, (size_t)bytes);
        if (fresh != NULL)
            return fresh;
        struct timespec pause = {0, MEMORY_PAUSE_NS};
        nanosleep(&pause, NULL);
    }
    errno = ENOMEM;
    give_up("The event loop has no memory");
    return NULL;
}

/* libev tries again when this returns. */
static void on_failure(const char *what)
{
    uint64_t now_ns = cts_clock_mono_ns();
    if (now_ns - window_ns > 1000000000ull) {
        window_ns = now_ns;
        failures_count = 0;
    }
    if (++failures_count > FAILURES_PER_SECOND_MAX)
        give_up(what);
    if (failures_count == 1)
        cts_warning("%s: %s", what, strerror(errno));
}

void hardship_prepare(void)
{
    ev_set_allocator(take_memory);
    ev_set_syserr_cb(on_failure);
}
