/* buffer.c - bytes that grow. See the drawing in ctserve/buffer.h. */
#include "ctserve/buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CAPACITY_BYTES_FIRST 256

static void check(const struct cts_buffer *buffer)
{
    assert(buffer->start <= buffer->end && buffer->end <= buffer->capacity);
    assert((buffer->at == NULL) == (buffer->capacity == 0));
}

void cts_buffer_free(struct cts_buffer *buffer)
{
    free(buffer->at);
    *buffer = CTS_BUFFER_EMPTY;
}

static void move_to_front(struct cts_buffer *buffer)
{
    size_t count = cts_buffer_count(buffer);

    if (buffer->start == 0)
        return;
    memmove(buffer->at, buffer->at + buffer->start, count);
    buffer->start = 0;
    buffer->end = count;
}

int cts_buffer_grow(struct cts_buffer *buffer, size_t count)
{
    size_t taken = cts_buffer_count(buffer);
    size_t capacity;
    char *at;

    check(buffer);
    if (count <= buffer->capacity - buffer->end)
        return 0;
    if (count > SIZE_MAX / 2 - taken)
        return -ENOMEM;
    if (taken + count <= buffer->capacity) {
        move_to_front(buffer);
        return 0;
    }
    capacity = buffer->capacity < CAPACITY_BYTES_FIRST ? CAPACITY_BYTES_FIRST : buffer->capacity;
    while (capacity < taken + count)
        capacity *= 2;
    /* A fresh block and one copy: realloc would also carry the free bytes at the front. */
    at = malloc(capacity);
    if (at == NULL)
        return -ENOMEM;
    if (taken > 0)
        memcpy(at, buffer->at + buffer->start, taken);
    free(buffer->at);
    *buffer = (struct cts_buffer){.at = at, .start = 0, .end = taken, .capacity = capacity};
    return 0;
}

int cts_buffer_put(struct cts_buffer *buffer, const void *bytes, size_t count)
{
    int r;

    if (count == 0)
        return 0;
    r = cts_buffer_reserve(buffer, count);
    if (r < 0)
        return r;
    memcpy(buffer->at + buffer->end, bytes, count);
    buffer->end += count;
    return 0;
}

int cts_buffer_printf(struct cts_buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_list again;
    int count;
    int r = 0;

    va_start(arguments, format);
    va_copy(again, arguments);
    count = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (count < 0)
        r = -EINVAL;
    if (r == 0)
        r = cts_buffer_reserve(buffer, (size_t)count + 1); /* vsnprintf wants its NUL */
    if (r == 0) {
        (void)vsnprintf(buffer->at + buffer->end, (size_t)count + 1, format, again);
        buffer->end += (size_t)count;
    }
    va_end(again);
    return r;
}
