/* http_test.c - what the head parser finds, what it does without memory, and the replies. */
#include "drive.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* The linker sends realloc and malloc of the rooms under test here (--wrap). */
static int allocations_until_failure = -1;
void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes)
{
    return allocations_until_failure == 0 ? NULL : __real_malloc(bytes);
}
void *__real_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes)
{
    if (allocations_until_failure == 0)
        return NULL;
    if (allocations_until_failure > 0)
        allocations_until_failure--;
    return __real_realloc(at, bytes);
}

static void assert_bytes(struct cts_bytes bytes, const char *wanted)
{
    assert_int_equal(bytes.count, strlen(wanted));
    assert_memory_equal(bytes.at, wanted, bytes.count);
}

static int parse(struct cts_head_parser *parser, const struct cts_http_rules *rules,
                 const char *text, struct cts_request *ret_request)
{
    cts_head_parser_init(parser, rules);
    return cts_http_parse_head(parser, cts_bytes_of(text), ret_request);
}

static void the_parts_of_a_request_are_found(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;
    int r = parse(&parser, &drive_strict,
                  "\r\nPOST /a%20b?c=d HTTP/1.1\r\nHost: a:80\r\nUser-Agent: \t curl/8 \t\r\n"
                  "CONTENT-TYPE: text/plain\r\ntraceparent: 00-x\r\nTraceState: a=b\r\n"
                  "tracestate: c=d\r\nContent-Length: 007\r\nExpect: 100-continue\r\n\r\nbody",
                  &request);

    assert_int_equal(r, 0);
    assert_bytes(request.method, "POST");
    assert_bytes(request.target, "/a%20b?c=d");
    assert_bytes(request.path, "/a%20b");
    assert_bytes(request.query, "c=d");
    assert_true(request.has_query);
    assert_int_equal(request.form, CTS_TARGET_ORIGIN);
    assert_bytes(request.host, "a:80");
    assert_true(request.has_host_field);
    assert_bytes(request.user_agent, "curl/8");
    assert_bytes(request.content_type, "text/plain");
    assert_bytes(request.traceparent, "00-x");
    assert_bytes(request.tracestate, "a=b");
    assert_int_equal(request.content_length, 7);
    assert_true(request.expects_continue);
    assert_true(request.keep_alive);
    assert_false(request.is_chunked);
    assert_int_equal(request.headers_count, 8);
    assert_bytes(request.headers[2].name, "CONTENT-TYPE");
    assert_bytes(cts_request_header(&request, "content-length")->value, "007");
    assert_null(cts_request_header(&request, "content-lengt"));
    assert_int_equal(request.head_bytes, strlen("\r\nPOST /a%20b?c=d HTTP/1.1\r\nHost: a:80\r\n"
                                                "User-Agent: \t curl/8 \t\r\nCONTENT-TYPE: "
                                                "text/plain\r\ntraceparent: 00-x\r\nTraceState: "
                                                "a=b\r\ntracestate: c=d\r\nContent-Length: 007"
                                                "\r\nExpect: 100-continue\r\n\r\n"));
    cts_head_parser_done(&parser);
}

static void absent_fields_are_empty(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &drive_strict, "GET /? HTTP/1.0\r\n\r\n", &request), 0);
    assert_int_equal(request.headers_count, 0);
    assert_int_equal(request.content_length, -1);
    assert_bytes(request.host, "");
    assert_bytes(request.user_agent, "");
    assert_bytes(request.traceparent, "");
    assert_bytes(request.query, "");
    assert_true(request.has_query);
    assert_false(request.has_host_field);
    assert_false(request.keep_alive);
    cts_head_parser_done(&parser);
}

static void two_traceparent_fields_are_none(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &drive_strict,
                           "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 1\r\nTraceparent: 1\r\n\r\n",
                           &request), 0);
    assert_bytes(request.traceparent, "");
    cts_head_parser_done(&parser);
}

static void the_targets_authority_replaces_host(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &drive_strict,
                           "GET http://b:81?q HTTP/1.1\r\nHost: a\r\n\r\n", &request), 0);
    assert_int_equal(request.form, CTS_TARGET_ABSOLUTE);
    assert_bytes(request.host, "b:81");
    assert_bytes(request.authority, "b:81");
    assert_bytes(request.path, "/");
    assert_bytes(request.query, "q");
    assert_bytes(request.target, "http://b:81?q");
    cts_head_parser_done(&parser);
}

static void the_gunicorn_policy_finds_fragment_connect_and_user_info(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &drive_gunicorn, "GET /a?b#c?d HTTP/1.1\r\n\r\n", &request), 0);
    assert_bytes(request.path, "/a");
    assert_bytes(request.query, "b");
    assert_bytes(request.fragment, "c?d");
    cts_head_parser_done(&parser);
    assert_int_equal(parse(&parser, &drive_gunicorn, "CONNECT a.b:443 HTTP/1.1\r\n\r\n", &request),
                     0);
    assert_int_equal(request.form, CTS_TARGET_AUTHORITY);
    assert_bytes(request.authority, "a.b:443");
    assert_false(request.keep_alive);
    cts_head_parser_done(&parser);
    assert_int_equal(parse(&parser, &drive_gunicorn, "GET http://u:p@h/ HTTP/1.1\r\nHost: x\r\n\r\n",
                           &request), 0);
    assert_bytes(request.authority, "u:p@h");
    assert_bytes(request.host, "h");
    cts_head_parser_done(&parser);
}

static void without_memory_for_the_table_the_answer_is_503(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;
    char head[2000] = "GET / HTTP/1.1\r\nHost: a\r\n";

    allocations_until_failure = 0;
    assert_int_equal(parse(&parser, &drive_strict, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &request),
                     503);
    assert_string_equal(parser.code, "no_memory");
    assert_int_equal(parser.status, 503);
    cts_head_parser_done(&parser);
    /* The second time it fails when the table grows, and the next request is well again. */
    for (int i = 0; i < 40; i++)
        snprintf(head + strlen(head), sizeof(head) - strlen(head), "X%d: 1\r\n", i);
    strcat(head, "\r\n");
    allocations_until_failure = 1;
    assert_int_equal(parse(&parser, &drive_strict, head, &request), 503);
    allocations_until_failure = -1;
    cts_head_parser_reset(&parser);
    assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of(head), &request), 0);
    assert_int_equal(request.headers_count, 41);
    cts_head_parser_done(&parser);
}

static void a_refusal_stays_until_the_reset(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &drive_strict, "GET  /", &request), 400);
    assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of("GET  / HTTP/1.1\r\n\r\n"),
                                         &request), 400);
    assert_string_equal(parser.code, "bad_target");
    cts_head_parser_reset(&parser);
    assert_null(parser.code);
    assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of("GET / HTTP/1.0\r\n\r\n"),
                                         &request), 0);
    cts_head_parser_done(&parser);
}

static void a_whole_head_is_bounded(void **state)
{
    struct cts_http_rules rules = drive_strict;
    struct cts_head_parser parser;
    struct cts_request request;
    const size_t head_bytes = 100000;
    char *head = malloc(head_bytes);
    size_t at;

    assert_non_null(head);
    at = (size_t)snprintf(head, head_bytes, "GET / HTTP/1.1\r\nHost: a\r\n");
    while (at < 66000)
        at += (size_t)snprintf(head + at, head_bytes - at, "X: %01000d\r\n", 7);
    assert_int_equal(parse(&parser, &rules, head, &request), 431);
    assert_string_equal(parser.code, "head_too_long");
    cts_head_parser_done(&parser);
    rules.head_bytes_max = 99000;
    strcpy(head + at, "\r\n");
    assert_int_equal(parse(&parser, &rules, head, &request), 0);
    cts_head_parser_done(&parser);
    rules.head_bytes_max = 30;
    assert_int_equal(parse(&parser, &rules, "GET / HTTP/1.1\r\nHost: abcde\r\n\r\n", &request),
                     431);
    cts_head_parser_done(&parser);
    rules.head_bytes_max = 31;
    assert_int_equal(parse(&parser, &rules, "GET / HTTP/1.1\r\nHost: abcde\r\n\r\n", &request), 0);
    cts_head_parser_done(&parser);
    free(head);
}

static void every_byte_of_a_long_value_is_checked(void **state)
{
    struct cts_head_parser parser;
    struct cts_request request;
    char head[128];

    for (int place = 0; place < 40; place++) {
        for (int byte = 0; byte < 256; byte++) {
            bool is_fine = byte == '\t' || (byte >= 0x20 && byte != 0x7F);
            memset(head, 'v', sizeof(head));
            memcpy(head, "GET / HTTP/1.0\r\nX:", 18);
            head[18 + place] = (char)byte;
            memcpy(head + 60, "\r\n\r\n", 4);
            cts_head_parser_init(&parser, &drive_strict);
            assert_int_equal(
                cts_http_parse_head(&parser, (struct cts_bytes){head, 64}, &request),
                is_fine ? 0 : 400);
            cts_head_parser_done(&parser);
        }
    }
}

static void a_size_of_sixteen_digits_is_the_most(void **state)
{
    struct cts_chunked chunked;
    struct cts_bytes data;
    size_t used;

    cts_chunked_init(&chunked, &drive_strict);
    assert_int_equal(cts_chunked_decode(&chunked, cts_bytes_of("7fffffffffffffff\r\nab"), &used,
                                        &data), CTS_NEED_MORE);
    assert_bytes(data, "ab");
    assert_true(chunked.chunk_left == (uint64_t)INT64_MAX - 2);
    cts_chunked_init(&chunked, &drive_strict);
    assert_int_equal(cts_chunked_decode(&chunked, cts_bytes_of("8000000000000000"), &used, &data),
                     413);
    assert_string_equal(chunked.code, "huge_chunk");
}

static void bytes_behind_a_chunked_body_are_left(void **state)
{
    struct cts_bytes in = cts_bytes_of("1\r\nx\r\n0\r\n\r\nGET"), data;
    struct cts_chunked chunked;
    size_t used;

    cts_chunked_init(&chunked, &drive_strict);
    assert_int_equal(cts_chunked_decode(&chunked, in, &used, &data), CTS_NEED_MORE);
    assert_bytes(data, "x");
    assert_int_equal(used, 4);
    in = (struct cts_bytes){in.at + used, in.count - used};
    assert_int_equal(cts_chunked_decode(&chunked, in, &used, &data), 0);
    assert_int_equal(data.count, 0);
    assert_int_equal(used, 7);
}

/* Decode `wire` in pieces of `piece` bytes; the verdict. */
static int decode_trailers(const char *wire, size_t piece, const struct cts_http_rules *rules,
                           struct cts_buffer *trailers)
{
    struct cts_bytes in = cts_bytes_of(wire), data;
    struct cts_chunked chunked;
    int r = CTS_NEED_MORE;
    size_t used;

    cts_chunked_init(&chunked, rules);
    chunked.trailers = trailers;
    while (r == CTS_NEED_MORE && in.count > 0) {
        size_t count = piece < in.count ? piece : in.count;
        r = cts_chunked_decode(&chunked, (struct cts_bytes){in.at, count}, &used, &data);
        in = (struct cts_bytes){in.at + used, in.count - used};
    }
    return r;
}

static void assert_trailer(struct cts_bytes *section, const char *name, const char *value)
{
    struct cts_header field;

    assert_true(cts_trailer_next(section, &field));
    assert_bytes(field.name, name);
    assert_bytes(field.value, value);
}

static void trailers_are_kept_apart_whole_and_byte_by_byte(void **state)
{
    static const size_t pieces[] = {1, 2, 3, 1000};

    for (size_t i = 0; i < CTS_COUNT(pieces); i++) {
        struct cts_buffer trailers = CTS_BUFFER_EMPTY;
        struct cts_bytes section;
        struct cts_header none;
        assert_int_equal(decode_trailers("2\r\nab\r\n0\r\nX-Sum: \t a b\xe9 \t\r\nvary:*\r\n"
                                         "Empty:\r\nBlank: \t\r\nX-Sum:c:d\r\n\r\nGET / ",
                                         pieces[i], &drive_strict, &trailers), 0);
        section = cts_buffer_view(&trailers);
        assert_trailer(&section, "X-Sum", "a b\xe9");
        assert_trailer(&section, "vary", "*");
        assert_trailer(&section, "Empty", "");
        assert_trailer(&section, "Blank", "");
        assert_trailer(&section, "X-Sum", "c:d");
        assert_false(cts_trailer_next(&section, &none));
        cts_buffer_free(&trailers);
    }
}

static void a_body_without_trailers_takes_no_memory_for_them(void **state)
{
    struct cts_buffer trailers = CTS_BUFFER_EMPTY;
    struct cts_bytes section;
    struct cts_header none;

    assert_int_equal(decode_trailers("2\r\nab\r\n0\r\n\r\n", 1000, &drive_strict, &trailers), 0);
    assert_null(trailers.at);
    section = cts_buffer_view(&trailers);
    assert_false(cts_trailer_next(&section, &none));
}

static void a_trailer_with_an_underscore_obeys_header_map(void **state)
{
    static const char wire[] = "0\r\nA: 1\r\nX_Y: 2\r\n_: 3\r\nB: _\r\n\r\n";
    struct cts_http_rules rules = drive_strict;

    for (size_t piece = 1; piece < sizeof(wire); piece++) {
        struct cts_buffer trailers = CTS_BUFFER_EMPTY;
        struct cts_bytes section;
        struct cts_header none;
        rules.header_map = CTS_HEADER_MAP_DROP;
        assert_int_equal(decode_trailers(wire, piece, &rules, &trailers), 0);
        section = cts_buffer_view(&trailers);
        assert_trailer(&section, "A", "1");
        assert_trailer(&section, "B", "_");
        assert_false(cts_trailer_next(&section, &none));
        cts_buffer_free(&trailers);
        rules.header_map = CTS_HEADER_MAP_DANGEROUS;
        assert_int_equal(decode_trailers(wire, piece, &rules, &trailers), 0);
        section = cts_buffer_view(&trailers);
        assert_trailer(&section, "A", "1");
        assert_trailer(&section, "X_Y", "2");
        cts_buffer_free(&trailers);
        rules.header_map = CTS_HEADER_MAP_REFUSE;
        assert_int_equal(decode_trailers(wire, piece, &rules, &trailers), 400);
        cts_buffer_free(&trailers);
    }
}

/* A dropped one counts against the limit, as a dropped header field does. */
static void dropped_trailers_are_counted(void **state)
{
    struct cts_http_rules rules = drive_strict;
    struct cts_buffer trailers = CTS_BUFFER_EMPTY;

    rules.fields_count_max = 2;
    assert_int_equal(decode_trailers("0\r\nA_: 1\r\nB_: 2\r\n\r\n", 1, &rules, &trailers), 0);
    assert_int_equal(cts_buffer_count(&trailers), 0);
    assert_int_equal(
        decode_trailers("0\r\nA_: 1\r\nB_: 2\r\nC: 3\r\n\r\n", 1, &rules, &trailers), 431);
    cts_buffer_free(&trailers);
}

static void a_trailer_without_memory_is_a_503(void **state)
{
    struct cts_buffer trailers = CTS_BUFFER_EMPTY;
    int r;

    allocations_until_failure = 0;
    r = decode_trailers("0\r\nA: 1\r\n\r\n", 1000, &drive_strict, &trailers);
    allocations_until_failure = -1;
    assert_int_equal(r, 503);
    assert_null(trailers.at);
}

static void reasons_are_known_for_all_refusals(void **state)
{
    static const int statuses[] = {400, 405, 408, 413, 414, 417, 431, 500, 501, 503, 505};

    for (size_t i = 0; i < CTS_COUNT(statuses); i++)
        assert_string_not_equal(cts_http_reason(statuses[i]), "");
    assert_string_equal(cts_http_reason(501), "Not Implemented");
    assert_string_equal(cts_http_reason(200), "OK");
    assert_string_equal(cts_http_reason(299), "");
    assert_string_equal(cts_http_reason(-1), "");
    assert_string_equal(cts_http_reason(100000), "");
}

static void the_date_has_29_bytes(void **state)
{
    const char *date = cts_http_date();

    assert_int_equal(strlen(date), 29);
    assert_memory_equal(date + 25, " GMT", 4);
    assert_int_equal(date[3], ',');
}

static void names_and_values_of_the_application_are_checked(void **state)
{
    assert_true(cts_http_name_ok(cts_bytes_of("X-Good_1")));
    assert_false(cts_http_name_ok(cts_bytes_of("")));
    assert_false(cts_http_name_ok(cts_bytes_of("X Y")));
    assert_false(cts_http_name_ok(cts_bytes_of("X:")));
    assert_false(cts_http_name_ok(cts_bytes_of("X\xe9")));
    assert_true(cts_http_value_ok(cts_bytes_of("")));
    assert_true(cts_http_value_ok(cts_bytes_of("a\tb \xe9")));
    assert_false(cts_http_value_ok(cts_bytes_of("a\r\nSet-Cookie: b")));
    assert_false(cts_http_value_ok(cts_bytes_of("12345678\n")));
    assert_false(cts_http_value_ok((struct cts_bytes){"a\0b", 3}));
    assert_false(cts_http_value_ok(cts_bytes_of("a\x7f")));
}

static void status_lines_are_three_digits_and_a_reason(void **state)
{
    assert_int_equal(cts_http_status_line(cts_bytes_of("200 OK")), 200);
    assert_int_equal(cts_http_status_line(cts_bytes_of("404")), 404);
    assert_int_equal(cts_http_status_line(cts_bytes_of("299 ")), 299);
    assert_int_equal(cts_http_status_line(cts_bytes_of("")), -1);
    assert_int_equal(cts_http_status_line(cts_bytes_of("20")), -1);
    assert_int_equal(cts_http_status_line(cts_bytes_of("2000 OK")), -1);
    assert_int_equal(cts_http_status_line(cts_bytes_of("OK")), -1);
    assert_int_equal(cts_http_status_line(cts_bytes_of("099 No")), -1);
    assert_int_equal(cts_http_status_line(cts_bytes_of("200OK")), -1);
    assert_int_equal(cts_http_status_line(cts_bytes_of("200 OK\r\nX: y")), -1);
}

static void hop_by_hop_fields_are_known(void **state)
{
    assert_true(cts_http_is_hop_by_hop(cts_bytes_of("Connection")));
    assert_true(cts_http_is_hop_by_hop(cts_bytes_of("TRANSFER-ENCODING")));
    assert_true(cts_http_is_hop_by_hop(cts_bytes_of("te")));
    assert_true(cts_http_is_hop_by_hop(cts_bytes_of("Proxy-Connection")));
    assert_false(cts_http_is_hop_by_hop(cts_bytes_of("Content-Type")));
    assert_false(cts_http_is_hop_by_hop(cts_bytes_of("Proxy-Status")));
    assert_false(cts_http_is_hop_by_hop(cts_bytes_of("")));
}

static void a_refusal_is_one_whole_response(void **state)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    char *text, *body;

    assert_int_equal(cts_http_refusal(&out, 501, "<a>&\"\r\n\xe9"), 0);
    assert_int_equal(cts_buffer_put(&out, "", 1), 0);
    text = out.at + out.start;
    assert_memory_equal(text, "HTTP/1.1 501 Not Implemented\r\n", 30);
    assert_non_null(strstr(text, "\r\nConnection: close\r\n"));
    body = strstr(text, "\r\n\r\n") + 4;
    assert_int_equal(atoi(strstr(text, "Content-Length: ") + 16), strlen(body));
    assert_non_null(strstr(body, "&lt;a&gt;&amp;&quot;???"));
    cts_buffer_free(&out);
}

static void a_refusal_without_memory_leaves_nothing_behind(void **state)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;

    allocations_until_failure = 0;
    assert_int_equal(cts_http_refusal(&out, 400, NULL), -ENOMEM);
    allocations_until_failure = -1;
    assert_int_equal(cts_buffer_count(&out), 0);
    cts_buffer_free(&out);
}

static void percent_signs_are_decoded_where_two_digits_follow(void **state)
{
    static const char *const pairs[][2] = {
        {"/a", "/a"}, {"/%41%2f", "/A/"}, {"%zz", "%zz"}, {"%4", "%4"}, {"%", "%"}, {"", ""},
        {"%%41", "%A"}, {"%e9", "\xe9"}, {"a%20b%", "a b%"},
    };
    char to[64];

    for (size_t i = 0; i < CTS_COUNT(pairs); i++) {
        size_t count = cts_http_percent_decode(cts_bytes_of(pairs[i][0]), to);
        assert_bytes((struct cts_bytes){to, count}, pairs[i][1]);
    }
    /* In place, and a NUL is a byte like others. */
    memcpy(to, "a%00b", 5);
    assert_int_equal(cts_http_percent_decode((struct cts_bytes){to, 5}, to), 3);
    assert_memory_equal(to, "a\0b", 3);
}

/* The quick way and the careful one: a head in one piece, and byte by byte. */
static void assert_same_both_ways(const struct cts_http_rules *rules, const char *text)
{
    struct cts_head_parser whole, bytes;
    struct cts_request left = {0}, right = {0};
    size_t count = strlen(text);
    char *copy = strdup(text);
    int first = -1, second = -1;

    cts_head_parser_init(&whole, rules);
    cts_head_parser_init(&bytes, rules);
    /* Twice: without a table the quick way ends at the first field. */
    for (int i = 0; i < 2; i++) {
        cts_head_parser_reset(&whole);
        cts_head_parser_reset(&bytes);
        first = cts_http_parse_head(&whole, (struct cts_bytes){copy, count}, &left);
        second = CTS_NEED_MORE;
        for (size_t at = 1; at <= count && second == CTS_NEED_MORE; at++)
            second = cts_http_parse_head(&bytes, (struct cts_bytes){copy, at}, &right);
        assert_int_equal(first, second);
        assert_string_equal(whole.code == NULL ? "" : whole.code,
                            bytes.code == NULL ? "" : bytes.code);
    }
    if (first == 0) {
        struct cts_header *left_table = left.headers, *right_table = right.headers;
        assert_int_equal(left.headers_count, right.headers_count);
        assert_memory_equal(left_table, right_table, left.headers_count * sizeof(*left_table));
        left.headers = right.headers = NULL;
        assert_memory_equal(&left, &right, sizeof(left));
    }
    cts_head_parser_done(&whole);
    cts_head_parser_done(&bytes);
    free(copy);
}

static void the_quick_way_finds_what_the_careful_one_finds(void **state)
{
    static const char usual[] =
        "GET /a/b?c=d?e HTTP/1.1\r\nHost: www.example.org:80\r\nX-Y:  z \t\r\nEmpty:\r\n"
        "Connection: close, x\r\nContent-Length: 12\r\nUser-Agent: a\xff\tb\r\n\r\n";
    char mutant[sizeof(usual)];

    assert_same_both_ways(&drive_strict, usual);
    assert_same_both_ways(&drive_gunicorn, usual);
    /* Every byte once replaced by each of these. */
    for (size_t at = 0; at < sizeof(usual) - 1; at++) {
        static const char others[] = "\r\n\t :/?#_@[A,9\x7f\x80\x01";
        for (size_t i = 0; i < sizeof(others) - 1; i++) {
            memcpy(mutant, usual, sizeof(usual));
            mutant[at] = others[i];
            assert_same_both_ways(&drive_strict, mutant);
        }
    }
}

static void the_quick_way_keeps_the_limits_to_the_byte(void **state)
{
    static const char text[] = "GET /123456 HTTP/1.1\r\nHost: a\r\nX-Long: 0123456789\r\n\r\n";

    for (uint32_t limit = 2; limit < 40; limit++) {
        struct cts_http_rules rules = {.line_bytes_max = limit};
        assert_same_both_ways(&rules, text);
        rules = (struct cts_http_rules){.field_bytes_max = limit};
        assert_same_both_ways(&rules, text);
        rules = (struct cts_http_rules){.fields_count_max = limit / 10 + 1};
        assert_same_both_ways(&rules, text);
        rules = (struct cts_http_rules){.head_bytes_max = limit * 2};
        assert_same_both_ways(&rules, text);
    }
}

static void a_folded_value_is_drawn_together_and_reads_the_same_again(void **state)
{
    const struct cts_http_rules rules = {.permit_obsolete_folding = true};
    char text[] = "GET / HTTP/1.1\r\nHost: a\r\nX: one \r\n  two\r\n \t\r\n\tthree \r\n"
                  "Y:\r\n z\r\n\r\n";
    struct cts_head_parser parser;
    struct cts_request request;

    for (int i = 0; i < 2; i++) {
        cts_head_parser_init(&parser, &rules);
        assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of(text), &request), 0);
        assert_int_equal(request.headers_count, 3);
        assert_bytes(request.headers[1].value, "one two three");
        assert_bytes(request.headers[2].value, "z");
        cts_head_parser_done(&parser);
    }
}

static void an_underscore_passes_only_for_a_trusted_peer(void **state)
{
    static const char *const names[] = {"SCRIPT_NAME", "PATH_INFO"};
    struct cts_http_rules rules = {.forwarder_headers = names, .forwarder_headers_count = 2};
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nScript_Name: /x\r\nX_Y: 1\r\n\r\n";
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &rules, text, &request), 0);
    assert_int_equal(request.headers_count, 1);
    assert_false(request.has_script_name);
    parser.is_trusted = true;
    cts_head_parser_reset(&parser);
    assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of(text), &request), 0);
    assert_int_equal(request.headers_count, 2);
    assert_bytes(request.script_name, "/x");
    rules.header_map = CTS_HEADER_MAP_REFUSE;
    cts_head_parser_reset(&parser);
    assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of(text), &request), 400);
    assert_string_equal(parser.code, "underscore");
    rules.header_map = CTS_HEADER_MAP_DANGEROUS;
    cts_head_parser_reset(&parser);
    assert_int_equal(cts_http_parse_head(&parser, cts_bytes_of(text), &request), 0);
    assert_int_equal(request.headers_count, 3);
    cts_head_parser_done(&parser);
}

static void a_dropped_field_counts_against_the_limit(void **state)
{
    const struct cts_http_rules rules = {.fields_count_max = 2};
    struct cts_head_parser parser;
    struct cts_request request;

    assert_int_equal(parse(&parser, &rules, "GET / HTTP/1.1\r\nHost: a\r\nA_B: 1\r\nC: d\r\n\r\n",
                           &request), 431);
    cts_head_parser_done(&parser);
}

static int read_proxy(const char *bytes, size_t count, struct cts_proxy *proxy, size_t *used)
{
    const char *code = NULL;
    int r = CTS_NEED_MORE;

    /* The verdict is the same when the bytes come one by one. */
    for (size_t at = 0; at <= count && r == CTS_NEED_MORE; at++)
        r = cts_http_proxy_read((struct cts_bytes){bytes, at}, CTS_PROXY_AUTO, proxy, used, &code);
    if (r != 400)
        return r;
    assert_non_null(code);
    return cts_http_proxy_read((struct cts_bytes){bytes, count}, CTS_PROXY_AUTO, proxy, used, &code);
}

static void a_proxy_says_who_the_client_is(void **state)
{
    static const char v1[] = "PROXY TCP6 2001:db8::1 ::1 65535 0\r\nGET";
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0d\1\2\3\4\5\6\7\x08\0\x50\1\xbb?GET";
    struct cts_proxy proxy;
    size_t used;

    assert_int_equal(read_proxy(v1, sizeof(v1) - 1, &proxy, &used), 0);
    assert_int_equal(used, sizeof(v1) - 4);
    assert_string_equal(proxy.protocol, "TCP6");
    assert_string_equal(proxy.client_address, "2001:db8::1");
    assert_int_equal(proxy.client_port, 65535);
    assert_int_equal(read_proxy(v2, sizeof(v2) - 1, &proxy, &used), 0);
    assert_int_equal(used, sizeof(v2) - 4);
    assert_string_equal(proxy.client_address, "1.2.3.4");
    assert_string_equal(proxy.proxy_address, "5.6.7.8");
    assert_int_equal(proxy.proxy_port, 443);
    assert_int_equal(read_proxy("GET /", 5, &proxy, &used), 0);
    assert_int_equal(used, 0);
}

static void what_a_proxy_must_not_say_is_refused(void **state)
{
    static const struct cts_bytes bad[] = {
        {"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", 32}, {"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 30},
        {"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", 31},  {"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 31},
        {"PROXY \x01", 7},                            {"\r\n\r\n\0\r\nQUIT\n\x11", 13},
        {"\r\n\r\n\0\r\nQUIT\n\x22", 13},           {"\r\n\r\n\0\r\nQUIT\n\x21\x31", 14},
        {"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", 16}, {"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0", 16},
    };
    struct cts_proxy proxy;
    size_t used;

    for (size_t i = 0; i < CTS_COUNT(bad); i++)
        assert_int_equal(read_proxy(bad[i].at, bad[i].count, &proxy, &used), 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_quick_way_finds_what_the_careful_one_finds),
        cmocka_unit_test(the_quick_way_keeps_the_limits_to_the_byte),
        cmocka_unit_test(a_folded_value_is_drawn_together_and_reads_the_same_again),
        cmocka_unit_test(an_underscore_passes_only_for_a_trusted_peer),
        cmocka_unit_test(a_dropped_field_counts_against_the_limit),
        cmocka_unit_test(a_proxy_says_who_the_client_is),
        cmocka_unit_test(what_a_proxy_must_not_say_is_refused),
        cmocka_unit_test(the_parts_of_a_request_are_found),
        cmocka_unit_test(absent_fields_are_empty),
        cmocka_unit_test(two_traceparent_fields_are_none),
        cmocka_unit_test(the_targets_authority_replaces_host),
        cmocka_unit_test(the_gunicorn_policy_finds_fragment_connect_and_user_info),
        cmocka_unit_test(without_memory_for_the_table_the_answer_is_503),
        cmocka_unit_test(a_refusal_stays_until_the_reset),
        cmocka_unit_test(a_whole_head_is_bounded),
        cmocka_unit_test(every_byte_of_a_long_value_is_checked),
        cmocka_unit_test(a_size_of_sixteen_digits_is_the_most),
        cmocka_unit_test(bytes_behind_a_chunked_body_are_left),
        cmocka_unit_test(trailers_are_kept_apart_whole_and_byte_by_byte),
        cmocka_unit_test(a_body_without_trailers_takes_no_memory_for_them),
        cmocka_unit_test(a_trailer_with_an_underscore_obeys_header_map),
        cmocka_unit_test(dropped_trailers_are_counted),
        cmocka_unit_test(a_trailer_without_memory_is_a_503),
        cmocka_unit_test(reasons_are_known_for_all_refusals),
        cmocka_unit_test(the_date_has_29_bytes),
        cmocka_unit_test(names_and_values_of_the_application_are_checked),
        cmocka_unit_test(status_lines_are_three_digits_and_a_reason),
        cmocka_unit_test(hop_by_hop_fields_are_known),
        cmocka_unit_test(a_refusal_is_one_whole_response),
        cmocka_unit_test(a_refusal_without_memory_leaves_nothing_behind),
        cmocka_unit_test(percent_signs_are_decoded_where_two_digits_follow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
