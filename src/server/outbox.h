/* outbox.h - what is on its way to one client.
 *
 *     before -> file -> bytes
 *
 * Replies are appended to `bytes`, and mostly that is all there is: one write takes it. When a
 * client reads more slowly than its application writes, what waits is put by, first in memory and
 * then in a spool, so that no thread waits for the client. A file of the application is handed
 * over as a descriptor of our own and leaves by sendfile. Either way what waited before moves to
 * `before`, and the gateway goes on appending to `bytes`. */
#ifndef SERVER_OUTBOX_H
#define SERVER_OUTBOX_H

#include "spool.h"
#include "transport.h"

#include "ctserve/buffer.h"

#define OUTBOX_MEMORY_BYTES_MAX (1u << 20)  /* put by in memory, per reply */
#define OUTBOX_SPOOLED_BYTES_MAX (64u << 20) /* put by in a file, per reply */
#define OUTBOX_TURN_BYTES_MAX (4u << 20)    /* of a file, before other clients have their turn */

struct outbox {
    struct cts_buffer bytes;   /* the gateway's `out` */
    struct cts_buffer before;
    struct spool spool;
    int file_fd;               /* of the application, our duplicate; -1: none. Not with a spool */
    uint64_t file_at, file_left;
};

void outbox_init(struct outbox *outbox);
/* Forget what waits; large memory is given back, a file closed. */
void outbox_empty(struct outbox *outbox);
void outbox_free(struct outbox *outbox);

/* Nothing waits. */
static inline bool outbox_is_plain(const struct outbox *outbox)
{
    return outbox->file_fd < 0 && outbox->spool.fd < 0 && outbox->before.end == 0;
}
bool outbox_is_empty(const struct outbox *outbox);
/* How many bytes wait. */
uint64_t outbox_count(const struct outbox *outbox);

/* Hand what waits to the kernel. 0 when all of it is there, -EAGAIN when the kernel is full or
 * enough was sent for one turn, -EPIPE when the client or the rest of the file is gone. */
int outbox_flush(struct outbox *outbox, const struct transport *transport, int fd) CTS_MUST_USE;

/* The same, then `bytes`; what the kernel does not take of them is put by. 0 when nothing is left
 * for the caller to do; -EAGAIN when all bounds are reached (or there is no memory and no room on
 * the disk): *bytes is then what was not taken, wait and call again; -EPIPE. */
int outbox_send(struct outbox *outbox, const struct transport *transport, int fd,
                struct cts_bytes *bytes, _Atomic uint64_t *all_spooled_bytes,
                uint64_t all_spooled_bytes_max) CTS_MUST_USE;

/* Queue `count` bytes of `file_fd` from `at` on, behind what is there; the descriptor is
 * duplicated. 0, -EBUSY when another file or spool is on its way, or -errno. */
int outbox_put_file(struct outbox *outbox, int file_fd, uint64_t at, uint64_t count) CTS_MUST_USE;

#endif
