/* parser.c - one request head: whole and split must agree, and an accepted head that is written
 * again from its parts must be accepted again with the same parts. */
#include "fuzz.h"
#include "same.h"

/* What an accepted head promises to everybody who reads the struct. */
static void check_promises(const struct cts_request *request, const struct cts_http_rules *rules)
{
    FUZZ_CHECK(request->version_major == 1 && request->version_minor >= 0 &&
               request->version_minor <= 9);
    FUZZ_CHECK(!request->is_chunked || request->content_length == -1);
    FUZZ_CHECK(!request->is_chunked || request->version_minor >= 1);
    FUZZ_CHECK(request->headers_count <= rules->fields_count_max);
    FUZZ_CHECK(request->target.count <= rules->line_bytes_max);
    FUZZ_CHECK(rules->gunicorn_policy || request->fragment.count == 0);
    FUZZ_CHECK(rules->gunicorn_policy || request->has_host_field || request->version_minor == 0);
    for (size_t i = 0; i < request->target.count; i++)
        FUZZ_CHECK((unsigned char)request->target.at[i] > 0x20 &&
                   (unsigned char)request->target.at[i] < 0x7F);
    for (uint32_t i = 0; i < request->headers_count; i++) {
        FUZZ_CHECK(cts_http_name_ok(request->headers[i].name));
        FUZZ_CHECK(cts_http_value_ok(request->headers[i].value));
    }
}

static size_t put(char *to, size_t at, struct cts_bytes bytes)
{
    if (bytes.count != 0)
        memcpy(to + at, bytes.at, bytes.count);
    return at + bytes.count;
}

static void check_again(const struct cts_request *request, const struct cts_http_rules *rules)
{
    char *again = malloc(request->head_bytes + 16);
    struct cts_head_parser parser;
    struct cts_request second;
    char version[16];
    size_t at = 0;

    FUZZ_CHECK(again != NULL);
    snprintf(version, sizeof(version), " HTTP/1.%d\r\n", request->version_minor);
    at = put(again, at, request->method);
    at = put(again, at, cts_bytes_of(" "));
    at = put(again, at, request->target);
    at = put(again, at, cts_bytes_of(version));
    for (uint32_t i = 0; i < request->headers_count; i++) {
        at = put(again, at, request->headers[i].name);
        at = put(again, at, cts_bytes_of(":"));
        at = put(again, at, request->headers[i].value);
        at = put(again, at, cts_bytes_of("\r\n"));
    }
    at = put(again, at, cts_bytes_of("\r\n"));
    FUZZ_CHECK(at <= request->head_bytes);
    cts_head_parser_init(&parser, rules);
    FUZZ_CHECK(cts_http_parse_head(&parser, (struct cts_bytes){again, at}, &second) == 0);
    FUZZ_CHECK(second.head_bytes == at);
    check_same(request, &second);
    cts_head_parser_done(&parser);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct cts_head_parser whole, split;
    struct cts_request first, second, third;
    struct cts_http_rules rules;
    struct fuzz_splits splits;
    char *bytes, *piece = NULL;
    size_t given = 0;
    int r, s = CTS_NEED_MORE;

    if (count < FUZZ_PREFIX_BYTES || count > 20000)
        return 0;
    rules = fuzz_rules(data[0]);
    splits = fuzz_splits_of(data);
    splits.byte_by_byte = splits.byte_by_byte && count < 600;
    data += FUZZ_PREFIX_BYTES;
    count -= FUZZ_PREFIX_BYTES;

    cts_head_parser_init(&whole, &rules);
    cts_head_parser_init(&split, &rules);
    bytes = fuzz_copy(data, count);
    r = cts_http_parse_head(&whole, (struct cts_bytes){bytes, count}, &first);
    while (s == CTS_NEED_MORE && given < count) {
        size_t more = fuzz_next(&splits);
        given += more < count - given ? more : count - given;
        free(piece);
        piece = fuzz_copy(data, given);
        s = cts_http_parse_head(&split, (struct cts_bytes){piece, given}, &second);
    }
    FUZZ_CHECK(r == s);
    if (r == 0) {
        FUZZ_CHECK(first.head_bytes <= count && first.head_bytes == second.head_bytes);
        check_same(&first, &second);
        check_promises(&first, &rules);
        check_again(&first, &rules);
        /* With the table at hand the parser may take a shorter way. */
        cts_head_parser_reset(&whole);
        FUZZ_CHECK(cts_http_parse_head(&whole, (struct cts_bytes){bytes, count}, &third) == 0);
        FUZZ_CHECK(third.head_bytes == second.head_bytes);
        check_same(&second, &third);
    } else if (r != CTS_NEED_MORE) {
        FUZZ_CHECK(strcmp(whole.code, split.code) == 0);
        FUZZ_CHECK(cts_http_reason(r)[0] != '\0');
    }
    cts_head_parser_done(&whole);
    cts_head_parser_done(&split);
    free(bytes);
    free(piece);
    return 0;
}
