/* tracer.c - the tracer of this process: attached to a slot, or a cheap no-op. */
#include "slot.h"

#include "order.h"
#include "tracer.h"

#include <errno.h>
#include <unistd.h>

struct tracer tracer;

static _Atomic uint32_t generation;
static bool fork_is_watched;

uint32_t tracer_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

int32_t tracer_thread_id(void)
{
    static _Thread_local struct {
        uint32_t generation;
        int32_t thread_id;
    } noted;
    if (CTS_UNLIKELY(noted.thread_id == 0 || noted.generation != tracer_generation())) {
        noted.thread_id = (int32_t)gettid();
        noted.generation = tracer_generation();
    }
    return noted.thread_id;
}

/* Stores only: runs in the child of a fork, where any lock may be held by a thread that is no
 * more. `tracing` on or off is remembered, a forked worker is told once by its master. */
void cts_tracer_detach(void)
{
    tracer.is_attached = false;
    tracer.page = NULL;
    tracer.rows = NULL;
    tracer.ring = NULL;
    tracer.consumer = NULL;
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

/* A process that the application forks must never write into our ring, whoever calls fork(3).
 * The mapping does not come along either, so what slips by here cannot do harm, only crash. */
static int watch_fork(void)
{
    if (fork_is_watched)
        return 0;
    int r = pthread_atfork(NULL, NULL, cts_tracer_detach);
    fork_is_watched = r == 0;
    return -r;
}

static int init_lock(void)
{
    pthread_mutexattr_t attributes;
    int r = pthread_mutexattr_init(&attributes);
    if (r != 0)
        return -r;
    /* Spins a little before it sleeps: what it guards takes a fraction of a microsecond. */
    r = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    if (r == 0)
        r = pthread_mutex_init(&tracer.lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return -r;
}

int tracer_start(unsigned char *map, const struct cts_slot_view *view, bool has_threads)
{
    int r = watch_fork();
    if (r < 0)
        return r;
    r = init_lock();
    if (r < 0)
        return r;
    tracer.has_threads = has_threads;
    tracer.page = &((struct cts_slot_header *)map)->worker;
    tracer.rows = (struct cts_row *)(map + view->rows_offset);
    tracer.ring = map + view->ring_offset;
    tracer.ring_bytes = view->ring_bytes;
    tracer.consumer = (const struct cts_consumer *)(map + view->consumer_offset);
    tracer.head = tracer.tail_seen = load(&tracer.page->head);
    tracer.tail_seen = load_acquire(&tracer.consumer->tail_hint);
    tracer.last_index = 0;
    tracer.free_count = view->rows_count;
    for (uint32_t i = 0; i < view->rows_count; i++)
        tracer.free_rows[i] = (uint16_t)(view->rows_count - 1 - i);
    uint8_t discarded[8];
    tracer.is_attached = true;
    cts_span_id_new(discarded); /* seeds this thread now, not in its first request */
    tracer.thread_id = tracer_thread_id();
    return 0;
}

bool cts_tracer_is_attached(void)
{
    return tracer.is_attached;
}

void cts_tracer_enable(bool on)
{
    tracer.is_enabled = on;
}

bool cts_tracer_is_enabled(void)
{
    return tracer.is_enabled;
}

/* -- supervision ------------------------------------------------------------------------------- */

void cts_beat(void)
{
    if (tracer.is_attached)
        store(&tracer.page->beat_mono_ns, cts_clock_mono_ns());
}

void cts_beat_required(bool yes)
{
    if (!tracer.is_attached)
        return;
    bool is_required = load(&tracer.page->beat_required_since_ns) != 0;
    if (yes != is_required)
        store(&tracer.page->beat_required_since_ns, yes ? cts_clock_mono_ns() : 0);
}

void cts_worker_connections(int32_t count)
{
    if (tracer.is_attached)
        atomic_store_explicit(&tracer.page->connections_count, count, memory_order_relaxed);
}

void cts_worker_state(enum cts_worker_state state)
{
    if (tracer.is_attached)
        atomic_store_explicit(&tracer.page->state, (uint32_t)state, memory_order_release);
}

uint64_t cts_worker_requests(void)
{
    return tracer.is_attached ? load(&tracer.page->requests_count) : 0;
}
