/* berths.c - see berths.h. */
#include "berths.h"

#include "fork.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

struct berth {
    size_t count;
    struct listener at[LISTENERS_MAX];
};

struct berths {
    struct berth *at[BERTHS_MAX];
};

bool berths_are_wanted(const struct listeners *listeners)
{
    for (size_t i = 0; i < listeners->count; i++)
        if (listeners->at[i].is_reserved)
            return true;
    return false;
}

static void berth_free(struct berth *berth)
{
    for (size_t i = 0; berth != NULL && i < berth->count; i++)
        if (berth->at[i].is_own)
            fork_list_close(&berth->at[i].fd);
    free(berth);
}

/* One socket more for the address of a reservation; it does not listen yet. */
static int bind_beside(int reserved_fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_storage storage;
    } address = {0};
    socklen_t bytes = sizeof(address);
    int on = 1, r = 0;
    if (getsockname(reserved_fd, &address.any, &bytes) < 0)
        return -errno;
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0 ||
        bind(fd, &address.any, bytes) < 0)
        r = -errno;
    if (r == 0)
        r = fork_list_put(fd, FORK_BERTH, NULL);
    if (r < 0)
        cts_fd_close(&fd);
    return r < 0 ? r : fd;
}

static int berth_new(const struct listeners *listeners, struct berth **ret_berth)
{
    int r = 0;
    struct berth *berth = calloc(1, sizeof(*berth));
    if (berth == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < listeners->count && r >= 0; i++) {
        struct listener *listener = &berth->at[berth->count];
        *listener = listeners->at[i];
        if (listener->is_reserved) {
            r = bind_beside(listeners->at[i].fd);
            listener->fd = r;
            listener->is_reserved = false;
            listener->is_own = r >= 0;
        }
        berth->count++;
    }
    if (r < 0) {
        berth_free(berth);
        return r;
    }
    *ret_berth = berth;
    return 0;
}

int berths_take(struct listeners *listeners, int index, const void *owner,
                const struct listener **ret_at)
{
    if (index < 0 || index >= BERTHS_MAX)
        return -EMFILE;
    if (listeners->berths == NULL)
        listeners->berths = calloc(1, sizeof(*listeners->berths));
    if (listeners->berths == NULL)
        return -ENOMEM;
    struct berth **berth = &listeners->berths->at[index];
    int r = *berth == NULL ? berth_new(listeners, berth) : 0;
    if (r < 0)
        return r;
    for (size_t i = 0; i < (*berth)->count; i++)
        if ((*berth)->at[i].is_own)
            fork_list_give((*berth)->at[i].fd, owner);
    *ret_at = (*berth)->at;
    return 0;
}

void berths_close_unheld(struct listeners *listeners, const bool is_held[BERTHS_MAX])
{
    for (int i = 0; listeners->berths != NULL && i < BERTHS_MAX; i++) {
        if (is_held[i])
            continue;
        berth_free(listeners->berths->at[i]);
        listeners->berths->at[i] = NULL;
    }
}

void berths_free(struct berths *berths)
{
    for (int i = 0; berths != NULL && i < BERTHS_MAX; i++)
        berth_free(berths->at[i]);
    free(berths);
}
