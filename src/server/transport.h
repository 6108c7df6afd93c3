/* transport.h - how the bytes of one connection come and go. A connection knows only this table,
 * so that TLS becomes a second row of it. Every function is non-blocking. */
#ifndef SERVER_TRANSPORT_H
#define SERVER_TRANSPORT_H

#include "ctserve/base.h"

#include <sys/types.h>

struct transport {
    ssize_t (*read)(int fd, void *to, size_t count);  /* count, 0 at the end, or -errno */
    /* Both views in one go; either may be empty. Count written, or -errno. With `more` the rest
     * follows at once: the kernel need not send a small packet now. */
    ssize_t (*write)(int fd, struct cts_bytes first, struct cts_bytes second, bool more);
    /* `count` bytes of `file_fd` from `at` on. Count written, 0 when the file has fewer, -errno. */
    ssize_t (*send_file)(int fd, int file_fd, uint64_t at, uint64_t count);
    void (*shut_down)(int fd);   /* nothing more will be written; the peer sees the end */
    bool is_plain;               /* bytes of HTTP may be put on the descriptor as they are */
};

extern const struct transport transport_plain;

#endif
