/* body.h - the body of one request on its way from the wire: framing undone, bytes counted,
 * buffered up to a bound. Knows bytes, not sockets: who has new bytes feeds them. */
#ifndef SERVER_BODY_H
#define SERVER_BODY_H

#include "ctserve/buffer.h"
#include "ctserve/http.h"

enum body_kind { BODY_NONE, BODY_LENGTH, BODY_CHUNKED };

struct body {
    enum body_kind kind;
    uint64_t left;             /* LENGTH: bytes that have not come yet */
    struct cts_chunked chunked;
    bool has_ended;            /* everything came, trailers included */
    bool owes_continue;        /* the client waits for 100 */
    int error;                 /* 0, -ECONNRESET, -ETIMEDOUT, -EBADMSG: final */
    int status;                /* what the client hears about `error`; 0: nothing, it is gone */
    const char *code;          /* of `status`; static */
    uint64_t total_bytes;      /* decoded so far */
    struct cts_bytes ready;    /* decoded, not handed out yet: in `store`, `raw` or foreign bytes */
    struct cts_buffer store;   /* decoded, gathered before the application runs */
    struct cts_buffer raw;     /* chunked as on the wire, read while the application runs */
};

/* Start with the body of `request`; buffers of an earlier one are emptied. */
void body_begin(struct body *body, const struct cts_request *request,
                const struct cts_http_rules *rules);
/* Let the memory go that is worth it. */
void body_rest(struct body *body);
void body_free(struct body *body);

/* Undo the framing of the next piece of `from`, which is moved behind it. *ret_piece points into
 * the same bytes. 0 at the end of the body, CTS_NEED_MORE, or a status to answer with. */
int body_decode(struct body *body, struct cts_bytes *from, struct cts_bytes *ret_piece);

/* Take over all of `from` that belongs to this body into `store`, and show it as `ready`.
 * 0 at the end of the body, CTS_NEED_MORE, a status to answer with (503: no memory). */
int body_store(struct body *body, struct cts_bytes *from);

/* The same, thrown away. */
int body_discard(struct body *body, struct cts_bytes *from);

/* The client ended its half of the connection before the body was whole. */
void body_cut_short(struct body *body);

#endif
