/* same.h - two requests must be equal in all that was understood. */
#ifndef CTSERVE_FUZZ_SAME_H
#define CTSERVE_FUZZ_SAME_H

#include "fuzz.h"

static inline bool same(struct cts_bytes left, struct cts_bytes right)
{
    return cts_bytes_equal(left, right);
}

static inline void check_same(const struct cts_request *left, const struct cts_request *right)
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

#endif
