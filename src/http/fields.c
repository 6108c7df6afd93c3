/* fields.c - Content-Length, Transfer-Encoding, Host, Expect, Connection: the fields that decide
 * where a request ends and what is done with its connection, and those that other rooms need.
 *
 * Every doubt is a refusal: two servers in a row that read one of these differently are the way
 * in for request smuggling. Sources: RFC 9110 7.2, 7.6.1, 8.6, 10.1.1; RFC 9112 3.2, 6. */
#include "fields.h"
#include "classes.h"

static int refuse(int status, const char *code, const char **ret_code)
{
    *ret_code = code;
    return status;
}

static int take_content_length(struct cts_head_state *inner, struct cts_bytes value,
                               const char **ret_code)
{
    uint64_t length = 0;

    if ((inner->seen & FIELDS_CONTENT_LENGTH) != 0)
        return refuse(400, "duplicate_content_length", ret_code);
    inner->seen |= FIELDS_CONTENT_LENGTH;
    if ((inner->seen & FIELDS_TRANSFER_ENCODING) != 0)
        return refuse(400, "length_and_coding", ret_code);
    if (value.count == 0)
        return refuse(400, "bad_content_length", ret_code);
    for (size_t i = 0; i < value.count; i++) {
        unsigned char digit = (unsigned char)value.at[i];
        if (!http_is(digit, HTTP_DIGIT))
            return refuse(400, "bad_content_length", ret_code);
        if (length > ((uint64_t)INT64_MAX - (digit - '0')) / 10)
            length = UINT64_MAX;
        else if (length != UINT64_MAX)
            length = length * 10 + (digit - '0');
    }
    if (length > (uint64_t)INT64_MAX)
        return refuse(413, "huge_content_length", ret_code);
    inner->content_length = (int64_t)length;
    return 0;
}

/* The next element of a comma list without the whitespace around it; false at the end. An empty
 * list has one empty element. */
static bool list_next(struct cts_bytes *rest, bool *is_first, struct cts_bytes *ret_element)
{
    const char *at = rest->at, *end = rest->at + rest->count, *stop;

    if (!*is_first) {
        if (rest->count == 0)
            return false;
        at++;   /* the comma */
    }
    *is_first = false;
    stop = at == end ? NULL : memchr(at, ',', (size_t)(end - at));
    if (stop == NULL)
        stop = end;
    *rest = (struct cts_bytes){stop, (size_t)(end - stop)};
    while (at < stop && (*at == ' ' || *at == '\t'))
        at++;
    while (stop > at && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    *ret_element = (struct cts_bytes){at, (size_t)(stop - at)};
    return true;
}

static bool token_equal(struct cts_bytes token, const char *lower)
{
    size_t count = strlen(lower);

    return token.count == count && http_token_is(token.at, lower, count);
}

static int take_coding(struct cts_head_state *inner, struct cts_bytes coding, bool is_lax,
                       const char **ret_code)
{
    if (!cts_http_name_ok(coding))
        return refuse(400, "bad_transfer_encoding", ret_code);
    if ((inner->seen & FIELDS_CHUNKED) != 0)
        return refuse(400, "chunked_not_last", ret_code);
    if (token_equal(coding, "chunked")) {
        inner->seen |= FIELDS_CHUNKED;
        return 0;
    }
    if (token_equal(coding, "identity"))
        return is_lax ? 0 : refuse(400, "identity_coding", ret_code);
    if (is_lax && token_equal(coding, "gzip"))
        return 0;
    return refuse(501, "unknown_transfer_coding", ret_code);
}

static int take_transfer_encoding(struct cts_head_parser *parser, struct cts_bytes value,
                                  const char **ret_code)
{
    struct cts_head_state *inner = &parser->inner;
    bool is_lax = parser->rules->gunicorn_policy, is_first = true;
    struct cts_bytes rest = value, coding;
    int r;

    if ((inner->seen & FIELDS_TRANSFER_ENCODING) != 0 && !is_lax)
        return refuse(400, "duplicate_transfer_encoding", ret_code);
    inner->seen |= FIELDS_TRANSFER_ENCODING;
    if ((inner->seen & FIELDS_CONTENT_LENGTH) != 0)
        return refuse(400, "length_and_coding", ret_code);
    if (inner->version_minor == 0)
        return refuse(400, "coding_on_http_10", ret_code);
    while (list_next(&rest, &is_first, &coding)) {
        r = take_coding(inner, coding, is_lax, ret_code);
        if (r != 0)
            return r;
    }
    return 0;
}

/* "[...]" of RFC 3986; the address itself is not looked into. Returns its length or 0. */
static size_t ip_literal_bytes(struct cts_bytes text)
{
    size_t i = 1;

    while (i < text.count && text.at[i] != ']') {
        unsigned char byte = (unsigned char)text.at[i++];
        if (!http_is(byte, HTTP_HOST) && byte != ':')
            return 0;
    }
    return i < text.count && i > 1 ? i + 1 : 0;
}

bool fields_authority_ok(struct cts_bytes authority)
{
    const unsigned char *at = (const unsigned char *)authority.at, *end = at + authority.count;

    if (at < end && *at == '[') {
        size_t count = ip_literal_bytes(authority);
        if (count == 0)
            return false;
        at += count;
    } else {
        at = http_skip(at, end, HTTP_HOST);
        while (at < end && *at == '%') {
            if (end - at < 3 || !http_is(at[1], HTTP_HEX) || !http_is(at[2], HTTP_HEX))
                return false;
            at = http_skip(at + 3, end, HTTP_HOST);
        }
    }
    if (at == end)
        return true;
    return *at == ':' && http_skip(at + 1, end, HTTP_DIGIT) == end;
}

static int take_host(struct cts_head_parser *parser, struct cts_bytes value, uint32_t index,
                     const char **ret_code)
{
    if (parser->inner.host_at != 0)
        return refuse(400, "duplicate_host", ret_code);
    parser->inner.host_at = index + 1;
    if (!parser->rules->gunicorn_policy && !fields_authority_ok(value))
        return refuse(400, "bad_host", ret_code);
    return 0;
}

static void take_connection(struct cts_head_state *inner, struct cts_bytes value)
{
    struct cts_bytes rest = value, option;
    bool is_first = true;

    if (CTS_LIKELY(value.count == 10 && http_token_is(value.at, "keep-alive", 10))) {
        inner->seen |= FIELDS_KEEP_ALIVE;
        return;
    }
    while (list_next(&rest, &is_first, &option)) {
        if (token_equal(option, "close"))
            inner->seen |= FIELDS_CLOSE;
        else if (token_equal(option, "keep-alive"))
            inner->seen |= FIELDS_KEEP_ALIVE;
    }
}

/* The bit 0x20 maps the digits of "100-continue" and 0x10-0x1F onto each other; a field value
 * has no such control byte. */
static int take_expect(struct cts_head_state *inner, struct cts_bytes value, const char **ret_code)
{
    if (!token_equal(value, "100-continue"))
        return refuse(417, "unknown_expectation", ret_code);
    if (inner->version_minor >= 1)
        inner->seen |= FIELDS_EXPECTS_CONTINUE;
    return 0;
}

static void take_first(uint32_t *at, uint32_t index)
{
    if (*at == 0)
        *at = index + 1;
}

#define IS(text) http_token_is(name.at, text, sizeof(text) - 1)

int fields_take(struct cts_head_parser *parser, struct cts_bytes name, struct cts_bytes value,
                uint32_t index, const char **ret_code)
{
    struct cts_head_state *inner = &parser->inner;

    switch (name.count) {
    case 4:
        if (IS("host"))
            return take_host(parser, value, index, ret_code);
        return 0;
    case 6:
        if (IS("expect"))
            return take_expect(inner, value, ret_code);
        return 0;
    case 10:
        if (IS("connection"))
            take_connection(inner, value);
        else if (IS("user-agent"))
            take_first(&inner->user_agent_at, index);
        else if (IS("tracestate"))
            take_first(&inner->tracestate_at, index);
        return 0;
    case 11:
        /* Not IS(): the bit 0x20 maps '_' elsewhere. Only what header_map keeps comes here. */
        if (cts_bytes_equal_nocase(name, (struct cts_bytes){"script_name", 11})) {
            inner->script_name_at = index + 1;
        } else if (IS("traceparent")) {
            if (inner->traceparent_at != 0)
                inner->seen |= FIELDS_TRACEPARENT_TWICE;
            inner->traceparent_at = index + 1;
        }
        return 0;
    case 12:
        if (IS("content-type")) {
            if (inner->content_type_at != 0)
                return refuse(400, "duplicate_content_type", ret_code);
            inner->content_type_at = index + 1;
        }
        return 0;
    case 14:
        if (IS("content-length"))
            return take_content_length(inner, value, ret_code);
        return 0;
    case 17:
        if (IS("transfer-encoding"))
            return take_transfer_encoding(parser, value, ret_code);
        return 0;
    default:
        return 0;
    }
}

int fields_finish(const struct cts_head_parser *parser, const char **ret_code)
{
    const struct cts_head_state *inner = &parser->inner;

    if ((inner->seen & (FIELDS_TRANSFER_ENCODING | FIELDS_CHUNKED)) == FIELDS_TRANSFER_ENCODING)
        return refuse(400, "chunked_not_last", ret_code);
    if (inner->host_at == 0 && inner->version_minor >= 1 && !parser->rules->gunicorn_policy)
        return refuse(400, "missing_host", ret_code);
    return 0;
}
