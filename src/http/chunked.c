/* chunked.c - a body in chunks and its trailer section.
 *
 * Byte by byte in the framing, piece by piece in the data. Nothing is kept but the state and, for
 * who asks, the lines of the trailer section, so a verdict belongs to one byte, however the bytes
 * were split. What costs the reader more than it brings is refused: extensions beyond 256 bytes,
 * and framing that outweighs the data by far.
 * Sources: RFC 9112 7.1, RFC 9110 6.5.1. */
#include "ctserve/http.h"
#include "classes.h"

#include <assert.h>
#include <strings.h>

#define SIZE_DIGITS_MAX 16u
#define EXTENSION_BYTES_MAX 256u
#define TRAILERS_BYTES_MAX 65536u
#define OVERHEAD_BYTES_FREE (100u * 1024u)
#define LIMIT_MAX 8190u
#define FIELDS_MAX 32768u

enum state {
    STATE_SIZE_FIRST,
    STATE_SIZE,
    STATE_BWS,              /* whitespace where only ';' may follow */
    STATE_EXT_FIRST,        /* behind ';' */
    STATE_EXT_NAME,
    STATE_EXT_NAME_BWS,     /* ';', '=' or the end of the line must follow... */
    STATE_EXT_VALUE_FIRST,
    STATE_EXT_VALUE,
    STATE_EXT_QUOTED,
    STATE_EXT_ESCAPED,
    STATE_EXT_VALUE_END,
    STATE_SIZE_LF,
    STATE_DATA,
    STATE_DATA_CR,
    STATE_DATA_LF,
    STATE_TRAILER_FIRST,
    STATE_TRAILER_NAME,
    STATE_TRAILER_VALUE,
    STATE_TRAILER_LF,
    STATE_END_LF,
    STATE_DONE,
    STATE_REFUSED,
};

/* Fields that say how to read, route or trust a message; too late in a trailer. */
static const char *const forbidden_names[] = {
    "content-length", "host", "transfer-encoding", "trailer", "authorization", "te",
};
#define ALL_FORBIDDEN ((1u << CTS_COUNT(forbidden_names)) - 1u)

static int refuse(struct cts_chunked *chunked, int status, const char *code)
{
    chunked->state = STATE_REFUSED;
    chunked->line_bytes = (uint32_t)status;
    chunked->code = code;
    return status;
}

static bool is_blank(unsigned char byte)
{
    return byte == ' ' || byte == '\t';
}

static int take_digit(struct cts_chunked *chunked, unsigned char byte)
{
    if (++chunked->line_bytes > SIZE_DIGITS_MAX)
        return refuse(chunked, 400, "long_chunk_size");
    if (chunked->chunk_left > (uint64_t)INT64_MAX >> 4)
        return refuse(chunked, 413, "huge_chunk");
    chunked->chunk_left = chunked->chunk_left * 16 + (uint64_t)http_hex(byte);
    chunked->state = STATE_SIZE;
    return 0;
}

static int end_extension(struct cts_chunked *chunked, unsigned char byte)
{
    if (byte == ';')
        chunked->state = STATE_EXT_FIRST;
    else if (byte == '\r')
        chunked->state = STATE_SIZE_LF;
    else
        return refuse(chunked, 400, "bad_chunk_extension");
    return 0;
}

static int take_size_byte(struct cts_chunked *chunked, unsigned char byte)
{
    if (http_is(byte, HTTP_HEX))
        return take_digit(chunked, byte);
    if (chunked->state == STATE_SIZE_FIRST)
        return refuse(chunked, 400, "bad_chunk_size");
    chunked->line_bytes = 1;
    if (byte == '\r')
        chunked->state = STATE_SIZE_LF;
    else if (byte == ';')
        chunked->state = STATE_EXT_FIRST;
    else if (is_blank(byte))
        chunked->state = STATE_BWS;
    else
        return refuse(chunked, 400, "bad_chunk_size");
    return 0;
}

static int take_extension_byte(struct cts_chunked *chunked, unsigned char byte)
{
    if (++chunked->line_bytes > EXTENSION_BYTES_MAX && byte != '\r')
        return refuse(chunked, 400, "long_chunk_extension");
    switch ((enum state)chunked->state) {
    case STATE_BWS:
        if (byte == ';')
            chunked->state = STATE_EXT_FIRST;
        else if (!is_blank(byte))
            return refuse(chunked, 400, "bad_chunk_size");
        return 0;
    case STATE_EXT_FIRST:
        if (http_is(byte, HTTP_TOKEN))
            chunked->state = STATE_EXT_NAME;
        else if (!is_blank(byte))
            return refuse(chunked, 400, "bad_chunk_extension");
        return 0;
    case STATE_EXT_NAME:
        if (http_is(byte, HTTP_TOKEN))
            return 0;
        /* fall through */
    case STATE_EXT_NAME_BWS:
        if (byte == '=')
            chunked->state = STATE_EXT_VALUE_FIRST;
        else if (is_blank(byte))
            chunked->state = STATE_EXT_NAME_BWS;
        else if (byte == '\r' && chunked->state == STATE_EXT_NAME_BWS)
            return refuse(chunked, 400, "bad_chunk_extension");
        else
            return end_extension(chunked, byte);
        return 0;
    case STATE_EXT_VALUE_FIRST:
        if (byte == '"')
            chunked->state = STATE_EXT_QUOTED;
        else if (http_is(byte, HTTP_TOKEN))
            chunked->state = STATE_EXT_VALUE;
        else if (!is_blank(byte))
            return refuse(chunked, 400, "bad_chunk_extension");
        return 0;
    case STATE_EXT_QUOTED:
        if (byte == '"')
            chunked->state = STATE_EXT_VALUE_END;
        else if (byte == '\\')
            chunked->state = STATE_EXT_ESCAPED;
        else if (!http_is(byte, HTTP_VALUE))
            return refuse(chunked, 400, "bad_chunk_extension");
        return 0;
    case STATE_EXT_ESCAPED:
        chunked->state = STATE_EXT_QUOTED;
        return http_is(byte, HTTP_VALUE) ? 0 : refuse(chunked, 400, "bad_chunk_extension");
    case STATE_EXT_VALUE:
        if (http_is(byte, HTTP_TOKEN))
            return 0;
        /* fall through */
    default:
        break;
    }
    /* Behind a value; whitespace is fine only before another ';'. */
    if (!is_blank(byte))
        return end_extension(chunked, byte);
    chunked->state = STATE_BWS;
    return 0;
}

/* picohttpparser's rule: beyond 100 KiB of framing at least a quarter has to be data. */
static bool overhead_ok(const struct cts_chunked *chunked)
{
    return chunked->wire_bytes - chunked->data_bytes < OVERHEAD_BYTES_FREE ||
           chunked->data_bytes >= chunked->wire_bytes / 4;
}

static int take_size_lf(struct cts_chunked *chunked, unsigned char byte)
{
    if (byte != '\n')
        return refuse(chunked, 400, "bad_chunk_line_end");
    if (!overhead_ok(chunked))
        return refuse(chunked, 400, "chunk_overhead");
    if (chunked->chunk_left > (uint64_t)INT64_MAX - chunked->data_bytes)
        return refuse(chunked, 413, "huge_chunk");
    chunked->state = chunked->chunk_left == 0 ? STATE_TRAILER_FIRST : STATE_DATA;
    chunked->line_bytes = 0;
    return 0;
}

static int take_data_end(struct cts_chunked *chunked, unsigned char byte)
{
    if (byte != (chunked->state == STATE_DATA_CR ? '\r' : '\n'))
        return refuse(chunked, 400, "bad_chunk_end");
    chunked->state = chunked->state == STATE_DATA_CR ? STATE_DATA_LF : STATE_SIZE_FIRST;
    chunked->line_bytes = 0;
    return 0;
}

/* -- trailers -------------------------------------------------------------------------------- */

static uint32_t trailer_bytes_max(const struct cts_chunked *chunked)
{
    uint32_t limit = chunked->rules->field_bytes_max;

    return limit == 0 ? LIMIT_MAX : limit < 2 ? 2 : limit;
}

/* Of the forbidden names that matched so far, those that go on with `byte` at `index`. */
static uint32_t still_forbidden(uint32_t candidates, unsigned char byte, uint32_t index)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < CTS_COUNT(forbidden_names); i++) {
        const char *name = forbidden_names[i];
        if ((candidates & (1u << i)) != 0 && index < strlen(name) &&
            (unsigned char)name[index] == (byte | 0x20))
            left |= 1u << i;
    }
    return left;
}

static bool is_forbidden(const struct cts_chunked *chunked)
{
    for (uint32_t i = 0; i < CTS_COUNT(forbidden_names); i++) {
        if ((chunked->forbidden & (1u << i)) != 0 &&
            strlen(forbidden_names[i]) == chunked->line_bytes)
            return true;
    }
    return false;
}

/* The byte belongs to a trailer field: put it where the caller wants it. With the end of its line
 * a field is whole, and stays or goes. */
static int keep_trailer_byte(struct cts_chunked *chunked, unsigned char byte)
{
    struct cts_buffer *trailers = chunked->trailers;
    char kept = (char)byte;

    if (trailers == NULL)
        return 0;
    if (cts_buffer_put(trailers, &kept, 1) < 0)
        return refuse(chunked, 503, "no_memory");
    if (chunked->state != STATE_TRAILER_FIRST)
        return 0;
    if (chunked->drops_trailer)
        trailers->end = trailers->start + chunked->trailers_kept_bytes;
    chunked->trailers_kept_bytes = cts_buffer_count(trailers);
    return 0;
}

/* What header_map says about an underscore, of a peer whom nobody trusts. */
static int take_underscore(struct cts_chunked *chunked)
{
    if (chunked->rules->header_map == CTS_HEADER_MAP_REFUSE)
        return refuse(chunked, 400, "bad_trailer_name");
    chunked->drops_trailer = chunked->rules->header_map == CTS_HEADER_MAP_DROP;
    return 0;
}

static int take_trailer_name_byte(struct cts_chunked *chunked, unsigned char byte)
{
    if (byte == '_' && take_underscore(chunked) != 0)
        return 400;
    if (http_is(byte, HTTP_TOKEN)) {
        chunked->forbidden = still_forbidden(chunked->forbidden, byte, chunked->line_bytes);
        chunked->line_bytes++;
        return 0;
    }
    if (byte != ':' || chunked->line_bytes == 0)
        return refuse(chunked, 400, "bad_trailer_name");
    if (is_forbidden(chunked))
        return refuse(chunked, 400, "forbidden_trailer");
    chunked->line_bytes++;
    chunked->state = STATE_TRAILER_VALUE;
    return 0;
}

static int take_trailer_first(struct cts_chunked *chunked, unsigned char byte)
{
    uint32_t count_max = chunked->rules->fields_count_max;

    if (byte == '\r') {
        chunked->state = STATE_END_LF;
        return 0;
    }
    if (chunked->trailers_count == (count_max == 0 ? FIELDS_MAX : count_max))
        return refuse(chunked, 431, "too_many_trailers");
    chunked->trailers_count++;
    chunked->line_bytes = 0;
    chunked->forbidden = ALL_FORBIDDEN;
    chunked->drops_trailer = false;
    chunked->state = STATE_TRAILER_NAME;
    return take_trailer_name_byte(chunked, byte);
}

static int check_trailer_byte(struct cts_chunked *chunked, unsigned char byte)
{
    if (++chunked->trailer_bytes > TRAILERS_BYTES_MAX)
        return refuse(chunked, 431, "trailers_too_long");
    switch ((enum state)chunked->state) {
    case STATE_TRAILER_FIRST:
        return take_trailer_first(chunked, byte);
    case STATE_TRAILER_NAME:
        if (chunked->line_bytes >= trailer_bytes_max(chunked) - 2)
            return refuse(chunked, 431, "trailer_too_long");
        return take_trailer_name_byte(chunked, byte);
    case STATE_TRAILER_VALUE:
        if (byte == '\r')
            chunked->state = STATE_TRAILER_LF;
        else if (chunked->line_bytes >= trailer_bytes_max(chunked) - 2)
            return refuse(chunked, 431, "trailer_too_long");
        else if (!http_is(byte, HTTP_VALUE))
            return refuse(chunked, 400, "bad_trailer_value");
        chunked->line_bytes++;
        return 0;
    default:
        break;
    }
    if (byte != '\n')
        return refuse(chunked, 400, "bad_trailer_line_end");
    chunked->state = chunked->state == STATE_END_LF ? STATE_DONE : STATE_TRAILER_FIRST;
    return 0;
}

static int take_trailer_byte(struct cts_chunked *chunked, unsigned char byte)
{
    int r = check_trailer_byte(chunked, byte);

    if (r != 0 || chunked->state == STATE_END_LF || chunked->state == STATE_DONE)
        return r;
    return keep_trailer_byte(chunked, byte);
}

bool cts_trailer_next(struct cts_bytes *section, struct cts_header *ret_field)
{
    const char *at = section->at, *colon, *end;

    if (section->count == 0)
        return false;
    colon = memchr(at, ':', section->count);
    end = memchr(at, '\r', section->count);
    assert(colon != NULL && end != NULL && colon < end);
    ret_field->name = (struct cts_bytes){at, (size_t)(colon - at)};
    section->count -= (size_t)(end + 2 - at);
    section->at = end + 2;
    for (colon++; colon < end && is_blank((unsigned char)*colon); colon++)
        ;
    while (end > colon && is_blank((unsigned char)end[-1]))
        end--;
    ret_field->value = (struct cts_bytes){colon, (size_t)(end - colon)};
    return true;
}

static int take_byte(struct cts_chunked *chunked, unsigned char byte)
{
    chunked->wire_bytes++;
    switch ((enum state)chunked->state) {
    case STATE_SIZE_FIRST:
        chunked->chunk_left = 0;
        /* fall through */
    case STATE_SIZE:
        return take_size_byte(chunked, byte);
    case STATE_SIZE_LF:
        return take_size_lf(chunked, byte);
    case STATE_DATA_CR:
    case STATE_DATA_LF:
        return take_data_end(chunked, byte);
    case STATE_TRAILER_FIRST:
    case STATE_TRAILER_NAME:
    case STATE_TRAILER_VALUE:
    case STATE_TRAILER_LF:
    case STATE_END_LF:
        return take_trailer_byte(chunked, byte);
    default:
        return take_extension_byte(chunked, byte);
    }
}

/* Hand out what there is of the chunk. */
static void take_data(struct cts_chunked *chunked, struct cts_bytes rest,
                      struct cts_bytes *ret_data)
{
    size_t count = rest.count < chunked->chunk_left ? rest.count : (size_t)chunked->chunk_left;

    *ret_data = (struct cts_bytes){rest.at, count};
    chunked->chunk_left -= count;
    chunked->data_bytes += count;
    chunked->wire_bytes += count;
    if (chunked->chunk_left == 0)
        chunked->state = STATE_DATA_CR;
}

void cts_chunked_init(struct cts_chunked *chunked, const struct cts_http_rules *rules)
{
    *chunked = (struct cts_chunked){.state = STATE_SIZE_FIRST, .rules = rules};
}

int cts_chunked_decode(struct cts_chunked *chunked, struct cts_bytes in, size_t *ret_used,
                       struct cts_bytes *ret_data)
{
    size_t used = 0;
    int r = 0;

    *ret_data = (struct cts_bytes){in.at, 0};
    while (r == 0 && used < in.count && chunked->state < STATE_DONE) {
        if (chunked->state == STATE_DATA) {
            take_data(chunked, (struct cts_bytes){in.at + used, in.count - used}, ret_data);
            *ret_used = used + ret_data->count;
            return CTS_NEED_MORE;
        }
        r = take_byte(chunked, (unsigned char)in.at[used++]);
    }
    *ret_used = used;
    if (chunked->state == STATE_REFUSED)
        return (int)chunked->line_bytes;
    return chunked->state == STATE_DONE ? 0 : CTS_NEED_MORE;
}
