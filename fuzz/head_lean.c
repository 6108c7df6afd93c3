/* head_lean.c - request heads, whole and in two pieces: the same verdict and the same parts. */
#include "lean.h"

/* Both runs end on the same bytes, so equal views are equal pointers. */
static bool same(struct cts_bytes left, struct cts_bytes right)
{
    return left.count == right.count && (left.at == right.at || left.count == 0);
}

static void check_same(const struct cts_request *left, const struct cts_request *right)
{
    FUZZ_CHECK(same(left->method, right->method) && same(left->target, right->target));
    FUZZ_CHECK(same(left->path, right->path) && same(left->query, right->query));
    FUZZ_CHECK(same(left->fragment, right->fragment) && same(left->host, right->host));
    FUZZ_CHECK(same(left->authority, right->authority) && left->form == right->form);
    FUZZ_CHECK(left->has_query == right->has_query);
    FUZZ_CHECK(left->has_host_field == right->has_host_field);
    FUZZ_CHECK(left->version_minor == right->version_minor);
    FUZZ_CHECK(left->content_length == right->content_length);
    FUZZ_CHECK(left->is_chunked == right->is_chunked && left->keep_alive == right->keep_alive);
    FUZZ_CHECK(left->expects_continue == right->expects_continue);
    FUZZ_CHECK(same(left->traceparent, right->traceparent));
    FUZZ_CHECK(same(left->tracestate, right->tracestate));
    FUZZ_CHECK(same(left->user_agent, right->user_agent));
    FUZZ_CHECK(same(left->content_type, right->content_type));
    FUZZ_CHECK(left->headers_count == right->headers_count);
    for (uint32_t i = 0; i < left->headers_count; i++) {
        FUZZ_CHECK(same(left->headers[i].name, right->headers[i].name));
        FUZZ_CHECK(same(left->headers[i].value, right->headers[i].value));
    }
}

/* What decides where the request ends, and that no view leaves the head. */
static void check_promises(const struct cts_request *request, const struct cts_http_rules *rules,
                           const char *head)
{
    const char *end = head + request->head_bytes;

    FUZZ_CHECK(request->head_bytes >= 4 && end[-4] == '\r' && end[-3] == '\n');
    FUZZ_CHECK(end[-2] == '\r' && end[-1] == '\n');
    FUZZ_CHECK(!request->is_chunked || request->content_length == -1);
    FUZZ_CHECK(!request->is_chunked || request->version_minor >= 1);
    FUZZ_CHECK(request->content_length >= -1);
    FUZZ_CHECK(request->headers_count <= rules->fields_count_max);
    FUZZ_CHECK(rules->gunicorn_policy || request->has_host_field || request->version_minor == 0);
    FUZZ_CHECK(request->target.at > head && request->target.at + request->target.count < end);
    for (uint32_t i = 0; i < request->headers_count; i++) {
        struct cts_bytes name = request->headers[i].name, value = request->headers[i].value;
        FUZZ_CHECK(name.count != 0 && name.at > head && name.at + name.count < value.at);
        FUZZ_CHECK(value.at + value.count < end);
        FUZZ_CHECK(cts_http_name_ok(name) && cts_http_value_ok(value));
    }
}

/* For each set of rules two parsers, whose tables stay from run to run. */
static struct lean_head {
    struct cts_http_rules rules;
    struct cts_head_parser whole, split;
    bool is_ready;
} heads[LEAN_RULES_COUNT];

/* Let the table grow to its full size at once: from then on a run depends on its input alone, and
 * the file of a failure fails again. */
static void fill_table(struct cts_head_parser *parser)
{
    static const char field[] = "A:\r\n";
    struct cts_buffer bytes = CTS_BUFFER_EMPTY;
    struct cts_request request;

    FUZZ_CHECK(cts_buffer_printf(&bytes, "GET / HTTP/1.1\r\nHost:a\r\n") == 0);
    for (uint32_t i = 1; i < parser->fields_count_max; i++)
        FUZZ_CHECK(cts_buffer_put(&bytes, field, sizeof(field) - 1) == 0);
    FUZZ_CHECK(cts_buffer_put(&bytes, "\r\n", 2) == 0);
    FUZZ_CHECK(cts_http_parse_head(parser, cts_buffer_view(&bytes), &request) == 0);
    FUZZ_CHECK(request.headers_count == parser->fields_count_max);
    cts_buffer_free(&bytes);
}

static struct lean_head *head_for(uint8_t choice)
{
    struct lean_head *head = &heads[choice % LEAN_RULES_COUNT];

    if (!head->is_ready) {
        head->rules = fuzz_rules(choice);
        cts_head_parser_init(&head->whole, &head->rules);
        cts_head_parser_init(&head->split, &head->rules);
        fill_table(&head->whole);
        fill_table(&head->split);
        head->is_ready = true;
    }
    cts_head_parser_reset(&head->whole);
    cts_head_parser_reset(&head->split);
    return head;
}

static void try(const struct lean_input *input)
{
    struct lean_head *head = head_for(input->choice);
    const struct cts_bytes all = {input->bytes, input->count};
    struct cts_request first, second;
    size_t early = 0;
    int r, s;

    s = cts_http_parse_head(&head->split, lean_first_piece(input), &second);
    if (s == 0) {   /* the head ends before the cut: once more, for views that can be compared */
        early = second.head_bytes;
        cts_head_parser_reset(&head->split);
    }
    if (s == 0 || s == CTS_NEED_MORE)
        s = cts_http_parse_head(&head->split, all, &second);
    r = cts_http_parse_head(&head->whole, all, &first);
    FUZZ_CHECK(r == s && (early == 0 || r == 0));
    if (r == 0) {
        FUZZ_CHECK(early == 0 ? first.head_bytes > input->cut : first.head_bytes == early);
        FUZZ_CHECK(first.head_bytes <= all.count && first.head_bytes == second.head_bytes);
        check_same(&first, &second);
        check_promises(&first, &head->rules, all.at);
    } else if (r != CTS_NEED_MORE) {
        FUZZ_CHECK(r >= 400 && r < 600 && r == head->whole.status);
        FUZZ_CHECK(lean_same_code(head->whole.code, head->split.code));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    return lean_each(data, count, try);
}
