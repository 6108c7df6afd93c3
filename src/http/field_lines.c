/* field_lines.c - names and values of the fields, byte by byte, to the empty line. What a field
 * means is said in fields.c. Sources: RFC 9112 5, RFC 9110 5. */
#include "classes.h"
#include "fields.h"
#include "scan.h"

#include <stdlib.h>

#define TABLE_FIRST_COUNT 16u

static int field_ran_out(struct cts_head_parser *parser, const struct scan *scan)
{
    return scan->at < scan->end ? head_refuse(parser, 431, "field_too_long") : CTS_NEED_MORE;
}

static int grow_table(struct cts_head_parser *parser)
{
    uint32_t capacity = parser->table_capacity == 0 ? TABLE_FIRST_COUNT
                                                    : parser->table_capacity * 2;
    struct cts_header *table;

    if (capacity > parser->fields_count_max)
        capacity = parser->fields_count_max;
    table = realloc(parser->table, capacity * sizeof(*table));
    if (table == NULL)
        return head_refuse(parser, 503, "no_memory");
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
            return head_refuse(parser, 400, "underscore");
        inner->dropped_count++;
        return GO_ON;
    }
    r = fields_take(parser, name, value, inner->fields_count, &code);
    if (CTS_UNLIKELY(r != 0))
        return head_refuse(parser, r, code);
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
        return head_refuse(parser, 400, inner->fields_count + inner->dropped_count == 0
                                            ? "space_before_field" : "obs_fold");
    if (inner->fields_count + inner->dropped_count == parser->fields_count_max)
        return head_refuse(parser, 431, "too_many_fields");
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
        return head_refuse(parser, 400, *scan->at == '\r' || *scan->at == '\n'
                                            ? "no_colon" : "bad_field_name");
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
        return head_refuse(parser, 400, "bad_field_name");
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
            return head_refuse(parser, 431, "field_too_long");
        return head_refuse(parser, 400, *scan->at == '\n' ? "bad_line_end" : "bad_field_value");
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
        return head_refuse(parser, 400, "bad_field_value");
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
            return head_refuse(parser, 431, "field_too_long");
        return head_refuse(parser, 400, *scan->at == '\n' ? "bad_line_end" : "bad_field_value");
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
        return head_refuse(parser, 400, "bad_field_value");
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
        return head_refuse(parser, 400, "bad_line_end");
    scan->at++;
    r = fields_finish(parser, &code);
    if (r != 0)
        return head_refuse(parser, r, code);
    parser->inner.state = STATE_DONE;
    return GO_ON;
}

static int read_one(struct cts_head_parser *parser, struct scan *scan)
{
    switch ((enum state)parser->inner.state) {
    case STATE_FIELD_FIRST:
        return read_field_first(parser, scan);
    case STATE_NAME:
        return read_name(parser, scan);
    case STATE_NAME_SPACE:
        return read_name_space(parser, scan);
    case STATE_VALUE_FIRST:
        return read_value_first(parser, scan);
    case STATE_VALUE:
        return read_value(parser, scan);
    case STATE_FIELD_LF:
        return read_field_lf(parser, scan);
    case STATE_FOLD:
        return read_fold(parser, scan);
    case STATE_FOLD_LF:
        return read_fold_lf(parser, scan);
    default:
        return read_end_lf(parser, scan);
    }
}

int field_lines_read(struct cts_head_parser *parser, struct scan *scan)
{
    int r = GO_ON;

    while (r == GO_ON && parser->inner.state < STATE_DONE)
        r = read_one(parser, scan);
    return r;
}
