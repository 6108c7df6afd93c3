/* head.c - the head of one request: request line, fields, empty line.
 *
 * Usual lines go the quick way of usual.c; from the first that is not, the states of scan.h are
 * followed byte by byte (request_line.c, field_lines.c). `position` says how far we have looked.
 * Limits are bytes too: the first one beyond a limit is what is refused.
 *
 * What was found is kept as offsets, since the caller's buffer may move between two calls, and
 * becomes views when the head is whole. Sources: RFC 9112 2 to 5, RFC 9110 5. */
#include "classes.h"
#include "fields.h"
#include "scan.h"
#include "usual.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

#define EMPTY ((struct cts_bytes){"", 0})
#define LIMIT_MAX 8190u         /* gunicorn's, for a limit of 0 */
#define FIELDS_MAX 32768u

int head_refuse(struct cts_head_parser *parser, int status, const char *code)
{
    parser->inner.state = STATE_REFUSED;
    parser->status = status;
    parser->code = code;
    return status;
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

/* From the state we are in to the end of the head, of the bytes, or of our patience. */
static int read_on(struct cts_head_parser *parser, struct scan *scan)
{
    int r = GO_ON;

    if (parser->inner.state == STATE_REFUSED)
        return parser->status;
    assert(parser->inner.state != STATE_DONE && "a whole head is parsed again without a reset");
    if (parser->inner.state < STATE_FIELD_FIRST)
        r = request_line_read(parser, scan);
    if (r == GO_ON)
        r = field_lines_read(parser, scan);
    parser->inner.position = offset(scan);
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
        return head_refuse(parser, r, code);
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
        return head_refuse(parser, 431, "head_too_long");
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
