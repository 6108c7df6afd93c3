/* slot.h - where the parts of a slot lie. One function knows, for the maker and for the checker. */
#ifndef TRACING_SLOT_H
#define TRACING_SLOT_H

#include "ctserve/tracing.h"

struct slot_layout {
    uint32_t rows_offset, ring_offset, consumer_offset;
    size_t map_bytes;
};

/* Numbers must have passed cts_slot_bytes. */
struct slot_layout slot_layout_of(uint32_t ring_bytes, uint32_t rows_count);

/* Make this process the writer of the slot mapped at `map`. 0 or -errno. */
int tracer_start(unsigned char *map, const struct cts_slot_view *view, bool has_threads);

#endif
