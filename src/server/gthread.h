/* gthread.h - N threads of one worker, led by whoever is free.
 *
 * One thread (the leader) polls the loop and puts what is ready into a list; the others, and the
 * leader itself when it is done polling, take from that list. Nothing is handed from an I/O
 * thread to a pool, and while every thread is in the application nobody polls, so nothing is
 * accepted that could not be served. Only the leader touches the loop; a thread that is done with
 * a connection puts it into the done list and wakes the leader only when its watcher or clock
 * must change. One interpreter thread state per thread for life; the lock is held only inside the
 * application. */
#ifndef SERVER_GTHREAD_H
#define SERVER_GTHREAD_H

#include "loop.h"

#include <pthread.h>

struct pool {
    struct service *service;
    struct loop *loop;
    pthread_mutex_t mutex;         /* guards what follows up to the next blank line */
    pthread_cond_t work;
    struct cts_list ready;
    struct cts_list done;
    bool has_leader;
    bool leader_polls;             /* it may sleep: what it should see needs a wake */
    bool is_stopping;
    int idle_count;
    int running_count;             /* threads that have not ended */

    _Atomic int in_app_count;
    pthread_mutex_t book_mutex;    /* orders the beat_required calls */
    struct hand *hands;
    pthread_t *threads;
    int started_count;
};

/* Make the threads. 0 or -errno; after a failure the ones that were made are told to stop. */
int pool_start(struct pool *pool, struct service *service, struct loop *loop) CTS_MUST_USE;
bool pool_has_ended(struct pool *pool);
/* After pool_has_ended. */
void pool_join(struct pool *pool);
/* Something changed that the leader must look at (service->is_alive). */
void pool_wake(struct pool *pool);

#endif
