/* access.c - see access.h. */
#include "access.h"

#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_path(const char *path)
{
    /* A pipe without a reader is an error, not a wait. */
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
    return fd < 0 ? -errno : fd;
}

void access_open(struct access *access, const struct cts_settings *settings)
{
    struct stat facts;

    *access = (struct access){.fd = -1};
    access->path = cts_settings_text(settings, CTS_SETTING_accesslog);
    if (access->path == NULL || access->path[0] == '\0')
        return;
    access->fd = strcmp(access->path, "-") == 0 ? STDOUT_FILENO : open_path(access->path);
    if (access->fd < 0) {
        cts_error_log("The access log %s cannot be opened: %s", access->path,
                      strerror(-access->fd));
        access->fd = -1;
        return;
    }
    access->is_file = fstat(access->fd, &facts) == 0 && S_ISREG(facts.st_mode);
}

void access_close(struct access *access)
{
    if (access->fd != STDOUT_FILENO)
        cts_fd_close(&access->fd);
    access->fd = -1;
}

int access_reopen(struct access *access)
{
    int r = 0, fd;

    if (access->fd < 0 || access->fd == STDOUT_FILENO)
        return 0;
    fd = open_path(access->path);
    if (fd < 0)
        return fd;
    /* The number stays the same: other threads may be about to write to it. */
    if (dup3(fd, access->fd, O_CLOEXEC) < 0)
        r = -errno;
    cts_fd_close(&fd);
    return r;
}

/* A pipe that is writable takes PIPE_BUF bytes without waiting. */
static size_t piece_bytes(const struct access *access, size_t left)
{
    struct pollfd ask = {.fd = access->fd, .events = POLLOUT};

    if (access->is_file)
        return left;
    if (poll(&ask, 1, 0) != 1 || (ask.revents & POLLOUT) == 0)
        return 0;
    return left < PIPE_BUF ? left : PIPE_BUF;
}

void access_flush(struct access *access, struct cts_buffer *lines)
{
    while (cts_buffer_count(lines) > 0) {
        struct cts_bytes view = cts_buffer_view(lines);
        size_t piece = piece_bytes(access, view.count);
        ssize_t n = piece == 0 ? -1 : write(access->fd, view.at, piece);

        if (piece != 0 && n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            atomic_fetch_add_explicit(&access->lost_bytes, view.count, memory_order_relaxed);
            n = (ssize_t)view.count;
        }
        cts_buffer_drop(lines, (size_t)n);
    }
}
