/* otlp.c - building messages out of facts. */
#include "otlp.h"

#include "otlp.pb-c.h"
#include "rpc.pb-c.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* One span's texts, attributes and messages live here while it is packed. A record has at most
 * 16 KiB and a stack 48 KiB; mending UTF-8 can make them three times as long. */
#define ARENA_BYTES (256u << 10)
#define ATTRIBUTES_COUNT_MAX 64
#define EVENT_ATTRIBUTES_COUNT_MAX 4

struct attributes {
    Otlp__KeyValue pairs[ATTRIBUTES_COUNT_MAX];
    Otlp__AnyValue values[ATTRIBUTES_COUNT_MAX];
    Otlp__KeyValue *list[ATTRIBUTES_COUNT_MAX];
    size_t count;
};

struct builder {
    struct attributes attributes;
    struct attributes event_attributes;
    char arena[ARENA_BYTES];
    size_t arena_used;
};

/* The agent has one thread that encodes; a builder is too large for its stack. */
static struct builder the_builder;

static struct builder *builder_reset(void)
{
    the_builder.attributes.count = 0;
    the_builder.event_attributes.count = 0;
    the_builder.arena_used = 0;
    return &the_builder;
}

/* How many bytes at `at` are one well-formed UTF-8 character, 0 if none (NUL counts as none: our
 * encoder works with C strings). Source: Unicode 15, table 3-7. */
static size_t utf8_step(const unsigned char *at, size_t left)
{
    unsigned char c = at[0];
    if (c == 0)
        return 0;
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return left >= 2 && (at[1] & 0xc0) == 0x80 ? 2 : 0;
    if (c >= 0xe0 && c <= 0xef) {
        unsigned char low = c == 0xe0 ? 0xa0 : 0x80;
        unsigned char high = c == 0xed ? 0x9f : 0xbf;
        return left >= 3 && at[1] >= low && at[1] <= high && (at[2] & 0xc0) == 0x80 ? 3 : 0;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        unsigned char low = c == 0xf0 ? 0x90 : 0x80;
        unsigned char high = c == 0xf4 ? 0x8f : 0xbf;
        return left >= 4 && at[1] >= low && at[1] <= high && (at[2] & 0xc0) == 0x80 &&
                       (at[3] & 0xc0) == 0x80 ? 4 : 0;
    }
    return 0;
}

/* A terminated UTF-8 copy in the arena; cut where the arena ends. */
static char *text_of(struct builder *builder, struct cts_bytes bytes)
{
    char *start = builder->arena + builder->arena_used;
    size_t room = ARENA_BYTES - builder->arena_used;
    if (room < 8)
        return (char *)protobuf_c_empty_string;
    size_t length = 0;
    for (size_t i = 0; i < bytes.count && length + 5 < room;) {
        size_t step = utf8_step((const unsigned char *)bytes.at + i, bytes.count - i);
        memcpy(start + length, step > 0 ? bytes.at + i : "\xef\xbf\xbd", step > 0 ? step : 3);
        length += step > 0 ? step : 3;
        i += step > 0 ? step : 1;
    }
    start[length] = '\0';
    builder->arena_used += length + 1;
    return start;
}

static Otlp__AnyValue *put(struct attributes *attributes, char *key)
{
    if (attributes->count == ATTRIBUTES_COUNT_MAX)
        return NULL;
    size_t i = attributes->count++;
    otlp__key_value__init(&attributes->pairs[i]);
    otlp__any_value__init(&attributes->values[i]);
    attributes->pairs[i].key = key;
    attributes->pairs[i].value = &attributes->values[i];
    attributes->list[i] = &attributes->pairs[i];
    return &attributes->values[i];
}

static void put_string(struct attributes *attributes, const char *key, const char *value)
{
    Otlp__AnyValue *any = put(attributes, (char *)key);
    if (any == NULL)
        return;
    any->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
    any->string_value = (char *)value;
}

static void put_text(struct builder *builder, const char *key, struct cts_bytes value)
{
    if (value.count > 0)
        put_string(&builder->attributes, key, text_of(builder, value));
}

static void put_int(struct attributes *attributes, const char *key, int64_t value)
{
    Otlp__AnyValue *any = put(attributes, (char *)key);
    if (any == NULL)
        return;
    any->value_case = OTLP__ANY_VALUE__VALUE_INT_VALUE;
    any->int_value = value;
}

static void put_bool(struct attributes *attributes, char *key, bool value)
{
    Otlp__AnyValue *any = put(attributes, key);
    if (any == NULL)
        return;
    any->value_case = OTLP__ANY_VALUE__VALUE_BOOL_VALUE;
    any->bool_value = value;
}

static uint64_t wall_ns(const struct otlp_clock *clock, uint64_t mono_ns)
{
    return clock->real_ns + (mono_ns - clock->mono_ns);
}

/* -- resource --------------------------------------------------------------------------------- */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        hash ^= (value >> (8 * i)) & 0xff;
        hash *= 0x100000001b3ull;
    }
    hash ^= hash >> 29;
    return hash * 0xbf58476d1ce4e5b9ull;
}

/* A UUID of version 8 (RFC 9562) out of master start, slot and generation: the same after the
 * agent was restarted, another one for each process. */
static void write_instance_id(const struct otlp_process *process, char *to, size_t to_bytes)
{
    uint64_t half[2];
    for (uint64_t i = 0; i < 2; i++) {
        half[i] = mix(0xcbf29ce484222325ull + i, process->master_started_real_ns);
        half[i] = mix(half[i], (uint64_t)(uint32_t)process->master_pid);
        half[i] = mix(half[i], (uint64_t)(uint32_t)process->slot_index);
        half[i] = mix(half[i], process->generation);
    }
    half[0] = (half[0] & ~0xf000ull) | 0x8000ull;
    half[1] = (half[1] & ~(3ull << 62)) | (2ull << 62);
    snprintf(to, to_bytes, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(half[0] >> 32),
             (unsigned)(half[0] >> 16) & 0xffff, (unsigned)half[0] & 0xffff,
             (unsigned)(half[1] >> 48), (unsigned long long)(half[1] & 0xffffffffffffull));
}

static const char *const own_keys[] = {
    "service.name", "service.instance.id", "telemetry.sdk.name", "telemetry.sdk.language",
    "telemetry.sdk.version", "process.pid",
};

/* Ours describe the process that really sent the span; a user's cannot be truer. */
static void put_user_attributes(struct builder *builder, const struct env_plan *plan)
{
    for (size_t i = 0; i < plan->attributes_count; i++) {
        const struct env_pair *pair = &plan->attributes[i];
        bool is_ours = false;
        for (size_t k = 0; k < CTS_COUNT(own_keys); k++)
            is_ours = is_ours || strcmp(own_keys[k], pair->name) == 0;
        bool comes_later = false;
        for (size_t k = i + 1; k < plan->attributes_count; k++)
            comes_later = comes_later || strcmp(plan->attributes[k].name, pair->name) == 0;
        if (!is_ours && !comes_later)
            put_string(&builder->attributes, text_of(builder, cts_bytes_of(pair->name)),
                       text_of(builder, cts_bytes_of(pair->value)));
    }
}

struct resource *otlp_resource_new(const struct otlp_process *process, const struct env_plan *plan)
{
    struct builder *builder = builder_reset();
    struct attributes *attributes = &builder->attributes;
    struct utsname host;
    char instance_id[40];

    write_instance_id(process, instance_id, sizeof(instance_id));
    const char *service_name = text_of(builder, cts_bytes_of(plan->service_name));
    put_string(attributes, "service.name", service_name);
    put_string(attributes, "service.instance.id", instance_id);
    put_string(attributes, "telemetry.sdk.name", "ctserve");
    put_string(attributes, "telemetry.sdk.language", "python");
    put_string(attributes, "telemetry.sdk.version", CTS_VERSION);
    put_int(attributes, "process.pid", process->pid);
    if (process->parent_pid > 0)
        put_int(attributes, "process.parent_pid", process->parent_pid);
    put_string(attributes, "ctserve.process.role", process->slot_index < 0 ? "master" : "worker");
    if (process->slot_index >= 0) {
        put_int(attributes, "ctserve.worker.slot", process->slot_index);
        put_int(attributes, "ctserve.worker.generation", process->generation);
    }
    if (process->app != NULL && process->app[0] != '\0')
        put_text(builder, "ctserve.app", cts_bytes_of(process->app));
    put_user_attributes(builder, plan);
    if (uname(&host) == 0)
        put_text(builder, "host.name", cts_bytes_of(host.nodename));
    put_string(attributes, "os.type", "linux");

    Otlp__Resource message = OTLP__RESOURCE__INIT;
    message.attributes = attributes->list;
    message.n_attributes = attributes->count;
    size_t bytes = otlp__resource__get_packed_size(&message);
    struct resource *resource = calloc(1, sizeof(*resource) + bytes);
    if (resource == NULL)
        return NULL;
    resource->references = 1;
    resource->pid = process->pid;
    resource->slot_index = process->slot_index;
    resource->generation = process->generation;
    snprintf(resource->service_name, sizeof(resource->service_name), "%s", service_name);
    snprintf(resource->instance_id, sizeof(resource->instance_id), "%s", instance_id);
    resource->encoded_bytes = (uint32_t)bytes;
    otlp__resource__pack(&message, resource->encoded);
    return resource;
}

/* -- spans ------------------------------------------------------------------------------------ */
struct draft {
    Otlp__Span message;
    Otlp__Status status;
    Otlp__Event event;
    Otlp__Event *events[1];
    Otlp__Link link;
    Otlp__Link *links[1];
};

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static void draft_begin(struct draft *draft, const uint8_t trace_id[16], const uint8_t span_id[8],
                        const uint8_t parent_span_id[8], bool has_parent, uint32_t flags)
{
    otlp__span__init(&draft->message);
    otlp__status__init(&draft->status);
    otlp__event__init(&draft->event);
    otlp__link__init(&draft->link);
    draft->events[0] = &draft->event;
    draft->links[0] = &draft->link;
    draft->message.trace_id = (ProtobufCBinaryData){16, (uint8_t *)trace_id};
    draft->message.span_id = (ProtobufCBinaryData){8, (uint8_t *)span_id};
    if (has_parent)
        draft->message.parent_span_id = (ProtobufCBinaryData){8, (uint8_t *)parent_span_id};
    draft->message.flags = flags;
}

static void draft_times(struct draft *draft, const struct otlp_clock *clock, uint64_t start_ns,
                        uint64_t end_ns)
{
    draft->message.start_time_unix_nano = wall_ns(clock, start_ns);
    draft->message.end_time_unix_nano = wall_ns(clock, end_ns < start_ns ? start_ns : end_ns);
}

static void draft_error(struct draft *draft, char *sentence)
{
    draft->status.code = 2;
    draft->status.message = sentence;
    draft->message.status = &draft->status;
}

/* An `exception` event with whatever stands in event_attributes. */
static void draft_exception(struct draft *draft, struct builder *builder)
{
    draft->event.name = (char *)"exception";
    draft->event.time_unix_nano = draft->message.end_time_unix_nano;
    draft->event.attributes = builder->event_attributes.list;
    draft->event.n_attributes = builder->event_attributes.count;
    draft->message.events = draft->events;
    draft->message.n_events = 1;
}

static struct span *draft_finish(struct draft *draft, struct builder *builder,
                                 struct resource *resource)
{
    Otlp__Span *message = &draft->message;
    message->attributes = builder->attributes.list;
    message->n_attributes = builder->attributes.count;
    size_t bytes = otlp__span__get_packed_size(message);
    struct span *span = malloc(sizeof(*span) + bytes);
    if (span == NULL)
        return NULL;
    memset(span, 0, sizeof(*span));
    cts_list_init(&span->in_ring);
    cts_list_init(&span->in_queue);
    span->references = 1;
    span->resource = resource_take(resource);
    span->kind = (uint8_t)message->kind;
    span->is_error = message->status != NULL && message->status->code == 2;
    span->has_parent = message->parent_span_id.len == 8;
    memcpy(span->trace_id, message->trace_id.data, 16);
    memcpy(span->span_id, message->span_id.data, 8);
    if (span->has_parent)
        memcpy(span->parent_span_id, message->parent_span_id.data, 8);
    span->start_ns = message->start_time_unix_nano;
    span->end_ns = message->end_time_unix_nano;
    snprintf(span->name, sizeof(span->name), "%s", message->name);
    span->encoded_bytes = (uint32_t)otlp__span__pack(message, span->encoded);
    return span;
}

static const char *const known_methods[] = {
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
};

static const char *known_method(struct cts_bytes method)
{
    for (size_t i = 0; i < CTS_COUNT(known_methods); i++) {
        if (cts_bytes_equal(method, cts_bytes_of(known_methods[i])))
            return known_methods[i];
    }
    return NULL;
}

/* http.request.method and the name, which never holds the raw path. */
static void draft_method(struct draft *draft, struct builder *builder, struct cts_bytes method,
                         struct cts_bytes route)
{
    const char *known = known_method(method);
    put_string(&builder->attributes, "http.request.method", known != NULL ? known : "_OTHER");
    if (known == NULL)
        put_text(builder, "http.request.method_original", method);
    const char *verb = known != NULL ? known : "HTTP";
    if (route.count == 0) {
        draft->message.name = (char *)verb;
        return;
    }
    char joined[512];
    int count = snprintf(joined, sizeof(joined), "%s %.*s", verb,
                         (int)(route.count > 400 ? 400 : route.count), route.at);
    draft->message.name = text_of(builder, (struct cts_bytes){joined, (size_t)count});
}

/* Keys whose values are signatures and secrets by convention of their makers. */
static const char *const secret_keys[] = {
    "sig", "Signature", "AWSAccessKeyId", "X-Amz-Signature", "X-Amz-Credential",
    "X-Amz-Security-Token", "X-Goog-Signature",
};

static bool is_secret(struct cts_bytes key)
{
    for (size_t i = 0; i < CTS_COUNT(secret_keys); i++) {
        if (cts_bytes_equal(key, cts_bytes_of(secret_keys[i])))
            return true;
    }
    return false;
}

/* The query with secret values written as REDACTED. */
static void put_query(struct builder *builder, struct cts_bytes query)
{
    static char clean[2 * CTS_RECORD_BYTES_MAX];
    size_t length = 0;
    for (size_t i = 0; i < query.count && length + 16 < sizeof(clean);) {
        const char *at = query.at + i;
        const char *end = memchr(at, '&', query.count - i);
        size_t count = end == NULL ? query.count - i : (size_t)(end - at);
        const char *equals = memchr(at, '=', count);
        size_t kept = count;
        bool secret = equals != NULL && is_secret((struct cts_bytes){at, (size_t)(equals - at)});
        if (secret)
            kept = (size_t)(equals - at) + 1;
        if (kept > sizeof(clean) - length - 16)
            kept = sizeof(clean) - length - 16;
        memcpy(clean + length, at, kept);
        length += kept;
        if (secret) {
            memcpy(clean + length, "REDACTED", 8);
            length += 8;
        }
        i += count;
        if (end != NULL) {
            clean[length++] = '&';
            i++;
        }
    }
    put_text(builder, "url.query", (struct cts_bytes){clean, length});
}

/* "name", "name:port", "[v6]:port" -> the part before the port. */
static struct cts_bytes host_name(struct cts_bytes host)
{
    if (host.count == 0)
        return (struct cts_bytes){"", 0};
    if (host.at[0] == '[') {
        const char *end = memchr(host.at, ']', host.count);
        if (end != NULL)
            return (struct cts_bytes){host.at + 1, (size_t)(end - host.at) - 1};
    }
    const char *colon = memchr(host.at, ':', host.count);
    return (struct cts_bytes){host.at, colon == NULL ? host.count : (size_t)(colon - host.at)};
}

static void put_address(struct builder *builder, struct cts_bytes peer, uint16_t peer_port,
                        uint16_t server_port, uint8_t version_minor)
{
    put_text(builder, "client.address", peer);
    put_text(builder, "network.peer.address", peer);
    if (peer.count > 0 && peer_port != 0)
        put_int(&builder->attributes, "network.peer.port", peer_port);
    if (server_port != 0)
        put_int(&builder->attributes, "server.port", server_port);
    put_string(&builder->attributes, "network.protocol.version",
               version_minor == 0 ? "1.0" : "1.1");
}

/* Nanoseconds between two instants of a request, when both are known and in order. */
static void put_phase(struct builder *builder, const char *key, uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns != 0 && to_ns >= from_ns)
        put_int(&builder->attributes, key, (int64_t)(to_ns - from_ns));
}

static void put_phases(struct builder *builder, const struct cts_server_span_payload *head)
{
    put_phase(builder, "ctserve.phase.accept_ns", head->accept_ns, head->start_ns);
    put_phase(builder, "ctserve.phase.head_ns", head->start_ns, head->head_ns);
    put_phase(builder, "ctserve.phase.body_ns", head->head_ns, head->body_ns);
    put_phase(builder, "ctserve.phase.app_ns", head->app_ns, head->first_byte_ns);
    put_phase(builder, "ctserve.phase.send_ns", head->first_byte_ns, head->end_ns);
}

/* Is `type` the class of an exception, not one of our own words? */
static bool is_exception(struct cts_bytes type)
{
    return type.count > 0 && !(type.count > 8 && memcmp(type.at, "ctserve.", 8) == 0) &&
           !(type.count > 5 && memcmp(type.at, "http.", 5) == 0) &&
           !(type.at[0] >= '0' && type.at[0] <= '9');
}

/* 5xx and what never got a reply are errors; 4xx is the client's doing. */
static void draft_outcome(struct draft *draft, struct builder *builder,
                          const struct cts_record_copy *record)
{
    int status = record->server.head.status;
    bool is_client_fault = status >= 400 && status < 500;
    bool failed = status >= 500 || (record->server.error_type.count > 0 && !is_client_fault);
    struct cts_bytes type = record->server.error_type;
    char digits[16];
    if (failed && type.count == 0) {
        snprintf(digits, sizeof(digits), "%d", status);
        type = cts_bytes_of(digits);
    }
    if (status > 0)
        put_int(&builder->attributes, "http.response.status_code", status);
    put_text(builder, "error.type", type);
    if (!failed)
        return;
    char *sentence = text_of(builder, record->server.error_message);
    draft_error(draft, sentence);
    if (!is_exception(type))
        return;
    put_string(&builder->event_attributes, "exception.type", text_of(builder, type));
    if (sentence[0] != '\0')
        put_string(&builder->event_attributes, "exception.message", sentence);
    draft_exception(draft, builder);
}

/* Bits 8 and 9 say that we know whether the parent is remote, and that it is. */
static uint32_t span_flags(uint8_t trace_flags, bool has_remote_parent)
{
    return trace_flags | 0x100u | (has_remote_parent ? 0x200u : 0u);
}

static struct span *server_span_new(const struct cts_record_copy *record,
                                    const struct otlp_clock *clock, struct resource *resource)
{
    struct builder *builder = builder_reset();
    const struct cts_server_span_payload *head = &record->server.head;
    struct draft draft;

    draft_begin(&draft, head->trace_id, head->span_id, head->parent_span_id,
                head->has_parent != 0, span_flags(head->trace_flags, head->has_parent != 0));
    draft.message.kind = SPAN_KIND_SERVER;
    draft_times(&draft, clock, head->start_ns, head->end_ns);
    draft_method(&draft, builder, record->server.method, record->server.route);
    put_text(builder, "url.path", record->server.path);
    if (record->server.query.count > 0)
        put_query(builder, record->server.query);
    put_text(builder, "url.scheme", record->server.scheme);
    put_text(builder, "http.route", record->server.route);
    put_text(builder, "server.address", host_name(record->server.host));
    put_text(builder, "user_agent.original", record->server.user_agent);
    put_address(builder, record->server.peer, head->peer_port, head->server_port,
                head->version_minor);
    put_int(&builder->attributes, "http.request.body.size", (int64_t)head->request_body_bytes);
    put_int(&builder->attributes, "http.response.body.size", (int64_t)head->response_body_bytes);
    put_phases(builder, head);
    draft_outcome(&draft, builder, record);
    struct span *span = draft_finish(&draft, builder, resource);
    if (span != NULL && head->status > 0 && head->status < 1000)
        span->http_status = (uint16_t)head->status;
    return span;
}

static void put_attribute(struct builder *builder,
                          const struct cts_span_attribute_view *attribute)
{
    char *key = text_of(builder, attribute->key);
    if (attribute->kind == CTS_ATTRIBUTE_INT)
        put_int(&builder->attributes, key, attribute->number);
    else if (attribute->kind == CTS_ATTRIBUTE_BOOL)
        put_bool(&builder->attributes, key, attribute->number != 0);
    else
        put_string(&builder->attributes, key, text_of(builder, attribute->text));
}

static struct span *plain_span_new(const struct cts_record_copy *record,
                                   const struct otlp_clock *clock, struct resource *resource)
{
    struct builder *builder = builder_reset();
    const struct cts_span_payload *head = &record->span.head;
    struct draft draft;

    draft_begin(&draft, head->trace_id, head->span_id, head->parent_span_id,
                !is_zero(head->parent_span_id, 8), span_flags(1, false));
    draft.message.kind = SPAN_KIND_INTERNAL;
    draft_times(&draft, clock, head->start_ns, head->end_ns);
    draft.message.name = text_of(builder, record->span.name);
    for (size_t i = 0; i < record->span.attributes_count; i++)
        put_attribute(builder, &record->span.attributes[i]);
    put_text(builder, "error.type", record->span.error_type);
    if (head->is_error)
        draft_error(&draft, text_of(builder, record->span.status_message));
    if (!is_zero(head->link_trace_id, 16) && !is_zero(head->link_span_id, 8)) {
        draft.link.trace_id = (ProtobufCBinaryData){16, (uint8_t *)head->link_trace_id};
        draft.link.span_id = (ProtobufCBinaryData){8, (uint8_t *)head->link_span_id};
        draft.link.flags = span_flags(1, false);
        draft.message.links = draft.links;
        draft.message.n_links = 1;
    }
    return draft_finish(&draft, builder, resource);
}

struct span *otlp_span_new(const struct cts_record_copy *record, const struct otlp_clock *clock,
                           struct resource *resource)
{
    return record->kind == CTS_RECORD_SERVER_SPAN ? server_span_new(record, clock, resource)
                                                  : plain_span_new(record, clock, resource);
}

/* -- the request of a worker that died -------------------------------------------------------- */
static const char *const reason_names[] = {
    [CTS_GONE_UNKNOWN] = "unknown", [CTS_GONE_STOPPED] = "stopped",
    [CTS_GONE_MAX_REQUESTS] = "max_requests", [CTS_GONE_TIMEOUT] = "timeout",
    [CTS_GONE_REQUEST_TIMEOUT] = "request_timeout", [CTS_GONE_SIGNAL] = "signal",
    [CTS_GONE_BOOT_FAILED] = "boot_failed", [CTS_GONE_RING_DAMAGED] = "ring_damaged",
};

const char *otlp_gone_reason_name(enum cts_gone_reason reason)
{
    return (size_t)reason < CTS_COUNT(reason_names) ? reason_names[reason] : "unknown";
}

static const char *const phase_names[] = {
    [CTS_PHASE_HEAD] = "head", [CTS_PHASE_BODY] = "body", [CTS_PHASE_APP] = "app",
    [CTS_PHASE_SEND] = "send", [CTS_PHASE_SENT] = "sent",
};

static char *put_fate(struct builder *builder, const struct otlp_death *death, bool timed_out)
{
    char sentence[160];
    if (death->wait_status != -1 && WIFSIGNALED(death->wait_status)) {
        int signo = WTERMSIG(death->wait_status);
        const char *name = sigabbrev_np(signo);
        char text[32];
        snprintf(text, sizeof(text), "%s%s", name != NULL ? "SIG" : "", name != NULL ? name : "?");
        put_int(&builder->attributes, "ctserve.worker.signal", signo);
        put_text(builder, "ctserve.worker.signal_name", cts_bytes_of(text));
        snprintf(sentence, sizeof(sentence), "%sworker was killed by %s",
                 timed_out ? "the request ran too long, its " : "", text);
    } else if (death->wait_status != -1 && WIFEXITED(death->wait_status)) {
        put_int(&builder->attributes, "ctserve.worker.exit_code", WEXITSTATUS(death->wait_status));
        snprintf(sentence, sizeof(sentence), "worker exited with code %d",
                 WEXITSTATUS(death->wait_status));
    } else {
        snprintf(sentence, sizeof(sentence), "worker was lost");
    }
    return text_of(builder, cts_bytes_of(sentence));
}

struct span *otlp_row_span_new(const struct cts_row_copy *row, const struct otlp_death *death,
                               const struct otlp_clock *clock, struct resource *resource)
{
    struct builder *builder = builder_reset();
    struct attributes *attributes = &builder->attributes;
    struct draft draft;
    bool timed_out = (death->reason == CTS_GONE_TIMEOUT ||
                      death->reason == CTS_GONE_REQUEST_TIMEOUT) &&
                     (death->thread_id == 0 || death->thread_id == row->thread_id);
    const char *type = timed_out ? "worker_timeout" : "worker_lost";

    draft_begin(&draft, row->trace_id, row->span_id, row->parent_span_id, row->has_parent,
                span_flags(row->trace_flags, row->has_parent));
    draft.message.kind = SPAN_KIND_SERVER;
    draft_times(&draft, clock, row->start_mono_ns, death->mono_ns);
    draft_method(&draft, builder, row->method, (struct cts_bytes){"", 0});
    put_text(builder, "url.path", row->path);
    if (row->query.count > 0)
        put_query(builder, row->query);
    put_text(builder, "url.scheme", row->scheme);
    put_text(builder, "server.address", host_name(row->host));
    put_text(builder, "user_agent.original", row->user_agent);
    put_address(builder, row->peer, row->peer_port, row->server_port, row->version_minor);
    put_string(attributes, "error.type", type);
    put_string(attributes, "ctserve.worker.gone_reason", otlp_gone_reason_name(death->reason));
    put_string(attributes, "ctserve.phase",
               row->phase > 0 && row->phase < CTS_COUNT(phase_names) ? phase_names[row->phase]
                                                                      : "unknown");
    put_phase(builder, "ctserve.phase.app_ns", row->app_mono_ns, death->mono_ns);
    draft_error(&draft, put_fate(builder, death, timed_out));
    if (death->stack.count > 0) {
        put_string(&builder->event_attributes, "exception.type", type);
        put_string(&builder->event_attributes, "exception.message", draft.status.message);
        put_string(&builder->event_attributes, "exception.stacktrace",
                   text_of(builder, death->stack));
        draft_exception(&draft, builder);
    }
    return draft_finish(&draft, builder, resource);
}

/* -- requests and answers --------------------------------------------------------------------- */
struct group {
    struct resource *resource;
    Otlp__ResourceSpans resource_spans;
    Otlp__ScopeSpans scope_spans;
    Otlp__ScopeSpans *scope_list[1];
};

static struct group *group_find(struct group *groups, size_t *count, struct resource *resource)
{
    for (size_t i = *count; i > 0; i--) {
        if (groups[i - 1].resource == resource)
            return &groups[i - 1];
    }
    struct group *group = &groups[(*count)++];
    group->resource = resource;
    return group;
}

/* Point every span of the list into its group's part of `views`. */
static size_t fill_groups(const struct cts_list *spans, struct group *groups,
                          ProtobufCBinaryData *views, Otlp__ResourceSpans **list)
{
    static Otlp__Scope scope = OTLP__SCOPE__INIT;
    size_t groups_count = 0;
    scope.name = (char *)"ctserve";
    scope.version = (char *)CTS_VERSION;
    CTS_LIST_EACH(spans, link) {
        struct span *span = CTS_CONTAINER(link, struct span, in_queue);
        group_find(groups, &groups_count, span->resource)->scope_spans.n_spans++;
    }
    for (size_t i = 0; i < groups_count; i++) {
        struct group *group = &groups[i];
        size_t count = group->scope_spans.n_spans;
        otlp__resource_spans__init(&group->resource_spans);
        otlp__scope_spans__init(&group->scope_spans);
        group->resource_spans.resource = (ProtobufCBinaryData){group->resource->encoded_bytes,
                                                               group->resource->encoded};
        group->scope_list[0] = &group->scope_spans;
        group->resource_spans.scope_spans = group->scope_list;
        group->resource_spans.n_scope_spans = 1;
        group->scope_spans.scope = &scope;
        group->scope_spans.spans = views;
        list[i] = &group->resource_spans;
        views += count;
    }
    CTS_LIST_EACH(spans, link) {
        struct span *span = CTS_CONTAINER(link, struct span, in_queue);
        Otlp__ScopeSpans *to = &group_find(groups, &groups_count, span->resource)->scope_spans;
        to->spans[to->n_spans++] = (ProtobufCBinaryData){span->encoded_bytes, span->encoded};
    }
    return groups_count;
}

int otlp_request_encode(const struct cts_list *spans, size_t count, struct cts_buffer *out)
{
    int r = -ENOMEM;
    struct group *groups = calloc(count, sizeof(*groups));
    ProtobufCBinaryData *views = calloc(count, sizeof(*views));
    Otlp__ResourceSpans **list = calloc(count, sizeof(*list));
    Otlp__Request request = OTLP__REQUEST__INIT;
    if (groups == NULL || views == NULL || list == NULL)
        goto done;

    request.n_resource_spans = fill_groups(spans, groups, views, list);
    request.resource_spans = list;
    size_t bytes = otlp__request__get_packed_size(&request);
    r = cts_buffer_reserve(out, bytes);
    if (r < 0)
        goto done;
    out->end += otlp__request__pack(&request, (uint8_t *)out->at + out->end);
done:
    free(groups);
    free(views);
    free(list);
    return r;
}

int otlp_answer_decode(const void *bytes, size_t count, struct otlp_answer *ret_answer)
{
    *ret_answer = (struct otlp_answer){0};
    Otlp__Response *response = otlp__response__unpack(NULL, count, bytes);
    if (response == NULL)
        return -EBADMSG;
    if (response->partial_success != NULL) {
        ret_answer->rejected_count = response->partial_success->rejected_spans;
        cts_bytes_escape(cts_bytes_of(response->partial_success->error_message),
                         ret_answer->message, sizeof(ret_answer->message));
    }
    otlp__response__free_unpacked(response, NULL);
    return 0;
}

static int64_t delay_of(const Rpc__Any *any)
{
    const char *slash = strrchr(any->type_url, '/');
    if (strcmp(slash != NULL ? slash + 1 : any->type_url, "google.rpc.RetryInfo") != 0)
        return -1;
    Rpc__RetryInfo *info = rpc__retry_info__unpack(NULL, any->value.len, any->value.data);
    if (info == NULL)
        return -1;
    int64_t delay_ms = 0;
    if (info->retry_delay != NULL && info->retry_delay->seconds >= 0) {
        int64_t seconds = info->retry_delay->seconds > 86400 ? 86400 : info->retry_delay->seconds;
        int32_t nanos = info->retry_delay->nanos < 0 ? 0 : info->retry_delay->nanos;
        delay_ms = seconds * 1000 + nanos / 1000000;
    }
    rpc__retry_info__free_unpacked(info, NULL);
    return delay_ms;
}

int64_t otlp_retry_delay_ms(const void *bytes, size_t count)
{
    int64_t delay_ms = -1;
    Rpc__Details *details = rpc__details__unpack(NULL, count, bytes);
    if (details == NULL)
        return -1;
    for (size_t i = 0; i < details->n_details && delay_ms < 0; i++)
        delay_ms = delay_of(details->details[i]);
    rpc__details__free_unpacked(details, NULL);
    return delay_ms;
}
