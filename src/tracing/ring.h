/* ring.h - records on their way out of this process. Writer's side; caller holds the lock.
 *
 *     ring_reserve(bytes, &place)      false: full, then ring_drop
 *     write place.at[sizeof(struct cts_record) .. )
 *     ring_commit(&place, head, cell)
 *
 * Never waits, never fails; see struct cts_commit in slot.h for what a kill in between means. */
#ifndef TRACING_RING_H
#define TRACING_RING_H

#include "order.h"
#include "tracer.h"

struct ring_place {
    unsigned char *at;
    uint32_t bytes; /* whole record, a multiple of 8 */
    uint64_t new_head;
};

struct ring_head {
    enum cts_record_kind kind;
    uint32_t row_index;
    uint64_t row_sequence;
    uint32_t payload_bytes;
};

/* Room for a record with `payload_bytes` behind its head. False when the ring is full. */
bool ring_reserve(uint32_t payload_bytes, struct ring_place *ret_place);
/* Write the head of the record and make it visible. */
void ring_commit(const struct ring_place *place, const struct ring_head *head,
                 struct cts_commit *cell);
/* Count a record that found no room, in the row it belongs to. */
void ring_drop(struct cts_commit *cell);

/* The row or the rowless span is about to be rewritten. Readers must see the last closing before
 * anything that is stored from here on. */
static inline void commit_prepare(struct cts_commit *cell)
{
    order_stores();
    store(&cell->commit_head, 0);
    store(&cell->drop_target, 0);
}

/* Even to odd: begun. Odd to even: closed. */
static inline void sequence_step(_Atomic uint64_t *sequence)
{
    store_release(sequence, load(sequence) + 1);
}

#endif
