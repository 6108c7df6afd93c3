/* body.c - see body.h. */
#include "body.h"

#include <errno.h>

#define BUFFER_KEPT_BYTES_MAX 65536
#define RATE_GRACE_NS 10000000000ull

static const struct cts_bytes nothing = {"", 0};

void body_init(struct body *body, const struct body_keeper *keeper)
{
    *body = (struct body){.keeper = keeper, .spool = SPOOL_NONE, .ready = nothing};
}

/* -- memory --------------------------------------------------------------------------------- */
/* False when the bodies of this worker take as much as they may. */
static bool count_memory(struct body *body, uint64_t bytes)
{
    const struct body_keeper *keeper = body->keeper;
    if (atomic_fetch_add(keeper->memory_bytes, bytes) + bytes > keeper->memory_bytes_max) {
        atomic_fetch_sub(keeper->memory_bytes, bytes);
        return false;
    }
    body->counted_bytes += bytes;
    return true;
}

static void drop_object(struct body *body)
{
    if (CTS_UNLIKELY(body->object != NULL))
        body->keeper->gateway->body_free(body->object);
    body->object = NULL;
    body->object_at = NULL;
    body->object_count = 0;
}

static void forget_memory(struct body *body)
{
    if (CTS_UNLIKELY(body->counted_bytes > 0))
        atomic_fetch_sub(body->keeper->memory_bytes, body->counted_bytes);
    body->counted_bytes = 0;
}

void body_begin(struct body *body, const struct cts_request *request)
{
    body->store.start = body->store.end = 0;
    body->raw.start = body->raw.end = 0;
    body->trailers.start = body->trailers.end = 0;
    body->ready = nothing;
    body->error = body->status = 0;
    body->code = NULL;
    body->total_bytes = body->wire_bytes = 0;
    body->begin_ns = body->waited_ns = 0;
    body->left = 0;
    body->kind = BODY_NONE;
    if (request->is_chunked) {
        body->kind = BODY_CHUNKED;
        cts_chunked_init(&body->chunked, body->keeper->rules);
        body->chunked.trailers = &body->trailers;
    } else if (request->content_length > 0) {
        body->kind = BODY_LENGTH;
        body->left = (uint64_t)request->content_length;
    }
    body->has_ended = body->kind == BODY_NONE;
    body->owes_continue = request->expects_continue && !body->has_ended;
}

static void rest_buffer(struct cts_buffer *buffer)
{
    if (buffer->capacity > BUFFER_KEPT_BYTES_MAX)
        cts_buffer_free(buffer);
    else
        buffer->start = buffer->end = 0;
}

void body_drop(struct body *body)
{
    drop_object(body);
    spool_close(&body->spool);
    forget_memory(body);
    body->ready = nothing;
}

void body_rest(struct body *body)
{
    body_drop(body);
    rest_buffer(&body->store);
    rest_buffer(&body->raw);
    cts_buffer_free(&body->trailers);
}

void body_free(struct body *body)
{
    body_rest(body);
    cts_buffer_free(&body->store);
    cts_buffer_free(&body->raw);
}

/* -- framing -------------------------------------------------------------------------------- */
static void advance(struct cts_bytes *from, size_t count)
{
    from->at += count;
    from->count -= count;
}

static void length_came(struct body *body, size_t count)
{
    body->left -= count;
    body->has_ended = body->left == 0;
}

static int decode_length(struct body *body, struct cts_bytes *from, struct cts_bytes *ret_piece)
{
    size_t count = from->count < body->left ? from->count : (size_t)body->left;
    *ret_piece = (struct cts_bytes){from->at, count};
    advance(from, count);
    length_came(body, count);
    return body->has_ended ? 0 : CTS_NEED_MORE;
}

int body_decode(struct body *body, struct cts_bytes *from, struct cts_bytes *ret_piece)
{
    size_t before = from->count;
    int r;

    *ret_piece = (struct cts_bytes){from->at, 0};
    if (body->has_ended)
        return 0;
    if (body->kind == BODY_LENGTH) {
        r = decode_length(body, from, ret_piece);
    } else {
        size_t used = 0;
        r = cts_chunked_decode(&body->chunked, *from, &used, ret_piece);
        advance(from, used);
        body->has_ended = r == 0;
    }
    if (r > 0) {
        body->error = -EBADMSG;
        body->status = r;
        body->code = body->chunked.code;
    }
    body->total_bytes += ret_piece->count;
    body->wire_bytes += before - from->count;
    return r;
}

/* -- keeping -------------------------------------------------------------------------------- */
static int cannot_keep(struct body *body, int failure)
{
    bool is_full = failure == -ENOSPC || failure == -EDQUOT || failure == -EFBIG;
    body->error = failure;
    body->status = failure == -ENOMEM ? 503 : is_full ? 507 : 500;
    body->code = failure == -ENOMEM ? "no_memory" : is_full ? "no_room_on_disk" : "disk_failed";
    return body->status;
}

static int keep_in_spool(struct body *body, struct cts_bytes piece)
{
    int r = 0;
    if (body->spool.fd < 0)
        r = spool_open(&body->spool, body->keeper->spooled_bytes);
    return r < 0 ? r : spool_put(&body->spool, piece);
}

static int keep(struct body *body, struct cts_bytes piece)
{
    if (body->object != NULL) {
        memcpy(body->object_at + body->object_count, piece.at, piece.count);
        body->object_count += piece.count;
        return 0;
    }
    if (body->spool.fd >= 0 ||
        cts_buffer_count(&body->store) + piece.count > BODY_MEMORY_BYTES_MAX ||
        !count_memory(body, piece.count))
        return keep_in_spool(body, piece);
    return cts_buffer_put(&body->store, piece.at, piece.count);
}

static void show(struct body *body)
{
    body->ready = body->object != NULL ? (struct cts_bytes){body->object_at, body->object_count}
                                       : cts_buffer_view(&body->store);
}

void body_expect(struct body *body)
{
    const struct cts_gateway *gateway = body->keeper->gateway;
    if (body->kind != BODY_LENGTH || body->left < BODY_OBJECT_BYTES_MIN ||
        body->left > BODY_MEMORY_BYTES_MAX || gateway->body_new == NULL ||
        !count_memory(body, body->left))
        return;
    /* Without one it is kept as any other. */
    body->object = gateway->body_new((size_t)body->left, &body->object_at);
    body->object_count = 0;
}

int body_store(struct body *body, struct cts_bytes *from)
{
    int r = body->has_ended ? 0 : CTS_NEED_MORE;
    while (r == CTS_NEED_MORE && from->count > 0) {
        struct cts_bytes piece;
        r = body_decode(body, from, &piece);
        int kept = piece.count > 0 ? keep(body, piece) : 0;
        if (kept < 0)
            r = cannot_keep(body, kept);
    }
    show(body);
    return r;
}

struct body_room body_room(const struct body *body)
{
    if (body->object == NULL)
        return (struct body_room){NULL, 0};
    return (struct body_room){body->object_at + body->object_count, (size_t)body->left};
}

int body_filled(struct body *body, size_t count)
{
    body->object_count += count;
    body->total_bytes += count;
    body->wire_bytes += count;
    length_came(body, count);
    show(body);
    return body->has_ended ? 0 : CTS_NEED_MORE;
}

bool body_is_full(const struct body *body)
{
    return body->spool.fd >= 0 &&
           (body->spool.end >= BODY_SPOOLED_BYTES_MAX ||
            atomic_load(body->keeper->spooled_bytes) >= body->keeper->spooled_bytes_max);
}

int body_discard(struct body *body, struct cts_bytes *from)
{
    int r = body->has_ended ? 0 : CTS_NEED_MORE;
    body->chunked.trailers = NULL;
    while (r == CTS_NEED_MORE && from->count > 0) {
        struct cts_bytes piece;
        r = body_decode(body, from, &piece);
    }
    return r;
}

struct cts_bytes body_trailers(const struct body *body)
{
    return body->has_ended ? cts_buffer_view(&body->trailers) : (struct cts_bytes){"", 0};
}

void body_cut_short(struct body *body)
{
    body->error = -ECONNRESET;
    body->status = 400;
    body->code = "incomplete_body";
}

void body_wait_begins(struct body *body, uint64_t now_ns)
{
    body->begin_ns = now_ns;
}

void body_wait_ends(struct body *body, uint64_t now_ns)
{
    if (body->begin_ns != 0)
        body->waited_ns += now_ns - body->begin_ns;
    body->begin_ns = 0;
}

bool body_is_too_slow(const struct body *body, uint64_t now_ns)
{
    uint64_t waited_ns = body->waited_ns + (body->begin_ns == 0 ? 0 : now_ns - body->begin_ns);
    if (waited_ns <= RATE_GRACE_NS)
        return false;
    return body->wire_bytes < waited_ns / 1000000000ull * BODY_RATE_BYTES;
}
