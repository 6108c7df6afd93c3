/* slot_read.c - the layout of a slot, checked once; the worker page; the consumer page. */
#include "ctserve/slot_read.h"

#include "order.h"
#include "slot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE_BYTES 4096u

_Static_assert(sizeof(struct cts_slot_header) <= PAGE_BYTES, "the header is one page");
_Static_assert(sizeof(struct cts_consumer) <= PAGE_BYTES, "the consumer has one page");
_Static_assert(sizeof(struct cts_row) % 64 == 0, "rows do not share cache lines");

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

size_t cts_slot_bytes(uint32_t ring_bytes, uint32_t rows_count)
{
    if (ring_bytes < CTS_RING_BYTES_MIN || ring_bytes > CTS_RING_BYTES_MAX ||
        (ring_bytes & (ring_bytes - 1)) != 0)
        return 0;
    if (rows_count == 0 || rows_count > CTS_SLOT_ROWS_MAX)
        return 0;
    return slot_layout_of(ring_bytes, rows_count).map_bytes;
}

struct slot_layout slot_layout_of(uint32_t ring_bytes, uint32_t rows_count)
{
    struct slot_layout layout = {.rows_offset = PAGE_BYTES};
    layout.ring_offset =
        (uint32_t)(PAGE_BYTES + whole_pages((size_t)rows_count * sizeof(struct cts_row)));
    layout.consumer_offset = layout.ring_offset + ring_bytes;
    layout.map_bytes = (size_t)layout.consumer_offset + PAGE_BYTES;
    return layout;
}

static bool header_is_right(const struct cts_slot_header *header, size_t map_bytes)
{
    if (header->magic != CTS_SLOT_MAGIC || header->version != CTS_SLOT_VERSION ||
        header->header_bytes != sizeof(*header) || header->map_bytes != map_bytes)
        return false;
    if (cts_slot_bytes(header->ring_bytes, header->rows_count) != map_bytes)
        return false;
    struct slot_layout layout = slot_layout_of(header->ring_bytes, header->rows_count);
    return header->rows_offset == layout.rows_offset && header->ring_offset == layout.ring_offset &&
           header->consumer_offset == layout.consumer_offset;
}

int cts_slot_view_open(const void *map, size_t map_bytes, bool consumer_is_writable,
                       struct cts_slot_view *ret_view)
{
    struct cts_slot_header header = {0};
    memset(ret_view, 0, sizeof(*ret_view));
    if (map_bytes < PAGE_BYTES)
        return -EBADMSG;
    /* The one look at the header: all of it that is constant, then checked as a copy. */
    copy_words(&header, map, offsetof(struct cts_slot_header, worker));
    if (!header_is_right(&header, map_bytes))
        return -EBADMSG;
    ret_view->map = map;
    ret_view->map_bytes = map_bytes;
    ret_view->ring_id = header.ring_id;
    ret_view->slot_index = header.slot_index;
    ret_view->generation = header.generation;
    ret_view->age = header.age;
    memcpy(ret_view->fork_trace_id, header.fork_trace_id, sizeof(header.fork_trace_id));
    memcpy(ret_view->fork_span_id, header.fork_span_id, sizeof(header.fork_span_id));
    ret_view->created_mono_ns = header.created_mono_ns;
    ret_view->created_real_ns = header.created_real_ns;
    ret_view->rows_offset = header.rows_offset;
    ret_view->rows_count = header.rows_count;
    ret_view->ring_offset = header.ring_offset;
    ret_view->ring_bytes = header.ring_bytes;
    ret_view->consumer_offset = header.consumer_offset;
    if (consumer_is_writable)
        ret_view->consumer = (struct cts_consumer *)((uintptr_t)map + header.consumer_offset);
    return 0;
}

/* A file that could shrink under us would be a SIGBUS at any load. */
static int check_descriptor(int fd, size_t *ret_bytes)
{
    struct stat status;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return -EPERM;
    if (fstat(fd, &status) < 0)
        return -errno;
    size_t bytes_max = cts_slot_bytes(CTS_RING_BYTES_MAX, CTS_SLOT_ROWS_MAX);
    if (status.st_size < (off_t)(2 * PAGE_BYTES) || (size_t)status.st_size > bytes_max ||
        status.st_size % PAGE_BYTES != 0)
        return -EBADMSG;
    *ret_bytes = (size_t)status.st_size;
    return 0;
}

int cts_slot_view_map(int fd, bool consumer_is_writable, struct cts_slot_view *ret_view)
{
    size_t bytes = 0;
    memset(ret_view, 0, sizeof(*ret_view));
    int r = check_descriptor(fd, &bytes);
    if (r < 0)
        return r;
    unsigned char *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    (void)madvise(map, bytes, MADV_DONTFORK);
    r = cts_slot_view_open(map, bytes, consumer_is_writable, ret_view);
    if (r == 0 && consumer_is_writable &&
        mprotect(map + ret_view->consumer_offset, PAGE_BYTES, PROT_READ | PROT_WRITE) < 0)
        r = -errno;
    if (r < 0) {
        munmap(map, bytes);
        memset(ret_view, 0, sizeof(*ret_view));
    }
    return r;
}

void cts_slot_view_unmap(struct cts_slot_view *view)
{
    if (view->map != NULL)
        munmap((void *)(uintptr_t)view->map, view->map_bytes);
    memset(view, 0, sizeof(*view));
}

uint64_t cts_slot_real_ns(const struct cts_slot_view *view, uint64_t mono_ns)
{
    return view->created_real_ns + (mono_ns - view->created_mono_ns);
}

/* -- the worker page --------------------------------------------------------------------------- */

static const struct cts_worker_page *page_of(const struct cts_slot_view *view)
{
    return &((const struct cts_slot_header *)(const void *)view->map)->worker;
}

void cts_worker_read(const struct cts_slot_view *view, struct cts_worker_copy *ret_worker)
{
    const struct cts_worker_page *page = page_of(view);
    *ret_worker = (struct cts_worker_copy){
        .head = load_acquire(&page->head),
        .rows_full = load(&page->rows_full),
        .attributes_dropped = load(&page->attributes_dropped),
        .beat_mono_ns = load(&page->beat_mono_ns),
        .beat_required_since_ns = load(&page->beat_required_since_ns),
        .requests_count = load(&page->requests_count),
        .answered_count = load(&page->answered_count),
        .refused_count = load(&page->refused_count),
        .connections_count = atomic_load_explicit(&page->connections_count, memory_order_relaxed),
        .pid = atomic_load_explicit(&page->pid, memory_order_relaxed),
        .state = atomic_load_explicit(&page->state, memory_order_acquire),
    };
}

uint64_t cts_worker_silence_ns(const struct cts_slot_view *view, uint64_t now_mono_ns)
{
    const struct cts_worker_page *page = page_of(view);
    uint64_t since = load(&page->beat_required_since_ns);
    if (since == 0)
        return 0;
    uint64_t beat = load(&page->beat_mono_ns);
    uint64_t last = beat > since ? beat : since;
    return now_mono_ns > last ? now_mono_ns - last : 0;
}

/* -- the consumer page ------------------------------------------------------------------------- */

static const struct cts_consumer *consumer_of(const struct cts_slot_view *view)
{
    return (const struct cts_consumer *)(const void *)(view->map + view->consumer_offset);
}

/* The copy that is selected changes only after the selector changed twice; a few tries are plenty,
 * and the agent itself always gets it at the first. */
void cts_consumer_read(const struct cts_slot_view *view, struct cts_consumer_counts *ret_counts)
{
    const struct cts_consumer *consumer = consumer_of(view);
    for (int tries = 0; tries < 8; tries++) {
        uint32_t before = atomic_load_explicit(&consumer->selector, memory_order_acquire);
        copy_words(ret_counts, &consumer->counts[before & 1], sizeof(*ret_counts));
        order_loads();
        if (atomic_load_explicit(&consumer->selector, memory_order_relaxed) == before)
            return;
    }
}

void cts_consumer_write(const struct cts_slot_view *view, const struct cts_consumer_counts *counts)
{
    struct cts_consumer *consumer = view->consumer;
    if (consumer == NULL)
        return;
    uint32_t spare = (atomic_load_explicit(&consumer->selector, memory_order_relaxed) & 1) ^ 1;
    order_stores();
    consumer->counts[spare] = *counts;
    atomic_store_explicit(&consumer->selector, spare, memory_order_release);
    cts_consumer_resume(view);
}

void cts_consumer_resume(const struct cts_slot_view *view)
{
    struct cts_consumer *consumer = view->consumer;
    if (consumer == NULL)
        return;
    uint32_t current = atomic_load_explicit(&consumer->selector, memory_order_relaxed) & 1;
    uint64_t tail = consumer->counts[current].tail;
    /* Release: our reads of the bytes before `tail` are done. */
    if (tail > load(&consumer->tail_hint))
        store_release(&consumer->tail_hint, tail);
}

void cts_consumer_quarantine(const struct cts_slot_view *view)
{
    if (view->consumer != NULL)
        atomic_store_explicit(&view->consumer->quarantined, 1, memory_order_release);
}

bool cts_consumer_is_quarantined(const struct cts_slot_view *view)
{
    return atomic_load_explicit(&consumer_of(view)->quarantined, memory_order_acquire) != 0;
}
