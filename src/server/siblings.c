/* siblings.c - see siblings.h. */
#include "siblings.h"

#include <errno.h>
#include <math.h>
#include <sys/mman.h>

/* A count that no worker can have says nothing. */
#define CONNECTIONS_BELIEVED_MAX 1000000

struct page {
    _Atomic unsigned used_count;     /* places from here on were never taken; the master's */
    struct sibling places[SIBLINGS_MAX];
};

static struct page *page;
static struct sibling lonely;

static bool is_believed(const struct sibling *sibling, double now, double since)
{
    double polled_at = atomic_load_explicit(&sibling->polled_at, memory_order_relaxed);
    double silent_s = now - polled_at;
    if (!atomic_load_explicit(&sibling->accepts, memory_order_relaxed) || !(polled_at >= since))
        return false;
    bool sleeps = atomic_load_explicit(&sibling->sleeps, memory_order_relaxed);
    /* False for everything that is no number; a stamp from the future is as good as none. */
    return fabs(silent_s) <= SIBLINGS_FRESH_S ||
           (sleeps && silent_s >= 0 && silent_s <= SIBLINGS_ASLEEP_S);
}

static int64_t connections_of(const struct sibling *sibling)
{
    int count = atomic_load_explicit(&sibling->connections_count, memory_order_relaxed);
    if (count < 0)
        return 0;
    return count > CONNECTIONS_BELIEVED_MAX ? CONNECTIONS_BELIEVED_MAX : count;
}

bool siblings_outweighed(const struct sibling *places, size_t count, size_t own, double now,
                         double since)
{
    if (own >= count)
        return false;
    int64_t ours = connections_of(&places[own]), sum = ours, least = ours, believed = 1;
    if (ours < 2)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (i == own || !is_believed(&places[i], now, since))
            continue;
        int64_t theirs = connections_of(&places[i]);
        sum += theirs;
        least = theirs < least ? theirs : least;
        believed++;
    }
    return least + 1 < ours && ours * 8 * believed > sum * 9;
}

/* -- the page ---------------------------------------------------------------------------------- */
int siblings_make(void)
{
    void *map = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    page = map;
    return 0;
}

void siblings_clear(int slot_index)
{
    if (page == NULL || slot_index < 0 || slot_index >= SIBLINGS_MAX)
        return;
    struct sibling *place = &page->places[slot_index];
    atomic_store(&place->accepts, false);
    atomic_store(&place->sleeps, false);
    atomic_store(&place->connections_count, 0);
    atomic_store(&place->accepted_count, 0);
    atomic_store(&place->polled_at, 0.);
    if (atomic_load(&page->used_count) <= (unsigned)slot_index)
        atomic_store(&page->used_count, (unsigned)slot_index + 1);
}

struct sibling *siblings_own(int slot_index)
{
    if (page == NULL || slot_index < 0 || slot_index >= SIBLINGS_MAX)
        return &lonely;
    return &page->places[slot_index];
}

static size_t used_count(void)
{
    unsigned used = atomic_load_explicit(&page->used_count, memory_order_relaxed);
    return used < SIBLINGS_MAX ? used : SIBLINGS_MAX;
}

bool siblings_say_step_back(int slot_index, double now, double since)
{
    return page != NULL && slot_index >= 0 &&
           siblings_outweighed(page->places, used_count(), (size_t)slot_index, now, since);
}

unsigned siblings_accepted_count(void)
{
    unsigned sum = 0;
    for (size_t i = 0; page != NULL && i < used_count(); i++)
        sum += atomic_load_explicit(&page->places[i].accepted_count, memory_order_relaxed);
    return sum;
}
