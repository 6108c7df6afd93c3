/* context.c - the `traceparent` field, in and out. Source: W3C Trace Context level 2. */
#include "ctserve/tracing.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define VERSION_AT 0
#define TRACE_ID_AT 3
#define SPAN_ID_AT 36
#define FLAGS_AT 53
#define KNOWN_FLAGS 3u

/* Eight bytes are looked at in one word, the first in its low end; the whole contract of slot.h is
 * little endian. */
#define EACH(byte) (0x0101010101010101ull * (byte))

/* Values below 16 to digits: '0' is added to each, and 'a' - '0' - 10 more to those above 9. */
static inline uint64_t digits_of(uint64_t values)
{
    uint64_t above_9 = (values + EACH(6)) >> 4 & EACH(1);
    return values + EACH('0') + above_9 * ('a' - '0' - 10);
}

/* Digits to values; lower-case hex only. The low half of a digit is its value, of a letter it is 9
 * less. Right is what gives the same digits back, so that every other byte is seen as wrong. */
static inline uint64_t values_of(uint64_t digits, uint64_t *wrong)
{
    uint64_t values = (digits & EACH(0x0f)) + (digits >> 6 & EACH(1)) * 9;
    *wrong |= (values & EACH(0xf0)) | (digits_of(values) ^ digits);
    return values;
}

/* Eight digits to four bytes: pairs of values are drawn together, then the pairs. */
static inline uint32_t four_of_hex(const char *at, uint64_t *wrong)
{
    uint64_t x;
    memcpy(&x, at, sizeof(x));
    x = values_of(x, wrong);
    x = (x << 4 | x >> 8) & 0x00ff00ff00ff00ffull;
    x = (x | x >> 8) & 0x0000ffff0000ffffull;
    return (uint32_t)(x | x >> 16);
}

/* Two digits; the rest of the word is filled with right ones. */
static inline uint8_t one_of_hex(const char *at, uint64_t *wrong)
{
    uint64_t x = EACH('0') << 16 | (uint64_t)(unsigned char)at[1] << 8 | (unsigned char)at[0];
    x = values_of(x, wrong);
    return (uint8_t)(x << 4 | x >> 8);
}

/* `count` is a multiple of four. False when a digit is wrong or all of them are zero. */
static inline bool id_read(const char *at, uint8_t *to, size_t count)
{
    uint64_t wrong = 0, any = 0;
    for (size_t i = 0; i < count; i += 4) {
        uint32_t four = four_of_hex(at + 2 * i, &wrong);
        memcpy(to + i, &four, sizeof(four));
        any |= four;
    }
    return wrong == 0 && any != 0;
}

/* Eight digits at once: the halves of four bytes are spread over eight. */
static inline uint64_t hex_of_four(const uint8_t bytes[4])
{
    uint32_t four;
    memcpy(&four, bytes, sizeof(four));
    uint64_t x = four;
    x = (x | x << 16) & 0x0000ffff0000ffffull;
    x = (x | x << 8) & 0x00ff00ff00ff00ffull;
    x = (x >> 4 & 0x000f000f000f000full) | (x & 0x000f000f000f000full) << 8;
    return digits_of(x);
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

/* -- not sampled: only whether the field is right is of interest -------------------------------- */
#ifdef __SSE2__
/* Which of sixteen bytes are lower-case hex digits. */
static inline __m128i hex_in(__m128i bytes)
{
    __m128i digits = _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('0' - 1)),
                                   _mm_cmplt_epi8(bytes, _mm_set1_epi8('9' + 1)));
    __m128i letters = _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('a' - 1)),
                                    _mm_cmplt_epi8(bytes, _mm_set1_epi8('f' + 1)));
    return _mm_or_si128(digits, letters);
}

static inline __m128i sixteen(const char *at)
{
    return _mm_loadu_si128((const __m128i *)(const void *)at);
}

static bool ids_are_right(struct cts_bytes field)
{
    const __m128i zeros = _mm_set1_epi8('0');
    __m128i first = sixteen(field.at + TRACE_ID_AT), second = sixteen(field.at + TRACE_ID_AT + 16);
    __m128i span = sixteen(field.at + SPAN_ID_AT);
    __m128i all_hex = _mm_and_si128(_mm_and_si128(hex_in(first), hex_in(second)), hex_in(span));
    __m128i no_trace = _mm_and_si128(_mm_cmpeq_epi8(first, zeros), _mm_cmpeq_epi8(second, zeros));
    __m128i no_span = _mm_cmpeq_epi8(span, zeros);
    return _mm_movemask_epi8(all_hex) == 0xffff && _mm_movemask_epi8(no_trace) != 0xffff &&
           _mm_movemask_epi8(no_span) != 0xffff;
}
#else
static bool ids_are_right(struct cts_bytes field)
{
    uint8_t trace_id[16], span_id[8];
    return id_read(field.at + TRACE_ID_AT, trace_id, sizeof(trace_id)) &&
           id_read(field.at + SPAN_ID_AT, span_id, sizeof(span_id));
}
#endif

bool cts_traceparent_is_unsampled(struct cts_bytes field)
{
    uint64_t wrong = 0;
    if (field.count < CTS_TRACEPARENT_BYTES)
        return false;
    uint8_t flags = one_of_hex(field.at + FLAGS_AT, &wrong);
    uint8_t version = one_of_hex(field.at + VERSION_AT, &wrong);
    return wrong == 0 && (flags & 1) == 0 && shape_is_right(field, version) && ids_are_right(field);
}

/* -- in and out --------------------------------------------------------------------------------- */
void cts_traceparent_read(struct cts_bytes field, struct cts_trace_context *ret_context)
{
    struct cts_trace_context context;
    uint64_t wrong = 0;
    memset(ret_context, 0, sizeof(*ret_context));
    if (field.count < CTS_TRACEPARENT_BYTES)
        return;
    uint8_t version = one_of_hex(field.at + VERSION_AT, &wrong);
    context.flags = one_of_hex(field.at + FLAGS_AT, &wrong) & KNOWN_FLAGS;
    context.is_valid = true;
    if (wrong != 0 || !shape_is_right(field, version) ||
        !id_read(field.at + TRACE_ID_AT, context.trace_id, sizeof(context.trace_id)) ||
        !id_read(field.at + SPAN_ID_AT, context.span_id, sizeof(context.span_id)))
        return;
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
