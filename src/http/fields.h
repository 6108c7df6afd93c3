/* fields.h - what the fields mean that decide where a request ends. Used inside the http room only. */
#ifndef CTSERVE_HTTP_FIELDS_H
#define CTSERVE_HTTP_FIELDS_H

#include "ctserve/http.h"

/* Bits of inner.seen. */
enum fields_seen {
    FIELDS_CONTENT_LENGTH = 1,
    FIELDS_TRANSFER_ENCODING = 2,
    FIELDS_CHUNKED = 4,          /* chunked was the last coding so far */
    FIELDS_CLOSE = 8,
    FIELDS_KEEP_ALIVE = 16,
    FIELDS_EXPECTS_CONTINUE = 32,
    FIELDS_TRACEPARENT_TWICE = 64,
};

/* Look at one field that has passed; `index` is its place in the table. Returns 0, or the status
 * to answer with, *ret_code then names the rule. */
int fields_take(struct cts_head_parser *parser, struct cts_bytes name, struct cts_bytes value,
                uint32_t index, const char **ret_code) CTS_MUST_USE;

/* What can only be said when all fields have passed: Host is there, chunked came last. */
int fields_finish(const struct cts_head_parser *parser, const char **ret_code) CTS_MUST_USE;

/* host [":" port] of RFC 9110 7.2 without user info; empty is fine. */
bool fields_authority_ok(struct cts_bytes authority);

#endif
