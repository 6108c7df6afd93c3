/* siblings.h - how many connections the other workers have, and who should let them go first.
 *
 * One page, shared by the master and every worker: a place per slot, a cache line per place. A
 * worker writes into its own place only and reads the others as what they are, numbers from
 * processes that run other people's code: the worst that a wrong one can do is an uneven share.
 *
 * The rule: a worker with more than 1.125 times the mean of connections steps back, which means
 * that it no longer watches the listening sockets, so that the kernel wakes somebody else. Mean
 * and minimum are taken over the siblings that are believed: those that polled within the last
 * 100 ms, and those that sleep in their poll and did poll within the last two and a half seconds
 * (they beat once a second). A hung or stopped sibling with few connections stops nobody.
 *
 * Nobody steps back for one connection more than the least loaded sibling has: the next client
 * would only turn the two around. */
#ifndef SERVER_SIBLINGS_H
#define SERVER_SIBLINGS_H

#include "ctserve/base.h"

#include <stdatomic.h>

#define SIBLINGS_MAX 1024    /* the slots of a supervisor */
#define SIBLINGS_FRESH_S 0.1
#define SIBLINGS_ASLEEP_S 2.5

/* What one worker says of itself. Times are those of ev_now(). */
struct sibling {
    _Alignas(64) _Atomic int connections_count;
    _Atomic unsigned accepted_count;   /* since it booted; wraps */
    _Atomic bool accepts;      /* a client could go there: booted, not full, not leaving */
    _Atomic bool sleeps;       /* in its poll, since `polled_at` */
    _Atomic double polled_at;
};

/* Should the worker at `own` step back? A pure function of the places. Siblings that have not polled
 * since `since` are not believed either (0: no matter). */
bool siblings_outweighed(const struct sibling *places, size_t count, size_t own, double now,
                         double since);

/* -- the page ---------------------------------------------------------------------------------- */
/* In the master, before the first fork. Without the page (-errno) nobody ever steps back. */
int siblings_make(void) CTS_MUST_USE;
/* The master takes or gives back the place of a slot: it is empty then. */
void siblings_clear(int slot_index);
/* In a worker: its own place. Without a page one that nobody else sees. */
struct sibling *siblings_own(int slot_index);
/* siblings_outweighed() for the worker of that slot. */
bool siblings_say_step_back(int slot_index, double now, double since);
/* How many clients everybody has let in; only a difference means something. */
unsigned siblings_accepted_count(void);

#endif
