/* buffer.h - bytes that grow. Room: base.
 *
 *     [ free | taken .......... | room ]
 *            ^at + start        ^at + end        capacity
 * Invariant: start <= end <= capacity; at == NULL iff capacity == 0. */
#ifndef CTSERVE_BUFFER_H
#define CTSERVE_BUFFER_H

#include "ctserve/base.h"

struct cts_buffer {
    char *at;
    size_t start;
    size_t end;
    size_t capacity;
};

#define CTS_BUFFER_EMPTY ((struct cts_buffer){0})

/* Give the memory back; the buffer is empty and usable again. */
void cts_buffer_free(struct cts_buffer *buffer);

/* Make room for `count` more bytes behind `end` (moves taken bytes to the front first).
 * Returns 0 or -ENOMEM; on failure nothing changed. */
int cts_buffer_grow(struct cts_buffer *buffer, size_t count) CTS_MUST_USE;
static inline CTS_MUST_USE int cts_buffer_reserve(struct cts_buffer *buffer, size_t count)
{
    return CTS_LIKELY(count <= buffer->capacity - buffer->end) ? 0
                                                               : cts_buffer_grow(buffer, count);
}

int cts_buffer_put(struct cts_buffer *buffer, const void *bytes, size_t count) CTS_MUST_USE;
int cts_buffer_printf(struct cts_buffer *buffer, const char *format, ...) CTS_PRINTF(2, 3) CTS_MUST_USE;

static inline size_t cts_buffer_count(const struct cts_buffer *buffer)
{
    return buffer->end - buffer->start;
}

static inline struct cts_bytes cts_buffer_view(const struct cts_buffer *buffer)
{
    /* Nothing may be added to NULL, not even 0. */
    return (struct cts_bytes){buffer->at != NULL ? buffer->at + buffer->start : NULL,
                              buffer->end - buffer->start};
}

static inline void cts_buffer_drop(struct cts_buffer *buffer, size_t count)
{
    buffer->start += count;
    if (buffer->start == buffer->end)
        buffer->start = buffer->end = 0;
}

#endif
