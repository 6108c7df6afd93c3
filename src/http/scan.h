/* scan.h - where a head is being read: the states and the bytes of one call. Used by head.c,
 * request_line.c and field_lines.c only.
 *
 * The parser stops anywhere and goes on there: a state says what the next byte is part of. Every
 * verdict belongs to one byte of the stream and comes when that byte is there, never later and
 * never from looking ahead; that is why a verdict cannot depend on how the bytes were split. */
#ifndef CTSERVE_HTTP_SCAN_H
#define CTSERVE_HTTP_SCAN_H

#include "ctserve/http.h"

#define GO_ON 0

/* In the order of the stream: what is before STATE_FIELD_FIRST belongs to the request line. */
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

/* Says no for good; returns `status`. */
int head_refuse(struct cts_head_parser *parser, int status, const char *code) __attribute__((cold));

/* The end of what a line of at most `line_max` bytes may have in this call. */
static inline const unsigned char *line_stop(const struct scan *scan, const unsigned char *start,
                                             uint32_t line_max)
{
    return (size_t)(scan->end - start) > line_max ? start + line_max : scan->end;
}

/* The bytes are the caller's, who lent them to be written to when a switch needs it. */
static inline unsigned char *writable(const struct scan *scan, uint32_t at)
{
    return (unsigned char *)(uintptr_t)(scan->base + at);
}

/* From the state we are in to the end of the request line. Returns GO_ON when it is whole,
 * CTS_NEED_MORE, or the status to answer with. */
int request_line_read(struct cts_head_parser *parser, struct scan *scan) CTS_MUST_USE;

/* From the state we are in, which is one of the field lines, to the end of the head. Returns as
 * request_line_read(). Places in the table are offsets. */
int field_lines_read(struct cts_head_parser *parser, struct scan *scan) CTS_MUST_USE;

#endif
