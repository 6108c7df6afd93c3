/* fd.c - small things about descriptors. */
#include "ctserve/base.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void cts_fd_close(int *fd)
{
    int saved_errno = errno;

    /* After EINTR Linux has closed the descriptor already: trying again could close somebody
     * else's. */
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved_errno;
}

int cts_fd_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    if ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return 0;
}

int cts_fd_set_cloexec(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFD);

    if (flags < 0)
        return -errno;
    if (fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}
