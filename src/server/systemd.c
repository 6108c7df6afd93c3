/* systemd.c - see systemd.h. Source: sd_listen_fds(3), sd_notify(3). */
#include "systemd.h"

#include "ctserve/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSTEMD_FDS_MAX 64

int systemd_listen_fds(void)
{
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    int count = 0;
    if (pid != NULL && fds != NULL && atol(pid) == getpid())
        count = atoi(fds);
    if (count != 0) {
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
    }
    return count < 0 ? 0 : count > SYSTEMD_FDS_MAX ? SYSTEMD_FDS_MAX : count;
}

void systemd_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof(address.sun_path))
        return;
    size_t count = strlen(path);
    memcpy(address.sun_path, path, count);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + count);
    if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, bytes) < 0)
        cts_debug("Exception while invoking sd_notify(): %s", strerror(errno));
    close(fd);
}
