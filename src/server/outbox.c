/* outbox.c - see outbox.h. */
#include "outbox.h"

#include <errno.h>
#include <fcntl.h>

#define BUFFER_KEPT_BYTES_MAX 65536

static const struct cts_bytes nothing = {"", 0};

void outbox_init(struct outbox *outbox)
{
    *outbox = (struct outbox){.spool = SPOOL_NONE, .file_fd = -1};
}

static void rest_buffer(struct cts_buffer *buffer)
{
    buffer->start = buffer->end = 0;
    if (buffer->capacity > BUFFER_KEPT_BYTES_MAX)
        cts_buffer_free(buffer);
}

void outbox_empty(struct outbox *outbox)
{
    rest_buffer(&outbox->bytes);
    if (CTS_LIKELY(outbox_is_plain(outbox)))
        return;
    cts_buffer_free(&outbox->before);
    spool_close(&outbox->spool);
    cts_fd_close(&outbox->file_fd);
    outbox->file_left = 0;
}

void outbox_free(struct outbox *outbox)
{
    outbox_empty(outbox);
    cts_buffer_free(&outbox->bytes);
}

bool outbox_is_empty(const struct outbox *outbox)
{
    return cts_buffer_count(&outbox->bytes) == 0 && outbox_is_plain(outbox);
}

uint64_t outbox_count(const struct outbox *outbox)
{
    uint64_t count = cts_buffer_count(&outbox->bytes);
    if (CTS_LIKELY(outbox_is_plain(outbox)))
        return count;
    return count + cts_buffer_count(&outbox->before) + outbox->file_left +
           (outbox->spool.fd >= 0 ? spool_count(&outbox->spool) : 0);
}

/* -- to the kernel -------------------------------------------------------------------------- */
static int write_buffer(struct cts_buffer *buffer, const struct transport *transport, int fd,
                        bool more)
{
    struct cts_bytes view = cts_buffer_view(buffer);
    if (view.count == 0)
        return 0;
    ssize_t n = transport->write(fd, view, nothing, more);
    if (n < 0)
        return n == -EAGAIN ? -EAGAIN : -EPIPE;
    cts_buffer_drop(buffer, (size_t)n);
    return (size_t)n == view.count ? 0 : -EAGAIN;
}

/* Up to *budget bytes of a file. Moves *at. */
static int write_file(const struct transport *transport, int fd, int file_fd, uint64_t *at,
                      uint64_t end, uint64_t *budget)
{
    while (*at < end) {
        if (*budget == 0)
            return -EAGAIN;
        uint64_t count = end - *at < *budget ? end - *at : *budget;
        ssize_t n = transport->send_file(fd, file_fd, *at, count);
        if (n <= 0)
            return n == -EAGAIN ? -EAGAIN : -EPIPE;
        *at += (uint64_t)n;
        *budget -= (uint64_t)n;
    }
    return 0;
}

/* Everything in front of `bytes`. */
static int flush_first(struct outbox *outbox, const struct transport *transport, int fd)
{
    uint64_t budget = OUTBOX_TURN_BYTES_MAX;
    int r = write_buffer(&outbox->before, transport, fd, true);
    if (r < 0)
        return r;
    if (outbox->file_fd >= 0) {
        uint64_t end = outbox->file_at + outbox->file_left;
        r = write_file(transport, fd, outbox->file_fd, &outbox->file_at, end, &budget);
        outbox->file_left = end - outbox->file_at;
    } else if (outbox->spool.fd >= 0) {
        r = write_file(transport, fd, outbox->spool.fd, &outbox->spool.begin, outbox->spool.end,
                       &budget);
    }
    if (r < 0)
        return r;
    cts_buffer_free(&outbox->before);
    spool_close(&outbox->spool);
    cts_fd_close(&outbox->file_fd);
    return 0;
}

int outbox_flush(struct outbox *outbox, const struct transport *transport, int fd)
{
    if (CTS_UNLIKELY(!outbox_is_plain(outbox))) {
        int r = flush_first(outbox, transport, fd);
        if (r < 0)
            return r;
    }
    return write_buffer(&outbox->bytes, transport, fd, false);
}

/* -- putting by ----------------------------------------------------------------------------- */
/* All of `bytes` and of the buffer, into the spool. What was written before a failure is not
 * written again: both views shrink as they go. */
static int put_in_spool(struct outbox *outbox, struct cts_bytes *bytes)
{
    int r = spool_put(&outbox->spool, cts_buffer_view(&outbox->bytes));
    if (r < 0)
        return r;
    outbox->bytes.start = outbox->bytes.end = 0;
    r = spool_put(&outbox->spool, *bytes);
    if (r == 0)
        *bytes = nothing;
    return r;
}

static int put_by(struct outbox *outbox, struct cts_bytes *bytes,
                  _Atomic uint64_t *all_spooled_bytes, uint64_t all_spooled_bytes_max)
{
    size_t count = cts_buffer_count(&outbox->bytes) + bytes->count;

    if (outbox_is_plain(outbox) && count <= OUTBOX_MEMORY_BYTES_MAX &&
        cts_buffer_put(&outbox->bytes, bytes->at, bytes->count) == 0) {
        *bytes = nothing;
        return 0;
    }
    if (outbox->file_fd >= 0 || outbox->spool.end + count > OUTBOX_SPOOLED_BYTES_MAX ||
        atomic_load(all_spooled_bytes) + count > all_spooled_bytes_max)
        return -EAGAIN;
    if (outbox->spool.fd < 0) {
        if (spool_open(&outbox->spool, all_spooled_bytes) < 0)
            return -EAGAIN;
        outbox->before = outbox->bytes;
        outbox->bytes = CTS_BUFFER_EMPTY;
    }
    return put_in_spool(outbox, bytes) < 0 ? -EAGAIN : 0;
}

/* Buffer and `bytes` in one write; both shrink by what the kernel took. */
static int write_both(struct outbox *outbox, const struct transport *transport, int fd,
                      struct cts_bytes *bytes)
{
    struct cts_bytes first = cts_buffer_view(&outbox->bytes);
    bool has_buffer = first.count > 0;
    ssize_t n =
        transport->write(fd, has_buffer ? first : *bytes, has_buffer ? *bytes : nothing, false);
    if (n < 0)
        return n == -EAGAIN ? -EAGAIN : -EPIPE;
    size_t from_buffer = (size_t)n < first.count ? (size_t)n : first.count;
    cts_buffer_drop(&outbox->bytes, from_buffer);
    bytes->at += (size_t)n - from_buffer;
    bytes->count -= (size_t)n - from_buffer;
    return 0;
}

int outbox_send(struct outbox *outbox, const struct transport *transport, int fd,
                struct cts_bytes *bytes, _Atomic uint64_t *all_spooled_bytes,
                uint64_t all_spooled_bytes_max)
{
    int r = 0;

    if (CTS_UNLIKELY(!outbox_is_plain(outbox)))
        r = flush_first(outbox, transport, fd);
    while (r == 0 && cts_buffer_count(&outbox->bytes) + bytes->count > 0)
        r = write_both(outbox, transport, fd, bytes);
    return r == -EAGAIN ? put_by(outbox, bytes, all_spooled_bytes, all_spooled_bytes_max) : r;
}

int outbox_put_file(struct outbox *outbox, int file_fd, uint64_t at, uint64_t count)
{
    if (!outbox_is_plain(outbox))
        return -EBUSY;
    int fd = fcntl(file_fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return -errno;
    outbox->before = outbox->bytes;
    outbox->bytes = CTS_BUFFER_EMPTY;
    outbox->file_fd = fd;
    outbox->file_at = at;
    outbox->file_left = count;
    return 0;
}
