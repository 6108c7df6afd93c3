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

/* The first and the last `word_bytes` of a text that has one to two words of that size: where they
 * overlap both say the same. */
static inline void text_put_words(char *to, const char *from, size_t count, size_t word_bytes)
{
    uint64_t first, last;
    memcpy(&first, from, word_bytes);
    memcpy(&last, from + count - word_bytes, word_bytes);
    memcpy(to, &first, word_bytes);
    memcpy(to + count - word_bytes, &last, word_bytes);
}

/* Most texts of a request are shorter than a call of memcpy. */
static inline char *text_put(char *to, const char *from, size_t count)
{
    if (count > 16) {
        memcpy(to, from, count);
    } else if (count >= 8) {
        text_put_words(to, from, count, 8);
    } else if (count >= 4) {
        text_put_words(to, from, count, 4);
    } else if (count > 0) {
        to[0] = from[0];
        to[count / 2] = from[count / 2];
        to[count - 1] = from[count - 1];
    }
    return to + count;
}

#endif
