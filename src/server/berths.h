/* berths.h - reuse_port: the listening sockets of each place of the service.
 *
 * A berth is what one worker listens on: a socket of its own for every TCP address, bound with
 * SO_REUSEPORT beside the master's reservation, and the shared socket for everything else. The
 * berth belongs to the place, not to the worker: whoever replaces a worker gets the same socket
 * with the clients that wait in it, and during a reload the old and the new worker of a place
 * accept from one queue.
 *
 * The master only binds; a worker listens when it is ready, so nobody waits for one that boots for
 * the first time. A berth that nobody holds is closed, because the kernel would go on sending
 * clients there. */
#ifndef SERVER_BERTHS_H
#define SERVER_BERTHS_H

#include "listener.h"

#define BERTHS_MAX 1024

/* Does some address of `listeners` want a socket per worker? */
bool berths_are_wanted(const struct listeners *listeners);

/* What the worker at `index` listens on: `listeners->count` entries that live as long as the berth.
 * The next child with this owner inherits the sockets. 0, or -errno. */
int berths_take(struct listeners *listeners, int index, const void *owner,
                const struct listener **ret_at) CTS_MUST_USE;

/* The master lets go of the berths that nobody holds. */
void berths_close_unheld(struct listeners *listeners, const bool is_held[BERTHS_MAX]);
void berths_free(struct berths *berths);

#endif
