/* exclusive.c - see exclusive.h. */
#include "exclusive.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define LINK_BYTES_MAX 64
#define GENERATION_ONE (1ull << 32)   /* libev counts in the upper half of its word */

void exclusive_init(struct exclusive *exclusive, bool is_wanted)
{
    *exclusive = (struct exclusive){.is_wanted = is_wanted, .epoll_fd = -1};
}

/* -- the word that libev gave ------------------------------------------------------------------ */
/* Does the epoll set `epoll_fd` watch `fd`, and is it libev who says so? Its word has the
 * descriptor in the lower half. The file has one line per watched descriptor, at most as many as
 * there are connections. */
static bool read_word(int epoll_fd, int fd, uint64_t *ret_word)
{
    char path[LINK_BYTES_MAX], line[160];
    bool is_found = false;
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll_fd);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (!is_found && fgets(line, sizeof(line), file) != NULL) {
        int watched_fd;
        unsigned long long word;
        is_found = sscanf(line, "tfd: %d events: %*x data: %llx", &watched_fd, &word) == 2 &&
                   watched_fd == fd && (uint32_t)word == (uint32_t)fd;
        if (is_found)
            *ret_word = word;
    }
    fclose(file);
    return is_found;
}

static bool is_epoll(int directory_fd, const char *name)
{
    static const char expected[] = "anon_inode:[eventpoll]";
    char target[LINK_BYTES_MAX];
    ssize_t count = readlinkat(directory_fd, name, target, sizeof(target));
    return count == (ssize_t)sizeof(expected) - 1 && memcmp(target, expected, (size_t)count) == 0;
}

/* The epoll set that watches `fd` by libev's order, or -1. */
static int find_epoll(int fd, uint64_t *ret_word)
{
    int found = -1;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL)
        return -1;
    for (struct dirent *entry; found < 0 && (entry = readdir(directory)) != NULL;) {
        if (!is_epoll(dirfd(directory), entry->d_name))
            continue;
        int epoll_fd = atoi(entry->d_name);
        if (read_word(epoll_fd, fd, ret_word))
            found = epoll_fd;
    }
    closedir(directory);
    return found;
}

/* -- watching ---------------------------------------------------------------------------------- */
static int control(const struct exclusive *exclusive, int operation, uint32_t events,
                   const struct exclusive_watch *watch)
{
    struct epoll_event event = {.events = events, .data.u64 = watch->word};
    return epoll_ctl(exclusive->epoll_fd, operation, watch->io.fd, &event) < 0 ? -errno : 0;
}

void exclusive_watch(struct exclusive *exclusive, struct ev_loop *ev, struct exclusive_watch *watch)
{
    if (ev_is_active(&watch->io))
        return;
    /* Set anew, libev adds it even when it has not noticed yet that it was stopped. */
    ev_io_set(&watch->io, watch->io.fd, EV_READ);
    ev_io_start(ev, &watch->io);
    watch->is_exclusive = watch->is_added = false;
    watch->is_due = exclusive->is_wanted;
    exclusive->is_due |= watch->is_due;
}

void exclusive_ignore(struct exclusive *exclusive, struct ev_loop *ev, struct exclusive_watch *watch)
{
    ev_io_stop(ev, &watch->io);
    /* libev may or may not have raised the generation by now. */
    if (watch->is_due || watch->is_added)
        watch->is_word_known = false;
    watch->is_exclusive = watch->is_due = watch->is_added = false;
    if (exclusive->epoll_fd >= 0)
        (void)control(exclusive, EPOLL_CTL_DEL, 0, watch);
}

/* libev adds it afresh, and then it is ours to take over. */
static void start_again(struct exclusive *exclusive, struct ev_loop *ev,
                        struct exclusive_watch *watch)
{
    exclusive_ignore(exclusive, ev, watch);
    watch->is_word_known = false;
    exclusive_watch(exclusive, ev, watch);
}

/* The word under which libev has just added it. */
static bool learn_word(struct exclusive *exclusive, struct exclusive_watch *watch)
{
    if (watch->is_word_known) {
        watch->word += GENERATION_ONE;
        return true;
    }
    if (exclusive->epoll_fd < 0 || !read_word(exclusive->epoll_fd, watch->io.fd, &watch->word))
        exclusive->epoll_fd = find_epoll(watch->io.fd, &watch->word);
    return exclusive->epoll_fd >= 0;
}

void exclusive_turn_begins(struct exclusive *exclusive, struct exclusive_watch *watch)
{
    exclusive->is_due = false;
    watch->is_added = watch->is_due;
    watch->is_due = false;
}

void exclusive_turn_ends(struct exclusive *exclusive, struct exclusive_watch *watch)
{
    if (!watch->is_added || !exclusive->is_wanted || !ev_is_active(&watch->io))
        return;
    watch->is_added = false;
    if (!learn_word(exclusive, watch)) {
        exclusive->is_wanted = false;
        return;
    }
    watch->is_word_known = control(exclusive, EPOLL_CTL_DEL, 0, watch) == 0;
    if (!watch->is_word_known)
        return;
    watch->is_exclusive = control(exclusive, EPOLL_CTL_ADD, EPOLLIN | EPOLLEXCLUSIVE, watch) == 0;
    if (!watch->is_exclusive) {
        exclusive->is_wanted = false;
        (void)control(exclusive, EPOLL_CTL_ADD, EPOLLIN, watch);
    }
}

void exclusive_refresh(struct exclusive *exclusive, struct ev_loop *ev,
                       struct exclusive_watch *watch)
{
    struct pollfd ask = {.fd = watch->io.fd, .events = POLLIN};
    if (!exclusive->is_wanted || !ev_is_active(&watch->io) || watch->is_due ||
        watch->is_added)
        return;
    /* An exclusive entry cannot be changed, and the kernel says EINVAL; anything else means that
     * this is libev's own again. */
    if (!watch->is_exclusive || control(exclusive, EPOLL_CTL_MOD, EPOLLIN, watch) != -EINVAL ||
        poll(&ask, 1, 0) > 0)
        start_again(exclusive, ev, watch);
}
