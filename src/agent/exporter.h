/* exporter.h - batches on their way to the collector.
 *
 * A span that was put stands in exactly one list: the queue, or a batch, which waits for another
 * attempt or flies. At most EXPORTER_FLYING_MAX batches fly; while the collector does not answer
 * one batch at a time is tried, with growing pauses. When the fate of a span is known, its state
 * says so and `settled` is called for it, after which the exporter has forgotten it. */
#ifndef AGENT_EXPORTER_H
#define AGENT_EXPORTER_H

#include "channel.h"
#include "span.h"

#define EXPORTER_BATCH_SPANS_MAX 512
#define EXPORTER_BATCH_BYTES_MAX (3584u << 10)
#define EXPORTER_FLYING_MAX 4
#define EXPORTER_LINGER_MS 200          /* how long a small batch waits for company */
#define EXPORTER_BACKOFF_MS_MIN 1000
#define EXPORTER_BACKOFF_MS_MAX 30000
#define EXPORTER_ASKED_MS_MAX 300000    /* the longest pause a collector may ask for */

struct exporter;

struct exporter_plan {
    struct ev_loop *loop;
    const struct env_plan *env;
    void (*settled)(void *context, struct span *span);
    void (*turned)(void *context);     /* after a batch was settled: there may be room again */
    void (*note)(void *context, int level, const char *sentence);
    void *context;
};

struct exporter_figures {
    uint64_t delivered_batches, delivered_spans, rejected_spans, refused_spans;
    uint64_t retries, nonsense_answers, splits;
    size_t waiting_spans;              /* in the queue and in batches */
    size_t flying_batches;
    uint32_t failures_in_a_row;
    int64_t next_attempt_ms;           /* from now; 0 when nothing holds it back */
    char last_problem[256];
};

struct exporter *exporter_new(const struct exporter_plan *plan);   /* NULL: no memory */
/* Spans that wait are given back without being settled. */
void exporter_free(struct exporter *exporter);
void exporter_put(struct exporter *exporter, struct span *span);
size_t exporter_waiting(const struct exporter *exporter);
/* Did the collector fail to answer the last time, or has it been silent for a second? */
bool exporter_is_stalled(const struct exporter *exporter);
/* From now on small batches do not wait and pauses are short: the process is about to end. */
void exporter_hurry(struct exporter *exporter);
void exporter_read_figures(const struct exporter *exporter, struct exporter_figures *ret_figures);

#endif
