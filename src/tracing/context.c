/* context.c - the `traceparent` field, in and out. Source: W3C Trace Context level 2. */
#include "ctserve/tracing.h"

#define VERSION_AT 0
#define TRACE_ID_AT 3
#define SPAN_ID_AT 36
#define FLAGS_AT 53
#define KNOWN_FLAGS 3u

/* Lower-case hex only. -1 for anything else. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* False when a digit is wrong; *ret_any tells whether a byte was not zero. */
static bool hex_read(const char *at, uint8_t *to, size_t count, bool *ret_any)
{
    int wrong = 0, any = 0;
    for (size_t i = 0; i < count; i++) {
        int high = hex_value(at[2 * i]), low = hex_value(at[2 * i + 1]);
        wrong |= high | low;
        to[i] = (uint8_t)((unsigned)high << 4 | ((unsigned)low & 15u));
        any |= to[i];
    }
    *ret_any = any != 0;
    return wrong >= 0;
}

/* Eight digits at once: the nibbles of four bytes are spread over eight, then '0' is added to each
 * and 'a' - '0' - 10 more to those above 9. Little endian, as the whole contract of slot.h. */
static uint64_t hex_of_four(const uint8_t bytes[4])
{
    uint32_t four;
    memcpy(&four, bytes, sizeof(four));
    uint64_t x = four;
    x = (x | x << 16) & 0x0000ffff0000ffffull;
    x = (x | x << 8) & 0x00ff00ff00ff00ffull;
    x = (x >> 4 & 0x000f000f000f000full) | (x & 0x000f000f000f000full) << 8;
    uint64_t above_9 = (x + 0x0606060606060606ull) >> 4 & 0x0101010101010101ull;
    return x + 0x3030303030303030ull + above_9 * ('a' - '0' - 10);
}

/* `count` is a multiple of four. */
static inline void hex_write(const uint8_t *bytes, size_t count, char *to)
{
    for (size_t i = 0; i < count; i += 4) {
        uint64_t digits = hex_of_four(bytes + i);
        memcpy(to + 2 * i, &digits, sizeof(digits));
    }
}

static bool shape_is_right(struct cts_bytes field, uint8_t version)
{
    if (field.at[2] != '-' || field.at[35] != '-' || field.at[52] != '-' || version == 0xff)
        return false;
    if (field.count == CTS_TRACEPARENT_BYTES)
        return true;
    return version != 0 && field.at[CTS_TRACEPARENT_BYTES] == '-';
}

void cts_traceparent_read(struct cts_bytes field, struct cts_trace_context *ret_context)
{
    uint8_t version;
    bool any, has_trace, has_span;
    memset(ret_context, 0, sizeof(*ret_context));
    if (field.count < CTS_TRACEPARENT_BYTES)
        return;
    struct cts_trace_context context = {0};
    if (!hex_read(field.at + VERSION_AT, &version, 1, &any) || !shape_is_right(field, version))
        return;
    if (!hex_read(field.at + TRACE_ID_AT, context.trace_id, 16, &has_trace) || !has_trace)
        return;
    if (!hex_read(field.at + SPAN_ID_AT, context.span_id, 8, &has_span) || !has_span)
        return;
    if (!hex_read(field.at + FLAGS_AT, &context.flags, 1, &any))
        return;
    context.flags &= KNOWN_FLAGS;
    context.is_valid = true;
    *ret_context = context;
}

void cts_traceparent_write(const uint8_t trace_id[16], const uint8_t span_id[8], uint8_t flags,
                           char to[CTS_TRACEPARENT_BYTES])
{
    uint8_t known_flags = flags & KNOWN_FLAGS;
    to[0] = to[1] = '0';
    to[2] = to[35] = to[52] = '-';
    hex_write(trace_id, 16, to + TRACE_ID_AT);
    hex_write(span_id, 8, to + SPAN_ID_AT);
    to[FLAGS_AT] = '0';
    to[FLAGS_AT + 1] = (char)('0' + known_flags);
}
