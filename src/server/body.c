/* body.c - see body.h. */
#include "body.h"

#include <errno.h>

#define BODY_BUFFER_KEPT_BYTES_MAX 65536

void body_begin(struct body *body, const struct cts_request *request,
                const struct cts_http_rules *rules)
{
    body->store.start = body->store.end = 0;
    body->raw.start = body->raw.end = 0;
    body->ready = (struct cts_bytes){"", 0};
    body->error = body->status = 0;
    body->code = NULL;
    body->total_bytes = 0;
    body->left = 0;
    body->kind = BODY_NONE;
    if (request->is_chunked) {
        body->kind = BODY_CHUNKED;
        cts_chunked_init(&body->chunked, rules);
    } else if (request->content_length > 0) {
        body->kind = BODY_LENGTH;
        body->left = (uint64_t)request->content_length;
    }
    body->has_ended = body->kind == BODY_NONE;
    body->owes_continue = request->expects_continue && !body->has_ended;
}

static void rest_buffer(struct cts_buffer *buffer)
{
    if (buffer->capacity > BODY_BUFFER_KEPT_BYTES_MAX)
        cts_buffer_free(buffer);
    else
        buffer->start = buffer->end = 0;
}

void body_rest(struct body *body)
{
    rest_buffer(&body->store);
    rest_buffer(&body->raw);
    body->ready = (struct cts_bytes){"", 0};
}

void body_free(struct body *body)
{
    cts_buffer_free(&body->store);
    cts_buffer_free(&body->raw);
}

static void advance(struct cts_bytes *from, size_t count)
{
    from->at += count;
    from->count -= count;
}

static int decode_length(struct body *body, struct cts_bytes *from, struct cts_bytes *ret_piece)
{
    size_t count = from->count < body->left ? from->count : (size_t)body->left;
    *ret_piece = (struct cts_bytes){from->at, count};
    advance(from, count);
    body->left -= count;
    body->has_ended = body->left == 0;
    return body->has_ended ? 0 : CTS_NEED_MORE;
}

int body_decode(struct body *body, struct cts_bytes *from, struct cts_bytes *ret_piece)
{
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
    return r;
}

int body_store(struct body *body, struct cts_bytes *from)
{
    int r = body->has_ended ? 0 : CTS_NEED_MORE;
    while (r == CTS_NEED_MORE && from->count > 0) {
        struct cts_bytes piece;
        r = body_decode(body, from, &piece);
        if (piece.count > 0 && cts_buffer_put(&body->store, piece.at, piece.count) < 0) {
            body->error = -ENOMEM;
            body->code = "no_memory";
            r = body->status = 503;
        }
    }
    body->ready = cts_buffer_view(&body->store);
    return r;
}

int body_discard(struct body *body, struct cts_bytes *from)
{
    int r = body->has_ended ? 0 : CTS_NEED_MORE;
    while (r == CTS_NEED_MORE && from->count > 0) {
        struct cts_bytes piece;
        r = body_decode(body, from, &piece);
    }
    return r;
}

void body_cut_short(struct body *body)
{
    body->error = -ECONNRESET;
    body->status = 400;
    body->code = "incomplete_body";
}
