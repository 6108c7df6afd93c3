/* record_read.c - records copied out of a ring that may hold anything, then checked.
 *
 * Every byte is fetched once: the head is copied and judged, then the rest is copied behind it,
 * and only the copy is looked at. */
#include "ctserve/slot_read.h"

#include "order.h"

#include <errno.h>

#define HEAD_BYTES ((uint32_t)sizeof(struct cts_record))
#define UNCOVERED_BYTES 8u /* magic and checksum itself */

static const unsigned char *ring_of(const struct cts_slot_view *view)
{
    return view->map + view->ring_offset;
}

static uint64_t head_of(const struct cts_slot_view *view)
{
    const struct cts_slot_header *header = (const struct cts_slot_header *)(const void *)view->map;
    return load_acquire(&header->worker.head);
}

static bool head_is_plausible(const struct cts_slot_view *view, uint64_t position, uint64_t head)
{
    return head >= position && head - position <= view->ring_bytes && ((head | position) & 7) == 0;
}

static bool record_head_is_right(const struct cts_record *record, uint64_t available)
{
    return record->magic == CTS_RECORD_MAGIC && record->bytes >= HEAD_BYTES &&
           record->bytes <= CTS_RECORD_BYTES_MAX && record->bytes % 8 == 0 &&
           record->bytes <= available;
}

/* Where the next record's head lies, behind the unused end of the ring if need be. 0 or -EBADMSG.
 * A PAD must fill the end exactly; it is committed together with the record behind it. */
static int find_record(const struct cts_slot_view *view, uint64_t head, uint64_t *position,
                       struct cts_record *ret_record)
{
    uint32_t offset = (uint32_t)*position & (view->ring_bytes - 1);
    uint32_t left = view->ring_bytes - offset;
    if (left >= HEAD_BYTES) {
        memcpy(ret_record, ring_of(view) + offset, HEAD_BYTES);
        if (ret_record->kind != CTS_RECORD_PAD)
            goto found;
        if (!record_head_is_right(ret_record, head - *position) || ret_record->bytes != left ||
            ret_record->crc32c != cts_crc32c((const char *)ret_record + UNCOVERED_BYTES,
                                             HEAD_BYTES - UNCOVERED_BYTES))
            return -EBADMSG;
    }
    if (head - *position < left + HEAD_BYTES)
        return -EBADMSG;
    *position += left;
    offset = 0;
    left = view->ring_bytes;
    memcpy(ret_record, ring_of(view), HEAD_BYTES);
found:
    if (!record_head_is_right(ret_record, head - *position) || ret_record->bytes > left ||
        ret_record->kind == CTS_RECORD_PAD)
        return -EBADMSG;
    return 0;
}

static bool record_is_right(const struct cts_slot_view *view, const struct cts_record *record,
                            const unsigned char *bytes)
{
    if (record->payload_bytes > record->bytes - HEAD_BYTES ||
        record->bytes - HEAD_BYTES - record->payload_bytes >= 8)
        return false;
    if (record->kind == CTS_RECORD_SERVER_SPAN &&
        (record->row_index >= view->rows_count || (record->row_sequence & 1) == 0))
        return false;
    return record->crc32c == cts_crc32c(bytes + UNCOVERED_BYTES, record->bytes - UNCOVERED_BYTES);
}

/* -- payloads ---------------------------------------------------------------------------------- */

/* What is left of a payload. Taking more than there is empties it and is remembered. */
struct remains {
    const char *at;
    size_t count;
    bool is_short;
};

static struct cts_bytes remains_take(struct remains *remains, size_t count)
{
    if (count > remains->count) {
        remains->is_short = true;
        remains->count = 0;
        return (struct cts_bytes){remains->at, 0};
    }
    struct cts_bytes taken = {remains->at, count};
    remains->at += count;
    remains->count -= count;
    return taken;
}

static void remains_copy(struct remains *remains, void *to, size_t count)
{
    struct cts_bytes taken = remains_take(remains, count);
    if (taken.count == count)
        memcpy(to, taken.at, count);
    else
        memset(to, 0, count);
}

static void decode_server(struct remains *remains, struct cts_record_copy *record)
{
    struct cts_server_span_payload *head = &record->server.head;
    remains_copy(remains, head, sizeof(*head));
    record->server.method = remains_take(remains, head->method_bytes);
    record->server.path = remains_take(remains, head->path_bytes);
    record->server.query = remains_take(remains, head->query_bytes);
    record->server.scheme = remains_take(remains, head->scheme_bytes);
    record->server.host = remains_take(remains, head->host_bytes);
    record->server.user_agent = remains_take(remains, head->user_agent_bytes);
    record->server.peer = remains_take(remains, head->peer_bytes);
    record->server.route = remains_take(remains, head->route_bytes);
    record->server.error_type = remains_take(remains, head->error_type_bytes);
    record->server.error_message = remains_take(remains, head->error_message_bytes);
}

static void decode_attribute(struct remains *remains, struct cts_span_attribute_view *to)
{
    struct cts_attribute_payload head;
    remains_copy(remains, &head, sizeof(head));
    to->kind = head.kind;
    to->key = remains_take(remains, head.key_bytes);
    to->text = remains_take(remains, head.value_bytes);
    to->number = 0;
    if (head.kind == 0) /* CTS_ATTRIBUTE_TEXT of tracing.h */
        return;
    if (head.kind > 2 || head.value_bytes != sizeof(to->number))
        remains->is_short = true;
    else if (to->text.count == sizeof(to->number))
        memcpy(&to->number, to->text.at, sizeof(to->number));
    to->text.count = 0;
}

static void decode_span(struct remains *remains, struct cts_record_copy *record)
{
    struct cts_span_payload *head = &record->span.head;
    remains_copy(remains, head, sizeof(*head));
    record->span.name = remains_take(remains, head->name_bytes);
    record->span.error_type = remains_take(remains, head->error_type_bytes);
    record->span.status_message = remains_take(remains, head->status_message_bytes);
    record->span.attributes_count = 0;
    if (head->attributes_count > CTS_SPAN_ATTRIBUTES_MAX)
        remains->is_short = true;
    while (!remains->is_short && record->span.attributes_count < head->attributes_count)
        decode_attribute(remains, &record->span.attributes[record->span.attributes_count++]);
}

/* All of the payload is spoken for, no more and no less. */
static bool decode(const struct cts_record *head, struct cts_record_copy *record)
{
    struct remains remains = {(const char *)record->bytes + HEAD_BYTES, head->payload_bytes, false};
    if (head->kind == CTS_RECORD_SERVER_SPAN)
        decode_server(&remains, record);
    else if (head->kind == CTS_RECORD_SPAN)
        decode_span(&remains, record);
    else
        return false;
    return !remains.is_short && remains.count == 0;
}

/* -- the drain --------------------------------------------------------------------------------- */

enum cts_record_look cts_record_next(const struct cts_slot_view *view,
                                     struct cts_record_cursor *cursor,
                                     struct cts_record_copy *ret_record)
{
    struct cts_record head;
    uint64_t ring_head = head_of(view);
    uint64_t position = cursor->position;
    if (!head_is_plausible(view, position, ring_head))
        return CTS_LOOK_DAMAGED;
    if (ring_head == position)
        return CTS_LOOK_END;
    if (ring_head - position < HEAD_BYTES || find_record(view, ring_head, &position, &head) < 0)
        return CTS_LOOK_DAMAGED;
    if (head.index == 0 || (cursor->index != 0 && head.index != cursor->index + 1))
        return CTS_LOOK_DAMAGED;

    const unsigned char *at = ring_of(view) + (position & (view->ring_bytes - 1));
    memcpy(ret_record->bytes, &head, HEAD_BYTES);
    memcpy(ret_record->bytes + HEAD_BYTES, at + HEAD_BYTES, head.bytes - HEAD_BYTES);
    if (!record_is_right(view, &head, ret_record->bytes) || !decode(&head, ret_record))
        return CTS_LOOK_DAMAGED;
    ret_record->kind = head.kind;
    ret_record->index = head.index;
    ret_record->row_index = head.row_index;
    ret_record->row_sequence = head.row_sequence;
    ret_record->end_position = position + head.bytes;
    cursor->position = ret_record->end_position;
    cursor->index = head.index;
    return CTS_LOOK_RECORD;
}

int64_t cts_ring_count(const struct cts_slot_view *view, uint64_t position)
{
    uint64_t head = head_of(view);
    int64_t count = 0;
    if (!head_is_plausible(view, position, head))
        return -EBADMSG;
    /* Every record has at least HEAD_BYTES, so this ends. */
    while (position < head) {
        struct cts_record record;
        if (head - position < HEAD_BYTES || find_record(view, head, &position, &record) < 0)
            return -EBADMSG;
        position += record.bytes;
        count++;
    }
    return count;
}
