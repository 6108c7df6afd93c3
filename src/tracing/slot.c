/* slot.c - the memfd of one worker (or of the master): made, given up, attached to.
 *
 * Always true: the size is sealed before anybody else sees the descriptor, a worker that has
 * attached keeps none, and no process inherits a mapping by a fork. */
#include "slot.h"

#include "order.h"
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static int make_memfd(size_t bytes)
{
    int fd = memfd_create("ctserve-slot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

/* A second open file description: a read-only mapping of a read-write one could be made writable
 * again by mprotect. */
static int reopen_read_only(int fd)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int read_only_fd = open(path, O_RDONLY | O_CLOEXEC);
    return read_only_fd < 0 ? -errno : read_only_fd;
}

static void write_header(struct cts_slot_header *header, const struct cts_slot_plan *plan)
{
    struct slot_layout layout = slot_layout_of(plan->ring_bytes, plan->rows_count);
    header->version = CTS_SLOT_VERSION;
    header->header_bytes = sizeof(*header);
    header->map_bytes = layout.map_bytes;
    header->ring_id = plan->ring_id;
    header->slot_index = plan->slot_index;
    header->generation = plan->generation;
    header->age = plan->age;
    header->rows_offset = layout.rows_offset;
    header->rows_count = plan->rows_count;
    header->ring_offset = layout.ring_offset;
    header->ring_bytes = plan->ring_bytes;
    header->consumer_offset = layout.consumer_offset;
    memcpy(header->fork_trace_id, plan->fork_trace_id, sizeof(header->fork_trace_id));
    memcpy(header->fork_span_id, plan->fork_span_id, sizeof(header->fork_span_id));
    header->created_mono_ns = cts_clock_mono_ns();
    header->created_real_ns = cts_clock_real_ns();
    header->magic = CTS_SLOT_MAGIC;
}

static int map_for_master(struct cts_slot *slot)
{
    void *map = mmap(NULL, slot->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, slot->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    slot->map = map;
    return madvise(map, slot->map_bytes, MADV_DONTFORK) < 0 ? -errno : 0;
}

int cts_slot_create(const struct cts_slot_plan *plan, struct cts_slot *ret_slot)
{
    int r;
    struct cts_slot slot = {.fd = -1, .read_only_fd = -1};
    *ret_slot = slot;
    slot.map_bytes = cts_slot_bytes(plan->ring_bytes, plan->rows_count);
    if (slot.map_bytes == 0)
        return -EINVAL;

    r = make_memfd(slot.map_bytes);
    if (r < 0)
        goto done;
    slot.fd = r;
    r = reopen_read_only(slot.fd);
    if (r < 0)
        goto done;
    slot.read_only_fd = r;
    r = map_for_master(&slot);
    if (r < 0)
        goto done;
    write_header(slot.map, plan);
    r = cts_slot_view_open(slot.map, slot.map_bytes, true, &slot.view);
    if (r < 0)
        goto done;

    *ret_slot = slot;
    slot = (struct cts_slot){.fd = -1, .read_only_fd = -1};
done:
    cts_slot_free(&slot);
    return r;
}

void cts_slot_free(struct cts_slot *slot)
{
    if (slot->map != NULL)
        munmap(slot->map, slot->map_bytes);
    slot->map = NULL;
    cts_slot_disown(slot);
}

void cts_slot_disown(struct cts_slot *slot)
{
    cts_fd_close(&slot->fd);
    cts_fd_close(&slot->read_only_fd);
    *slot = (struct cts_slot){.fd = -1, .read_only_fd = -1};
}

/* The whole slot read-only from the read-only descriptor, then the worker's part over it. */
static int map_for_worker(const struct cts_slot *slot, unsigned char **ret_map)
{
    size_t own_bytes = slot->view.consumer_offset;
    void *map = mmap(NULL, slot->map_bytes, PROT_READ, MAP_SHARED, slot->read_only_fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    if (mmap(map, own_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, slot->fd, 0) ==
            MAP_FAILED ||
        madvise(map, slot->map_bytes, MADV_DONTFORK) < 0) {
        int r = -errno;
        munmap(map, slot->map_bytes);
        return r;
    }
    *ret_map = map;
    return 0;
}

int cts_tracer_attach(struct cts_slot *slot, bool thread_safe)
{
    unsigned char *map = NULL;
    struct cts_slot_view view = slot->view;
    cts_tracer_detach();
    int r = view.map_bytes == 0 ? -EINVAL : map_for_worker(slot, &map);
    cts_slot_disown(slot);
    if (r < 0)
        return r;
    r = tracer_start(map, &view, thread_safe);
    if (r < 0) {
        munmap(map, view.map_bytes);
        return r;
    }
    atomic_store(&tracer.page->pid, getpid());
    atomic_store(&tracer.page->state, CTS_WORKER_BOOTING);
    return 0;
}

int cts_tracer_attach_master(struct cts_slot *slot)
{
    cts_tracer_detach();
    if (slot->map == NULL)
        return -EINVAL;
    /* With the lock: a hook may do its work in a thread of its own. */
    int r = tracer_start((unsigned char *)slot->map, &slot->view, true);
    if (r < 0)
        return r;
    atomic_store(&tracer.page->pid, getpid());
    atomic_store(&tracer.page->state, CTS_WORKER_READY);
    return 0;
}
