/* request_line.c - method, target and version, byte by byte. Sources: RFC 9112 2.2, 2.3, 3;
 * RFC 9110 9.1. */
#include "classes.h"
#include "fields.h"
#include "scan.h"

#define METHOD_BYTES_MIN 3      /* as gunicorn */
#define METHOD_BYTES_MAX 20

/* The scan of the request line came to its stop: is that the limit, or are bytes missing? */
static int line_ran_out(struct cts_head_parser *parser, const struct scan *scan)
{
    return scan->at < scan->end ? head_refuse(parser, 414, "line_too_long") : CTS_NEED_MORE;
}

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
        return head_refuse(parser, 400, "bad_line_end");
    scan->at++;
    parser->inner.state = STATE_METHOD_FIRST;
    return GO_ON;
}

static void casefold(const struct scan *scan, uint32_t start, size_t count)
{
    unsigned char *at = writable(scan, start);

    for (size_t i = 0; i < count; i++)
        if (at[i] >= 'a' && at[i] <= 'z')
            at[i] = (unsigned char)(at[i] - 'a' + 'A');
}

static int read_method_first(struct cts_head_parser *parser, struct scan *scan)
{
    parser->inner.line_start = offset(scan);
    scan->stop = line_stop(scan, scan->at, parser->line_bytes_max);
    parser->inner.state = STATE_METHOD;
    return GO_ON;
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
        return head_refuse(parser, 414, "line_too_long");
    if (*scan->at != ' ' || count < (is_any ? 1 : METHOD_BYTES_MIN))
        return head_refuse(parser, 400, count == 0 && *scan->at == '\r'
                                            ? "empty_lines" : "bad_method");
    if (parser->rules->casefold_http_method)
        casefold(scan, inner->line_start, count);
    inner->is_connect = count == 7 && memcmp(start, "CONNECT", 7) == 0;
    if (inner->is_connect && !parser->rules->gunicorn_policy)
        return head_refuse(parser, 501, "connect");
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
        return head_refuse(parser, 400, "bad_target");
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
        return head_refuse(parser, 400, "bad_target");
    if (!method_is(parser, scan, "OPTIONS") &&
        (parser->rules->gunicorn_policy || !method_is(parser, scan, "PRI")))
        return head_refuse(parser, 400, "bad_target");
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
        return head_refuse(parser, 400, "bad_target");
    scan->at++;
    parser->inner.state = STATE_SLASH_1;
    return GO_ON;
}

static int read_slash(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->stop)
        return line_ran_out(parser, scan);
    if (*scan->at != '/')
        return head_refuse(parser, 400, "bad_target");
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
        return head_refuse(parser, 400, "bad_authority");
    if (*scan->at == ' ')
        return end_target(parser, scan);
    if (inner->form == CTS_TARGET_AUTHORITY)
        return head_refuse(parser, 400, "bad_target");
    inner->state = STATE_PATH;
    return GO_ON;
}

/* A '#' and nothing else, where the policy lets it pass. */
static int begin_fragment(struct cts_head_parser *parser, struct scan *scan)
{
    if (*scan->at != '#' || !parser->rules->gunicorn_policy)
        return head_refuse(parser, 400, "bad_target");
    scan->at++;
    parser->inner.fragment_start = offset(scan);
    parser->inner.state = STATE_FRAGMENT;
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
    return begin_fragment(parser, scan);
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
    return begin_fragment(parser, scan);
}

static int read_fragment(struct cts_head_parser *parser, struct scan *scan)
{
    const unsigned char *stop = scan->stop;

    while (scan->at < stop && *scan->at > ' ' && *scan->at < 0x7F)
        scan->at++;
    if (scan->at == stop)
        return line_ran_out(parser, scan);
    if (*scan->at != ' ')
        return head_refuse(parser, 400, "bad_target");
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
            return head_refuse(parser, 400, "bad_target");
        return GO_ON;
    }
    if (index == 5 && byte >= '2' && byte <= '9' && !parser->rules->gunicorn_policy)
        return head_refuse(parser, 505, "unknown_version");
    if (index < 7 && byte != (unsigned char)"HTTP/1."[index])
        return head_refuse(parser, 400, "bad_version");
    if (index == 5 && inner->form == CTS_TARGET_ASTERISK && !method_is(parser, scan, "OPTIONS"))
        return head_refuse(parser, 400, "bad_target");
    if (index == 7) {
        if (!http_is(byte, HTTP_DIGIT))
            return head_refuse(parser, 400, "bad_version");
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
        return head_refuse(parser, 400, *scan->at == '\n' ? "bad_line_end" : "bad_version");
    scan->at++;
    parser->inner.state = STATE_LINE_LF;
    return GO_ON;
}

static inline int read_line_lf(struct cts_head_parser *parser, struct scan *scan)
{
    if (scan->at == scan->end)
        return CTS_NEED_MORE;
    if (*scan->at != '\n')
        return head_refuse(parser, 400, "bad_line_end");
    scan->at++;
    parser->inner.state = STATE_FIELD_FIRST;
    return GO_ON;
}

static int read_one(struct cts_head_parser *parser, struct scan *scan)
{
    switch ((enum state)parser->inner.state) {
    case STATE_START:
        return read_start(parser, scan);
    case STATE_START_LF:
        return read_start_lf(parser, scan);
    case STATE_METHOD_FIRST:
        return read_method_first(parser, scan);
    case STATE_METHOD:
        return read_method(parser, scan);
    case STATE_TARGET_FIRST:
        return read_target_first(parser, scan);
    case STATE_ASTERISK:
        return read_asterisk(parser, scan);
    case STATE_SCHEME:
        return read_scheme(parser, scan);
    case STATE_SLASH_1:
    case STATE_SLASH_2:
        return read_slash(parser, scan);
    case STATE_AUTHORITY:
        return read_authority(parser, scan);
    case STATE_PATH:
        return read_path(parser, scan);
    case STATE_QUERY:
        return read_query(parser, scan);
    case STATE_FRAGMENT:
        return read_fragment(parser, scan);
    case STATE_VERSION:
        return read_version(parser, scan);
    case STATE_LINE_CR:
        return read_line_cr(parser, scan);
    default:
        return read_line_lf(parser, scan);
    }
}

int request_line_read(struct cts_head_parser *parser, struct scan *scan)
{
    int r = GO_ON;

    while (r == GO_ON && parser->inner.state < STATE_FIELD_FIRST)
        r = read_one(parser, scan);
    return r;
}
