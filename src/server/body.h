/* body.h - the body of one request on its way from the wire: framing undone, bytes counted, kept
 * until the application reads them. Knows bytes, not sockets: who has new bytes feeds them.
 *
 * Where the decoded bytes are kept, by size:
 *   a few kilobytes  in `store`, a buffer that is used again
 *   a known length   in an object of the gateway's (for Python: the bytes object that the
 *                    application's read() returns), straight from the wire, without a copy
 *   more than BODY_MEMORY_BYTES_MAX  the rest of it in a spool */
#ifndef SERVER_BODY_H
#define SERVER_BODY_H

#include "spool.h"

#include "ctserve/gateway.h"
#include "ctserve/http.h"

#define BODY_MEMORY_BYTES_MAX (1u << 20)
#define BODY_OBJECT_BYTES_MIN 32768u     /* shorter ones are copied */
#define BODY_SPOOLED_BYTES_MAX (1ull << 30)

enum body_kind { BODY_NONE, BODY_LENGTH, BODY_CHUNKED };

/* What keeps the bodies of one worker. */
struct body_keeper {
    const struct cts_gateway *gateway;
    const struct cts_http_rules *rules;
    _Atomic uint64_t *memory_bytes;    /* of all bodies that are waited for */
    uint64_t memory_bytes_max;         /* then they go to the disk */
    _Atomic uint64_t *spooled_bytes;
    uint64_t spooled_bytes_max;
};

struct body {
    enum body_kind kind;
    const struct body_keeper *keeper;
    uint64_t left;             /* LENGTH: bytes that have not come yet */
    struct cts_chunked chunked;
    bool has_ended;            /* everything came, trailers included */
    bool owes_continue;        /* the client waits for 100 */
    int error;                 /* 0, -ECONNRESET, -ETIMEDOUT, -EBADMSG: final */
    int status;                /* what the client hears about `error`; 0: nothing, it is gone */
    const char *code;          /* of `status`; static */
    uint64_t total_bytes;      /* decoded so far */
    uint64_t wire_bytes;       /* as they came, framing and all */
    uint64_t begin_ns;         /* waiting for it since, 0: not now */
    uint64_t waited_ns;        /* before that */
    uint64_t counted_bytes;    /* our part of keeper->memory_bytes */
    struct cts_bytes ready;    /* decoded, not handed out yet: in memory of ours or foreign bytes;
                                  what is in the spool comes behind it */
    struct cts_buffer store;   /* decoded, gathered before the application runs */
    struct cts_buffer raw;     /* chunked as on the wire, read while the application runs */
    void *object;              /* the gateway's, or NULL */
    char *object_at;
    size_t object_count;       /* filled so far, of `left` at the start */
    struct spool spool;
    struct cts_buffer trailers; /* fields behind the last chunk; no memory unless there are some */
};

/* Before the first use. */
void body_init(struct body *body, const struct body_keeper *keeper);
/* Start with the body of `request`; nothing of an earlier one is left (body_rest). */
void body_begin(struct body *body, const struct cts_request *request);
/* The application is done with it: let go of what was kept, but for the two buffers. With or
 * without the lock. */
void body_drop(struct body *body);
/* The same, and buffers that have grown large. */
void body_rest(struct body *body);
void body_free(struct body *body);

/* Undo the framing of the next piece of `from`, which is moved behind it. *ret_piece points into
 * the same bytes. 0 at the end of the body, CTS_NEED_MORE, or a status to answer with. */
int body_decode(struct body *body, struct cts_bytes *from, struct cts_bytes *ret_piece);

/* Get ready to keep a body of which not all came with the head. */
void body_expect(struct body *body);

/* The time from one to the other was the client's. */
void body_wait_begins(struct body *body, uint64_t now_ns);
void body_wait_ends(struct body *body, uint64_t now_ns);

/* Take over all of `from` that belongs to this body, and show it as `ready`. 0 at the end of the
 * body, CTS_NEED_MORE, a status to answer with (503: no memory, 507: no room on the disk). */
int body_store(struct body *body, struct cts_bytes *from);

/* Where the next bytes of the wire may be written to without a copy; count 0: nowhere. */
struct body_room {
    char *at;
    size_t count;
};
struct body_room body_room(const struct body *body);
/* `count` bytes were written there. As body_store. */
int body_filled(struct body *body, size_t count);

/* Is as much kept as may be? Then the application runs and reads on by itself. */
bool body_is_full(const struct body *body);

/* Is all of it in memory, as `ready`? */
static inline bool body_is_whole(const struct body *body)
{
    return body->has_ended && body->spool.fd < 0;
}

/* As body_store, thrown away, trailers too. */
int body_discard(struct body *body, struct cts_bytes *from);

/* The trailer section, for cts_trailer_next(); empty before the end of the body. */
struct cts_bytes body_trailers(const struct body *body);

/* The client ended its half of the connection before the body was whole. */
void body_cut_short(struct body *body);

/* Did the client send less than BODY_RATE_BYTES for each second that it was waited for, after the
 * first ten? */
#define BODY_RATE_BYTES 500u
bool body_is_too_slow(const struct body *body, uint64_t now_ns);

#endif
