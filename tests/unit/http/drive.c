/* drive.c - see drive.h. */
#include "drive.h"

#include <assert.h>
#include <stdlib.h>

const struct cts_http_rules drive_strict = {
    .line_bytes_max = 4094, .fields_count_max = 100, .field_bytes_max = 8190};
const struct cts_http_rules drive_gunicorn = {
    .line_bytes_max = 4094, .fields_count_max = 100, .field_bytes_max = 8190,
    .gunicorn_policy = true};

static void hash_bytes(struct drive *drive, struct cts_bytes bytes)
{
    for (size_t i = 0; i < bytes.count; i++)
        drive->hash = (drive->hash ^ (unsigned char)bytes.at[i]) * 0x100000001b3u;
    drive->hash = (drive->hash ^ 0x100u ^ bytes.count) * 0x100000001b3u;
}

static void answer(struct drive *drive, int status, const char *code)
{
    if (drive->answers_count < DRIVE_ANSWERS_MAX)
        drive->answers[drive->answers_count++] = status;
    drive->hash = (drive->hash ^ (uint64_t)status) * 0x100000001b3u;
    if (code != NULL) {
        drive->code = code;
        drive->verdict_at = drive->received.count;
        hash_bytes(drive, cts_bytes_of(code));
        drive->phase = DRIVE_CLOSED;
    }
}

/* A body came in later calls, the buffer may have moved: read the head again for its views. */
static void refresh_request(struct drive *drive)
{
    struct cts_bytes head = {drive->received.at + drive->head_start, drive->request.head_bytes};
    int r;

    cts_head_parser_reset(&drive->parser);
    r = cts_http_parse_head(&drive->parser, head, &drive->request);
    assert(r == 0);
    (void)r;
}

static void hash_trailers(struct drive *drive)
{
    struct cts_bytes section = cts_buffer_view(&drive->trailers);
    struct cts_header field;

    while (cts_trailer_next(&section, &field)) {
        assert(cts_http_name_ok(field.name) && cts_http_value_ok(field.value));
        hash_bytes(drive, field.name);
        hash_bytes(drive, field.value);
    }
}

static void hash_request(struct drive *drive)
{
    const struct cts_request *request = &drive->request;
    const struct cts_bytes views[] = {
        request->method, request->target, request->path, request->query, request->fragment,
        request->authority, request->host, request->traceparent, request->tracestate,
        request->user_agent, request->content_type,
    };

    for (size_t i = 0; i < CTS_COUNT(views); i++)
        hash_bytes(drive, views[i]);
    for (uint32_t i = 0; i < request->headers_count; i++) {
        hash_bytes(drive, request->headers[i].name);
        hash_bytes(drive, request->headers[i].value);
    }
    hash_bytes(drive, (struct cts_bytes){drive->body, drive->body_bytes});
    hash_trailers(drive);
}

static void finish(struct drive *drive)
{
    struct drive_event event;

    refresh_request(drive);
    hash_request(drive);
    event = (struct drive_event){&drive->request, {drive->body, drive->body_bytes},
                                 cts_buffer_view(&drive->trailers)};
    answer(drive, 200, NULL);
    if (drive->on_request != NULL)
        drive->on_request(&event, drive->context);
    drive->phase = drive->request.keep_alive ? DRIVE_HEAD : DRIVE_CLOSED;
    drive->head_start = drive->body_at;
    drive->body_bytes = 0;
    cts_buffer_drop(&drive->trailers, cts_buffer_count(&drive->trailers));
    cts_head_parser_reset(&drive->parser);
}

static void put_body(struct drive *drive, struct cts_bytes bytes)
{
    if (drive->body_bytes + bytes.count > drive->body_capacity) {
        drive->body_capacity = (drive->body_bytes + bytes.count) * 2;
        drive->body = realloc(drive->body, drive->body_capacity);
        assert(drive->body != NULL);
    }
    if (bytes.count != 0)
        memcpy(drive->body + drive->body_bytes, bytes.at, bytes.count);
    drive->body_bytes += bytes.count;
}

static bool feed_head(struct drive *drive)
{
    struct cts_bytes head = {drive->received.at + drive->head_start,
                             drive->received.count - drive->head_start};
    int r = cts_http_parse_head(&drive->parser, head, &drive->request);

    if (r == CTS_NEED_MORE)
        return false;
    if (r != 0) {
        assert(r == drive->parser.status && drive->parser.code != NULL);
        answer(drive, r, drive->parser.code);
        return false;
    }
    assert(drive->request.head_bytes <= head.count);
    drive->body_at = drive->head_start + drive->request.head_bytes;
    drive->body_left = drive->request.content_length > 0
                           ? (size_t)drive->request.content_length : 0;
    cts_chunked_init(&drive->chunked, &drive->rules);
    drive->chunked.trailers = &drive->trailers;
    drive->phase = drive->request.is_chunked ? DRIVE_CHUNKED : DRIVE_LENGTH;
    return true;
}

static bool feed_length(struct drive *drive)
{
    size_t count = drive->received.count - drive->body_at;

    if (count > drive->body_left)
        count = drive->body_left;
    put_body(drive, (struct cts_bytes){drive->received.at + drive->body_at, count});
    drive->body_at += count;
    drive->body_left -= count;
    if (drive->body_left != 0)
        return false;
    finish(drive);
    return true;
}

static bool feed_chunked(struct drive *drive)
{
    struct cts_bytes in = {drive->received.at + drive->body_at,
                           drive->received.count - drive->body_at}, data;
    size_t used;
    int r = cts_chunked_decode(&drive->chunked, in, &used, &data);

    assert(used <= in.count);
    assert(data.count == 0 || (data.at >= in.at && data.at + data.count <= in.at + used));
    drive->body_at += used;
    put_body(drive, data);
    if (r == CTS_NEED_MORE)
        return used != 0 && drive->body_at < drive->received.count;
    if (r == 0)
        finish(drive);
    else
        answer(drive, r, drive->chunked.code);
    return r == 0;
}

void drive_feed(struct drive *drive, struct cts_bytes received)
{
    bool goes_on = true;

    drive->received = received;
    while (goes_on && (drive->phase == DRIVE_CLOSED ||
                       drive->head_start <= received.count)) {
        switch (drive->phase) {
        case DRIVE_HEAD:
            goes_on = drive->head_start < received.count && feed_head(drive);
            break;
        case DRIVE_LENGTH:
            goes_on = feed_length(drive);
            break;
        case DRIVE_CHUNKED:
            goes_on = feed_chunked(drive);
            break;
        case DRIVE_CLOSED:
            goes_on = false;
            break;
        }
    }
}

void drive_init(struct drive *drive, const struct cts_http_rules *rules)
{
    *drive = (struct drive){.rules = *rules, .hash = 0xcbf29ce484222325u};
    cts_head_parser_init(&drive->parser, &drive->rules);
}

void drive_done(struct drive *drive)
{
    cts_head_parser_done(&drive->parser);
    free(drive->body);
    cts_buffer_free(&drive->trailers);
}
