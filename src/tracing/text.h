/* text.h - copying texts that came from outside, cut to a bound. */
#ifndef TRACING_TEXT_H
#define TRACING_TEXT_H

#include "ctserve/base.h"

/* How many bytes of `text` go into `bytes_max`; what is cut adds to *cuts. */
static inline uint16_t text_bound(struct cts_bytes text, size_t bytes_max, uint32_t *cuts)
{
    if (CTS_LIKELY(text.count <= bytes_max))
        return (uint16_t)text.count;
    (*cuts)++;
    return (uint16_t)bytes_max;
}

static inline char *text_put(char *to, const char *from, size_t count)
{
    if (count != 0)
        memcpy(to, from, count);
    return to + count;
}

#endif
