/* api_answers.c - what the API says. docs/trace-api.md has the schema. */
#include "api.h"

#include "otlp.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TRACES_LIMIT_DEFAULT 50
#define TRACES_LIMIT_MAX 1000
#define TRACES_LOOKED_AT_MAX 100000

/* -- small words ------------------------------------------------------------------------------ */
static void key_text(struct cts_json *json, const char *key, const char *text)
{
    cts_json_key(json, key);
    cts_json_text(json, cts_bytes_of(text));
}

static void key_uint(struct cts_json *json, const char *key, uint64_t number)
{
    cts_json_key(json, key);
    cts_json_uint(json, number);
}

static void key_int(struct cts_json *json, const char *key, int64_t number)
{
    cts_json_key(json, key);
    cts_json_int(json, number);
}

static void key_bool(struct cts_json *json, const char *key, bool value)
{
    cts_json_key(json, key);
    cts_json_bool(json, value);
}

static void key_hex(struct cts_json *json, const char *key, const uint8_t *bytes, size_t count)
{
    char text[64];
    for (size_t i = 0; i < count && 2 * i + 2 < sizeof(text); i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    key_text(json, key, count > 0 ? text : "");
}

bool api_query_value(struct cts_bytes query, const char *name, char *to, size_t to_bytes)
{
    size_t name_bytes = strlen(name);
    for (size_t i = 0; i < query.count;) {
        const char *at = query.at + i;
        const char *end = memchr(at, '&', query.count - i);
        size_t count = end == NULL ? query.count - i : (size_t)(end - at);
        if (count > name_bytes && memcmp(at, name, name_bytes) == 0 && at[name_bytes] == '=') {
            struct cts_bytes value = {at + name_bytes + 1, count - name_bytes - 1};
            if (value.count >= to_bytes)
                return false;
            to[cts_http_percent_decode(value, to)] = '\0';
            return true;
        }
        i += count + 1;
    }
    return false;
}

static int64_t query_number(struct cts_bytes query, const char *name, int64_t otherwise)
{
    char text[32], *end;
    if (!api_query_value(query, name, text, sizeof(text)))
        return otherwise;
    long long number = strtoll(text, &end, 10);
    return *end == '\0' && end != text ? number : otherwise;
}

/* -- status ----------------------------------------------------------------------------------- */
static const char *const drop_names[CTS_DROP_REASONS_COUNT] = {
    [CTS_DROP_BAD_RECORD] = "bad_record", [CTS_DROP_HEAP_FULL] = "heap_full",
    [CTS_DROP_STORE_FULL] = "store_full", [CTS_DROP_REFUSED] = "refused",
    [CTS_DROP_AGENT_LOST] = "agent_lost",
};

static void put_sums(struct cts_json *json, const struct ring_sums *sums)
{
    cts_json_object_open(json);
    key_uint(json, "started", sums->started);
    key_uint(json, "open", sums->open);
    key_uint(json, "in_ring", sums->in_ring);
    key_uint(json, "in_heap", sums->in_heap);
    key_uint(json, "acked", sums->acked);
    key_uint(json, "rejected", sums->rejected);
    uint64_t dropped = sums->dropped_ring_full;
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        dropped += sums->dropped[i];
    key_uint(json, "dropped", dropped);
    cts_json_key(json, "dropped_by_reason");
    cts_json_object_open(json);
    key_uint(json, "ring_full", sums->dropped_ring_full);
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        key_uint(json, drop_names[i], sums->dropped[i]);
    cts_json_object_close(json);
    key_uint(json, "lost_uncommitted", sums->lost_uncommitted);
    key_uint(json, "rows_full", sums->rows_full);
    cts_json_key(json, "balances");
    if (sums->is_exact)
        cts_json_bool(json, ring_sums_balance(sums));
    else
        cts_json_null(json);
    cts_json_object_close(json);
}

/* What the master said last; while that is only BOOTING, the worker's own page may know more. */
static const char *event_name(const struct ring *ring, const struct cts_worker_copy *worker)
{
    static const char *const names[] = {
        [CTS_WORKER_EVENT_BOOTING] = "booting", [CTS_WORKER_EVENT_READY] = "ready",
        [CTS_WORKER_EVENT_DRAINING] = "draining", [CTS_WORKER_EVENT_STUCK] = "stuck",
        [CTS_WORKER_EVENT_GONE] = "gone"};
    if (ring->is_gone)
        return "gone";
    if (ring->event == CTS_WORKER_EVENT_BOOTING && worker->state == CTS_WORKER_READY)
        return "ready";
    return ring->event > 0 && ring->event < CTS_COUNT(names) ? names[ring->event] : "unknown";
}

static uint64_t rows_open(struct agent *agent, const struct ring *ring)
{
    static struct cts_row_copy row;
    uint64_t open = 0;
    for (uint32_t i = 0; i < ring->view.rows_count && !ring->is_gone; i++)
        open += cts_row_read(&ring->view, i, &row) == CTS_ROW_OPEN;
    return open;
}

static void put_worker(struct cts_json *json, struct agent *agent, const struct ring *ring)
{
    struct cts_worker_copy worker;
    cts_worker_read(&ring->view, &worker);
    cts_json_object_open(json);
    key_uint(json, "ring_id", ring->facts.ring_id);
    key_int(json, "pid", ring->facts.pid);
    key_int(json, "slot", ring->facts.slot_index);
    key_uint(json, "generation", ring->facts.generation);
    key_uint(json, "age", ring->facts.age);
    key_text(json, "state", event_name(ring, &worker));
    key_text(json, "instance_id", ring->resource->instance_id);
    key_uint(json, "requests", worker.requests_count);
    key_uint(json, "answered", worker.answered_count);
    key_uint(json, "refused", worker.refused_count);
    key_uint(json, "in_flight", rows_open(agent, ring));
    key_int(json, "connections", worker.connections_count);
    cts_json_object_close(json);
}

static void put_ring(struct cts_json *json, const struct ring *ring, const struct ring_sums *sums)
{
    struct cts_worker_copy worker;
    cts_worker_read(&ring->view, &worker);
    uint64_t used = worker.head - ring->counts.tail;
    cts_json_object_open(json);
    key_uint(json, "ring_id", ring->facts.ring_id);
    key_int(json, "pid", ring->facts.pid);
    key_int(json, "slot", ring->facts.slot_index);
    key_uint(json, "bytes", ring->view.ring_bytes);
    key_uint(json, "used_bytes", used > ring->view.ring_bytes ? ring->view.ring_bytes : used);
    key_bool(json, "damaged", ring->is_damaged);
    key_bool(json, "gone", ring->is_gone);
    key_bool(json, "retired", ring->is_retired);
    cts_json_key(json, "counts");
    put_sums(json, sums);
    cts_json_object_close(json);
}

/* What rings that are gone for good left behind, as the master keeps it. */
static struct ring_sums sums_of_totals(const struct cts_agent_totals *totals)
{
    struct ring_sums sums = {
        .started = totals->started, .acked = totals->acked, .rejected = totals->rejected,
        .dropped_ring_full = totals->dropped_ring_full,
        .lost_uncommitted = totals->lost_uncommitted, .rows_full = totals->rows_full,
        .is_exact = true};
    memcpy(sums.dropped, totals->dropped, sizeof(sums.dropped));
    sums.balances = ring_sums_balance(&sums);
    return sums;
}

static void put_rings(struct cts_json *json, struct agent *agent)
{
    struct ring_sums total = sums_of_totals(&agent->hello.totals);
    uint64_t damaged = 0;
    cts_json_key(json, "rings");
    cts_json_array_open(json);
    CTS_LIST_EACH(rings_list(agent->rings), link) {
        struct ring *ring = CTS_CONTAINER(link, struct ring, link);
        struct ring_sums sums;
        ring_sum(ring, &sums);
        put_ring(json, ring, &sums);
        damaged += ring->is_damaged;
        ring_sums_add(&total, &sums);
    }
    cts_json_array_close(json);
    cts_json_key(json, "totals");
    put_sums(json, &total);
    key_uint(json, "rings_retired", agent->hello.totals.rings_retired);
    key_uint(json, "rings_damaged", damaged);
}

static void put_exporter(struct cts_json *json, struct agent *agent)
{
    cts_json_key(json, "exporter");
    cts_json_object_open(json);
    key_bool(json, "configured", agent->exporter != NULL);
    if (agent->exporter != NULL) {
        struct exporter_figures figures;
        exporter_read_figures(agent->exporter, &figures);
        key_text(json, "protocol", agent->env.protocol == ENV_PROTOCOL_GRPC ? "grpc"
                                                                            : "http/protobuf");
        key_text(json, "endpoint", agent->env.url);
        key_text(json, "state", figures.failures_in_a_row > 0 ? "failing" : "ok");
        key_uint(json, "failures_in_a_row", figures.failures_in_a_row);
        key_int(json, "next_attempt_ms", figures.next_attempt_ms);
        key_uint(json, "delivered_batches", figures.delivered_batches);
        key_uint(json, "delivered_spans", figures.delivered_spans);
        key_uint(json, "rejected_spans", figures.rejected_spans);
        key_uint(json, "refused_spans", figures.refused_spans);
        key_uint(json, "retries", figures.retries);
        key_uint(json, "splits", figures.splits);
        key_uint(json, "nonsense_answers", figures.nonsense_answers);
        key_uint(json, "in_flight", figures.waiting_spans);
        key_uint(json, "batches_in_flight", figures.flying_batches);
        key_text(json, "last_problem", figures.last_problem);
    }
    cts_json_object_close(json);
}

static void put_agent(struct cts_json *json, struct agent *agent)
{
    struct store_figures store;
    store_read_figures(agent->store, &store);
    cts_json_key(json, "agent");
    cts_json_object_open(json);
    key_int(json, "pid", getpid());
    key_uint(json, "uptime_ms", (cts_clock_mono_ns() - agent->started_mono_ns) / 1000000u);
    key_uint(json, "bad_packets", master_link_bad_packets(agent->link));
    key_uint(json, "heap_bytes", rings_heap_bytes(agent->rings));
    cts_json_key(json, "store");
    cts_json_object_open(json);
    key_uint(json, "bytes", store.bytes);
    key_uint(json, "bytes_max", store.bytes_max);
    key_uint(json, "traces", store.traces);
    key_uint(json, "spans", store.spans);
    key_uint(json, "evicted_traces", store.evicted_traces);
    key_uint(json, "left_out_spans", store.left_out_spans);
    cts_json_object_close(json);
    cts_json_object_close(json);
}

static int answer_status(struct agent *agent, struct cts_json *json)
{
    cts_json_object_open(json);
    key_text(json, "version", CTS_VERSION);
    key_text(json, "service", agent->env.service_name);
    cts_json_key(json, "master");
    cts_json_object_open(json);
    key_int(json, "pid", agent->hello.master_pid);
    key_text(json, "app", agent->hello.app);
    key_text(json, "bind", agent->hello.bind);
    key_uint(json, "started_unix_ns", agent->hello.started_real_ns);
    key_int(json, "workers_wanted", agent->hello.workers);
    cts_json_object_close(json);
    cts_json_key(json, "workers");
    cts_json_array_open(json);
    CTS_LIST_EACH(rings_list(agent->rings), link) {
        struct ring *ring = CTS_CONTAINER(link, struct ring, link);
        if (ring->facts.slot_index >= 0 && !ring->is_retired)
            put_worker(json, agent, ring);
    }
    cts_json_array_close(json);
    put_agent(json, agent);
    put_exporter(json, agent);
    put_rings(json, agent);
    cts_json_object_close(json);
    return 200;
}

/* -- traces ----------------------------------------------------------------------------------- */
struct filter {
    int64_t limit, pid, min_duration_ms;
    bool errors_only;
    char name[128];
};

static struct filter filter_read(struct cts_bytes query)
{
    struct filter filter = {.limit = query_number(query, "limit", TRACES_LIMIT_DEFAULT),
                            .pid = query_number(query, "pid", -1),
                            .min_duration_ms = query_number(query, "min_duration_ms", 0)};
    char text[16];
    if (filter.limit < 1)
        filter.limit = 1;
    if (filter.limit > TRACES_LIMIT_MAX)
        filter.limit = TRACES_LIMIT_MAX;
    filter.errors_only = api_query_value(query, "error", text, sizeof(text)) &&
                         (strcmp(text, "1") == 0 || strcmp(text, "true") == 0);
    if (!api_query_value(query, "name", filter.name, sizeof(filter.name)))
        filter.name[0] = '\0';
    return filter;
}

static bool filter_takes(const struct filter *filter, const struct stored_trace *trace,
                         const struct span *root)
{
    return root != NULL && (!filter->errors_only || trace->is_error) &&
           (filter->pid < 0 || root->resource->pid == filter->pid) &&
           (int64_t)((trace->end_ns - trace->start_ns) / 1000000u) >= filter->min_duration_ms &&
           (filter->name[0] == '\0' || strstr(root->name, filter->name) != NULL);
}

static void put_summary(struct cts_json *json, const struct stored_trace *trace,
                        const struct span *root)
{
    cts_json_object_open(json);
    key_hex(json, "trace_id", trace->trace_id, 16);
    key_text(json, "name", root->name);
    key_text(json, "service", root->resource->service_name);
    key_int(json, "pid", root->resource->pid);
    key_uint(json, "start_unix_ns", trace->start_ns);
    key_uint(json, "duration_ns", trace->end_ns - trace->start_ns);
    cts_json_key(json, "status");
    if (root->http_status != 0)
        cts_json_int(json, root->http_status);
    else
        cts_json_null(json);
    key_bool(json, "error", trace->is_error);
    key_uint(json, "spans", trace->spans_count);
    cts_json_object_close(json);
}

static int answer_traces(struct agent *agent, struct cts_bytes query, struct cts_json *json)
{
    struct filter filter = filter_read(query);
    const struct stored_trace *trace = NULL;
    int64_t count = 0;
    cts_json_object_open(json);
    cts_json_key(json, "traces");
    cts_json_array_open(json);
    for (int i = 0; i < TRACES_LOOKED_AT_MAX && count < filter.limit; i++) {
        trace = store_before(agent->store, trace);
        if (trace == NULL)
            break;
        const struct span *root = stored_trace_root(trace);
        if (!filter_takes(&filter, trace, root))
            continue;
        put_summary(json, trace, root);
        count++;
    }
    cts_json_array_close(json);
    cts_json_object_close(json);
    return 200;
}

/* -- one trace -------------------------------------------------------------------------------- */
static void put_value(struct cts_json *json, const Otlp__AnyValue *value)
{
    switch (value != NULL ? (int)value->value_case : -1) {
    case OTLP__ANY_VALUE__VALUE_STRING_VALUE:
        cts_json_text(json, cts_bytes_of(value->string_value));
        break;
    case OTLP__ANY_VALUE__VALUE_BOOL_VALUE:
        cts_json_bool(json, value->bool_value);
        break;
    case OTLP__ANY_VALUE__VALUE_INT_VALUE:
        cts_json_int(json, value->int_value);
        break;
    case OTLP__ANY_VALUE__VALUE_DOUBLE_VALUE:
        cts_json_double(json, value->double_value);
        break;
    default:
        cts_json_null(json);
    }
}

static void put_attributes(struct cts_json *json, Otlp__KeyValue *const *list, size_t count)
{
    cts_json_key(json, "attributes");
    cts_json_object_open(json);
    for (size_t i = 0; i < count; i++) {
        cts_json_key(json, list[i]->key);
        put_value(json, list[i]->value);
    }
    cts_json_object_close(json);
}

static void put_events(struct cts_json *json, const Otlp__Span *message)
{
    cts_json_key(json, "events");
    cts_json_array_open(json);
    for (size_t i = 0; i < message->n_events; i++) {
        cts_json_object_open(json);
        key_text(json, "name", message->events[i]->name);
        key_uint(json, "time_unix_ns", message->events[i]->time_unix_nano);
        put_attributes(json, message->events[i]->attributes, message->events[i]->n_attributes);
        cts_json_object_close(json);
    }
    cts_json_array_close(json);
    cts_json_key(json, "links");
    cts_json_array_open(json);
    for (size_t i = 0; i < message->n_links; i++) {
        const Otlp__Link *link = message->links[i];
        cts_json_object_open(json);
        key_hex(json, "trace_id", link->trace_id.data, link->trace_id.len);
        key_hex(json, "span_id", link->span_id.data, link->span_id.len);
        cts_json_object_close(json);
    }
    cts_json_array_close(json);
}

static void put_resource(struct cts_json *json, const struct resource *resource)
{
    Otlp__Resource *message =
        otlp__resource__unpack(NULL, resource->encoded_bytes, resource->encoded);
    cts_json_key(json, "worker");
    if (resource->slot_index < 0) {
        cts_json_null(json);
    } else {
        cts_json_object_open(json);
        key_int(json, "slot", resource->slot_index);
        key_uint(json, "generation", resource->generation);
        cts_json_object_close(json);
    }
    cts_json_key(json, "resource");
    cts_json_object_open(json);
    if (message != NULL)
        put_attributes(json, message->attributes, message->n_attributes);
    cts_json_object_close(json);
    otlp__resource__free_unpacked(message, NULL);
}

static void put_span(struct cts_json *json, const struct span *span)
{
    Otlp__Span *message = otlp__span__unpack(NULL, span->encoded_bytes, span->encoded);
    if (message == NULL) {
        json->failed = true;
        return;
    }
    cts_json_object_open(json);
    key_hex(json, "trace_id", span->trace_id, 16);
    key_hex(json, "span_id", span->span_id, 8);
    cts_json_key(json, "parent_span_id");
    if (span->has_parent) {
        char hex[17];
        for (int i = 0; i < 8; i++)
            snprintf(hex + 2 * i, 3, "%02x", span->parent_span_id[i]);
        cts_json_text(json, cts_bytes_of(hex));
    } else {
        cts_json_null(json);
    }
    key_text(json, "name", message->name);
    key_text(json, "kind", span->kind == SPAN_KIND_SERVER ? "server" : "internal");
    key_uint(json, "flags", message->flags);
    key_uint(json, "start_unix_ns", span->start_ns);
    key_uint(json, "end_unix_ns", span->end_ns);
    key_uint(json, "duration_ns", span->end_ns - span->start_ns);
    key_bool(json, "error", span->is_error);
    key_text(json, "status_message", message->status != NULL ? message->status->message : "");
    key_int(json, "pid", span->resource->pid);
    key_text(json, "service", span->resource->service_name);
    put_attributes(json, message->attributes, message->n_attributes);
    put_events(json, message);
    put_resource(json, span->resource);
    cts_json_object_close(json);
    otlp__span__free_unpacked(message, NULL);
}

static bool read_trace_id(struct cts_bytes text, uint8_t trace_id[16])
{
    if (text.count != 32)
        return false;
    for (size_t i = 0; i < 16; i++) {
        char pair[3] = {text.at[2 * i], text.at[2 * i + 1], '\0'}, *end;
        trace_id[i] = (uint8_t)strtoul(pair, &end, 16);
        if (end != pair + 2 || pair[0] == '+' || pair[0] == '-' || pair[0] == ' ')
            return false;
    }
    return true;
}

static int answer_problem(struct cts_json *json, int status, const char *sentence)
{
    cts_json_object_open(json);
    key_text(json, "error", sentence);
    cts_json_object_close(json);
    return status;
}

static int answer_trace(struct agent *agent, struct cts_bytes id, struct cts_json *json)
{
    uint8_t trace_id[16];
    if (!read_trace_id(id, trace_id))
        return answer_problem(json, 400, "A trace id has 32 hexadecimal digits.");
    const struct stored_trace *trace = store_find(agent->store, trace_id);
    if (trace == NULL)
        return answer_problem(json, 404, "There is no such trace here (any more).");
    cts_json_object_open(json);
    key_hex(json, "trace_id", trace->trace_id, 16);
    key_uint(json, "spans_left_out", trace->spans_left_out);
    cts_json_key(json, "spans");
    cts_json_array_open(json);
    for (size_t i = 0; i < trace->spans_count; i++)
        put_span(json, trace->spans[i]);
    cts_json_array_close(json);
    cts_json_object_close(json);
    return 200;
}

/* -- what runs now ---------------------------------------------------------------------------- */
static void put_live(struct cts_json *json, const struct ring *ring,
                     const struct cts_row_copy *row)
{
    static const char *const phases[] = {"unknown", "head", "body", "app", "send", "sent"};
    uint64_t now_ns = cts_clock_mono_ns();
    cts_json_object_open(json);
    key_int(json, "pid", ring->facts.pid);
    key_int(json, "slot", ring->facts.slot_index);
    cts_json_key(json, "method");
    cts_json_text(json, row->method);
    cts_json_key(json, "path");
    cts_json_text(json, row->path);
    key_text(json, "phase", phases[row->phase < CTS_COUNT(phases) ? row->phase : 0]);
    key_uint(json, "age_ns", now_ns > row->start_mono_ns ? now_ns - row->start_mono_ns : 0);
    key_hex(json, "trace_id", row->trace_id, 16);
    key_hex(json, "span_id", row->span_id, 8);
    key_bool(json, "traced", row->is_traced);
    cts_json_object_close(json);
}

static int answer_live(struct agent *agent, struct cts_json *json)
{
    static struct cts_row_copy row;
    cts_json_object_open(json);
    cts_json_key(json, "requests");
    cts_json_array_open(json);
    CTS_LIST_EACH(rings_list(agent->rings), link) {
        struct ring *ring = CTS_CONTAINER(link, struct ring, link);
        for (uint32_t i = 0; i < ring->view.rows_count && !ring->is_gone; i++) {
            if (cts_row_read(&ring->view, i, &row) == CTS_ROW_OPEN)
                put_live(json, ring, &row);
        }
    }
    cts_json_array_close(json);
    cts_json_object_close(json);
    return 200;
}

int api_answer(struct agent *agent, struct cts_bytes path, struct cts_bytes query,
               struct cts_buffer *out)
{
    static const char one[] = "/api/v1/traces/";
    struct cts_json json;
    int status;
    cts_json_init(&json, out);
    if (cts_bytes_equal(path, cts_bytes_of("/api/v1/status")))
        status = answer_status(agent, &json);
    else if (cts_bytes_equal(path, cts_bytes_of("/api/v1/traces")))
        status = answer_traces(agent, query, &json);
    else if (cts_bytes_equal(path, cts_bytes_of("/api/v1/live")))
        status = answer_live(agent, &json);
    else if (path.count > sizeof(one) - 1 && memcmp(path.at, one, sizeof(one) - 1) == 0)
        status = answer_trace(agent, (struct cts_bytes){path.at + sizeof(one) - 1,
                                                        path.count - (sizeof(one) - 1)}, &json);
    else
        status = answer_problem(&json, 404, "There is nothing here.");
    return json.failed ? 500 : status;
}
