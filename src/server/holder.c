/* holder.c - reads /proc/net/tcp for the socket and /proc/PID/fd for its owner. Every loop is
 * bounded: a start error may not take longer because the machine is large. */
#include "holder.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOLDER_PIDS_MAX 32768
#define HOLDER_FDS_MAX 4096
#define HOLDER_LINES_MAX 65536
#define TCP_STATE_LISTEN 0x0A

/* The inode of the socket that listens on `port`, or 0. */
static unsigned long listening_inode(const char *table, uint16_t port)
{
    FILE *file = fopen(table, "re");
    if (file == NULL)
        return 0;
    char line[512];
    unsigned long inode = 0;
    for (int i = 0; i < HOLDER_LINES_MAX && inode == 0 && fgets(line, sizeof(line), file); i++) {
        unsigned local_port, state;
        unsigned long found;
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %*d %*d %lu", &local_port,
                   &state, &found) == 3 &&
            local_port == port && state == TCP_STATE_LISTEN)
            inode = found;
    }
    fclose(file);
    return inode;
}

static bool holds(const char *pid, const char *wanted)
{
    char path[300];
    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *fds = opendir(path);
    if (fds == NULL)
        return false;
    bool found = false;
    struct dirent *entry;
    for (int i = 0; i < HOLDER_FDS_MAX && !found && (entry = readdir(fds)) != NULL; i++) {
        char target[64];
        ssize_t count = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);
        if (count > 0) {
            target[count] = '\0';
            found = strcmp(target, wanted) == 0;
        }
    }
    closedir(fds);
    return found;
}

static void describe(const char *pid, char *text, size_t text_bytes)
{
    char path[300], raw[128], shown[192];
    snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = fd >= 0 ? read(fd, raw, sizeof(raw)) : -1;
    cts_fd_close(&fd);
    if (count <= 0) {
        snprintf(text, text_bytes, "pid %s", pid);
        return;
    }
    while (count > 0 && raw[count - 1] == '\0')
        count--;
    for (ssize_t i = 0; i < count; i++)
        if (raw[i] == '\0')
            raw[i] = ' ';
    cts_bytes_escape((struct cts_bytes){raw, (size_t)count}, shown, sizeof(shown));
    snprintf(text, text_bytes, "pid %s (%s)", pid, shown);
}

void listener_holder_text(uint16_t port, char *text, size_t text_bytes)
{
    text[0] = '\0';
    unsigned long inode = listening_inode("/proc/net/tcp", port);
    if (inode == 0)
        inode = listening_inode("/proc/net/tcp6", port);
    DIR *processes = inode != 0 ? opendir("/proc") : NULL;
    if (processes == NULL)
        return;
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    struct dirent *entry;
    for (int i = 0; i < HOLDER_PIDS_MAX && (entry = readdir(processes)) != NULL; i++) {
        if (isdigit((unsigned char)entry->d_name[0]) && holds(entry->d_name, wanted)) {
            describe(entry->d_name, text, text_bytes);
            break;
        }
    }
    closedir(processes);
}

static bool is_free(bool is_v6, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port),
                              .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int on = 1;
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool free_now =
        fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        (is_v6 ? bind(fd, (struct sockaddr *)&v6, sizeof(v6))
               : bind(fd, (struct sockaddr *)&v4, sizeof(v4))) == 0;
    cts_fd_close(&fd);
    return free_now;
}

uint16_t holder_next_free_port(const struct listener_address *address)
{
    for (unsigned port = address->port + 1u; port <= address->port + 100u && port < 65536; port++)
        if (is_free(address->is_v6, (uint16_t)port))
            return (uint16_t)port;
    return 0;
}
