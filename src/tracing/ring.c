/* ring.c - records on their way out of this process.
 *
 * One writer (this process, under its lock), one reader (the agent), one shared mapping. Putting
 * never waits and never fails: when the ring is full the newest record is dropped and counted,
 * because a slow collector must not become a slow website. */
#include "ring.h"

_Static_assert(sizeof(struct cts_record) == 40, "a record's head is part of the wire format");

/* Everything of a record's head that the checksum covers: all but magic and checksum. */
#define UNCOVERED_BYTES 8u

static void write_head(unsigned char *at, const struct cts_record *head)
{
    struct cts_record *record = (struct cts_record *)at;
    *record = *head;
    uint32_t covered = head->kind == CTS_RECORD_PAD ? sizeof(*record) : head->bytes;
    record->crc32c = cts_crc32c(at + UNCOVERED_BYTES, covered - UNCOVERED_BYTES);
}

/* Does `need` more fit? A tail that makes no sense means a broken agent: then nothing fits. */
static bool fits(uint64_t need)
{
    uint64_t used = tracer.head - tracer.tail_seen;
    return used <= tracer.ring_bytes && need <= tracer.ring_bytes - used;
}

bool ring_reserve(uint32_t payload_bytes, struct ring_place *ret_place)
{
    uint32_t bytes = (uint32_t)(sizeof(struct cts_record) + payload_bytes + 7) & ~7u;
    uint32_t offset = (uint32_t)tracer.head & (tracer.ring_bytes - 1);
    uint32_t left = tracer.ring_bytes - offset;
    uint32_t skipped = left < bytes ? left : 0;
    if (CTS_UNLIKELY(bytes > CTS_RECORD_BYTES_MAX))
        return false;
    if (!fits(bytes + skipped)) {
        /* Acquire: the reader is done with the bytes before we write over them. */
        tracer.tail_seen = load_acquire(&tracer.consumer->tail_hint);
        if (!fits(bytes + skipped))
            return false;
    }
    if (skipped >= sizeof(struct cts_record)) {
        struct cts_record pad = {
            .magic = CTS_RECORD_MAGIC, .bytes = skipped, .kind = CTS_RECORD_PAD};
        write_head(tracer.ring + offset, &pad);
    }
    ret_place->at = tracer.ring + (skipped != 0 ? 0 : offset);
    ret_place->bytes = bytes;
    ret_place->new_head = tracer.head + skipped + bytes;
    return true;
}

void ring_commit(const struct ring_place *place, const struct ring_head *head,
                 struct cts_commit *cell)
{
    struct cts_record record = {
        .magic = CTS_RECORD_MAGIC,
        .bytes = place->bytes,
        .kind = (uint16_t)head->kind,
        .index = tracer.last_index + 1,
        .row_sequence = head->row_sequence,
        .row_index = head->row_index,
        .payload_bytes = head->payload_bytes,
    };
    uint32_t used = (uint32_t)sizeof(record) + head->payload_bytes;
    memset(place->at + used, 0, place->bytes - used);
    write_head(place->at, &record);
    tracer.last_index++;
    tracer.head = place->new_head;
    /* A kill before the second store: not ended. After it: committed. Nothing lies between. */
    store(&cell->commit_head, place->new_head);
    store_release(&tracer.page->head, place->new_head);
}

void ring_drop(struct cts_commit *cell)
{
    uint64_t target = load(&cell->dropped_count) + 1;
    store(&cell->drop_target, target);
    store_release(&cell->dropped_count, target);
}
