/* reply.c - the reply on its way: head, framing, body.
 *
 * The head is written in one go straight into the connection's buffer, when the first byte of the
 * body comes or the body turns out to be empty. Order and wording of our own fields are gunicorn's;
 * a Content-Length is added where the whole body is known, which gunicorn would send chunked.
 * Sources: PEP 3333; RFC 9110 6.4 and 15; RFC 9112 6 and 7. */
#include "call.h"

#include "ctserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define OWN_FIELDS_BYTES_MAX 256u /* status line without its text, our fields, chunk sizes */

static char *append(char *to, const char *from, size_t count)
{
    memcpy(to, from, count);
    return to + count;
}
#define APPEND(to, literal) append(to, literal, sizeof(literal) - 1)

static char *append_number(char *to, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return append(to, digits + at, sizeof(digits) - at);
}

static char *append_hex(char *to, uint64_t number)
{
    char digits[16];
    size_t at = sizeof(digits);
    do {
        digits[--at] = "0123456789abcdef"[number & 15];
        number >>= 4;
    } while (number > 0);
    return append(to, digits + at, sizeof(digits) - at);
}

static bool is_http_10(const struct cts_request *request)
{
    return request->version_major == 0 ||
           (request->version_major == 1 && request->version_minor == 0);
}

static void note_status(struct wsgi_call *call)
{
    call->exchange->status = call->status;
    call->exchange->head_sent = true;
}

/* Decide how the end of the body will be known, and whether the connection lives on. */
static bool decide_framing(struct wsgi_call *call, int64_t known_length, bool *ret_adds_length)
{
    struct cts_exchange *exchange = call->exchange;
    *ret_adds_length = false;
    if (!call->omits_body && call->content_length < 0) {
        if (known_length >= 0) {
            call->content_length = known_length;
            *ret_adds_length = true;
        } else {
            call->is_chunked = !is_http_10(exchange->request);
        }
    }
    bool has_end = call->omits_body || call->content_length >= 0 || call->is_chunked;
    bool keeps = exchange->may_keep_alive && !call->forces_close && !exchange->must_close &&
                 !call->is_upgrade && has_end && call->status >= 200;
    exchange->must_close = !keeps;
    return keeps;
}

static int commit(struct wsgi_call *call, int64_t known_length, size_t body_bytes)
{
    struct cts_exchange *exchange = call->exchange;
    struct cts_buffer *out = exchange->out;
    struct cts_bytes fields = cts_buffer_view(&call->head);
    bool adds_length;
    size_t room = fields.count + call->status_bytes.count + OWN_FIELDS_BYTES_MAX + body_bytes;
    if (cts_buffer_reserve(out, room) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    bool keeps = decide_framing(call, known_length, &adds_length);
    char *to = out->at + out->end;
    if (is_http_10(exchange->request))
        to = APPEND(to, "HTTP/1.0 ");
    else
        to = APPEND(to, "HTTP/1.1 ");
    to = append(to, call->status_bytes.at, call->status_bytes.count);
    to = APPEND(to, "\r\nServer: ctserve\r\nDate: ");
    to = append(to, cts_http_date(), 29);
    if (CTS_UNLIKELY(call->is_upgrade))
        to = APPEND(to, "\r\nConnection: upgrade\r\n");
    else if (keeps)
        to = APPEND(to, "\r\nConnection: keep-alive\r\n");
    else
        to = APPEND(to, "\r\nConnection: close\r\n");
    if (call->is_chunked)
        to = APPEND(to, "Transfer-Encoding: chunked\r\n");
    if (fields.count > 0)
        to = append(to, fields.at, fields.count);
    if (adds_length) {
        to = APPEND(to, "Content-Length: ");
        to = append_number(to, (uint64_t)call->content_length);
        to = APPEND(to, "\r\n");
    }
    to = APPEND(to, "\r\n");
    out->end = (size_t)(to - out->at);
    call->is_committed = true;
    note_status(call);
    return 0;
}

/* What is in the buffer and `bytes`, to the client. */
static int send_now(struct wsgi_call *call, struct cts_bytes bytes)
{
    if (call->client_is_gone) {
        PyErr_SetNone(PyExc_BrokenPipeError);
        return -1;
    }
    call->busy_count++;
    int r = call->exchange->ops->send(call->exchange, bytes);
    call->busy_count--;
    call->has_streamed = true;
    if (r == 0)
        return 0;
    call->client_is_gone = true;
    errno = -r;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static void warn(struct wsgi_call *call, bool *warned, const char *what)
{
    char target[256];
    if (*warned)
        return;
    *warned = true;
    cts_bytes_escape(call->exchange->request->target, target, sizeof(target));
    cts_warning("%s (status %d, %s)", what, call->status, target);
}

static int put_copied(struct wsgi_call *call, struct cts_bytes body)
{
    struct cts_buffer *out = call->exchange->out;
    if (cts_buffer_reserve(out, body.count + 32) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    char *to = out->at + out->end;
    if (call->is_chunked) {
        to = append_hex(to, body.count);
        to = APPEND(to, "\r\n");
    }
    to = append(to, body.at, body.count);
    if (call->is_chunked)
        to = APPEND(to, "\r\n");
    out->end = (size_t)(to - out->at);
    return 0;
}

/* A large piece goes past the buffer; the end of its chunk follows at once when the client is to
 * have it now, because many clients hand a chunk on only when they saw its end. */
static int put_past(struct wsgi_call *call, struct cts_bytes body, bool now)
{
    static const struct cts_bytes nothing = {"", 0};
    char size[24], *end = size;
    if (!call->is_chunked)
        return send_now(call, body);
    end = append_hex(end, body.count);
    end = APPEND(end, "\r\n");
    if (cts_buffer_put(call->exchange->out, size, (size_t)(end - size)) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (send_now(call, body) < 0)
        return -1;
    if (cts_buffer_put(call->exchange->out, "\r\n", 2) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return now ? send_now(call, nothing) : 0;
}

/* What of `body` the announced length still allows. */
static struct cts_bytes cut(struct wsgi_call *call, struct cts_bytes body)
{
    uint64_t left = (uint64_t)call->content_length - call->sent_bytes;
    if (body.count > left) {
        body.count = (size_t)left;
        warn(call, &call->warned_length,
             "The application sent more than its Content-Length; the rest was dropped");
    }
    return body;
}

int reply_put(struct wsgi_call *call, struct cts_bytes body, int64_t known_length, bool now)
{
    if (call->status_text == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "start_response() was not called before the body");
        return -1;
    }
    if (body.count == 0)
        return 0; /* PEP 3333: the head waits for the first byte of the body */
    bool is_small = body.count <= WSGI_COPY_BYTES_MAX;
    if (!call->is_committed && commit(call, known_length, is_small ? body.count : 0) < 0)
        return -1;
    if (CTS_UNLIKELY(call->omits_body)) {
        warn(call, &call->warned_body,
             "The application sent a body where none is allowed; it was dropped");
        return now ? send_now(call, (struct cts_bytes){"", 0}) : 0;
    }
    if (call->content_length >= 0)
        body = cut(call, body);
    if (body.count == 0)
        return 0;
    call->sent_bytes += body.count;
    call->exchange->body_sent_bytes = call->sent_bytes;
    if (!is_small)
        return put_past(call, body, now);
    if (put_copied(call, body) < 0)
        return -1;
    return now ? send_now(call, (struct cts_bytes){"", 0}) : 0;
}

/* A small file is read here and leaves with the head in one write. */
static int put_small_file(struct wsgi_call *call, int file_fd, uint64_t at, size_t count)
{
    struct cts_buffer *out = call->exchange->out;
    if (cts_buffer_reserve(out, count) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    while (count > 0) {
        ssize_t n = pread(file_fd, out->at + out->end, count, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        out->end += (size_t)n;
        call->sent_bytes += (uint64_t)n;
        at += (uint64_t)n;
        count -= (size_t)n;
    }
    return 0; /* too little: reply_finish sees it */
}

/* The connection sends it when we are done here; when it cannot, the bytes are read and sent. */
static int put_large_file(struct wsgi_call *call, int file_fd, uint64_t at, uint64_t count)
{
    int r = call->exchange->ops->send_file(call->exchange, file_fd, at, count);
    if (r == 0) {
        call->sent_bytes += count;
        call->has_streamed = true;
        return 0;
    }
    while (count > 0) {
        size_t piece = count < WSGI_COPY_BYTES_MAX ? (size_t)count : WSGI_COPY_BYTES_MAX;
        uint64_t before = call->sent_bytes;
        if (put_small_file(call, file_fd, at, piece) < 0 ||
            send_now(call, (struct cts_bytes){"", 0}) < 0)
            return -1;
        if (call->sent_bytes == before)
            break;
        at += call->sent_bytes - before;
        count -= call->sent_bytes - before;
    }
    return 0;
}

int reply_file(struct wsgi_call *call, int file_fd, uint64_t at, uint64_t count)
{
    if (call->status_text == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "start_response() was not called before the body");
        return -1;
    }
    bool is_small = count <= WSGI_COPY_BYTES_MAX;
    if (commit(call, (int64_t)count, is_small ? (size_t)count : 0) < 0)
        return -1;
    int r = 0;
    if (!call->omits_body) {
        /* As in gunicorn a shorter Content-Length cuts the file, without a word. */
        if ((uint64_t)call->content_length < count)
            count = (uint64_t)call->content_length;
        r = is_small ? put_small_file(call, file_fd, at, (size_t)count)
                     : put_large_file(call, file_fd, at, count);
        call->exchange->body_sent_bytes = call->sent_bytes;
    }
    return r < 0 ? -1 : reply_finish(call, false);
}

int reply_finish(struct wsgi_call *call, bool now)
{
    if (call->status_text == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the application did not call start_response()");
        return -1;
    }
    if (!call->is_committed && commit(call, 0, 0) < 0)
        return -1;
    if (call->is_chunked && cts_buffer_put(call->exchange->out, "0\r\n\r\n", 5) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (!call->omits_body && call->content_length >= 0 &&
        call->sent_bytes < (uint64_t)call->content_length) {
        call->exchange->must_close = true;
        warn(call, &call->warned_length,
             "The application sent less than its Content-Length; the connection is closed");
    }
    call->is_finished = true;
    if (now && cts_buffer_count(call->exchange->out) > 0)
        return send_now(call, (struct cts_bytes){"", 0});
    return 0;
}

void reply_fail(struct wsgi_call *call, int status)
{
    struct cts_exchange *exchange = call->exchange;
    exchange->must_close = true;
    if (call->is_committed) {
        exchange->abort = !call->is_finished;
        return;
    }
    call->is_committed = call->is_finished = true;
    if (cts_http_refusal(exchange->out, status, "") < 0) {
        exchange->abort = true;
        return;
    }
    call->status = status;
    note_status(call);
}
