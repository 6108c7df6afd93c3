/* ring.c - the reader of a slot against any bytes a worker could have written.
 *
 * The input is laid over the rows' start, the worker page and the ring of a well-formed slot; then
 * everything that the agent and the master ask of a slot is asked. Every other input gets right
 * checksums first, so that the checks behind them are reached. */
#include "ctserve/tracing.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INDEX_BYTES 64u

static struct cts_slot slot;
static struct cts_record_copy record;
static struct cts_row_copy row;

static void open_slot(void)
{
    struct cts_slot_plan plan = {.ring_bytes = CTS_RING_BYTES_MIN, .rows_count = 2};
    if (slot.map == NULL && cts_slot_create(&plan, &slot) < 0)
        abort();
}

/* As far as lengths lead from record to record. */
static void mend_checksums(unsigned char *ring, size_t bytes)
{
    for (size_t at = 0; at + sizeof(struct cts_record) <= bytes;) {
        struct cts_record *head = (struct cts_record *)(void *)(ring + at);
        head->magic = CTS_RECORD_MAGIC;
        if (head->bytes < sizeof(*head) || head->bytes > bytes - at || head->bytes % 8 != 0)
            return;
        head->crc32c = cts_crc32c(ring + at + 8, head->bytes - 8);
        at += head->bytes;
    }
}

static void read_everything(const struct cts_slot_view *view, uint64_t position)
{
    struct cts_record_cursor cursor = {.position = position};
    struct cts_slot_counts counts;
    while (cts_record_next(view, &cursor, &record) == CTS_LOOK_RECORD)
        continue;
    (void)cts_ring_count(view, position);
    for (uint32_t i = 0; i < view->rows_count; i++)
        (void)cts_row_read(view, i, &row);
    (void)cts_row_find_hung(view, ~0ull, 0, &row);
    cts_slot_count(view, &counts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cts_slot_view view;
    open_slot();
    if (size < INDEX_BYTES || size > INDEX_BYTES + 32768)
        return 0;
    unsigned char *map = (unsigned char *)slot.map;
    unsigned char *ring = map + slot.view.ring_offset;
    size_t ring_bytes = size - INDEX_BYTES;
    /* 16 bytes for where to read and what the head says, 48 for the first row. */
    uint64_t position, head;
    memcpy(&position, data, 8);
    memcpy(&head, data + 8, 8);
    position = position % (4 * CTS_RING_BYTES_MIN);
    slot.map->worker.head = (data[15] & 1) != 0 ? head : position + (ring_bytes & ~(size_t)7);
    memcpy(map + slot.view.rows_offset, data + 16, 48);
    memset(ring, 0, CTS_RING_BYTES_MIN);
    size_t offset = position & (CTS_RING_BYTES_MIN - 1) & ~(size_t)7;
    size_t until_end = CTS_RING_BYTES_MIN - offset;
    size_t first = ring_bytes < until_end ? ring_bytes : until_end;
    memcpy(ring + offset, data + INDEX_BYTES, first);
    memcpy(ring, data + INDEX_BYTES + first, ring_bytes - first);
    if ((data[14] & 1) != 0)
        mend_checksums(ring + offset, first);
    read_everything(&slot.view, position & ~7ull);
    /* The header as input, too. */
    if (ring_bytes >= 4096)
        (void)cts_slot_view_open(ring, CTS_RING_BYTES_MIN, false, &view);
    return 0;
}
