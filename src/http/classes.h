/* classes.h - which byte may stand where. Used inside the http room only.
 *
 * One table of 256 entries, one bit per place. Sources: RFC 9110 5.5, 5.6.2; RFC 9112 3;
 * RFC 3986 appendix A. */
#ifndef CTSERVE_HTTP_CLASSES_H
#define CTSERVE_HTTP_CLASSES_H

#include "ctserve/base.h"

enum http_class {
    HTTP_TOKEN = 1,      /* tchar */
    HTTP_METHOD = 2,     /* tchar without lower-case letters and '#' */
    HTTP_PATH = 4,       /* 0x21-0x7E without '?' and '#' */
    HTTP_QUERY = 8,      /* 0x21-0x7E without '#' */
    HTTP_VALUE = 16,     /* HTAB, SP, 0x21-0x7E, 0x80-0xFF */
    HTTP_HOST = 32,      /* unreserved and sub-delims of RFC 3986 */
    HTTP_HEX = 64,
    HTTP_DIGIT = 128,
};

extern const uint8_t http_classes[256];

static inline bool http_is(unsigned char byte, enum http_class wanted)
{
    return (http_classes[byte] & wanted) != 0;
}

/* The first byte in [at, end) that is not of class `wanted`, or `end`. */
static inline const unsigned char *http_skip(const unsigned char *at, const unsigned char *end,
                                             enum http_class wanted)
{
    while (end - at >= 4) {
        if (!http_is(at[0], wanted))
            return at;
        if (!http_is(at[1], wanted))
            return at + 1;
        if (!http_is(at[2], wanted))
            return at + 2;
        if (!http_is(at[3], wanted))
            return at + 3;
        at += 4;
    }
    while (at < end && http_is(*at, wanted))
        at++;
    return at;
}

/* As http_skip for HTTP_VALUE, eight bytes at a time. */
const unsigned char *http_skip_value(const unsigned char *at, const unsigned char *end);

/* -1 for a byte that is no hexadecimal digit. */
int http_hex(unsigned char byte);

/* Is the token `at` equal to `lower`, ASCII case ignored? Both have `count` bytes; `lower` is
 * written in lower-case letters and '-'. The bit 0x20 maps no other tchar onto those. */
static inline bool http_token_is(const char *at, const char *lower, size_t count)
{
    size_t i = 0;
    uint64_t left, right;

    for (; count - i >= 8; i += 8) {
        memcpy(&left, at + i, 8);
        memcpy(&right, lower + i, 8);
        if ((left | 0x2020202020202020u) != right)
            return false;
    }
    for (; i < count; i++) {
        if ((at[i] | 0x20) != lower[i])
            return false;
    }
    return true;
}

#endif
