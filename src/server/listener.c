/* listener.c - see listener.h. Address forms and their meaning: gunicorn's `bind`. */
#include "listener.h"

#include "berths.h"
#include "fork.h"
#include "holder.h"

#include "ctserve/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_PORT "8000"

/* -- reading an address ------------------------------------------------------------------------ */
static int read_number(const char *text, long max, long *ret_number)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || number < 0 || number > max)
        return -EINVAL;
    *ret_number = number;
    return 0;
}

static int copy_host(const char *from, size_t count, struct listener_address *address)
{
    if (count >= sizeof(address->host))
        return -ENAMETOOLONG;
    memcpy(address->host, from, count);
    address->host[count] = '\0';
    return 0;
}

static int read_unix(const char *path, struct listener_address *address, struct cts_error *error)
{
    if (strncmp(path, "//", 2) == 0)
        path += 2;
    address->kind = LISTENER_UNIX;
    struct sockaddr_un sample;
    if (*path == '\0' || strlen(path) >= sizeof(sample.sun_path))
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "bind: 'unix:%s': the path must have 1 to %zu bytes", path,
                             sizeof(sample.sun_path) - 1);
    return copy_host(path, strlen(path), address) < 0 ? -1 : 0;
}

static int read_fd(const char *digits, struct listener_address *address, struct cts_error *error)
{
    long number;
    if (read_number(digits, 1 << 20, &number) < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "'%s' is not a valid file descriptor.",
                             digits);
    address->kind = LISTENER_FD;
    address->fd = (int)number;
    return 0;
}

int listener_read_address(const char *text, struct listener_address *ret_address,
                          struct cts_error *error)
{
    *ret_address = (struct listener_address){.kind = LISTENER_TCP, .fd = -1};
    if (strncmp(text, "unix:", 5) == 0)
        return read_unix(text + 5, ret_address, error);
    if (strncmp(text, "fd://", 5) == 0)
        return read_fd(text + 5, ret_address, error);
    if (strncmp(text, "tcp://", 6) == 0)
        text += 6;

    const char *host = text, *port = NULL;
    size_t host_bytes = strlen(text);
    const char *bracket = text[0] == '[' ? strchr(text, ']') : NULL;
    if (bracket != NULL) {
        host = text + 1;
        host_bytes = (size_t)(bracket - host);
        port = bracket[1] == ':' ? bracket + 2 : bracket[1] == '\0' ? NULL : "?";
        ret_address->is_v6 = true;
    } else if (strchr(text, ':') != NULL) {
        host_bytes = (size_t)(strchr(text, ':') - text);
        port = strchr(text, ':') + 1;
    }
    if (host_bytes == 0 && !ret_address->is_v6) {
        host = "0.0.0.0";
        host_bytes = strlen(host);
    }
    long number;
    if (read_number(port != NULL ? port : DEFAULT_PORT, 65535, &number) < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "bind: '%s': '%s' is not a valid port number.", text, port);
    if (copy_host(host, host_bytes, ret_address) < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "bind: the host in '%s' is too long", text);
    ret_address->port = (uint16_t)number;
    return 0;
}

/* -- naming what is open ----------------------------------------------------------------------- */
static int name_socket(struct listener *listener)
{
    union {
        struct sockaddr any;
        struct sockaddr_storage storage;
        struct sockaddr_un local;
    } address = {0};
    socklen_t bytes = sizeof(address);
    if (getsockname(listener->fd, &address.any, &bytes) < 0)
        return -errno;
    if (address.any.sa_family == AF_UNIX) {
        size_t count = bytes > offsetof(struct sockaddr_un, sun_path)
                           ? bytes - offsetof(struct sockaddr_un, sun_path) : 0;
        char path[sizeof(address.local.sun_path) + 1] = "";
        /* A path without room for its NUL is told as one byte longer than it is. */
        if (count > sizeof(address.local.sun_path))
            count = sizeof(address.local.sun_path);
        memcpy(path, address.local.sun_path, count);
        listener->is_unix = true;
        snprintf(listener->server_name, sizeof(listener->server_name), "%.*s",
                 (int)sizeof(listener->server_name) - 1, path);
        snprintf(listener->name, sizeof(listener->name), "unix:%s", path);
        return 0;
    }
    char host[INET6_ADDRSTRLEN + 16], port[8];
    if (getnameinfo(&address.any, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return -EINVAL;
    bool is_v6 = address.any.sa_family == AF_INET6;
    listener->is_unix = false;
    listener->server_port = (uint16_t)atoi(port);
    snprintf(listener->server_name, sizeof(listener->server_name), "%s", host);
    snprintf(listener->name, sizeof(listener->name), is_v6 ? "http://[%s]:%s" : "http://%s:%s",
             host, port);
    return 0;
}

/* -- opening ----------------------------------------------------------------------------------- */
/* With `reserves` it does not listen, and others of this user may bind beside it. */
static int open_tcp(const struct listener_address *address, int backlog, bool reserves)
{
    char port[8];
    snprintf(port, sizeof(port), "%u", (unsigned)address->port);
    struct addrinfo hints = {.ai_family = address->is_v6 ? AF_INET6 : AF_INET,
                             .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int resolved = getaddrinfo(address->host[0] != '\0' ? address->host : NULL, port, &hints,
                               &found);
    if (resolved != 0)
        return resolved == EAI_SYSTEM && errno != 0 ? -errno : -EADDRNOTAVAIL;
    int r = 0, on = 1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        r = -errno;
        goto done;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (reserves && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0) ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 ||
        (!reserves && listen(fd, backlog) < 0)) {
        r = -errno;
        cts_fd_close(&fd);
    }
done:
    freeaddrinfo(found);
    return fd >= 0 ? fd : r;
}

/* A socket file without a listener is what a killed server leaves behind, and like gunicorn we
 * take its place; any other kind of file stays where it is. */
static int remove_stale(const char *path)
{
    struct stat found;
    if (lstat(path, &found) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(found.st_mode))
        return -ENOTSOCK;
    return unlink(path) < 0 ? -errno : 0;
}

static int open_unix(const struct listener_address *address, int backlog, mode_t mask)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    memcpy(local.sun_path, address->host, strlen(address->host));
    int r = remove_stale(address->host);
    if (r < 0)
        return r;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    mode_t kept = umask(mask);
    r = bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0 ? -errno : 0;
    umask(kept);
    if (r == 0 && listen(fd, backlog) < 0)
        r = -errno;
    if (r < 0)
        cts_fd_close(&fd);
    return r < 0 ? r : fd;
}

static bool may_share_port(int fd)
{
    int family = 0, shares = 0;
    socklen_t bytes = sizeof(family);
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &bytes) == 0 && family != AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shares, &bytes) == 0 && shares;
}

/* A descriptor that somebody else opened: it listens already, or does so from now on; but for the
 * reservation of an older master, when we `reserve` too. */
static int adopt(int fd, int backlog, bool reserves)
{
    int listening = 0;
    socklen_t bytes = sizeof(listening);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) < 0)
        return -errno;
    if (!listening && !(reserves && may_share_port(fd)) && listen(fd, backlog) < 0)
        return -errno;
    int r = cts_fd_set_nonblocking(fd);
    return r < 0 ? r : cts_fd_set_cloexec(fd, true);
}

static int keep(struct listeners *listeners, int fd, const char *text)
{
    struct listener *listener = &listeners->at[listeners->count];
    *listener = (struct listener){.fd = fd};
    int r = name_socket(listener), listening = 0;
    socklen_t bytes = sizeof(listening);
    if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) < 0)
        r = -errno;
    listener->is_reserved = !listening;
    if (r == 0)
        r = fork_list_put(fd, listening ? FORK_LISTENER : FORK_RESERVATION, NULL);
    if (r < 0)
        return r;
    listeners->texts[listeners->count++] = text != NULL ? strdup(text) : NULL;
    return 0;
}

static int shared_with(const struct listeners *previous, const char *text)
{
    for (size_t i = 0; previous != NULL && i < previous->count; i++)
        if (previous->texts[i] != NULL && strcmp(previous->texts[i], text) == 0)
            return fcntl(previous->at[i].fd, F_DUPFD_CLOEXEC, 0);
    return -1;
}

static enum listener_verdict fail(struct cts_error *error, const char *text, int r)
{
    if (r == -ENOTSOCK)
        cts_error_set(error, CTS_EXIT_FAILURE, "'%s' is not a socket", text);
    else
        cts_error_set(error, CTS_EXIT_FAILURE, "Can't connect to %s: %s", text, strerror(-r));
    return LISTENER_FAILED;
}

static enum listener_verdict taken(const struct listener_address *address, const char *text,
                                   bool is_last, struct cts_error *error)
{
    if (!is_last)
        return LISTENER_AGAIN;
    char holder[256] = "";
    if (address->kind == LISTENER_TCP)
        listener_holder_text(address->port, holder, sizeof(holder));
    uint16_t next = address->kind == LISTENER_TCP ? holder_next_free_port(address) : 0;
    char advice[64] = "";
    if (next != 0)
        snprintf(advice, sizeof(advice), "\nThe next free port is %u.", (unsigned)next);
    cts_error_set(error, CTS_EXIT_FAILURE, "Can't connect to %s: the address is in use%s%s.%s",
                  text, holder[0] != '\0' ? " by " : "", holder, advice);
    return LISTENER_FAILED;
}

static enum listener_verdict open_one(struct listeners *listeners, const char *text,
                                      const struct cts_settings *settings,
                                      const struct listeners *previous, bool is_last,
                                      struct cts_error *error)
{
    struct listener_address address;
    if (listener_read_address(text, &address, error) < 0)
        return LISTENER_FAILED;
    int backlog = (int)cts_settings_int(settings, CTS_SETTING_backlog);
    bool reserves = cts_settings_bool(settings, CTS_SETTING_reuse_port);
    int fd = shared_with(previous, text);
    if (fd >= 0) {
        /* the same socket, one descriptor more */
    } else if (address.kind == LISTENER_FD) {
        int r = adopt(address.fd, backlog, reserves);
        fd = r < 0 ? r : address.fd;
        listeners->is_inherited = true;
    } else if (address.kind == LISTENER_UNIX) {
        mode_t mask = (mode_t)cts_settings_int(settings, CTS_SETTING_umask);
        fd = open_unix(&address, backlog, mask);
    } else {
        fd = open_tcp(&address, backlog, reserves);
    }
    if (fd == -EADDRINUSE)
        return taken(&address, text, is_last, error);
    if (fd < 0)
        return fail(error, text, fd);
    int r = keep(listeners, fd, text);
    return r < 0 ? fail(error, text, r) : LISTENER_OPEN;
}

static enum listener_verdict adopt_all(struct listeners *listeners, const int *fds, size_t count,
                                       const struct cts_settings *settings,
                                       struct cts_error *error)
{
    int backlog = (int)cts_settings_int(settings, CTS_SETTING_backlog);
    bool reserves = cts_settings_bool(settings, CTS_SETTING_reuse_port);

    for (size_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof(text), "fd://%d", fds[i]);
        int r = listeners->count == LISTENERS_MAX ? -EMFILE : adopt(fds[i], backlog, reserves);
        if (r == 0)
            r = keep(listeners, fds[i], NULL);
        if (r < 0)
            return fail(error, text, r);
    }
    return LISTENER_OPEN;
}

enum listener_verdict listener_open_all(struct listeners *listeners,
                                        const struct cts_settings *settings,
                                        const struct listeners *previous, const int *fds,
                                        size_t fds_count, bool is_last, struct cts_error *error)
{
    if (fds_count > 0)
        return adopt_all(listeners, fds, fds_count, settings, error);
    char *const *binds;
    size_t binds_count = cts_settings_list(settings, CTS_SETTING_bind, &binds);
    if (binds_count > LISTENERS_MAX) {
        cts_error_set(error, CTS_EXIT_FAILURE, "bind: at most %d addresses", LISTENERS_MAX);
        return LISTENER_FAILED;
    }
    for (size_t i = listeners->count; i < binds_count; i++) {
        enum listener_verdict verdict =
            open_one(listeners, binds[i], settings, previous, is_last, error);
        if (verdict == LISTENER_AGAIN)
            cts_error_log("Connection in use: %s", binds[i]);
        if (verdict != LISTENER_OPEN)
            return verdict;
    }
    return LISTENER_OPEN;
}

static bool has_path(const struct listeners *listeners, const char *path)
{
    for (size_t i = 0; listeners != NULL && i < listeners->count; i++)
        if (listeners->at[i].is_unix && strcmp(listeners->at[i].server_name, path) == 0)
            return true;
    return false;
}

void listener_close_all(struct listeners *listeners, bool unlink_paths,
                        const struct listeners *but_for)
{
    berths_free(listeners->berths);
    listeners->berths = NULL;
    for (size_t i = 0; i < listeners->count; i++) {
        struct listener *listener = &listeners->at[i];
        fork_list_close(&listener->fd);
        free(listeners->texts[i]);
        listeners->texts[i] = NULL;
        if (unlink_paths && listener->is_unix && !listeners->is_inherited &&
            !has_path(but_for, listener->server_name))
            unlink(listener->server_name);
    }
    listeners->count = 0;
}

size_t listener_names(const struct listeners *listeners, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < listeners->count && used < text_bytes; i++) {
        int count = snprintf(text + used, text_bytes - used, "%s%s", i > 0 ? "," : "",
                             listeners->at[i].name);
        used += (size_t)count;
    }
    return used < text_bytes ? used : text_bytes - 1;
}

bool listener_is_loopback(const struct listeners *listeners)
{
    size_t tcp_count = 0;
    for (size_t i = 0; i < listeners->count; i++) {
        const struct listener *listener = &listeners->at[i];
        if (listener->is_unix)
            continue;
        tcp_count++;
        if (strncmp(listener->server_name, "127.", 4) != 0 &&
            strcmp(listener->server_name, "::1") != 0)
            return false;
    }
    return tcp_count > 0;
}
