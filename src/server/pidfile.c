/* pidfile.c - see pidfile.h. */
#include "pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The pid in the file, 0 when there is none (no file, no number), or -errno. */
static long pid_in(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    char text[32];
    ssize_t count = read(fd, text, sizeof(text) - 1);
    int read_errno = errno;
    close(fd);
    if (count < 0)
        return -read_errno;
    text[count] = '\0';
    char *end;
    long pid = strtol(text, &end, 10);
    while (*end == ' ' || *end == '\n' || *end == '\r' || *end == '\t')
        end++;
    return *end == '\0' && pid > 0 && pid <= INT_MAX ? pid : 0;
}

static int write_whole(const char *path, const char *temporary, int fd)
{
    char text[24];
    int count = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (write(fd, text, (size_t)count) != count)
        return -EIO;
    if (fchmod(fd, 0644) < 0 || rename(temporary, path) < 0)
        return -errno;
    return 0;
}

int pidfile_write(const char *path, struct cts_error *error)
{
    long old = pid_in(path);
    if (old < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "can't read the pid file '%s': %s", path,
                             strerror((int)-old));
    if (old == getpid())
        return 0;
    if (old > 0 && (kill((pid_t)old, 0) == 0 || errno == EPERM))
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "Already running on PID %ld (or pid file '%s' is stale)", old, path);

    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path) >= (int)sizeof(temporary))
        return cts_error_set(error, CTS_EXIT_FAILURE, "the pid file's path is too long");
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "can't create pid file '%s': %s", path,
                             strerror(errno));
    int r = write_whole(path, temporary, fd);
    close(fd);
    if (r < 0) {
        unlink(temporary);
        return cts_error_set(error, CTS_EXIT_FAILURE, "can't write pid file '%s': %s", path,
                             strerror(-r));
    }
    return 0;
}

void pidfile_remove(const char *path)
{
    if (pid_in(path) == getpid())
        unlink(path);
}
