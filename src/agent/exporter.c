/* exporter.c - making batches, sending them, trying again. */
#include "exporter.h"
#include "otlp.h"

#include "ctserve/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct batch {
    struct cts_list link;
    struct exporter *owner;
    struct cts_list spans;
    size_t count, bytes;
    uint64_t number;                 /* the order in which batches were made */
    struct cts_buffer body;
    uint64_t sent_ns;
};

struct exporter {
    struct exporter_plan plan;
    struct channel *channel;
    struct cts_list queue;           /* spans, oldest first */
    size_t queue_count;
    size_t waiting_count;            /* of all spans we hold */
    uint64_t oldest_ns;              /* when the first of the queue came */
    struct cts_list waiting;         /* batches to send again, oldest first */
    struct cts_list flying;
    size_t flying_count;
    uint64_t not_before_ns;
    bool is_hurrying, is_turning;
    uint32_t failures;
    uint64_t random, batches_made;
    struct ev_timer timer;
    struct exporter_figures figures;
};

static void exporter_turn(struct exporter *exporter);

static void note(struct exporter *exporter, int level, const char *sentence)
{
    exporter->plan.note(exporter->plan.context, level, sentence);
}

static void settle(struct exporter *exporter, struct span *span, enum span_state state,
                   enum cts_drop_reason reason)
{
    cts_list_take(&span->in_queue);
    exporter->waiting_count--;
    span->state = state;
    span->drop_reason = reason;
    exporter->plan.settled(exporter->plan.context, span);
}

/* -- batches ---------------------------------------------------------------------------------- */
static struct batch *batch_new(struct exporter *exporter)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    if (batch == NULL)
        return NULL;
    batch->owner = exporter;
    cts_list_init(&batch->link);
    cts_list_init(&batch->spans);
    return batch;
}

static void batch_free(struct batch *batch)
{
    assert(cts_list_is_empty(&batch->spans));
    cts_list_take(&batch->link);
    cts_buffer_free(&batch->body);
    free(batch);
}

/* Move a span from wherever it stands to the end of the batch. */
static void batch_put(struct batch *batch, struct span *span)
{
    cts_list_take(&span->in_queue);
    cts_list_put_last(&batch->spans, &span->in_queue);
    batch->count++;
    batch->bytes += span->encoded_bytes + 8;
}

static struct batch *batch_from_queue(struct exporter *exporter)
{
    struct batch *batch = batch_new(exporter);
    if (batch == NULL)
        return NULL;
    CTS_LIST_EACH(&exporter->queue, link) {
        struct span *span = CTS_CONTAINER(link, struct span, in_queue);
        /* A resource may come with every span in the worst case. */
        size_t more = span->encoded_bytes + span->resource->encoded_bytes + 64;
        if (batch->count == EXPORTER_BATCH_SPANS_MAX ||
            (batch->count > 0 && batch->bytes + more > EXPORTER_BATCH_BYTES_MAX))
            break;
        batch_put(batch, span);
        batch->bytes += span->resource->encoded_bytes + 56;
        exporter->queue_count--;
    }
    batch->number = ++exporter->batches_made;
    exporter->oldest_ns = cts_clock_mono_ns();
    return batch;
}

/* Back among those that wait, oldest first. */
static void batch_wait(struct exporter *exporter, struct batch *batch)
{
    struct cts_list *before = exporter->waiting.next;
    while (before != &exporter->waiting &&
           CTS_CONTAINER(before, struct batch, link)->number <= batch->number)
        before = before->next;
    cts_list_put_last(before, &batch->link);
}

/* Two halves in the place of one batch that was too large for the collector. */
static void batch_split(struct exporter *exporter, struct batch *batch)
{
    struct batch *second = batch_new(exporter);
    if (second == NULL) {
        batch_wait(exporter, batch);
        return;
    }
    size_t first_count = batch->count / 2, seen = 0;
    CTS_LIST_EACH(&batch->spans, link) {
        if (seen++ >= first_count)
            batch_put(second, CTS_CONTAINER(link, struct span, in_queue));
    }
    batch->count = first_count;
    cts_buffer_free(&batch->body);
    second->number = batch->number;
    batch_wait(exporter, batch);
    batch_wait(exporter, second);
    exporter->figures.splits++;
}

static void batch_drop(struct exporter *exporter, struct batch *batch)
{
    exporter->figures.refused_spans += batch->count;
    CTS_LIST_EACH(&batch->spans, link) {
        settle(exporter, CTS_CONTAINER(link, struct span, in_queue), SPAN_DROPPED,
               CTS_DROP_REFUSED);
    }
    batch_free(batch);
}

/* The collector does not say which spans it rejected, only how many: the last ones are counted. */
static void batch_deliver(struct exporter *exporter, struct batch *batch, int64_t rejected_count)
{
    size_t rejected = rejected_count < 0 ? 0 : (size_t)rejected_count;
    if (rejected > batch->count)
        rejected = batch->count;
    size_t acked = batch->count - rejected, seen = 0;
    CTS_LIST_EACH(&batch->spans, link) {
        settle(exporter, CTS_CONTAINER(link, struct span, in_queue),
               seen++ < acked ? SPAN_ACKED : SPAN_REJECTED, 0);
    }
    exporter->figures.delivered_batches++;
    exporter->figures.delivered_spans += acked;
    exporter->figures.rejected_spans += rejected;
    batch_free(batch);
}

/* -- when ------------------------------------------------------------------------------------- */
static uint64_t next_random(struct exporter *exporter)
{
    uint64_t x = exporter->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return exporter->random = x;
}

/* 1 s, 2 s, 4 s ... 30 s, each between 80 and 120 percent; longer when the collector asks. */
static void back_off(struct exporter *exporter, int64_t asked_ms)
{
    uint32_t doublings = exporter->failures > 6 ? 6 : exporter->failures;
    uint64_t pause_ms = (uint64_t)EXPORTER_BACKOFF_MS_MIN << (doublings > 0 ? doublings - 1 : 0);
    if (pause_ms > EXPORTER_BACKOFF_MS_MAX)
        pause_ms = EXPORTER_BACKOFF_MS_MAX;
    pause_ms = pause_ms * (800 + next_random(exporter) % 401) / 1000;
    if (asked_ms > EXPORTER_ASKED_MS_MAX)
        asked_ms = EXPORTER_ASKED_MS_MAX;
    if (asked_ms >= 0)
        pause_ms = asked_ms > EXPORTER_BACKOFF_MS_MIN / 4 ? (uint64_t)asked_ms
                                                          : EXPORTER_BACKOFF_MS_MIN / 4;
    if (exporter->is_hurrying && pause_ms > 250)
        pause_ms = 250;
    exporter->not_before_ns = cts_clock_mono_ns() + pause_ms * 1000000u;
}

static void say_stalled(struct exporter *exporter, const struct outcome *outcome)
{
    char sentence[400];
    if (exporter->failures++ > 0)
        return;
    snprintf(sentence, sizeof(sentence), "traces: %.100s does not take them (%.200s); they are "
             "kept and tried again", exporter->plan.env->url, outcome->text);
    note(exporter, CTS_LOG_WARNING, sentence);
}

static void say_answers(struct exporter *exporter)
{
    char sentence[200];
    if (exporter->failures == 0)
        return;
    snprintf(sentence, sizeof(sentence), "traces: the collector takes them again after %u "
             "failed attempts", exporter->failures);
    exporter->failures = 0;
    note(exporter, CTS_LOG_INFO, sentence);
}

/* Said for the first and then for every power of ten. */
static bool is_worth_saying(uint64_t before, uint64_t after)
{
    for (uint64_t step = 1; step <= after && step < 1000000000000u; step *= 10) {
        if (before < step)
            return true;
    }
    return false;
}

static void say_refused(struct exporter *exporter, const struct batch *batch, const char *text)
{
    char sentence[400];
    uint64_t before = exporter->figures.refused_spans;
    if (!is_worth_saying(before, before + batch->count))
        return;
    snprintf(sentence, sizeof(sentence), "traces: the collector refuses %zu spans (%s); refused "
             "so far: %llu", batch->count, text, (unsigned long long)(before + batch->count));
    note(exporter, CTS_LOG_WARNING, sentence);
}

static void say_delivered(struct exporter *exporter, const struct batch *batch,
                          const struct outcome *outcome)
{
    char sentence[400];
    uint64_t before = exporter->figures.rejected_spans;
    if (outcome->rejected_count > 0 &&
        is_worth_saying(before, before + (uint64_t)outcome->rejected_count)) {
        snprintf(sentence, sizeof(sentence), "traces: the collector rejected %lld of %zu spans: %s",
                 (long long)outcome->rejected_count, batch->count, outcome->text);
        note(exporter, CTS_LOG_WARNING, sentence);
    }
    if (outcome->is_nonsense && exporter->figures.nonsense_answers++ == 0) {
        snprintf(sentence, sizeof(sentence), "traces: %.200s says it took them, in words that "
                 "are not OTLP; is that a collector?", exporter->plan.env->url);
        note(exporter, CTS_LOG_WARNING, sentence);
    }
}

static void on_done(void *context, void *cookie, const struct outcome *outcome)
{
    struct exporter *exporter = context;
    struct batch *batch = cookie;
    cts_list_take(&batch->link);
    exporter->flying_count--;
    if (outcome->kind != OUTCOME_DELIVERED)
        snprintf(exporter->figures.last_problem, sizeof(exporter->figures.last_problem), "%s",
                 outcome->text);
    switch (outcome->kind) {
    case OUTCOME_DELIVERED:
        say_answers(exporter);
        say_delivered(exporter, batch, outcome);
        batch_deliver(exporter, batch, outcome->rejected_count);
        break;
    case OUTCOME_RETRY:
        say_stalled(exporter, outcome);
        exporter->figures.retries++;
        back_off(exporter, outcome->retry_after_ms);
        batch_wait(exporter, batch);
        break;
    case OUTCOME_TOO_LARGE:
        say_answers(exporter);
        if (batch->count > 1) {
            batch_split(exporter, batch);
            break;
        }
        /* fallthrough */
    case OUTCOME_REFUSED:
        say_answers(exporter);
        say_refused(exporter, batch, outcome->text);
        batch_drop(exporter, batch);
        break;
    }
    if (!exporter->is_turning) {
        exporter->plan.turned(exporter->plan.context);
        exporter_turn(exporter);
    }
}

/* -- the turn --------------------------------------------------------------------------------- */
static struct batch *next_batch(struct exporter *exporter, uint64_t now_ns)
{
    if (!cts_list_is_empty(&exporter->waiting))
        return CTS_CONTAINER(exporter->waiting.next, struct batch, link);
    bool is_due = exporter->is_hurrying || exporter->queue_count >= EXPORTER_BATCH_SPANS_MAX ||
                  now_ns - exporter->oldest_ns >= EXPORTER_LINGER_MS * 1000000ull;
    if (exporter->queue_count == 0 || !is_due)
        return NULL;
    return batch_from_queue(exporter);
}

static bool send_one(struct exporter *exporter, uint64_t now_ns)
{
    struct batch *batch = next_batch(exporter, now_ns);
    if (batch == NULL)
        return false;
    cts_list_take(&batch->link);
    if (cts_buffer_count(&batch->body) == 0 &&
        otlp_request_encode(&batch->spans, batch->count, &batch->body) < 0) {
        batch_wait(exporter, batch);
        return false;
    }
    batch->sent_ns = now_ns;
    cts_list_put_last(&exporter->flying, &batch->link);
    exporter->flying_count++;
    struct cts_bytes body = cts_buffer_view(&batch->body);
    exporter->channel->send(exporter->channel, body.at, body.count, batch);
    return true;
}

static void exporter_turn(struct exporter *exporter)
{
    uint64_t now_ns = cts_clock_mono_ns();
    exporter->is_turning = true;
    for (size_t i = 0; i < EXPORTER_FLYING_MAX; i++) {
        size_t flying_max = exporter->failures > 0 ? 1 : EXPORTER_FLYING_MAX;
        if (exporter->flying_count >= flying_max || now_ns < exporter->not_before_ns ||
            !send_one(exporter, now_ns))
            break;
    }
    exporter->is_turning = false;
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    exporter_turn(CTS_CONTAINER(timer, struct exporter, timer));
}

/* -- the door --------------------------------------------------------------------------------- */
struct exporter *exporter_new(const struct exporter_plan *plan)
{
    struct exporter *exporter = calloc(1, sizeof(*exporter));
    if (exporter == NULL)
        return NULL;
    exporter->plan = *plan;
    cts_list_init(&exporter->queue);
    cts_list_init(&exporter->waiting);
    cts_list_init(&exporter->flying);
    exporter->random = cts_clock_real_ns() | 1;
    struct channel_plan channel = {plan->loop, plan->env, on_done, exporter};
    exporter->channel = plan->env->protocol == ENV_PROTOCOL_GRPC ? channel_grpc_new(&channel)
                                                                 : channel_http_new(&channel);
    if (exporter->channel == NULL) {
        free(exporter);
        return NULL;
    }
    ev_timer_init(&exporter->timer, on_timer, 0.05, 0.05);
    ev_timer_start(plan->loop, &exporter->timer);
    return exporter;
}

/* A span whose ring was forgotten has nobody else. */
static void forget_spans(struct cts_list *spans)
{
    CTS_LIST_EACH(spans, link) {
        struct span *span = CTS_CONTAINER(link, struct span, in_queue);
        cts_list_take(&span->in_queue);
        if (span->ring == NULL)
            span_give(span);
    }
}

static void forget_batches(struct cts_list *batches)
{
    CTS_LIST_EACH(batches, link) {
        struct batch *batch = CTS_CONTAINER(link, struct batch, link);
        forget_spans(&batch->spans);
        batch_free(batch);
    }
}

void exporter_free(struct exporter *exporter)
{
    if (exporter == NULL)
        return;
    ev_timer_stop(exporter->plan.loop, &exporter->timer);
    exporter->channel->free(exporter->channel);
    forget_batches(&exporter->waiting);
    forget_batches(&exporter->flying);
    forget_spans(&exporter->queue);
    free(exporter);
}

void exporter_put(struct exporter *exporter, struct span *span)
{
    if (exporter->queue_count == 0)
        exporter->oldest_ns = cts_clock_mono_ns();
    cts_list_put_last(&exporter->queue, &span->in_queue);
    exporter->queue_count++;
    exporter->waiting_count++;
}

size_t exporter_waiting(const struct exporter *exporter)
{
    return exporter->waiting_count;
}

bool exporter_is_stalled(const struct exporter *exporter)
{
    if (exporter->failures > 0)
        return true;
    if (cts_list_is_empty(&exporter->flying))
        return false;
    const struct batch *oldest = CTS_CONTAINER(exporter->flying.next, struct batch, link);
    return cts_clock_mono_ns() - oldest->sent_ns > 1000000000u;
}

void exporter_hurry(struct exporter *exporter)
{
    exporter->is_hurrying = true;
    exporter->not_before_ns = 0;
    exporter_turn(exporter);
}

void exporter_read_figures(const struct exporter *exporter, struct exporter_figures *ret_figures)
{
    uint64_t now_ns = cts_clock_mono_ns();
    *ret_figures = exporter->figures;
    ret_figures->waiting_spans = exporter->waiting_count;
    ret_figures->flying_batches = exporter->flying_count;
    ret_figures->failures_in_a_row = exporter->failures;
    if (exporter->not_before_ns > now_ns && exporter->failures > 0)
        ret_figures->next_attempt_ms = (int64_t)((exporter->not_before_ns - now_ns) / 1000000u);
}
