/* http.h - HTTP/1 on the wire: bytes in, structs out. Room: http.
 * No sockets, no Python, no allocation on the way of a request but the header table and, when a
 * trailer field really comes, the caller's buffer for it.
 * Sources: RFC 9110, RFC 9112; limits and switches as gunicorn's settings of the same name. */
#ifndef CTSERVE_HTTP_H
#define CTSERVE_HTTP_H

#include "ctserve/base.h"
#include "ctserve/buffer.h"

/* The bytes ended early: call again with more. */
#define CTS_NEED_MORE (-1)

/* A whole head, whatever the other limits say, unless head_bytes_max says another figure. */
#define CTS_HTTP_HEAD_BYTES_MAX 65536u

struct cts_http_rules {
    uint32_t line_bytes_max;     /* limit_request_line, after gunicorn's clamping; 414 */
    uint32_t fields_count_max;   /* limit_request_fields; 431 */
    uint32_t field_bytes_max;    /* limit_request_field_size, incl. name and CRLF; 431 */
    uint32_t head_bytes_max;     /* whole head, 431. 0 = what the three above allow, but at most
                                    CTS_HTTP_HEAD_BYTES_MAX */
    bool gunicorn_policy;        /* http_policy=gunicorn: admits a missing or malformed Host, a
                                    fragment in the target, CONNECT, gzip or identity before
                                    chunked, and nothing else */

    /* gunicorn's switches of the same names, all off by default. The first and the last one make
     * the parser write into the bytes it is given: a folded value is drawn together where it
     * stands and filled up with blanks, a method becomes upper case. Parsing them again gives the
     * same result. */
    bool permit_obsolete_folding;
    bool strip_header_spaces;
    bool permit_unconventional_http_method;
    bool permit_unconventional_http_version;
    bool casefold_http_method;
    /* What becomes of a field with an underscore in its name, unless the peer is trusted
     * (parser->is_trusted) and the name is one of forwarder_headers. */
    enum cts_header_map {
        CTS_HEADER_MAP_DROP,       /* not in the table, but counted against the limits */
        CTS_HEADER_MAP_REFUSE,     /* 400 */
        CTS_HEADER_MAP_DANGEROUS,  /* kept */
    } header_map;
    const char *const *forwarder_headers;  /* case does not matter; "*": all */
    size_t forwarder_headers_count;
};

struct cts_header {
    struct cts_bytes name;    /* as sent */
    struct cts_bytes value;   /* optional whitespace trimmed */
};

enum cts_http_target_form {
    CTS_TARGET_ORIGIN,
    CTS_TARGET_ABSOLUTE,
    CTS_TARGET_AUTHORITY,  /* CONNECT, gunicorn policy only */
    CTS_TARGET_ASTERISK,
};

/* One request head. All views point into the bytes that were parsed. */
struct cts_request {
    struct cts_bytes method;
    struct cts_bytes target;      /* as sent: RAW_URI */
    enum cts_http_target_form form;
    struct cts_bytes path;        /* undecoded, without query; "/" for an empty absolute path */
    struct cts_bytes query;       /* without '?', empty if none; has_query tells "?" alone */
    struct cts_bytes fragment;    /* gunicorn policy only */
    struct cts_bytes authority;   /* of absolute-form, else empty */
    struct cts_bytes host;        /* authority of the target, else the Host field */
    bool has_query;
    bool has_host_field;
    int version_major;            /* 1, unless permit_unconventional_http_version */
    int version_minor;            /* 0, 1 or as sent (HTTP/1.2 is served as 1.1) */
    struct cts_header *headers;   /* in the order of the wire; belongs to the head parser */
    uint32_t headers_count;
    /* framing, decided and checked */
    int64_t content_length;       /* -1 when there is none */
    bool is_chunked;
    bool keep_alive;              /* what the client asks for by version and Connection */
    bool expects_continue;        /* Expect: 100-continue on HTTP/1.1 */
    /* fields others need, found on the way; empty when absent */
    struct cts_bytes traceparent;
    struct cts_bytes tracestate;
    struct cts_bytes user_agent;
    struct cts_bytes content_type;
    struct cts_bytes script_name; /* SCRIPT_NAME, of a trusted peer or with header_map=dangerous */
    bool has_script_name;
    size_t head_bytes;            /* length of the head, first empty line included */
};

/* Parsing of one head, resumable. Work per call is proportional to the new bytes; the verdict on
 * a bad byte comes as soon as that byte is seen and does not depend on how bytes were split. */
struct cts_head_parser {
    const struct cts_http_rules *rules;
    struct cts_header *table;      /* grows up to fields_count_max; freed by _done */
    uint32_t table_capacity;
    bool is_trusted;               /* the peer is in forwarded_allow_ips; set by the caller */
    uint32_t line_bytes_max;       /* the rules' limits, zeros replaced; set by _init */
    uint32_t fields_count_max;
    uint32_t field_bytes_max;
    uint32_t head_bytes_max;
    /* The rest belongs to head.c. Places are offsets from the first byte of the head. */
    struct cts_head_state {
        uint32_t state;
        uint32_t position;             /* everything before it was looked at */
        uint32_t line_start;
        uint32_t fields_count;
        uint32_t dropped_count;        /* fields that passed, but are not in the table */
        uint32_t method_start, method_end;
        uint32_t target_start, target_end;
        uint32_t authority_start, authority_end;
        uint32_t path_start, path_end;
        uint32_t query_start, query_end;
        uint32_t fragment_start;
        uint32_t name_end;
        uint32_t value_start, value_end;
        uint32_t seen;                 /* which fields that decide something have passed */
        uint8_t form;                  /* enum cts_http_target_form */
        uint8_t is_connect;
        uint8_t version_minor;
        uint8_t version_digits;        /* as sent, when unconventional: major * 16 + minor */
        uint8_t is_pending;            /* a field is whole unless the next line goes on with it */
        uint8_t reserved[3];
        int64_t content_length;
        /* index + 1 into the table, 0: absent */
        uint32_t host_at, traceparent_at, tracestate_at, user_agent_at, content_type_at,
            script_name_at;
    } inner;
    int status;                    /* of a refusal, else 0 */
    const char *code;              /* of a refusal: low-cardinality, e.g. "bad_method" for
                                      error.type http.parse.bad_method; static */
};

void cts_head_parser_init(struct cts_head_parser *parser, const struct cts_http_rules *rules);
void cts_head_parser_reset(struct cts_head_parser *parser);   /* next request, keeps the table */
void cts_head_parser_done(struct cts_head_parser *parser);

/* `bytes` is everything received of this head so far, from its first byte (it may have moved
 * since the last call, it may not have shrunk). Returns 0 and fills *ret_request when the head
 * is whole, CTS_NEED_MORE, or the status to answer with (400, 413, 414, 417, 431, 501, 503 for
 * no memory, 505); parser->code then names the rule. A verdict stays until _reset. */
int cts_http_parse_head(struct cts_head_parser *parser, struct cts_bytes bytes,
                        struct cts_request *ret_request) CTS_MUST_USE;

/* The header called `name` (ASCII case ignored), first one; NULL if absent. */
const struct cts_header *cts_request_header(const struct cts_request *request, const char *name);

/* -- PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt) ----------------------- */
enum cts_proxy_mode { CTS_PROXY_OFF, CTS_PROXY_V1, CTS_PROXY_V2, CTS_PROXY_AUTO };

struct cts_proxy {
    char protocol[8];              /* "TCP4", "TCP6", "LOCAL", "UNSPEC" */
    char client_address[48];       /* "" with the last two */
    char proxy_address[48];
    uint16_t client_port, proxy_port;
};

/* What a proxy says at the start of a connection. Returns 0 and sets *ret_used to its length, 0
 * when the bytes begin with something else; CTS_NEED_MORE; or 400 and *ret_code. */
int cts_http_proxy_read(struct cts_bytes bytes, enum cts_proxy_mode mode,
                        struct cts_proxy *ret_proxy, size_t *ret_used,
                        const char **ret_code) CTS_MUST_USE;

/* -- chunked bodies (RFC 9112 7.1) -------------------------------------------------------- */
struct cts_chunked {
    uint32_t state;
    uint32_t line_bytes;           /* of the size line or trailer line being read */
    uint64_t chunk_left;
    uint64_t data_bytes;           /* decoded so far */
    uint64_t wire_bytes;           /* framing and data so far: the overhead budget */
    uint32_t trailers_count;
    uint32_t trailer_bytes;
    uint32_t forbidden;            /* forbidden trailer names that still match what was read */
    bool drops_trailer;            /* an underscore in its name, and header_map says drop */
    struct cts_buffer *trailers;   /* the caller's, empty at first; NULL: checked and dropped */
    size_t trailers_kept_bytes;    /* of whole fields in it */
    const struct cts_http_rules *rules;
    const char *code;
};

/* To keep trailer fields, set chunked->trailers afterwards: the buffer then grows with the first
 * one, by at most 64 KiB. */
void cts_chunked_init(struct cts_chunked *chunked, const struct cts_http_rules *rules);

/* Decode from `in`. Sets *ret_used to the bytes consumed and *ret_data to a view (into `in`) of
 * at most one piece of body data; call again while bytes are left. Returns 0 when the body and
 * its trailer section have ended, CTS_NEED_MORE when `in` was used up (or a piece was handed
 * out), or the status to answer with (503: no memory for a trailer); chunked->code then names the
 * rule. Trailer fields obey the limits and header_map of the rules, nobody is trusted in them, and
 * those that frame, route or authenticate are refused (RFC 9110 6.5.1); they are no header fields
 * and never become any. */
int cts_chunked_decode(struct cts_chunked *chunked, struct cts_bytes in, size_t *ret_used,
                       struct cts_bytes *ret_data) CTS_MUST_USE;

/* Take the next field from the front of `section`, a view of chunked->trailers after the body has
 * ended. *ret_field points into it, whitespace around the value trimmed. false: no more. */
bool cts_trailer_next(struct cts_bytes *section, struct cts_header *ret_field);

/* -- replies ------------------------------------------------------------------------------- */
/* "OK" for 200; "" when unknown. */
const char *cts_http_reason(int status);

/* 29 bytes, "Mon, 23 Nov 2026 14:20:31 GMT", refreshed once a second (coarse clock). Not
 * terminated. One cache per thread. */
const char *cts_http_date(void);

/* Is this a field name (token) / a field value (no CR, LF, NUL or other control byte)? */
bool cts_http_name_ok(struct cts_bytes name);
bool cts_http_value_ok(struct cts_bytes value);
/* "200 OK": three digits, then end or SP and a reason without control bytes. Returns the status
 * or -1. */
int cts_http_status_line(struct cts_bytes status);
/* Connection, Keep-Alive, Proxy-Authenticate, Proxy-Authorization, Proxy-Connection, TE,
 * Trailer(s), Transfer-Encoding, Upgrade: PEP 3333 forbids them to an application. */
bool cts_http_is_hop_by_hop(struct cts_bytes name);

/* Put a whole refusal into `out`: status line, Connection: close, Content-Type, Content-Length,
 * a small html page shaped like gunicorn's. 0 or -ENOMEM. */
int cts_http_refusal(struct cts_buffer *out, int status, const char *detail) CTS_MUST_USE;

/* Percent-decode `from` into `to` (at least from.count bytes); "%zz" stays as it is. Returns the
 * length. `to` may be `from.at`'s memory. */
size_t cts_http_percent_decode(struct cts_bytes from, char *to);

#endif
