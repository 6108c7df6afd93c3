/* spool.c - see spool.h. */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Not every file system knows O_TMPFILE: there the name lives for a moment. */
static int open_named(const char *folder)
{
    char path[512];
    int fd;

    if (snprintf(path, sizeof(path), "%s/ctserve-XXXXXX", folder) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    (void)unlink(path);
    return fd;
}

static int open_in(const char *folder)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)
        return open_named(folder);
    return -errno;
}

int spool_open(struct spool *spool, _Atomic uint64_t *all_bytes)
{
    const char *folder = getenv("TMPDIR");
    int fd = open_in(folder != NULL && folder[0] != '\0' ? folder : "/tmp");
    if (fd < 0)
        return fd;
    *spool = (struct spool){.fd = fd, .all_bytes = all_bytes};
    return 0;
}

void spool_close(struct spool *spool)
{
    if (spool->fd < 0)
        return;
    atomic_fetch_sub(spool->all_bytes, spool->end);
    cts_fd_close(&spool->fd);
    *spool = SPOOL_NONE;
}

int spool_put(struct spool *spool, struct cts_bytes bytes)
{
    size_t written = 0;
    while (written < bytes.count) {
        ssize_t n = pwrite(spool->fd, bytes.at + written, bytes.count - written,
                           (off_t)(spool->end + written));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        written += (size_t)n;
    }
    spool->end += bytes.count;
    atomic_fetch_add(spool->all_bytes, bytes.count);
    return 0;
}

ssize_t spool_take(struct spool *spool, char *to, size_t count)
{
    ssize_t n;
    if (count > spool_count(spool))
        count = (size_t)spool_count(spool);
    if (count == 0)
        return 0;
    do
        n = pread(spool->fd, to, count, (off_t)spool->begin);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : -EIO;
    spool->begin += (uint64_t)n;
    return n;
}
