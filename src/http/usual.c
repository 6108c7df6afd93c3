/* usual.c - see usual.h. Sixteen bytes at a time where the processor can; the tables of classes.h
 * say what is right, the wide comparisons only run ahead of them. */
#include "usual.h"
#include "classes.h"
#include "fields.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef const unsigned char *place;

#ifdef __SSE2__
#define WIDE 16

static inline __m128i each(char byte)
{
    return _mm_set1_epi8(byte);
}

/* Bit per byte: 0x21-0x7E without '?' and '#'. */
static inline unsigned path_bytes(__m128i bytes)
{
    __m128i bad = _mm_or_si128(_mm_cmpeq_epi8(bytes, each('?')), _mm_cmpeq_epi8(bytes, each('#')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(bytes, each(0x7F)));
    /* Signed: bytes from 0x80 are below as well. */
    bad = _mm_or_si128(bad, _mm_cmpgt_epi8(each(0x21), bytes));
    return (unsigned)_mm_movemask_epi8(bad) ^ 0xFFFFu;
}

/* Letters and '-': all there is in the usual field name. */
static inline unsigned name_bytes(__m128i bytes)
{
    __m128i letter = _mm_sub_epi8(_mm_or_si128(bytes, each(0x20)), each('a'));
    __m128i good = _mm_cmpeq_epi8(_mm_min_epu8(letter, each(25)), letter);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(good, _mm_cmpeq_epi8(bytes, each('-'))));
}

static inline unsigned value_bytes(__m128i bytes)
{
    __m128i bad = _mm_cmpeq_epi8(_mm_min_epu8(bytes, each(0x1F)), bytes);
    bad = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, each('\t')), bad);
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(bytes, each(0x7F)));
    return (unsigned)_mm_movemask_epi8(bad) ^ 0xFFFFu;
}

/* Letters, digits, '-' and '.': the usual host. */
static inline unsigned host_bytes(__m128i bytes)
{
    __m128i digit = _mm_sub_epi8(bytes, each('-'));
    __m128i good = _mm_cmpeq_epi8(_mm_min_epu8(digit, each('9' - '-')), digit);
    good = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, each('/')), good);
    return (unsigned)_mm_movemask_epi8(good) | name_bytes(bytes);
}

/* The first byte that `good` does not mark, or a place less than WIDE before `end`. */
#define RUN_AHEAD(at, end, good)                                                                   \
    while ((end) - (at) >= WIDE) {                                                                 \
        unsigned marks = good(_mm_loadu_si128((const __m128i *)(const void *)(at)));               \
        if (marks != 0xFFFFu) {                                                                    \
            (at) += __builtin_ctz(~marks);                                                         \
            break;                                                                                 \
        }                                                                                          \
        (at) += WIDE;                                                                              \
    }
#else
#define RUN_AHEAD(at, end, good)
#endif

static inline place skip_path(place at, place end)
{
    RUN_AHEAD(at, end, path_bytes)
    while (at < end && http_is(*at, HTTP_PATH))
        at++;
    return at;
}

/* An underscore is for header_map. */
static inline place skip_name(place at, place end)
{
    RUN_AHEAD(at, end, name_bytes)
    while (at < end && http_is(*at, HTTP_TOKEN) && *at != '_')
        at++;
    return at;
}

static inline place skip_host(place at, place end)
{
    RUN_AHEAD(at, end, host_bytes)
    while (at < end && http_is(*at, HTTP_HOST))
        at++;
    return at;
}

static inline place skip_value(place at, place end)
{
#ifdef __SSE2__
    RUN_AHEAD(at, end, value_bytes)
    while (at < end && http_is(*at, HTTP_VALUE))
        at++;
    return at;
#else
    return http_skip_value(at, end);
#endif
}

/* The end of the method: of what may be one, that is. */
static inline place skip_method(place at, place end)
{
    if (CTS_LIKELY(end - at >= 4 && memcmp(at, "GET ", 4) == 0))
        return at + 3;
    while (at < end && http_is(*at, HTTP_METHOD))
        at++;
    return at;
}

/* " HTTP/1.1\r\n" behind a method and a target that begins with '/'. Its end, or NULL. */
static place read_line(struct cts_head_parser *parser, place base, place end)
{
    struct cts_head_state *inner = &parser->inner;
    place at = skip_method(base, end), target, path_end, query = NULL;

    if (at - base < 3 || at - base > 7 || end - at < 13 || at[0] != ' ' || at[1] != '/' ||
        (at - base == 7 && memcmp(base, "CONNECT", 7) == 0))
        return NULL;
    target = at + 1;
    path_end = at = skip_path(target, end);
    if (at < end && *at == '?') {
        query = ++at;
        for (; (at = skip_path(at, end)) < end && *at == '?'; at++)
            ;
    }
    if (end - at < 11 || memcmp(at, " HTTP/1.1\r\n", 11) != 0 ||
        (size_t)(at + 9 - base) > parser->line_bytes_max)
        return NULL;
    inner->method_end = (uint32_t)(target - 1 - base);
    inner->target_start = inner->path_start = (uint32_t)(target - base);
    inner->path_end = (uint32_t)(path_end - base);
    inner->target_end = (uint32_t)(at - base);
    if (query != NULL) {
        inner->query_start = (uint32_t)(query - base);
        inner->query_end = inner->target_end;
    }
    inner->version_minor = 1;
    return at + 11;
}

#define LETTER(byte) (1u << ((byte) & 31))

/* First letters of the names fields_take() looks at, by length. */
static const uint32_t first_letters[32] = {
    [4] = LETTER('h'),
    [6] = LETTER('e'),
    [10] = LETTER('c') | LETTER('u') | LETTER('t'),
    [11] = LETTER('t'),
    [12] = LETTER('c'),
    [14] = LETTER('c'),
    [17] = LETTER('t'),
};

static inline bool may_decide(place name, size_t count)
{
    return count < CTS_COUNT(first_letters) && (first_letters[count] & LETTER(*name)) != 0;
}

/* The first Host, when it is a name with or without a port: no need to look closer. The value lies
 * in a whole line, so that a scan which runs over its end stays within the bytes. */
static inline bool take_host(struct cts_head_state *inner, const struct cts_header *header,
                             uint32_t index, place end)
{
    place at = (place)header->value.at, value_end = at + header->value.count;

    if (!http_token_is(header->name.at, "host", 4) || inner->host_at != 0)
        return false;
    at = skip_host(at, end);
    if (*at == ':' && at < value_end)
        for (at++; at < value_end && http_is(*at, HTTP_DIGIT); at++)
            ;
    if (at != value_end)
        return false;
    inner->host_at = index + 1;
    return true;
}

/* The careful parser wants offsets. */
static void as_offsets(struct cts_head_parser *parser, place base)
{
    for (uint32_t i = 0; i < parser->inner.fields_count; i++) {
        struct cts_header *header = &parser->table[i];
        header->name.at = (const char *)(uintptr_t)(header->name.at - (const char *)base);
        header->value.at = (const char *)(uintptr_t)(header->value.at - (const char *)base);
    }
}

/* One field line into *ret_header. Its end, or NULL when it is not whole or not usual. */
static inline place read_field(place at, place end, uint32_t bytes_max,
                               struct cts_header *ret_header)
{
    place line = at, value, value_end;

    at = skip_name(at, end);
    if (end - at < 4 || *at != ':' || at == line)
        return NULL;
    ret_header->name = (struct cts_bytes){(const char *)line, (size_t)(at - line)};
    value = at + 1;
    if (CTS_LIKELY(*value == ' '))
        value++;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    at = skip_value(value, end);
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n' || (size_t)(at - line) > bytes_max)
        return NULL;
    for (value_end = at; value_end > value && (value_end[-1] == ' ' || value_end[-1] == '\t');)
        value_end--;
    ret_header->value = (struct cts_bytes){(const char *)value, (size_t)(value_end - value)};
    return at + 2;
}

int usual_read(struct cts_head_parser *parser, place base, place end, enum usual *ret_how,
               const char **ret_code)
{
    struct cts_head_state *inner = &parser->inner;
    uint32_t count = 0, count_max = parser->table_capacity;
    uint32_t bytes_max = parser->field_bytes_max - 2;
    place at = read_line(parser, base, end), next;
    int r;

    *ret_how = USUAL_NOTHING;
    if (at == NULL || parser->rules->permit_obsolete_folding)
        return 0;
    *ret_how = USUAL_LINES;
    for (; count < count_max; count++, at = next) {
        struct cts_header *header = &parser->table[count];
        if (end - at >= 2 && at[0] == '\r')
            break;
        next = read_field(at, end, bytes_max, header);
        if (next == NULL)
            break;
        if (may_decide((place)header->name.at, header->name.count) &&
            !(header->name.count == 4 && take_host(inner, header, count, end))) {
            r = fields_take(parser, header->name, header->value, count, ret_code);
            if (CTS_UNLIKELY(r != 0))
                return r;
        }
    }
    inner->fields_count = count;
    inner->position = (uint32_t)(at - base);
    if (CTS_LIKELY(end - at >= 2 && at[0] == '\r' && at[1] == '\n')) {
        *ret_how = USUAL_HEAD;
        inner->position += 2;
        return fields_finish(parser, ret_code);
    }
    as_offsets(parser, base);
    return 0;
}
