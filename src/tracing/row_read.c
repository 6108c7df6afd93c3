/* row_read.c - rows copied out and decided, and the identity counted over them. */
#include "ctserve/slot_read.h"

#include "order.h"

#define TRIES 16

static const struct cts_row *row_at(const struct cts_slot_view *view, uint32_t index)
{
    return (const struct cts_row *)(const void *)(view->map + view->rows_offset) + index;
}

static const struct cts_worker_page *page_of(const struct cts_slot_view *view)
{
    return &((const struct cts_slot_header *)(const void *)view->map)->worker;
}

/* -- what became of a span --------------------------------------------------------------------- */

struct cell {
    uint64_t sequence, commit_head, drop_target, dropped_count;
};

static struct cell cell_copy(const struct cts_commit *commit)
{
    return (struct cell){
        .sequence = load_acquire(&commit->sequence),
        .commit_head = load_acquire(&commit->commit_head),
        .drop_target = load_acquire(&commit->drop_target),
        .dropped_count = load_acquire(&commit->dropped_count),
    };
}

static enum cts_row_state cell_decide(const struct cell *cell, uint64_t head)
{
    if ((cell->sequence & 1) == 0)
        return CTS_ROW_FREE;
    if (cell->commit_head != 0 && head >= cell->commit_head)
        return CTS_ROW_COMMITTED;
    if (cell->drop_target != 0 && cell->dropped_count >= cell->drop_target)
        return CTS_ROW_DROPPED;
    return CTS_ROW_OPEN;
}

/* -- one row ----------------------------------------------------------------------------------- */

static struct cts_bytes text_in(const char *at, size_t count, size_t count_max)
{
    return (struct cts_bytes){at, count < count_max ? count : count_max};
}

static void copy_decode(struct cts_row_copy *copy)
{
    struct cts_row *row = &copy->row;
    uint32_t phase = atomic_load_explicit(&row->phase, memory_order_relaxed);
    copy->phase = phase >= CTS_PHASE_HEAD && phase <= CTS_PHASE_SENT ? phase : 0;
    copy->flags = atomic_load_explicit(&row->flags, memory_order_relaxed);
    copy->start_mono_ns = row->start_mono_ns;
    copy->app_mono_ns = load(&row->app_mono_ns);
    copy->progress_mono_ns = load(&row->progress_mono_ns);
    memcpy(copy->trace_id, row->trace_id, sizeof(copy->trace_id));
    memcpy(copy->span_id, row->span_id, sizeof(copy->span_id));
    memcpy(copy->parent_span_id, row->parent_span_id, sizeof(copy->parent_span_id));
    copy->has_parent = row->has_parent != 0;
    copy->trace_flags = row->sampled;
    copy->version_minor = row->version_minor;
    copy->peer_port = row->peer_port;
    copy->server_port = row->server_port;
    copy->thread_id = row->thread_id;
    copy->method = text_in(row->method, row->method_bytes, sizeof(row->method));
    copy->path = text_in(row->target, row->target_bytes, sizeof(row->target));
    copy->query = text_in(row->query, row->query_bytes, sizeof(row->query));
    copy->scheme = text_in(row->scheme, row->scheme_bytes, sizeof(row->scheme));
    copy->host = text_in(row->host, row->host_bytes, sizeof(row->host));
    copy->user_agent = text_in(row->agent, row->agent_bytes, sizeof(row->agent));
    copy->peer = text_in(row->peer, row->peer_bytes, sizeof(row->peer));
}

/* Both sequences, the row between two looks at them, and the head after what refers to it. False
 * when the row moved on meanwhile. */
static bool try_copy(const struct cts_slot_view *view, const struct cts_row *row,
                     struct cts_row_copy *copy)
{
    uint64_t traced = load_acquire(&row->sequence);
    uint64_t untraced = load_acquire(&row->untraced_sequence);
    copy->state = CTS_ROW_FREE;
    copy->is_traced = (traced & 1) != 0;
    copy->sequence = copy->is_traced ? traced : untraced;
    if ((copy->sequence & 1) == 0)
        return true;
    copy_words(&copy->row, row, sizeof(copy->row));
    struct cell cell = cell_copy(&row->commit);
    uint64_t head = load_acquire(&page_of(view)->head);
    order_loads();
    if (load(&row->sequence) != traced || load(&row->untraced_sequence) != untraced)
        return false;
    copy->state = copy->is_traced ? cell_decide(&cell, head) : CTS_ROW_OPEN;
    return true;
}

enum cts_row_state cts_row_read(const struct cts_slot_view *view, uint32_t index,
                                struct cts_row_copy *ret_row)
{
    ret_row->state = CTS_ROW_FREE;
    if (index >= view->rows_count)
        return CTS_ROW_FREE;
    const struct cts_row *row = row_at(view, index);
    int tries = 0;
    while (!try_copy(view, row, ret_row) && ++tries < TRIES)
        continue;
    ret_row->index = index;
    if (ret_row->state != CTS_ROW_FREE)
        copy_decode(ret_row);
    return ret_row->state;
}

/* -- hung requests ----------------------------------------------------------------------------- */

static LOOKS_AT_CHANGING_BYTES uint64_t start_of(const struct cts_row *row)
{
    return *(const volatile uint64_t *)&row->start_mono_ns;
}

static uint64_t silent_since(uint64_t start_ns, uint32_t flags, uint64_t progress_ns)
{
    bool is_streaming = (flags & CTS_ROW_STREAMING) != 0;
    return is_streaming && progress_ns > start_ns ? progress_ns : start_ns;
}

/* The application is done: how long the client takes to read is no matter of the worker's. */
static bool is_over(uint32_t phase)
{
    return phase == CTS_PHASE_SEND || phase == CTS_PHASE_SENT;
}

/* Cheap: no texts. May be wrong about a row that changes right now; the copy is asked again. */
static uint64_t glance_since(const struct cts_row *row)
{
    if (((load_acquire(&row->sequence) | load_acquire(&row->untraced_sequence)) & 1) == 0 ||
        is_over(atomic_load_explicit(&row->phase, memory_order_relaxed)))
        return UINT64_MAX;
    return silent_since(start_of(row), atomic_load_explicit(&row->flags, memory_order_relaxed),
                        load(&row->progress_mono_ns));
}

static bool is_hung(const struct cts_row_copy *row, uint64_t now_ns, uint64_t limit_ns)
{
    uint64_t since = silent_since(row->start_mono_ns, row->flags, row->progress_mono_ns);
    return row->state == CTS_ROW_OPEN && !is_over(row->phase) && since < now_ns &&
           now_ns - since >= limit_ns;
}

bool cts_row_find_hung(const struct cts_slot_view *view, uint64_t now_mono_ns, uint64_t limit_ns,
                       struct cts_row_copy *ret_row)
{
    uint64_t oldest_since = UINT64_MAX;
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < view->rows_count; i++) {
        uint64_t since = glance_since(row_at(view, i));
        if (since < oldest_since) {
            oldest_since = since;
            oldest = i;
        }
    }
    if (oldest_since >= now_mono_ns || now_mono_ns - oldest_since < limit_ns)
        return false;
    cts_row_read(view, oldest, ret_row);
    return is_hung(ret_row, now_mono_ns, limit_ns);
}

/* -- the identity ------------------------------------------------------------------------------ */

/* Everything that decides, of one moment if two collections in a row agree: all of it only grows,
 * but for the two words that go back to 0 between two moves of their sequence. */
struct collection {
    uint64_t head;
    struct cell rowless;
    struct cell rows[CTS_SLOT_ROWS_MAX];
};

static void collect(const struct cts_slot_view *view, struct collection *to)
{
    to->head = load_acquire(&page_of(view)->head);
    to->rowless = cell_copy(&page_of(view)->rowless);
    for (uint32_t i = 0; i < view->rows_count; i++)
        to->rows[i] = cell_copy(&row_at(view, i)->commit);
}

static bool collect_moment(const struct cts_slot_view *view, struct collection *to)
{
    struct collection again;
    size_t bytes = offsetof(struct collection, rows) + view->rows_count * sizeof(struct cell);
    collect(view, to);
    for (int tries = 0; tries < TRIES; tries++) {
        collect(view, &again);
        if (memcmp(to, &again, bytes) == 0)
            return true;
        memcpy(to, &again, bytes);
    }
    return false;
}

static void counts_add(struct cts_slot_counts *counts, const struct cell *cell, uint64_t *open,
                       uint64_t head)
{
    uint64_t begun = (cell->sequence >> 1) + (cell->sequence & 1);
    counts->started += begun;
    counts->dropped_ring_full += cell->dropped_count;
    *open += cell_decide(cell, head) == CTS_ROW_OPEN;
    /* Only rubbish says that more was dropped than begun, or that so much ever began. */
    if (cell->dropped_count > begun || begun >> 56 != 0)
        counts->is_exact = false;
}

void cts_slot_count(const struct cts_slot_view *view, struct cts_slot_counts *ret_counts)
{
    struct collection collection;
    struct cts_slot_counts counts = {0};
    counts.is_exact = collect_moment(view, &collection);
    counts.head = collection.head;
    counts_add(&counts, &collection.rowless, &counts.rowless_open, counts.head);
    for (uint32_t i = 0; i < view->rows_count; i++)
        counts_add(&counts, &collection.rows[i], &counts.open, counts.head);
    counts.rows_full = load(&page_of(view)->rows_full);
    counts.attributes_dropped = load(&page_of(view)->attributes_dropped);
    uint64_t not_committed = counts.open + counts.rowless_open + counts.dropped_ring_full;
    if (not_committed > counts.started)
        counts.is_exact = false;
    else
        counts.committed = counts.started - not_committed;
    *ret_counts = counts;
}
