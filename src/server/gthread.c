/* gthread.c - see gthread.h. */
#include "gthread.h"

#include <errno.h>
#include <stdlib.h>

#define LOCK_WAIT_SUSPICIOUS_NS 1000000000ull
#define STACK_BYTES_MIN (1u << 20)

/* -- is silence a fault? -------------------------------------------------------------------- */
/* While every thread is in the application nobody can poll, which is no fault of the worker. */
static void book_busy(struct pool *pool)
{
    int threads_count = pool->service->threads_count;
    pthread_mutex_lock(&pool->book_mutex);
    bool is_free = atomic_load(&pool->in_app_count) < threads_count;
    if (is_free)
        cts_beat();
    cts_beat_required(is_free);
    pthread_mutex_unlock(&pool->book_mutex);
}

static void app_enters(struct hand *hand)
{
    struct pool *pool = hand->pool;
    if (atomic_fetch_add(&pool->in_app_count, 1) + 1 == pool->service->threads_count)
        book_busy(pool);
}

static void app_leaves(struct hand *hand)
{
    struct pool *pool = hand->pool;
    if (atomic_fetch_sub(&pool->in_app_count, 1) == pool->service->threads_count)
        book_busy(pool);
}

/* A thread that waits long for the lock means that somebody keeps it: then no beat. */
static bool lock_is_withheld(const struct pool *pool)
{
    uint64_t now_ns = cts_clock_mono_ns();
    for (int i = 0; i < pool->service->threads_count; i++) {
        uint64_t since_ns =
            atomic_load_explicit(&pool->hands[i].lock_wanted_since_ns, memory_order_relaxed);
        if (since_ns != 0 && now_ns > since_ns + LOCK_WAIT_SUSPICIOUS_NS)
            return true;
    }
    return false;
}

static void on_beat(struct loop *loop)
{
    if (!lock_is_withheld(loop->owner))
        cts_beat();
}

/* -- the leader ----------------------------------------------------------------------------- */
/* A watcher that was left on fired for a connection in somebody's hands. If that thread is done
 * it is settled now; else the watcher goes off until then, because its event would come back with
 * every poll. Mutex not held. */
static void on_busy_event(struct loop *loop, struct connection *connection)
{
    struct pool *pool = loop->owner;
    pthread_mutex_lock(&pool->mutex);
    bool is_settled = connection->is_done && connection->state != CONNECTION_CLOSED;
    if (is_settled) {
        cts_list_take(&connection->turn_link);
    } else {
        ev_io_stop(loop->ev, &connection->watcher);
        connection->is_watched = false;
    }
    pthread_mutex_unlock(&pool->mutex);
    if (is_settled)
        loop_settle(loop, connection);
}

/* Settle everything in the done list. Mutex held; given away meanwhile. */
static void settle_done(struct pool *pool)
{
    while (!cts_list_is_empty(&pool->done)) {
        struct cts_list *link = pool->done.next;
        cts_list_take(link);
        pthread_mutex_unlock(&pool->mutex);
        loop_settle(pool->loop, CTS_CONTAINER(link, struct connection, turn_link));
        pthread_mutex_lock(&pool->mutex);
    }
}

static void look_at_service(struct pool *pool)
{
    struct service *service = pool->service;
    if (atomic_load(&service->is_alive))
        return;
    loop_drain(pool->loop, service_takes_backlog(service));
}

/* Poll once. Mutex held at both ends, not in between. */
static void lead(struct pool *pool)
{
    struct loop *loop = pool->loop;
    struct connection *connection;

    pool->has_leader = true;
    settle_done(pool);
    pool->leader_polls = true;
    pthread_mutex_unlock(&pool->mutex);

    look_at_service(pool);
    if (!loop->is_draining || !loop_is_empty(loop))
        loop_turn(loop, true);
    struct connection *fresh = NULL;
    if (loop_may_accept(loop))
        fresh = loop_accept(loop);

    pthread_mutex_lock(&pool->mutex);
    pool->leader_polls = false;
    settle_done(pool);
    while ((connection = loop_take(loop)) != NULL)
        cts_list_put_last(&pool->ready, &connection->turn_link);
    if (fresh != NULL)
        cts_list_put_last(&pool->ready, &fresh->turn_link);
    if (loop->is_draining && loop_is_empty(loop)) {
        pool->is_stopping = true;
        pthread_cond_broadcast(&pool->work);
    }
    pool->has_leader = false;
}

/* -- threads -------------------------------------------------------------------------------- */
/* Must the leader act before it would wake by itself? */
static bool leader_must_look(const struct pool *pool, const struct connection *connection)
{
    return connection->state == CONNECTION_CLOSED || !connection->is_watched ||
           connection->clock != connection->clock_armed ||
           (connection->watcher.events & (EV_READ | EV_WRITE)) != connection_events(connection) ||
           !atomic_load_explicit(&pool->service->is_alive, memory_order_relaxed);
}

/* Mutex held. */
static void give_back(struct pool *pool, struct connection *connection)
{
    if (connection->wants_turn) {
        cts_list_put_last(&pool->ready, &connection->turn_link);
        return;
    }
    connection->is_done = true;
    cts_list_put_last(&pool->done, &connection->turn_link);
    if (pool->leader_polls && leader_must_look(pool, connection))
        ev_async_send(pool->loop->ev, &pool->loop->wake);
}

/* Serve the first of the ready list. Mutex held at both ends, not in between. */
static void serve_one(struct pool *pool, struct hand *hand)
{
    struct cts_list *link = pool->ready.next;
    struct connection *connection = CTS_CONTAINER(link, struct connection, turn_link);

    cts_list_take(link);
    if (pool->idle_count > 0 && (!cts_list_is_empty(&pool->ready) || !pool->has_leader))
        pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    connection_turn(connection, hand);
    pthread_mutex_lock(&pool->mutex);
    give_back(pool, connection);
}

static void *thread_main(void *argument)
{
    struct hand *hand = argument;
    struct pool *pool = hand->pool;
    const struct cts_gateway *gateway = pool->service->gateway;
    void *state = gateway->thread_start();

    hand->lock_token = gateway->lock_give();
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        if (!cts_list_is_empty(&pool->ready)) {
            serve_one(pool, hand);
        } else if (cts_buffer_count(&hand->access) > 0) {
            pthread_mutex_unlock(&pool->mutex);
            access_flush(&pool->service->access, &hand->access);
            pthread_mutex_lock(&pool->mutex);
        } else if (pool->is_stopping) {
            break;
        } else if (!pool->has_leader) {
            lead(pool);
        } else {
            pool->idle_count++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->idle_count--;
        }
    }
    pool->running_count--;
    pthread_mutex_unlock(&pool->mutex);
    pool->service->wake(pool->service);
    gateway->lock_take(hand->lock_token);
    gateway->thread_stop(state);
    return NULL;
}

/* -- the pool ------------------------------------------------------------------------------- */
static int start_threads(struct pool *pool)
{
    int count = pool->service->threads_count;
    for (int i = 0; i < count; i++) {
        struct hand *hand = &pool->hands[i];
        int r = hand_init(hand, pool->service);
        if (r < 0)
            return r;
        hand->pool = pool;
        hand->app_enters = app_enters;
        hand->app_leaves = app_leaves;
        pthread_mutex_lock(&pool->mutex);
        pool->running_count++;
        pthread_mutex_unlock(&pool->mutex);
        r = pthread_create(&pool->threads[i], NULL, thread_main, hand);
        if (r != 0) {
            pthread_mutex_lock(&pool->mutex);
            pool->running_count--;
            pthread_mutex_unlock(&pool->mutex);
            return -r;
        }
        pool->started_count++;
    }
    return 0;
}

int pool_start(struct pool *pool, struct service *service, struct loop *loop)
{
    memset(pool, 0, sizeof(*pool));
    pool->service = service;
    pool->loop = loop;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_mutex_init(&pool->book_mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    cts_list_init(&pool->ready);
    cts_list_init(&pool->done);
    loop->owner = pool;
    loop->on_beat = on_beat;
    loop->on_busy_event = on_busy_event;
    pool->hands = calloc((size_t)service->threads_count, sizeof(*pool->hands));
    pool->threads = calloc((size_t)service->threads_count, sizeof(*pool->threads));
    int r = pool->hands == NULL || pool->threads == NULL ? -ENOMEM : start_threads(pool);
    if (r < 0) {
        pthread_mutex_lock(&pool->mutex);
        pool->is_stopping = true;
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
        pool_wake(pool);
    }
    return r;
}

bool pool_has_ended(struct pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    bool has_ended = pool->running_count == 0;
    pthread_mutex_unlock(&pool->mutex);
    return has_ended;
}

void pool_join(struct pool *pool)
{
    for (int i = 0; i < pool->started_count; i++) {
        pthread_join(pool->threads[i], NULL);
        hand_done(&pool->hands[i]);
    }
    pool->started_count = 0;
    free(pool->hands);
    free(pool->threads);
    pool->hands = NULL;
    pool->threads = NULL;
}

void pool_wake(struct pool *pool)
{
    ev_async_send(pool->loop->ev, &pool->loop->wake);
}
