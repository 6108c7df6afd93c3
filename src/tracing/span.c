/* span.c - finished spans that belong to no request: the master's, and a worker's own life.
 *
 * They have no row; the worker page's `rowless` stands in for one, under the lock, so that there
 * is at most one that began and did not end. */
#include "ring.h"
#include "text.h"

#define NAME_BYTES 128u
#define KEY_BYTES 128u
#define VALUE_BYTES 4096u
#define ERROR_TYPE_BYTES 128u
#define MESSAGE_BYTES 2048u
#define PAYLOAD_BYTES_MAX (CTS_RECORD_BYTES_MAX - (uint32_t)sizeof(struct cts_record))

struct span_texts {
    struct cts_bytes name, error_type, message;
};

static struct cts_bytes cut(const char *text, size_t bytes_max, uint32_t *cuts)
{
    struct cts_bytes bytes = text != NULL ? cts_bytes_of(text) : (struct cts_bytes){"", 0};
    bytes.count = text_bound(bytes, bytes_max, cuts);
    return bytes;
}

static size_t key_bytes_of(const struct cts_attribute *attribute)
{
    size_t count = strlen(attribute->key);
    return count < KEY_BYTES ? count : KEY_BYTES;
}

static size_t value_bytes_of(const struct cts_attribute *attribute)
{
    if (attribute->kind != CTS_ATTRIBUTE_TEXT)
        return 8;
    return attribute->text.count < VALUE_BYTES ? attribute->text.count : VALUE_BYTES;
}

/* How many attributes fit behind `used` bytes, and what the payload then measures. What does not
 * fit, and what will be cut, is counted. */
static uint16_t attributes_measure(const struct cts_span *span, uint32_t *used, uint32_t *cuts)
{
    uint16_t fitting = 0;
    for (size_t i = 0; i < span->attributes_count && i < CTS_SPAN_ATTRIBUTES_MAX; i++) {
        const struct cts_attribute *attribute = &span->attributes[i];
        size_t bytes = sizeof(struct cts_attribute_payload) + key_bytes_of(attribute) +
                       value_bytes_of(attribute);
        if (bytes > PAYLOAD_BYTES_MAX - 8 - *used)
            break;
        if (attribute->kind == CTS_ATTRIBUTE_TEXT && attribute->text.count > VALUE_BYTES)
            (*cuts)++;
        *used += (uint32_t)bytes;
        fitting++;
    }
    *cuts += (uint32_t)(span->attributes_count - fitting);
    return fitting;
}

static char *attribute_put(char *to, const struct cts_attribute *attribute)
{
    struct cts_attribute_payload head = {
        .kind = (uint16_t)attribute->kind,
        .key_bytes = (uint16_t)key_bytes_of(attribute),
        .value_bytes = (uint32_t)value_bytes_of(attribute),
    };
    to = text_put(to, (const char *)&head, sizeof(head));
    to = text_put(to, attribute->key, head.key_bytes);
    if (attribute->kind == CTS_ATTRIBUTE_TEXT)
        return text_put(to, attribute->text.at, head.value_bytes);
    return text_put(to, (const char *)&attribute->number, sizeof(attribute->number));
}

static void payload_put(char *to, const struct cts_span *span, const struct span_texts *texts,
                        uint16_t attributes_count)
{
    struct cts_span_payload payload = {
        .start_ns = span->start_mono_ns,
        .end_ns = span->end_mono_ns,
        .is_error = span->is_error,
        .name_bytes = (uint16_t)texts->name.count,
        .error_type_bytes = (uint16_t)texts->error_type.count,
        .status_message_bytes = (uint16_t)texts->message.count,
        .attributes_count = attributes_count,
    };
    memcpy(payload.trace_id, span->trace_id, sizeof(payload.trace_id));
    memcpy(payload.span_id, span->span_id, sizeof(payload.span_id));
    memcpy(payload.parent_span_id, span->parent_span_id, sizeof(payload.parent_span_id));
    memcpy(payload.link_trace_id, span->link_trace_id, sizeof(payload.link_trace_id));
    memcpy(payload.link_span_id, span->link_span_id, sizeof(payload.link_span_id));
    to = text_put(to, (const char *)&payload, sizeof(payload));
    to = text_put(to, texts->name.at, texts->name.count);
    to = text_put(to, texts->error_type.at, texts->error_type.count);
    to = text_put(to, texts->message.at, texts->message.count);
    for (uint16_t i = 0; i < attributes_count; i++)
        to = attribute_put(to, &span->attributes[i]);
}

static void ids_complete(struct cts_span *span)
{
    static const uint8_t zero[16];
    if (memcmp(span->trace_id, zero, sizeof(span->trace_id)) == 0)
        cts_trace_id_new(span->trace_id);
    if (memcmp(span->span_id, zero, sizeof(span->span_id)) == 0)
        cts_span_id_new(span->span_id);
}

/* Lock held. */
static void span_commit(const struct cts_span *span, const struct span_texts *texts,
                        uint32_t payload_bytes, uint16_t attributes_count)
{
    struct cts_commit *cell = &tracer.page->rowless;
    struct ring_head head = {.kind = CTS_RECORD_SPAN, .payload_bytes = payload_bytes};
    struct ring_place place;
    commit_prepare(cell);
    sequence_step(&cell->sequence);
    if (ring_reserve(payload_bytes, &place)) {
        payload_put((char *)place.at + sizeof(struct cts_record), span, texts, attributes_count);
        ring_commit(&place, &head, cell);
    } else {
        ring_drop(cell);
    }
    sequence_step(&cell->sequence);
}

void cts_span_put(struct cts_span *span)
{
    uint32_t cuts = 0;
    ids_complete(span);
    if (!tracer.is_attached || !tracer.is_enabled)
        return;
    struct span_texts texts = {
        .name = cut(span->name, NAME_BYTES, &cuts),
        .error_type = cut(span->error_type, ERROR_TYPE_BYTES, &cuts),
        .message = cut(span->status_message, MESSAGE_BYTES, &cuts),
    };
    uint32_t payload_bytes = (uint32_t)(sizeof(struct cts_span_payload) + texts.name.count +
                                        texts.error_type.count + texts.message.count);
    uint16_t attributes_count = attributes_measure(span, &payload_bytes, &cuts);
    tracer_lock();
    if (cuts != 0)
        atomic_fetch_add_explicit(&tracer.page->attributes_dropped, cuts, memory_order_relaxed);
    span_commit(span, &texts, payload_bytes, attributes_count);
    tracer_unlock();
}
