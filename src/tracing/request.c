/* request.c - one request: a row from begin to end, a record at its end.
 *
 * The order of stores is the protocol of struct cts_commit (slot.h); everything else in a row is
 * written while it is closed. Texts go into the row at begin, because the connection may have
 * lost its buffer by the end, and because a dead worker's span needs them. */
#include "ring.h"
#include "text.h"

#define ROUTE_BYTES 160u
#define ROWS_FREE_MIN 16u /* fewer: requests that are nearly over should make room */
#define ERROR_TYPE_BYTES 128u
#define ERROR_MESSAGE_BYTES 1024u

static void count_cuts(uint32_t cuts)
{
    if (CTS_UNLIKELY(cuts != 0))
        atomic_fetch_add_explicit(&tracer.page->attributes_dropped, cuts, memory_order_relaxed);
}

/* The words of the worker page that only lock holders write need no locked instruction. */
static void count_one(_Atomic uint64_t *word)
{
    store(word, load(word) + 1);
}

static struct cts_row *row_take(void)
{
    struct cts_row *row = NULL;
    tracer_lock();
    count_one(&tracer.page->requests_count);
    if (CTS_LIKELY(tracer.free_count > 0))
        row = &tracer.rows[tracer.free_rows[--tracer.free_count]];
    else
        count_one(&tracer.page->rows_full);
    tracer_unlock();
    return row;
}

/* Lock held. */
static void row_give(struct cts_row *row)
{
    tracer.free_rows[tracer.free_count++] = (uint16_t)(row - tracer.rows);
}

/* Parent-based, always on: who comes without a parent is recorded, who comes with one is recorded
 * if the parent is. */
static void choose_ids(struct cts_trace_request *request, struct cts_bytes traceparent)
{
    struct cts_trace_context parent;
    request->has_parent = cts_traceparent_is_unsampled(traceparent);
    if (request->has_parent)
        return;
    request->is_recording = true;
    cts_traceparent_read(traceparent, &parent);
    request->has_parent = parent.is_valid;
    if (parent.is_valid) {
        memcpy(request->trace_id, parent.trace_id, sizeof(request->trace_id));
        memcpy(request->parent_span_id, parent.span_id, sizeof(request->parent_span_id));
        request->flags = parent.flags;
    } else {
        cts_trace_id_new(request->trace_id);
        request->flags = 3; /* sampled; the id is random */
    }
    cts_span_id_new(request->span_id);
}

/* What tells one running request from another. */
static void row_write_name(struct cts_row *row, const struct cts_trace_start *start,
                           uint32_t *cuts)
{
    row->method_bytes = (uint8_t)text_bound(start->method, sizeof(row->method), cuts);
    row->target_bytes = text_bound(start->path, sizeof(row->target), cuts);
    row->peer_bytes = text_bound(start->peer_address, sizeof(row->peer), cuts);
    text_put(row->method, start->method.at, row->method_bytes);
    text_put(row->target, start->path.at, row->target_bytes);
    text_put(row->peer, start->peer_address.at, row->peer_bytes);
}

/* What only a span tells. */
static void row_write_rest(struct cts_row *row, const struct cts_trace_start *start,
                           uint32_t *cuts)
{
    row->scheme_bytes = text_bound(start->scheme, sizeof(row->scheme), cuts);
    row->host_bytes = text_bound(start->host, sizeof(row->host), cuts);
    row->agent_bytes = text_bound(start->user_agent, sizeof(row->agent), cuts);
    row->query_bytes = text_bound(start->query, sizeof(row->query), cuts);
    text_put(row->scheme, start->scheme.at, row->scheme_bytes);
    text_put(row->host, start->host.at, row->host_bytes);
    text_put(row->agent, start->user_agent.at, row->agent_bytes);
    text_put(row->query, start->query.at, row->query_bytes);
}

static void row_write_texts(struct cts_row *row, const struct cts_trace_request *request,
                            const struct cts_trace_start *start)
{
    uint32_t cuts = 0;
    row_write_name(row, start, &cuts);
    if (request->is_recording)
        row_write_rest(row, start, &cuts);
    else
        row->scheme_bytes = row->host_bytes = row->agent_bytes = row->query_bytes = 0;
    count_cuts(cuts);
}

static void row_open(struct cts_row *row, const struct cts_trace_request *request,
                     const struct cts_trace_start *start)
{
    commit_prepare(&row->commit);
    store(&row->progress_mono_ns, 0);
    store(&row->app_mono_ns, 0);
    atomic_store_explicit(&row->phase, CTS_PHASE_HEAD, memory_order_relaxed);
    atomic_store_explicit(&row->flags, request->is_recording ? 0 : CTS_ROW_UNTRACED,
                          memory_order_relaxed);
    row->start_mono_ns = request->start_ns;
    memcpy(row->trace_id, request->trace_id, sizeof(row->trace_id));
    memcpy(row->span_id, request->span_id, sizeof(row->span_id));
    memcpy(row->parent_span_id, request->parent_span_id, sizeof(row->parent_span_id));
    row->has_parent = request->has_parent;
    row->sampled = request->flags;
    row->version_minor = start->version_minor;
    row->thread_id = tracer.has_threads ? tracer_thread_id() : tracer.thread_id;
    row->peer_port = start->peer_port;
    row->server_port = start->server_port;
    row_write_texts(row, request, start);
    sequence_step(request->is_recording ? &row->sequence : &row->untraced_sequence);
}

void cts_trace_begin(struct cts_trace_request *request, const struct cts_trace_start *start)
{
    memset(request, 0, sizeof(*request));
    if (!tracer.is_attached)
        return;
    request->head_ns = cts_clock_mono_ns();
    request->accept_ns = start->accept_ns;
    request->start_ns = start->start_ns != 0 ? start->start_ns : request->head_ns;
    struct cts_row *row = row_take();
    if (CTS_UNLIKELY(row == NULL))
        return;
    if (tracer.is_enabled)
        choose_ids(request, start->traceparent);
    row_open(row, request, start);
    request->row = row;
}

bool cts_trace_is_crowded(void)
{
    if (!tracer.is_attached)
        return false;
    tracer_lock();
    bool is_crowded = tracer.free_count < ROWS_FREE_MIN;
    tracer_unlock();
    return is_crowded;
}

/* Where to note when a phase began. Of a request that makes no span only the entry of the
 * application counts, and unless the body was waited for it comes right behind the beginning. */
static uint64_t *moment_of(struct cts_trace_request *request, enum cts_phase phase)
{
    if (!request->is_recording) {
        if (phase == CTS_PHASE_APP && request->app_ns == 0 && request->body_ns == 0)
            request->app_ns = request->head_ns;
        return phase == CTS_PHASE_APP ? &request->app_ns : NULL;
    }
    switch (phase) {
    case CTS_PHASE_BODY:
        return &request->body_ns;
    case CTS_PHASE_APP:
        return &request->app_ns;
    case CTS_PHASE_SEND:
        return &request->first_byte_ns;
    default:
        return NULL;
    }
}

void cts_trace_phase(struct cts_trace_request *request, enum cts_phase phase)
{
    struct cts_row *row = request->row;
    if (row == NULL || !tracer.is_attached)
        return;
    uint64_t *moment = moment_of(request, phase);
    if (moment != NULL && *moment == 0)
        *moment = cts_clock_mono_ns();
    if (phase == CTS_PHASE_APP)
        store(&row->app_mono_ns, request->app_ns);
    atomic_store_explicit(&row->phase, (uint32_t)phase, memory_order_relaxed);
}

void cts_trace_progress(struct cts_trace_request *request)
{
    struct cts_row *row = request->row;
    if (row == NULL || !tracer.is_attached)
        return;
    uint32_t flags = atomic_load_explicit(&row->flags, memory_order_relaxed);
    store(&row->progress_mono_ns, cts_clock_mono_ns());
    atomic_store_explicit(&row->flags, flags | CTS_ROW_STREAMING, memory_order_release);
}

static void payload_fill(struct cts_server_span_payload *payload, const struct cts_row *row,
                         const struct cts_trace_request *request, const struct cts_trace_end *end)
{
    memcpy(payload->trace_id, request->trace_id, sizeof(payload->trace_id));
    memcpy(payload->span_id, request->span_id, sizeof(payload->span_id));
    memcpy(payload->parent_span_id, request->parent_span_id, sizeof(payload->parent_span_id));
    payload->has_parent = request->has_parent;
    payload->trace_flags = request->flags;
    payload->version_minor = row->version_minor;
    payload->status = end->status;
    payload->accept_ns = request->accept_ns;
    payload->start_ns = request->start_ns;
    payload->head_ns = request->head_ns;
    payload->body_ns = request->body_ns;
    payload->app_ns = request->app_ns;
    payload->first_byte_ns = request->first_byte_ns;
    payload->end_ns = cts_clock_mono_ns();
    payload->request_body_bytes = end->request_body_bytes;
    payload->response_body_bytes = end->response_body_bytes;
    payload->peer_port = row->peer_port;
    payload->server_port = row->server_port;
    payload->method_bytes = row->method_bytes;
    payload->path_bytes = row->target_bytes;
    payload->query_bytes = row->query_bytes;
    payload->scheme_bytes = row->scheme_bytes;
    payload->host_bytes = row->host_bytes;
    payload->user_agent_bytes = row->agent_bytes;
    payload->peer_bytes = row->peer_bytes;
}

/* The order of struct cts_server_span_payload. */
static void payload_put_texts(char *to, const struct cts_server_span_payload *payload,
                              const struct cts_row *row, const struct cts_trace_end *end)
{
    to = text_put(to, row->method, payload->method_bytes);
    to = text_put(to, row->target, payload->path_bytes);
    to = text_put(to, row->query, payload->query_bytes);
    to = text_put(to, row->scheme, payload->scheme_bytes);
    to = text_put(to, row->host, payload->host_bytes);
    to = text_put(to, row->agent, payload->user_agent_bytes);
    to = text_put(to, row->peer, payload->peer_bytes);
    to = text_put(to, end->route.at, payload->route_bytes);
    to = text_put(to, end->error_type.at, payload->error_type_bytes);
    text_put(to, end->error_message.at, payload->error_message_bytes);
}

/* Lock held. The lengths in the row were bounded at begin, but an application may scribble over
 * shared memory: what is reserved is their sum, so nothing is written behind the record, and what
 * is read behind a text is at worst more of the slot, since a record is smaller than a ring. */
static void row_commit(struct cts_row *row, const struct cts_trace_request *request,
                       const struct cts_trace_end *end,
                       const struct cts_server_span_payload *payload)
{
    uint32_t texts_bytes = (uint32_t)payload->method_bytes + payload->path_bytes +
                           payload->query_bytes + payload->scheme_bytes + payload->host_bytes +
                           payload->user_agent_bytes + payload->peer_bytes + payload->route_bytes +
                           payload->error_type_bytes + payload->error_message_bytes;
    struct ring_head head = {
        .kind = CTS_RECORD_SERVER_SPAN,
        .row_index = (uint32_t)(row - tracer.rows),
        .row_sequence = load(&row->sequence),
        .payload_bytes = (uint32_t)sizeof(*payload) + texts_bytes,
    };
    struct ring_place place;
    if (CTS_UNLIKELY(!ring_reserve(head.payload_bytes, &place))) {
        ring_drop(&row->commit);
        return;
    }
    unsigned char *at = place.at + sizeof(struct cts_record);
    memcpy(at, payload, sizeof(*payload));
    payload_put_texts((char *)at + sizeof(*payload), payload, row, end);
    ring_commit(&place, &head, &row->commit);
}

static void end_recorded(struct cts_row *row, const struct cts_trace_request *request,
                         const struct cts_trace_end *end)
{
    uint32_t cuts = 0;
    struct cts_server_span_payload payload = {0};
    payload_fill(&payload, row, request, end);
    payload.route_bytes = text_bound(end->route, ROUTE_BYTES, &cuts);
    payload.error_type_bytes = text_bound(end->error_type, ERROR_TYPE_BYTES, &cuts);
    payload.error_message_bytes = text_bound(end->error_message, ERROR_MESSAGE_BYTES, &cuts);
    count_cuts(cuts);
    tracer_lock();
    row_commit(row, request, end, &payload);
    sequence_step(&row->sequence);
}

void cts_trace_end(struct cts_trace_request *request, const struct cts_trace_end *end)
{
    struct cts_row *row = request->row;
    request->row = NULL;
    if (row == NULL || !tracer.is_attached)
        return;
    if (CTS_LIKELY(request->is_recording)) {
        end_recorded(row, request, end);
    } else {
        tracer_lock();
        sequence_step(&row->untraced_sequence);
    }
    if (end->status != 0)
        count_one(&tracer.page->answered_count);
    if (CTS_UNLIKELY(end->is_refused))
        count_one(&tracer.page->refused_count);
    row_give(row);
    tracer_unlock();
}
