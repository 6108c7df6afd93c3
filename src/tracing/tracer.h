/* tracer.h - the tracer of this process: where its slot is mapped and what only it knows.
 *
 * One per process, detached (all zero) until attach. The lock is process-private: the shared
 * memory holds no lock, so a killed worker can leave none behind. */
#ifndef TRACING_TRACER_H
#define TRACING_TRACER_H

#include "ctserve/tracing.h"

#include <pthread.h>

struct tracer {
    bool is_attached;
    bool is_enabled;
    bool has_threads; /* take the lock */
    int32_t thread_id; /* that attached; without threads it is the one that serves */
    uint32_t ring_bytes;
    uint64_t head;       /* as in the worker page, but nobody can scribble on it */
    uint64_t tail_seen;  /* how far the reader was when we last looked */
    uint64_t last_index; /* of the last record committed */
    struct cts_worker_page *page;
    struct cts_row *rows;
    unsigned char *ring;
    const struct cts_consumer *consumer;
    uint32_t free_count;
    uint16_t free_rows[CTS_SLOT_ROWS_MAX]; /* a stack: the warmest row is taken first */
    pthread_mutex_t lock;
};

extern struct tracer tracer;

/* The kernel's id of this thread, asked once per thread and process. */
int32_t tracer_thread_id(void);

/* Counts attach, detach and fork: what a thread noted under another number is stale. */
uint32_t tracer_generation(void);

static inline void tracer_lock(void)
{
    if (tracer.has_threads)
        pthread_mutex_lock(&tracer.lock);
}

static inline void tracer_unlock(void)
{
    if (tracer.has_threads)
        pthread_mutex_unlock(&tracer.lock);
}

#endif
