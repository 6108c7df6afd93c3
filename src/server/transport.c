/* transport.c - the plain transport: bytes as they are, on a non-blocking socket. */
#include "transport.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SEND_FILE_BYTES_MAX (1u << 20) /* in one call: other clients want their turn */

static ssize_t plain_read(int fd, void *to, size_t count)
{
    ssize_t n;
    do
        n = read(fd, to, count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t plain_write(int fd, struct cts_bytes first, struct cts_bytes second, bool more)
{
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    ssize_t n;
    if (second.count == 0) {
        do
            n = send(fd, first.at, first.count, flags);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
    }
    struct iovec pieces[2] = {
        {(void *)(uintptr_t)first.at, first.count},
        {(void *)(uintptr_t)second.at, second.count},
    };
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    do
        n = sendmsg(fd, &message, flags);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* sendfile knows no MSG_NOSIGNAL, and an application may have given SIGPIPE back its default, which
 * would end the worker when a client leaves: the signal is held, and taken if it came. */
static ssize_t plain_send_file(int fd, int file_fd, uint64_t at, uint64_t count)
{
    static const struct timespec now = {0, 0};
    off_t from = (off_t)at;
    sigset_t broken_pipe, before;
    ssize_t n;
    int failure;

    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
    do
        n = sendfile(fd, file_fd, &from, count < SEND_FILE_BYTES_MAX ? count : SEND_FILE_BYTES_MAX);
    while (n < 0 && errno == EINTR);
    failure = n < 0 ? errno : 0;
    if (failure == EPIPE && sigismember(&before, SIGPIPE) == 0)
        (void)sigtimedwait(&broken_pipe, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n < 0 ? -failure : n;
}

static void plain_shut_down(int fd)
{
    shutdown(fd, SHUT_WR);
}

const struct transport transport_plain = {
    .read = plain_read,
    .write = plain_write,
    .send_file = plain_send_file,
    .shut_down = plain_shut_down,
    .is_plain = true,
};
