/* head.c - the head of one request: request line, fields, empty line.
 *
 * The parser stops anywhere and goes on there: a state says what the next byte is part of, and
 * `position` how far we have looked. Every verdict belongs to one byte of the stream and comes
 * when that byte is there, never later and never from looking ahead; that is why a verdict cannot
 * depend on how the bytes were split. Limits are bytes too: the first one beyond a limit is what
 * is refused.
 *
 * What was found is kept as offsets, since the caller's buffer may move between two calls, and
 * becomes views when the head is whole. Sources: RFC 9112 2 to 5, RFC 9110 5. */
#include "ctserve/http.h"
#include "classes.h"
#include "fields.h"
#include "usual.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

#define GO_ON 0
#define EMPTY ((struct cts_bytes){"", 0})
#define METHOD_BYTES_MIN 3      /* as gunicorn */
#define METHOD_BYTES_MAX 20
#define LIMIT_MAX 8190u         /* gunicorn's, for a limit of 0 */
#define FIELDS_MAX 32768u
#define TABLE_FIRST_COUNT 16u

enum state {
    STATE_START,
    STATE_START_LF,       /* of the one empty line that may come first */
    STATE_METHOD_FIRST,
    STATE_METHOD,
    STATE_TARGET_FIRST,
    STATE_ASTERISK,
    STATE_SCHEME,
    STATE_SLASH_1,
    STATE_SLASH_2,
    STATE_AUTHORITY,
    STATE_PATH,
    STATE_QUERY,
    STATE_FRAGMENT,
    STATE_VERSION,
    STATE_LINE_CR,
    STATE_LINE_LF,
    STATE_FIELD_FIRST,
    STATE_NAME,
    STATE_NAME_SPACE,     /* between a name and its colon, strip_header_spaces */
    STATE_VALUE_FIRST,
    STATE_VALUE,
    STATE_FIELD_LF,
    STATE_FOLD,           /* a line that goes on with a value, permit_obsolete_folding */
    STATE_FOLD_LF,
    STATE_END_LF,
    STATE_DONE,
    STATE_REFUSED,
};

/* The bytes of one call. */
struct scan {
    const unsigned char *base;
    const unsigned char *at;
    const unsigned char *end;     /* of the bytes, or of the longest head we take */
    const unsigned char *stop;    /* as far as the line we are in may go: `end` or its limit */
};

static inline uint32_t offset(const struct scan *scan)
{
    return (uint32_t)(scan->at - scan->base);
}

static __attribute__((cold, noinline)) int refuse(struct cts_head_parser *parser, int status, const char *code)
{
    parser->inner.state = STATE_REFUSED;
    parser->status = status;
    parser->code = code;
    return status;
}

/* The end of what a line of at most `line_max` bytes may have in this call. */
static inline const unsigned char *line_stop(const struct scan *scan, const unsigned char *start,
                                             uint32_t line_max)
{
    return (size_t)(scan->end - start) > line_max ? start + line_max : scan->end;
}

/* The scan of the request line came to its stop: is that the limit, or are bytes missing? */
static int line_ran_out(struct cts_head_parser *parser, const struct scan *scan)
{
    return scan->at < scan->end ? refuse(parser, 414, "line_too_long") : CTS_NEED_MORE;
}

static int field_ran_out(struct cts_head_parser *parser, const struct scan *scan)
{
    return scan->at < scan->end ? refuse(parser, 431, "field_too_long") : CTS_NEED_MORE;
}

/* -- the request line ---------------------------------------------------------------------- */

static inline int read_start(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at == '\r') {
        scan->at++;
        parser->inner.state = STATE_START_LF;
        return GO_ON;
    }
    parser->inner.state = STATE_METHOD_FIRST;
    return GO_ON;
}

static int read_start_lf(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\n')
        return refuse(parser, 400, "bad_line_end");
    scan->at++;
    parser->inner.state = STATE_METHOD_FIRST;
    return GO_ON;
}

/* The bytes are the caller's, who lent them to be written to when a switch needs it. */
static unsigned char *writable(const struct scan *scan, uint32_t at)
{
    return (unsigned char *)(uintptr_t)(scan->base + at);
}

static void casefold(const struct scan *scan, uint32_t start, size_t count)
{
    unsigned char *at = writable(scan, start);

    for (size_t i = 0; i < count; i++)
        if (at[i] >= 'a' && at[i] <= 'z')
            at[i] = (unsigned char)(at[i] - 'a' + 'A');
}

static inline int read_method(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *start = scan->base + inner->line_start;
    bool is_any = parser->rules->permit_unconventional_http_method;
    const unsigned char *stop = scan->stop - start > METHOD_BYTES_MAX && !is_any
                                    ? start + METHOD_BYTES_MAX : scan->stop;
    size_t count;

    while (scan->at < stop && http_is(*scan->at, is_any ? HTTP_TOKEN : HTTP_METHOD))
        scan->at++;
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    count = (size_t)(scan->at - start);
    if (count >= parser->line_bytes_max)
        return refuse(parser, 414, "line_too_long");
    if (*scan->at != ' ' || count < (is_any ? 1 : METHOD_BYTES_MIN))
        return refuse(parser, 400, count == 0 && *scan->at == '\r' ? "empty_lines" : "bad_method");
    if (parser->rules->casefold_http_method)
        casefold(scan, inner->line_start, count);
    inner->is_connect = count == 7 && memcmp(start, "CONNECT", 7) == 0;
    if (inner->is_connect && !parser->rules->gunicorn_policy)
        return refuse(parser, 501, "connect");
    inner->method_start = inner->line_start;
    inner->method_end = offset(scan);
    scan->at++;
    inner->state = STATE_TARGET_FIRST;
    return GO_ON;
}

static inline int read_target_first(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    unsigned char first;

    if (scan->at == scan->stop)
        return line_ran_out(parser, scan);
    inner->target_start = offset(scan);
    first = *scan->at;
    if (inner->is_connect) {
        inner->form = CTS_TARGET_AUTHORITY;
        inner->authority_start = inner->target_start;
        inner->state = STATE_AUTHORITY;
    } else if (first == '/') {
        inner->form = CTS_TARGET_ORIGIN;
        inner->path_start = inner->target_start;
        inner->state = STATE_PATH;
    } else if ((first | 0x20) >= 'a' && (first | 0x20) <= 'z') {
        inner->form = CTS_TARGET_ABSOLUTE;
        inner->state = STATE_SCHEME;
    } else if (first == '*') {
        inner->form = CTS_TARGET_ASTERISK;
        inner->state = STATE_ASTERISK;
        scan->at++;
    } else {
        return refuse(parser, 400, "bad_target");
    }
    return GO_ON;
}

static bool method_is(const struct cts_head_parser *parser, const struct scan *scan,
                      const char *text)
{
    const struct cts_head_state *inner = &parser->inner;
    size_t count = strlen(text);

    return inner->method_end - inner->method_start == count &&
           memcmp(scan->base + inner->method_start, text, count) == 0;
}

static int end_target(struct cts_head_parser *parser, struct scan *scan)
{
    parser->inner.target_end = offset(scan);
    scan->at++;
    parser->inner.state = STATE_VERSION;
    return GO_ON;
}

/* Only OPTIONS has no resource; "PRI *" is the preface of HTTP/2 and falls over its version. */
static int read_asterisk(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;

    if (scan->at == scan->stop)
        return line_ran_out(parser, scan);
    if (*scan->at != ' ')
        return refuse(parser, 400, "bad_target");
    if (!method_is(parser, scan, "OPTIONS") &&
        (parser->rules->gunicorn_policy || !method_is(parser, scan, "PRI")))
        return refuse(parser, 400, "bad_target");
    inner->path_start = inner->target_start;
    inner->path_end = offset(scan);
    return end_target(parser, scan);
}

static int read_scheme(struct cts_head_parser *parser, struct scan *scan)
{
    const unsigned char *stop = scan->stop;

    while (scan->at < stop && (http_is(*scan->at, HTTP_DIGIT) || *scan->at == '+' ||
                               *scan->at == '-' || *scan->at == '.' ||
                               ((*scan->at | 0x20) >= 'a' && (*scan->at | 0x20) <= 'z')))
        scan->at++;
    if (scan->at == stop)
        return line_ran_out(parser, scan);
    if (*scan->at != ':')
        return refuse(parser, 400, "bad_target");
    scan->at++;
    parser->inner.state = STATE_SLASH_1;
    return GO_ON;
}

static int read_slash(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->stop)
        return line_ran_out(parser, scan);
    if (*scan->at != '/')
        return refuse(parser, 400, "bad_target");
    scan->at++;
    parser->inner.state++;
    parser->inner.authority_start = offset(scan);
    return GO_ON;
}

/* User info in a target is what a malformed Host is in a field: gunicorn lets it pass. */
static bool authority_ok(struct cts_head_parser *parser, const struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    struct cts_bytes text = {(const char *)scan->base + inner->authority_start,
                             inner->authority_end - inner->authority_start};
    const char *at_sign = parser->rules->gunicorn_policy && text.count != 0
                              ? memrchr(text.at, '@', text.count) : NULL;

    if (at_sign != NULL) {
        text.count -= (size_t)(at_sign + 1 - text.at);
        text.at = at_sign + 1;
    }
    return text.count != 0 && *text.at != ':' && fields_authority_ok(text);
}

static int read_authority(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *stop = scan->stop;

    while (scan->at < stop && http_is(*scan->at, HTTP_PATH) && *scan->at != '/')
        scan->at++;
    if (scan->at == stop)
        return line_ran_out(parser, scan);
    inner->authority_end = inner->path_start = inner->path_end = offset(scan);
    if (!authority_ok(parser, scan))
        return refuse(parser, 400, "bad_authority");
    if (*scan->at == ' ')
        return end_target(parser, scan);
    if (inner->form == CTS_TARGET_AUTHORITY)
        return refuse(parser, 400, "bad_target");
    inner->state = STATE_PATH;
    return GO_ON;
}

static inline int read_path(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *stop = scan->stop;

    scan->at = http_skip(scan->at, stop, HTTP_PATH);
    if (scan->at == stop)
        return line_ran_out(parser, scan);
    inner->path_end = offset(scan);
    if (*scan->at == ' ')
        return end_target(parser, scan);
    if (*scan->at == '?') {
        scan->at++;
        inner->query_start = offset(scan);
        inner->state = STATE_QUERY;
        return GO_ON;
    }
    if (*scan->at != '#' || !parser->rules->gunicorn_policy)
        return refuse(parser, 400, "bad_target");
    scan->at++;
    inner->fragment_start = offset(scan);
    inner->state = STATE_FRAGMENT;
    return GO_ON;
}

static int read_query(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *stop = scan->stop;

    scan->at = http_skip(scan->at, stop, HTTP_QUERY);
    if (scan->at == stop)
        return line_ran_out(parser, scan);
    inner->query_end = offset(scan);
    if (*scan->at == ' ')
        return end_target(parser, scan);
    if (*scan->at != '#' || !parser->rules->gunicorn_policy)
        return refuse(parser, 400, "bad_target");
    scan->at++;
    inner->fragment_start = offset(scan);
    inner->state = STATE_FRAGMENT;
    return GO_ON;
}

static int read_fragment(struct cts_head_parser *parser, struct scan *scan)
{
    const unsigned char *stop = scan->stop;

    while (scan->at < stop && *scan->at > ' ' && *scan->at < 0x7F)
        scan->at++;
    if (scan->at == stop)
        return line_ran_out(parser, scan);
    if (*scan->at != ' ')
        return refuse(parser, 400, "bad_target");
    return end_target(parser, scan);
}

/* One byte of "HTTP/1.x". Major versions above ours are 505, for gunicorn just bad. */
static int check_version_byte(struct cts_head_parser *parser, const struct scan *scan,
                              uint32_t index)
{
    struct cts_head_state *inner = &parser->inner;
    unsigned char byte = *scan->at;

    if (parser->rules->permit_unconventional_http_version && http_is(byte, HTTP_DIGIT) &&
        (index == 5 || index == 7)) {
        unsigned digit = byte - '0';
        inner->version_digits = (uint8_t)(index == 5 ? digit << 4 : inner->version_digits | digit);
        /* For framing everything before 1.1 is 1.0, and everything behind it 1.1. */
        inner->version_minor = index == 7 && inner->version_digits > 0x10;
        if (inner->form == CTS_TARGET_ASTERISK && !method_is(parser, scan, "OPTIONS"))
            return refuse(parser, 400, "bad_target");
        return GO_ON;
    }
    if (index == 5 && byte >= '2' && byte <= '9' && !parser->rules->gunicorn_policy)
        return refuse(parser, 505, "unknown_version");
    if (index < 7 && byte != (unsigned char)"HTTP/1."[index])
        return refuse(parser, 400, "bad_version");
    if (index == 5 && inner->form == CTS_TARGET_ASTERISK && !method_is(parser, scan, "OPTIONS"))
        return refuse(parser, 400, "bad_target");
    if (index == 7) {
        if (!http_is(byte, HTTP_DIGIT))
            return refuse(parser, 400, "bad_version");
        inner->version_minor = byte - '0';
    }
    return GO_ON;
}

static inline int read_version(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *stop = scan->stop;
    uint32_t index = offset(scan) - (inner->target_end + 1);
    int r;

    if (CTS_LIKELY(index == 0 && stop - scan->at >= 8 && inner->form == CTS_TARGET_ORIGIN &&
                   memcmp(scan->at, "HTTP/1.1", 8) == 0)) {
        inner->version_minor = 1;
        scan->at += 8;
        index = 8;
    }
    for (; index < 8; index++, scan->at++) {
        if (scan->at == stop)
            return line_ran_out(parser, scan);
        r = check_version_byte(parser, scan, index);
        if (r != GO_ON)
            return r;
    }
    inner->state = STATE_LINE_CR;
    return GO_ON;
}

static inline int read_line_cr(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\r')
        return refuse(parser, 400, *scan->at == '\n' ? "bad_line_end" : "bad_version");
    scan->at++;
    parser->inner.state = STATE_LINE_LF;
    return GO_ON;
}

static inline int read_line_lf(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\n')
        return refuse(parser, 400, "bad_line_end");
    scan->at++;
    parser->inner.state = STATE_FIELD_FIRST;
    return GO_ON;
}

/* -- fields ---------------------------------------------------------------------------------- */

static int grow_table(struct cts_head_parser *parser)
{
    uint32_t capacity = parser->table_capacity == 0 ? TABLE_FIRST_COUNT
                                                    : parser->table_capacity * 2;
    struct cts_header *table;

    if (capacity > parser->fields_count_max)
        capacity = parser->fields_count_max;
    table = realloc(parser->table, capacity * sizeof(*table));
    if (table == NULL)
        return refuse(parser, 503, "no_memory");
    parser->table = table;
    parser->table_capacity = capacity;
    return GO_ON;
}

/* A place as it stands in the table while the head is not whole: an offset in a pointer's coat. */
static const char *as_place(uint32_t at)
{
    return (const char *)(uintptr_t)at;
}

/* "A_B" and "A-B" become the same key of an environ: only who may say so says the former. */
static bool keeps_underscore(struct cts_head_parser *parser, struct cts_bytes name)
{
    const struct cts_http_rules *rules = parser->rules;

    if (rules->header_map == CTS_HEADER_MAP_DANGEROUS)
        return true;
    for (size_t i = 0; i < rules->forwarder_headers_count && parser->is_trusted; i++) {
        const char *one = rules->forwarder_headers[i];
        if (strcmp(one, "*") == 0 || cts_bytes_equal_nocase(name, cts_bytes_of(one)))
            return true;
    }
    return false;
}

static inline int take_field(struct cts_head_parser *parser, const struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const char *base = (const char *)scan->base, *code;
    struct cts_bytes name = {base + inner->line_start, inner->name_end - inner->line_start};
    struct cts_bytes value = {base + inner->value_start, inner->value_end - inner->value_start};
    int r;

    if (CTS_UNLIKELY(memchr(name.at, '_', name.count) != NULL) && !keeps_underscore(parser, name)) {
        if (parser->rules->header_map == CTS_HEADER_MAP_REFUSE)
            return refuse(parser, 400, "underscore");
        inner->dropped_count++;
        return GO_ON;
    }
    r = fields_take(parser, name, value, inner->fields_count, &code);
    if (CTS_UNLIKELY(r != 0))
        return refuse(parser, r, code);
    if (CTS_UNLIKELY(inner->fields_count == parser->table_capacity)) {
        r = grow_table(parser);
        if (r != GO_ON)
            return r;
    }
    parser->table[inner->fields_count++] = (struct cts_header){
        .name = {as_place(inner->line_start), name.count},
        .value = {as_place(inner->value_start), value.count},
    };
    return GO_ON;
}

static inline int read_field_first(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;

    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (CTS_UNLIKELY(inner->is_pending)) {
        if (*scan->at == ' ' || *scan->at == '\t') {
            inner->state = STATE_FOLD;
            return GO_ON;
        }
        inner->is_pending = 0;
        int r = take_field(parser, scan);
        if (r != GO_ON)
            return r;
    }
    if (*scan->at == '\r') {
        scan->at++;
        inner->state = STATE_END_LF;
        return GO_ON;
    }
    if (*scan->at == ' ' || *scan->at == '\t')
        return refuse(parser, 400, inner->fields_count + inner->dropped_count == 0
                                       ? "space_before_field" : "obs_fold");
    if (inner->fields_count + inner->dropped_count == parser->fields_count_max)
        return refuse(parser, 431, "too_many_fields");
    inner->line_start = offset(scan);
    scan->stop = line_stop(scan, scan->at, parser->field_bytes_max - 2);
    inner->state = STATE_NAME;
    return GO_ON;
}

static inline int read_name(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *stop = scan->stop;

    scan->at = http_skip(scan->at, stop, HTTP_TOKEN);
    if (scan->at == stop)
        return field_ran_out(parser, scan);
    inner->name_end = offset(scan);
    if (CTS_UNLIKELY((*scan->at == ' ' || *scan->at == '\t') &&
                     parser->rules->strip_header_spaces && inner->name_end > inner->line_start)) {
        inner->state = STATE_NAME_SPACE;
        return GO_ON;
    }
    if (*scan->at != ':' || inner->name_end == inner->line_start)
        return refuse(parser, 400, *scan->at == '\r' || *scan->at == '\n' ? "no_colon"
                                                                          : "bad_field_name");
    scan->at++;
    inner->state = STATE_VALUE_FIRST;
    return GO_ON;
}

static int read_name_space(struct cts_head_parser *parser, struct scan *scan)
{
    while (scan->at < scan->stop && (*scan->at == ' ' || *scan->at == '\t'))
        scan->at++;
    if (scan->at == scan->stop)
        return field_ran_out(parser, scan);
    if (*scan->at != ':')
        return refuse(parser, 400, "bad_field_name");
    scan->at++;
    parser->inner.state = STATE_VALUE_FIRST;
    return GO_ON;
}

static inline int read_value_first(struct cts_head_parser *parser, struct scan *scan)
{
    const unsigned char *stop = scan->stop;

    while (scan->at < stop && (*scan->at == ' ' || *scan->at == '\t'))
        scan->at++;
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    parser->inner.value_start = offset(scan);
    parser->inner.state = STATE_VALUE;
    return GO_ON;
}

static inline int read_value(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const unsigned char *stop = scan->stop;
    const unsigned char *last, *start = scan->base + inner->value_start;

    scan->at = http_skip_value(scan->at, stop);
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\r') {
        if (scan->at == stop)
            return refuse(parser, 431, "field_too_long");
        return refuse(parser, 400, *scan->at == '\n' ? "bad_line_end" : "bad_field_value");
    }
    for (last = scan->at; last > start && (last[-1] == ' ' || last[-1] == '\t'); last--)
        ;
    inner->value_end = (uint32_t)(last - scan->base);
    scan->at++;
    inner->state = STATE_FIELD_LF;
    return GO_ON;
}

static inline int read_field_lf(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\n')
        return refuse(parser, 400, "bad_field_value");
    scan->at++;
    parser->inner.state = STATE_FIELD_FIRST;
    if (CTS_UNLIKELY(parser->rules->permit_obsolete_folding)) {
        parser->inner.is_pending = 1;
        return GO_ON;
    }
    return take_field(parser, scan);
}

/* One more line of a value. It is looked at like the first one; the limit is that of the field. */
static int read_fold(struct cts_head_parser *parser, struct scan *scan)
{
    scan->at = http_skip_value(scan->at, scan->stop);
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\r') {
        if (scan->at == scan->stop)
            return refuse(parser, 431, "field_too_long");
        return refuse(parser, 400, *scan->at == '\n' ? "bad_line_end" : "bad_field_value");
    }
    scan->at++;
    parser->inner.state = STATE_FOLD_LF;
    return GO_ON;
}

/* Draw the new line to the end of the value with one blank between them, and fill the gap: read
 * once more, the same bytes are one plain field. */
static int read_fold_lf(struct cts_head_parser *parser, struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    unsigned char *to, *from, *line_end;

    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\n')
        return refuse(parser, 400, "bad_field_value");
    line_end = writable(scan, offset(scan) - 1);
    scan->at++;
    to = writable(scan, inner->value_end);
    for (from = to; *from != '\n'; from++)
        ;
    for (from++; from < line_end && (*from == ' ' || *from == '\t'); from++)
        ;
    if (from < line_end && inner->value_end > inner->value_start)
        *to++ = ' ';
    memmove(to, from, (size_t)(line_end - from));
    to += line_end - from;
    memset(to, ' ', (size_t)(line_end - to));
    while (to > scan->base + inner->value_start && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    inner->value_end = (uint32_t)(to - scan->base);
    inner->state = STATE_FIELD_FIRST;
    return GO_ON;
}

static inline int read_end_lf(struct cts_head_parser *parser, struct scan *scan)
{
    const char *code;
    int r;

    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\n')
        return refuse(parser, 400, "bad_line_end");
    scan->at++;
    r = fields_finish(parser, &code);
    if (r != 0)
        return refuse(parser, r, code);
    parser->inner.state = STATE_DONE;
    return GO_ON;
}

/* -- what was found -------------------------------------------------------------------------- */

static struct cts_bytes view(const char *base, uint32_t start, uint32_t end)
{
    return (struct cts_bytes){base + start, end - start};
}

static struct cts_bytes field_value(const struct cts_head_parser *parser, uint32_t at)
{
    return at == 0 ? EMPTY : parser->table[at - 1].value;
}

/* For CONNECT gunicorn's PATH_INFO is what Python's urlsplit calls the path: "example.com:443"
 * has the scheme example.com and the path 443, "[::1]:443" is all path. */
static struct cts_bytes connect_path(struct cts_bytes target)
{
    const char *colon = memchr(target.at, ':', target.count);
    const char *at = target.at;

    if (colon == NULL || !(((unsigned char)*at | 0x20) >= 'a' && ((unsigned char)*at | 0x20) <= 'z'))
        return target;
    for (; at < colon; at++) {
        unsigned char byte = (unsigned char)*at;
        if (!http_is(byte, HTTP_DIGIT) && !((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z') &&
            byte != '+' && byte != '-' && byte != '.')
            return target;
    }
    return (struct cts_bytes){colon + 1, (size_t)(target.at + target.count - colon - 1)};
}

static void fill_target(const struct cts_head_parser *parser, const char *base,
                        struct cts_request *request)
{
    const struct cts_head_state *inner = &parser->inner;
    const char *at_sign;

    request->fragment = inner->fragment_start == 0
                            ? EMPTY
                            : view(base, inner->fragment_start, inner->target_end);
    request->authority = request->host =
        view(base, inner->authority_start, inner->authority_end);
    at_sign = memrchr(request->host.at, '@', request->host.count);
    if (at_sign != NULL)
        request->host = view(at_sign + 1, 0,
                             (uint32_t)(request->host.count -
                                        (size_t)(at_sign + 1 - request->host.at)));
    if (inner->form == CTS_TARGET_AUTHORITY)
        request->path = connect_path(request->target);
    else if (request->path.count == 0)
        request->path = (struct cts_bytes){"/", 1};
}

/* Offsets in the table become places. */
static void place_fields(const struct cts_head_parser *parser, const char *base)
{
    for (uint32_t i = 0; i < parser->inner.fields_count; i++) {
        struct cts_header *header = &parser->table[i];
        header->name.at = base + (uintptr_t)header->name.at;
        header->value.at = base + (uintptr_t)header->value.at;
    }
}

static void fill_request(const struct cts_head_parser *parser, const char *base,
                         struct cts_request *request)
{
    const struct cts_head_state *inner = &parser->inner;

    request->method = view(base, inner->method_start, inner->method_end);
    request->target = view(base, inner->target_start, inner->target_end);
    request->form = (enum cts_http_target_form)inner->form;
    request->path = view(base, inner->path_start, inner->path_end);
    request->has_query = inner->query_start != 0;
    request->query = request->has_query ? view(base, inner->query_start, inner->query_end)
                                        : EMPTY;
    request->fragment = request->authority = EMPTY;
    request->host = field_value(parser, inner->host_at);
    request->has_host_field = inner->host_at != 0;
    request->version_major = 1;
    request->version_minor = inner->version_minor;
    request->headers = parser->table;
    request->headers_count = inner->fields_count;
    request->content_length = inner->content_length;
    request->is_chunked = (inner->seen & FIELDS_CHUNKED) != 0;
    request->keep_alive = (inner->seen & FIELDS_CLOSE) == 0 && !inner->is_connect &&
                          (inner->version_minor >= 1 || (inner->seen & FIELDS_KEEP_ALIVE) != 0);
    request->expects_continue = (inner->seen & FIELDS_EXPECTS_CONTINUE) != 0;
    request->traceparent = field_value(
        parser, (inner->seen & FIELDS_TRACEPARENT_TWICE) != 0 ? 0 : inner->traceparent_at);
    request->tracestate = field_value(parser, inner->tracestate_at);
    request->user_agent = field_value(parser, inner->user_agent_at);
    request->content_type = field_value(parser, inner->content_type_at);
    request->script_name = field_value(parser, inner->script_name_at);
    request->has_script_name = inner->script_name_at != 0;
    if (CTS_UNLIKELY(inner->version_digits != 0)) {
        request->version_major = inner->version_digits >> 4;
        request->version_minor = inner->version_digits & 15;
    }
    request->head_bytes = inner->position;
    if (CTS_UNLIKELY(inner->form != CTS_TARGET_ORIGIN || inner->fragment_start != 0)) {
        struct cts_bytes host_field = request->host;
        fill_target(parser, base, request);
        if (request->authority.count == 0)
            request->host = host_field;
    }
}

/* -- the door -------------------------------------------------------------------------------- */

/* The states that the usual request never sees. */
static __attribute__((noinline)) int read_rare(struct cts_head_parser *parser, struct scan *scan)
{
    switch ((enum state)parser->inner.state) {
    case STATE_START_LF:
        return read_start_lf(parser, scan);
    case STATE_ASTERISK:
        return read_asterisk(parser, scan);
    case STATE_SCHEME:
        return read_scheme(parser, scan);
    case STATE_SLASH_1:
    case STATE_SLASH_2:
        return read_slash(parser, scan);
    case STATE_AUTHORITY:
        return read_authority(parser, scan);
    case STATE_QUERY:
        return read_query(parser, scan);
    case STATE_FRAGMENT:
        return read_fragment(parser, scan);
    case STATE_NAME_SPACE:
        return read_name_space(parser, scan);
    case STATE_FOLD:
        return read_fold(parser, scan);
    case STATE_FOLD_LF:
        return read_fold_lf(parser, scan);
    case STATE_REFUSED:
        return parser->status;
    default:
        assert(false && "a whole head is parsed again without a reset");
        abort();
    }
}

/* One case of read_on: read what this state stands for; then the states fall through in the order
 * of the usual request, so that a whole head in one buffer hardly ever comes back to the switch. */
#define READ(read, usual_next)                                                                     \
    r = read(parser, &scan);                                                                       \
    if (CTS_UNLIKELY(r != GO_ON))                                                                  \
        break;                                                                                     \
    if (parser->inner.state != (usual_next))                                                       \
        continue;

/* From the state we are in to the end of the head, of the bytes, or of our patience. */
static int read_on(struct cts_head_parser *parser, const struct scan *given)
{
    struct scan scan = *given;
    int r = GO_ON;

    while (r == GO_ON) {
        switch ((enum state)parser->inner.state) {
        case STATE_START:
            READ(read_start, STATE_METHOD_FIRST)
            /* fall through */
        case STATE_METHOD_FIRST:
            parser->inner.line_start = offset(&scan);
            scan.stop = line_stop(&scan, scan.at, parser->line_bytes_max);
            parser->inner.state = STATE_METHOD;
            /* fall through */
        case STATE_METHOD:
            READ(read_method, STATE_TARGET_FIRST)
            /* fall through */
        case STATE_TARGET_FIRST:
            READ(read_target_first, STATE_PATH)
            /* fall through */
        case STATE_PATH:
            READ(read_path, STATE_VERSION)
            /* fall through */
        case STATE_VERSION:
            READ(read_version, STATE_LINE_CR)
            /* fall through */
        case STATE_LINE_CR:
            READ(read_line_cr, STATE_LINE_LF)
            /* fall through */
        case STATE_LINE_LF:
            READ(read_line_lf, STATE_FIELD_FIRST)
            /* fall through */
        case STATE_FIELD_FIRST:
        field_first:
            READ(read_field_first, STATE_NAME)
            /* fall through */
        case STATE_NAME:
            READ(read_name, STATE_VALUE_FIRST)
            /* fall through */
        case STATE_VALUE_FIRST:
            READ(read_value_first, STATE_VALUE)
            /* fall through */
        case STATE_VALUE:
            READ(read_value, STATE_FIELD_LF)
            /* fall through */
        case STATE_FIELD_LF:
            READ(read_field_lf, STATE_FIELD_FIRST)
            goto field_first;
        case STATE_END_LF:
            READ(read_end_lf, STATE_DONE)
            parser->inner.position = offset(&scan);
            return GO_ON;
        default:
            r = read_rare(parser, &scan);
            break;
        }
    }
    parser->inner.position = offset(&scan);
    return r;
}

/* As far as the lines are usual ones. */
static inline int read_usual(struct cts_head_parser *parser, const struct scan *scan)
{
    struct cts_head_state *inner = &parser->inner;
    const char *code = NULL;
    enum usual how;
    int r = usual_read(parser, scan->base, scan->end, &how, &code);

    if (CTS_UNLIKELY(r != 0))
        return refuse(parser, r, code);
    if (how == USUAL_HEAD)
        inner->state = STATE_DONE;
    else if (how == USUAL_LINES)
        inner->state = STATE_FIELD_FIRST;
    return GO_ON;
}

int cts_http_parse_head(struct cts_head_parser *parser, struct cts_bytes bytes,
                        struct cts_request *ret_request)
{
    struct cts_head_state *inner = &parser->inner;
    size_t count = bytes.count > parser->head_bytes_max ? parser->head_bytes_max : bytes.count;
    struct scan scan = {(const unsigned char *)bytes.at, NULL, NULL, NULL};
    int r;

    assert(inner->position <= count);
    scan.end = scan.base + count;
    if (inner->state == STATE_START) {
        r = read_usual(parser, &scan);
        if (CTS_LIKELY(inner->state == STATE_DONE)) {
            fill_request(parser, bytes.at, ret_request);
            return 0;
        }
        if (r != GO_ON)
            return r;
    }
    scan.at = scan.base + inner->position;
    scan.stop = line_stop(&scan, scan.base + inner->line_start,
                          inner->state >= STATE_FIELD_FIRST ? parser->field_bytes_max - 2
                                                            : parser->line_bytes_max);
    r = read_on(parser, &scan);
    if (CTS_LIKELY(r == GO_ON)) {
        place_fields(parser, bytes.at);
        fill_request(parser, bytes.at, ret_request);
        return 0;
    }
    if (r == CTS_NEED_MORE && bytes.count > count)
        return refuse(parser, 431, "head_too_long");
    return r;
}

static uint32_t or_else(uint32_t limit, uint32_t otherwise)
{
    return limit == 0 || limit > otherwise ? otherwise : limit;
}

void cts_head_parser_init(struct cts_head_parser *parser, const struct cts_http_rules *rules)
{
    uint64_t head_max;

    *parser = (struct cts_head_parser){.rules = rules};
    parser->line_bytes_max = or_else(rules->line_bytes_max, LIMIT_MAX);
    parser->fields_count_max = or_else(rules->fields_count_max, FIELDS_MAX);
    parser->field_bytes_max = rules->field_bytes_max == 0 ? LIMIT_MAX : rules->field_bytes_max;
    if (parser->field_bytes_max < 2)
        parser->field_bytes_max = 2;
    head_max = parser->line_bytes_max +
               (uint64_t)parser->fields_count_max * parser->field_bytes_max + 6;
    if (head_max > CTS_HTTP_HEAD_BYTES_MAX)
        head_max = CTS_HTTP_HEAD_BYTES_MAX;
    parser->head_bytes_max = rules->head_bytes_max == 0 ? (uint32_t)head_max
                                                        : rules->head_bytes_max;
    cts_head_parser_reset(parser);
}

void cts_head_parser_reset(struct cts_head_parser *parser)
{
    parser->inner = (struct cts_head_state){.content_length = -1};
    parser->status = 0;
    parser->code = NULL;
}

void cts_head_parser_done(struct cts_head_parser *parser)
{
    free(parser->table);
    parser->table = NULL;
    parser->table_capacity = 0;
}

const struct cts_header *cts_request_header(const struct cts_request *request, const char *name)
{
    size_t count = strlen(name);

    for (uint32_t i = 0; i < request->headers_count; i++) {
        const struct cts_header *header = &request->headers[i];
        if (header->name.count == count && strncasecmp(header->name.at, name, count) == 0)
            return header;
    }
    return NULL;
}
