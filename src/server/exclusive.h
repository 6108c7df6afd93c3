/* exclusive.h - of several workers that sleep, one wakes for one client.
 *
 * libev cannot say EPOLLEXCLUSIVE. So libev adds the listening socket to its epoll set as ever, and
 * afterwards we take it out and add it again with that flag and with the very word that libev gave
 * it (descriptor and generation). We read that word where the kernel shows it, in
 * /proc/self/fdinfo, which also proves that the descriptor found is libev's epoll set; afterwards
 * every watching anew raises the generation by one. Without /proc, or on a kernel that does not
 * know the flag, everything stays as libev made it and every sleeper wakes.
 *
 * What must hold for whoever uses it:
 *
 * - Who was woken accepts. Nobody else was told of that client. A worker that does not want one
 *   stops watching beforehand (exclusive_ignore), never after it was woken.
 * - Where that fails all the same (killed between waking and accepting, no descriptor left, other
 *   work came in between), exclusive_refresh() once a second finds the client that waits.
 * - libev may build a new epoll set at any time (it does so when it hears a word that it does not
 *   know), and then watches without the flag. That costs the exclusivity until exclusive_refresh()
 *   sees it, and nothing else.
 *
 * Used by the thread that turns the loop. */
#ifndef SERVER_EXCLUSIVE_H
#define SERVER_EXCLUSIVE_H

#include "ctserve/base.h"

#include <ev.h>

struct exclusive {
    bool is_wanted;          /* false: plain libev */
    bool is_due;             /* some watcher is to be taken over in the next turn */
    int epoll_fd;            /* libev's own; -1: not found yet. Never closed by us */
};

/* A watcher of one listening socket. */
struct exclusive_watch {
    ev_io io;                /* the caller's to init */
    bool is_due;             /* libev adds it in the next turn */
    bool is_added;           /* libev adds it in this turn */
    bool is_exclusive;
    bool is_word_known;
    uint64_t word;           /* what libev wants to hear when it is ready */
};

void exclusive_init(struct exclusive *exclusive, bool is_wanted);

/* Watch and stop watching. After exclusive_ignore the socket is really out of the set, which
 * libev by itself leaves for later. */
void exclusive_watch(struct exclusive *exclusive, struct ev_loop *ev, struct exclusive_watch *watch);
void exclusive_ignore(struct exclusive *exclusive, struct ev_loop *ev, struct exclusive_watch *watch);

/* Around a turn of the loop, when `is_due` is set before it. */
void exclusive_turn_begins(struct exclusive *exclusive, struct exclusive_watch *watch);
void exclusive_turn_ends(struct exclusive *exclusive, struct exclusive_watch *watch);

/* Once a second: a client that nobody came for makes the next turn ready, and a watcher that libev
 * has added anew becomes due. */
void exclusive_refresh(struct exclusive *exclusive, struct ev_loop *ev,
                       struct exclusive_watch *watch);

#endif
