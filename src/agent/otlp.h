/* otlp.h - from what lies in shared memory to the messages of OTLP.
 *
 * Texts are hostile: whatever is not UTF-8 becomes U+FFFD, because a receiver written in Go
 * refuses a whole request for one bad string. Numbers that make no sense (an end before its
 * start) are bent straight, never refused.
 * Source: OpenTelemetry protocol 1.x, trace; HTTP semantic conventions (stable). */
#ifndef AGENT_OTLP_H
#define AGENT_OTLP_H

#include "ctserve/buffer.h"
#include "env.h"
#include "span.h"

#include "ctserve/agent_wire.h"
#include "ctserve/slot_read.h"
#include "ctserve/tracing.h"

/* Monotonic time of a slot and the wall time at that instant. */
struct otlp_clock {
    uint64_t mono_ns, real_ns;
};

struct otlp_process {
    int32_t pid, parent_pid;
    int32_t slot_index;
    uint32_t generation;
    uint64_t master_started_real_ns;
    int32_t master_pid;
    const char *server_version;
    const char *app;
};

/* The Resource of one process. NULL when there is no memory. */
struct resource *otlp_resource_new(const struct otlp_process *process, const struct env_plan *plan);

/* A span that a ring record tells of, shared memory's times turned into wall time by `clock`.
 * One reference, or NULL when there is no memory. */
struct span *otlp_span_new(const struct cts_record_copy *record, const struct otlp_clock *clock,
                           struct resource *resource);

/* How a worker went. */
struct otlp_death {
    enum cts_gone_reason reason;
    int wait_status;               /* -1: unknown */
    uint64_t mono_ns;
    int32_t thread_id;             /* of the request that hung, 0: unknown */
    struct cts_bytes stack;
};
const char *otlp_gone_reason_name(enum cts_gone_reason reason);

/* The request that `row` (a copy) was running when its worker went: an ERROR span under the row's
 * own ids, so that telling it twice does not make two. */
struct span *otlp_row_span_new(const struct cts_row_copy *row, const struct otlp_death *death,
                               const struct otlp_clock *clock, struct resource *resource);

/* An ExportTraceServiceRequest of the spans in `spans` (linked by in_queue), grouped by resource.
 * Appended to `out`. 0 or -ENOMEM. */
int otlp_request_encode(const struct cts_list *spans, size_t count, struct cts_buffer *out)
    CTS_MUST_USE;

/* What a collector answered to it. Returns 0, or -EBADMSG for bytes that are no such message. */
struct otlp_answer {
    int64_t rejected_count;
    char message[256];
};
int otlp_answer_decode(const void *bytes, size_t count, struct otlp_answer *ret_answer)
    CTS_MUST_USE;
/* The delay in a RetryInfo inside grpc-status-details-bin, in milliseconds; -1 when none. */
int64_t otlp_retry_delay_ms(const void *bytes, size_t count);

#endif
