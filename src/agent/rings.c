/* rings.c - draining. */
#include "rings.h"

#include "ctserve/log.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define READ_STEP_RECORDS 256
#define ROUNDS_PER_DRAIN_MAX 64
#define SUM_TRIES_MAX 8

struct rings {
    struct rings_plan plan;
    struct cts_list list;
    size_t count;
    size_t ahead_spans, ahead_bytes;   /* read, still in rings */
    size_t heap_bytes, heap_spans;
    struct cts_record_copy record;     /* scratch: too large for a stack */
    struct cts_row_copy row;
};

CTS_PRINTF(3, 4) static void note(struct rings *rings, int level, const char *format, ...)
{
    char sentence[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    rings->plan.note(rings->plan.context, level, sentence);
}

struct rings *rings_new(const struct rings_plan *plan)
{
    struct rings *rings = calloc(1, sizeof(*rings));
    if (rings == NULL)
        return NULL;
    rings->plan = *plan;
    cts_list_init(&rings->list);
    return rings;
}

static struct ring *find(struct rings *rings, uint64_t ring_id)
{
    CTS_LIST_EACH(&rings->list, link) {
        struct ring *ring = CTS_CONTAINER(link, struct ring, link);
        if (ring->facts.ring_id == ring_id)
            return ring;
    }
    return NULL;
}

/* -- what becomes of a span ------------------------------------------------------------------- */
static void count_fate(struct ring *ring, const struct span *span)
{
    switch (span->state) {
    case SPAN_ACKED:
        ring->counts.acked++;
        break;
    case SPAN_REJECTED:
        ring->counts.rejected++;
        break;
    case SPAN_DROPPED:
        ring->counts.dropped[span->drop_reason]++;
        break;
    case SPAN_OPEN:
        assert(!"a span whose fate is open was counted");
    }
}

static void leave_ring(struct ring *ring, struct span *span)
{
    cts_list_take(&span->in_ring);
    ring->spans_count--;
    ring->owner->ahead_spans--;
    ring->owner->ahead_bytes -= span_bytes(span);
    if (span->end_position > ring->counts.tail)
        ring->counts.tail = span->end_position;
    if (span->is_row)
        ring->counts.open_closed++;
    ring->is_dirty = true;
}

static void leave_heap(struct ring *ring, struct span *span)
{
    cts_list_take(&span->in_ring);
    ring->heap_count--;
    ring->owner->heap_spans--;
    ring->owner->heap_bytes -= span_bytes(span);
    ring->counts.heap_taken--;
    ring->is_dirty = true;
}

/* The tail moves over the spans at the front whose fate is known. */
static void advance(struct ring *ring)
{
    while (!cts_list_is_empty(&ring->spans)) {
        struct span *span = CTS_CONTAINER(ring->spans.next, struct span, in_ring);
        if (span->state == SPAN_OPEN)
            return;
        leave_ring(ring, span);
        count_fate(ring, span);
        span_give(span);
    }
}

void rings_settle(struct rings *rings, struct span *span)
{
    struct ring *ring = span->ring;
    if (ring == NULL) {
        span_give(span);
        return;
    }
    if (span->in_heap) {
        leave_heap(ring, span);
        count_fate(ring, span);
        span_give(span);
        return;
    }
    ring->is_dirty = true;
}

static void flush(struct ring *ring)
{
    if (!ring->is_dirty)
        return;
    advance(ring);
    cts_consumer_write(&ring->view, &ring->counts);
    ring->is_dirty = false;
}

void rings_flush(struct rings *rings)
{
    CTS_LIST_EACH(&rings->list, link) {
        flush(CTS_CONTAINER(link, struct ring, link));
    }
}

/* A span that was read: shown in the store from now on, and on its way. */
static void put(struct ring *ring, struct span *span, uint64_t end_position)
{
    struct rings *rings = ring->owner;
    span->ring = ring;
    span->end_position = end_position;
    cts_list_put_last(&ring->spans, &span->in_ring);
    ring->spans_count++;
    rings->ahead_spans++;
    rings->ahead_bytes += span_bytes(span);
    store_put(rings->plan.store, span);
    if (rings->plan.exporter != NULL) {
        exporter_put(rings->plan.exporter, span);
        return;
    }
    span->state = SPAN_ACKED;
    ring->is_dirty = true;
}

/* -- reading ---------------------------------------------------------------------------------- */
static void quarantine(struct ring *ring)
{
    struct rings *rings = ring->owner;
    ring->is_damaged = true;
    ring->is_drained = true;
    cts_consumer_quarantine(&ring->view);
    note(rings, CTS_LOG_ERROR, "traces: the ring of %s (pid %d) is damaged; it is left alone",
         ring->facts.slot_index < 0 ? "the master" : "a worker", ring->facts.pid);
    if (!ring->is_gone)
        rings->plan.recycle(rings->plan.context, ring->facts.ring_id);
}

/* Up to `count_max` more records. Returns how many; 0 also when there is no memory just now. */
static size_t read_some(struct ring *ring, size_t count_max)
{
    struct rings *rings = ring->owner;
    ring->is_drained = ring->is_damaged;
    for (size_t i = 0; i < count_max && !ring->is_damaged; i++) {
        struct cts_record_cursor before = ring->cursor;
        switch (cts_record_next(&ring->view, &ring->cursor, &rings->record)) {
        case CTS_LOOK_END:
            ring->is_drained = true;
            return i;
        case CTS_LOOK_DAMAGED:
            quarantine(ring);
            return i;
        case CTS_LOOK_RECORD:
            break;
        }
        struct span *span = otlp_span_new(&rings->record, &ring->clock, ring->resource);
        if (span == NULL) {
            ring->cursor = before;
            return i;
        }
        put(ring, span, rings->record.end_position);
    }
    return count_max;
}

static bool has_room(const struct rings *rings)
{
    return rings->ahead_spans < RINGS_AHEAD_SPANS_MAX &&
           rings->ahead_bytes < RINGS_AHEAD_BYTES_MAX;
}

static uint64_t used_bytes(const struct ring *ring)
{
    struct cts_worker_copy worker;
    cts_worker_read(&ring->view, &worker);
    uint64_t used = worker.head - ring->counts.tail;
    return used > ring->view.ring_bytes ? ring->view.ring_bytes : used;
}

/* The oldest span of the ring goes into the heap and its bytes back to the writer. */
static bool take_one(struct ring *ring)
{
    struct rings *rings = ring->owner;
    if (cts_list_is_empty(&ring->spans) && read_some(ring, READ_STEP_RECORDS) == 0)
        return false;
    advance(ring);
    if (cts_list_is_empty(&ring->spans))
        return true;
    struct span *span = CTS_CONTAINER(ring->spans.next, struct span, in_ring);
    if (span->is_row || rings->heap_bytes + span_bytes(span) > rings->plan.heap_bytes_max)
        return false;
    leave_ring(ring, span);
    span->in_heap = true;
    cts_list_put_last(&ring->heap, &span->in_ring);
    ring->heap_count++;
    ring->counts.heap_taken++;
    rings->heap_spans++;
    rings->heap_bytes += span_bytes(span);
    return true;
}

/* Only while nobody takes them, from three quarters full down to five eighths. */
static void relieve(struct ring *ring)
{
    struct rings *rings = ring->owner;
    if (rings->plan.exporter == NULL || ring->is_damaged ||
        !exporter_is_stalled(rings->plan.exporter) ||
        used_bytes(ring) < (uint64_t)ring->view.ring_bytes / 4 * 3)
        return;
    uint64_t goal = (uint64_t)ring->view.ring_bytes / 8 * 5;
    while (used_bytes(ring) > goal && take_one(ring))
        continue;
}

/* -- a worker that is gone -------------------------------------------------------------------- */
/* Its open requests become spans, in the order of the rows; those that an earlier agent has
 * brought home stand at the front of that order. True when all have been told. */
static bool tell_rows(struct ring *ring)
{
    struct rings *rings = ring->owner;
    while (ring->row_next < ring->view.rows_count) {
        bool is_open = cts_row_read(&ring->view, ring->row_next, &rings->row) == CTS_ROW_OPEN &&
                       rings->row.is_traced;
        if (is_open && ring->rows_seen >= ring->rows_before) {
            struct span *span =
                otlp_row_span_new(&rings->row, &ring->death, &ring->clock, ring->resource);
            if (span == NULL)
                return false;
            span->is_row = true;
            put(ring, span, ring->cursor.position);
        }
        ring->rows_seen += is_open;
        ring->row_next++;
    }
    return true;
}

/* What a damaged ring still held is counted, as far as its numbers make sense at all. */
static void count_damage(struct ring *ring, const struct cts_slot_counts *slot)
{
    uint64_t known = ring->counts.acked + ring->counts.rejected - ring->counts.open_closed;
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        known += ring->counts.dropped[i];
    uint64_t missing = slot->committed - known;
    if (!slot->is_exact || missing > ring->view.ring_bytes / sizeof(struct cts_record))
        return;
    ring->counts.dropped[CTS_DROP_BAD_RECORD] += missing;
    if (slot->head - ring->counts.tail <= ring->view.ring_bytes)
        ring->counts.tail = slot->head;
}

static void retire(struct ring *ring)
{
    struct cts_slot_counts slot;
    cts_slot_count(&ring->view, &slot);
    ring->counts.lost_uncommitted = slot.rowless_open;
    if (ring->is_damaged)
        count_damage(ring, &slot);
    ring->is_retired = true;
    ring->is_dirty = true;
    flush(ring);
    ring->owner->plan.retired(ring->owner->plan.context, ring->facts.ring_id);
}

static void bury(struct ring *ring)
{
    if (!ring->is_gone || ring->is_retired || !ring->is_drained || !tell_rows(ring))
        return;
    flush(ring);
    if (ring->spans_count == 0 && ring->heap_count == 0)
        retire(ring);
}

void rings_drain(struct rings *rings)
{
    bool progress = true;
    for (int round = 0; round < ROUNDS_PER_DRAIN_MAX && progress; round++) {
        progress = false;
        CTS_LIST_EACH(&rings->list, link) {
            struct ring *ring = CTS_CONTAINER(link, struct ring, link);
            if (has_room(rings))
                progress = read_some(ring, READ_STEP_RECORDS) == READ_STEP_RECORDS || progress;
            flush(ring);
        }
    }
    CTS_LIST_EACH(&rings->list, other) {
        struct ring *ring = CTS_CONTAINER(other, struct ring, link);
        relieve(ring);
        bury(ring);
        flush(ring);
    }
}

/* -- what the master says --------------------------------------------------------------------- */
static void ring_free(struct ring *ring)
{
    struct rings *rings = ring->owner;
    struct cts_list *lists[] = {&ring->spans, &ring->heap};
    rings->ahead_spans -= ring->spans_count;
    rings->heap_spans -= ring->heap_count;
    for (size_t i = 0; i < CTS_COUNT(lists); i++) {
        CTS_LIST_EACH(lists[i], link) {
            struct span *span = CTS_CONTAINER(link, struct span, in_ring);
            *(i == 0 ? &rings->ahead_bytes : &rings->heap_bytes) -= span_bytes(span);
            cts_list_take(&span->in_ring);
            span->ring = NULL;
            if (cts_list_is_empty(&span->in_queue))
                span_give(span);       /* else the exporter settles it */
        }
    }
    cts_list_take(&ring->link);
    rings->count--;
    cts_slot_view_unmap(&ring->view);
    resource_give(ring->resource);
    free(ring->stack);
    free(ring);
}

void rings_free(struct rings *rings)
{
    if (rings == NULL)
        return;
    while (!cts_list_is_empty(&rings->list))
        ring_free(CTS_CONTAINER(rings->list.next, struct ring, link));
    free(rings);
}

/* What an agent that was killed had in its heap is gone; the page says how much it was. */
static void resume(struct ring *ring)
{
    cts_consumer_resume(&ring->view);
    cts_consumer_read(&ring->view, &ring->counts);
    ring->cursor = (struct cts_record_cursor){.position = ring->counts.tail};
    ring->rows_before = ring->counts.open_closed;
    ring->is_damaged = cts_consumer_is_quarantined(&ring->view);
    if (ring->counts.heap_taken == 0)
        return;
    note(ring->owner, CTS_LOG_WARNING, "traces: %llu spans were in the memory of an agent that "
         "died", (unsigned long long)ring->counts.heap_taken);
    ring->counts.dropped[CTS_DROP_AGENT_LOST] += ring->counts.heap_taken;
    ring->counts.heap_taken = 0;
    ring->is_dirty = true;
    flush(ring);
}

int rings_add(struct rings *rings, const struct cts_agent_ring *facts, int fd)
{
    if (find(rings, facts->ring_id) != NULL)
        return 0;
    if (rings->count >= RINGS_COUNT_MAX)
        return -ENOSPC;
    struct ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL)
        return -ENOMEM;
    int r = cts_slot_view_map(fd, true, &ring->view);
    if (r < 0) {
        free(ring);
        return r;
    }
    ring->owner = rings;
    ring->facts = *facts;
    ring->event = CTS_WORKER_EVENT_BOOTING;
    ring->clock = (struct otlp_clock){ring->view.created_mono_ns, ring->view.created_real_ns};
    cts_list_init(&ring->link);
    cts_list_init(&ring->spans);
    cts_list_init(&ring->heap);
    struct otlp_process process = rings->plan.process;
    process.pid = facts->pid;
    process.parent_pid = facts->slot_index < 0 ? 0 : process.master_pid;
    process.slot_index = facts->slot_index;
    process.generation = facts->generation;
    ring->resource = otlp_resource_new(&process, rings->plan.env);
    if (ring->resource == NULL) {
        cts_slot_view_unmap(&ring->view);
        free(ring);
        return -ENOMEM;
    }
    cts_list_put_last(&rings->list, &ring->link);
    rings->count++;
    resume(ring);
    return 0;
}

/* The stack often comes with STUCK, before the worker is gone: the last one that came is kept. */
static void keep_stack(struct ring *ring, const struct cts_agent_worker *event,
                       struct cts_bytes stack)
{
    if (event->thread_id != 0)
        ring->death.thread_id = event->thread_id;
    if (stack.count == 0)
        return;
    char *copy = malloc(stack.count);
    if (copy == NULL)
        return;
    memcpy(copy, stack.at, stack.count);
    free(ring->stack);
    ring->stack = copy;
    ring->death.stack = (struct cts_bytes){copy, stack.count};
}

void rings_event(struct rings *rings, const struct cts_agent_worker *event, struct cts_bytes stack)
{
    struct ring *ring = find(rings, event->ring_id);
    if (ring == NULL || ring->is_gone)
        return;
    ring->event = event->event;
    if (event->event == CTS_WORKER_EVENT_STUCK || event->event == CTS_WORKER_EVENT_GONE)
        keep_stack(ring, event, stack);
    if (event->event != CTS_WORKER_EVENT_GONE)
        return;
    ring->is_gone = true;
    ring->is_drained = ring->is_damaged;
    ring->death.reason = event->reason;
    ring->death.wait_status = event->wait_status;
    ring->death.mono_ns = event->mono_ns != 0 ? event->mono_ns : cts_clock_mono_ns();
    rings_drain(rings);
}

void rings_forget(struct rings *rings, uint64_t ring_id)
{
    struct ring *ring = find(rings, ring_id);
    if (ring != NULL)
        ring_free(ring);
}

bool rings_adopt_orphans(struct rings *rings)
{
    bool any_lives = false;
    CTS_LIST_EACH(&rings->list, link) {
        struct ring *ring = CTS_CONTAINER(link, struct ring, link);
        if (ring->is_gone)
            continue;
        if (ring->facts.pid > 0 && ring->facts.slot_index >= 0 &&
            (kill(ring->facts.pid, 0) == 0 || errno == EPERM)) {
            any_lives = true;
            continue;
        }
        ring->is_gone = true;
        ring->is_drained = ring->is_damaged;
        ring->death.wait_status = -1;
        ring->death.mono_ns = cts_clock_mono_ns();
    }
    return any_lives;
}

/* -- figures ---------------------------------------------------------------------------------- */
bool rings_are_empty(const struct rings *rings)
{
    CTS_LIST_EACH(&rings->list, link) {
        const struct ring *ring = CTS_CONTAINER(link, struct ring, link);
        if (!ring->is_drained || ring->spans_count > 0 || ring->heap_count > 0 ||
            (ring->is_gone && !ring->is_retired))
            return false;
    }
    return true;
}

size_t rings_unsent(const struct rings *rings)
{
    return rings->ahead_spans + rings->heap_spans;
}

size_t rings_heap_bytes(const struct rings *rings)
{
    return rings->heap_bytes;
}

const struct cts_list *rings_list(const struct rings *rings)
{
    return &rings->list;
}

bool ring_sums_balance(const struct ring_sums *sums)
{
    uint64_t right = sums->open + sums->in_ring + sums->in_heap + sums->acked + sums->rejected +
                     sums->dropped_ring_full + sums->lost_uncommitted;
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        right += sums->dropped[i];
    return sums->started == right;
}

/* The worker writes on: take its counts before and after, until both are of the same moment. */
void ring_sum(const struct ring *ring, struct ring_sums *ret_sums)
{
    struct cts_consumer_counts counts;
    struct cts_slot_counts slot, after;
    int64_t in_ring = 0;
    bool is_exact = false;
    cts_consumer_read(&ring->view, &counts);
    for (int i = 0; i < SUM_TRIES_MAX && !is_exact; i++) {
        cts_slot_count(&ring->view, &slot);
        in_ring = cts_ring_count(&ring->view, counts.tail);
        cts_slot_count(&ring->view, &after);
        is_exact = in_ring >= 0 && slot.is_exact && after.is_exact && slot.head == after.head;
    }
    *ret_sums = (struct ring_sums){
        .started = slot.started, .open = slot.open - counts.open_closed,
        .in_ring = in_ring < 0 ? 0 : (uint64_t)in_ring, .in_heap = counts.heap_taken,
        .acked = counts.acked, .rejected = counts.rejected,
        .dropped_ring_full = slot.dropped_ring_full,
        .lost_uncommitted = counts.lost_uncommitted, .rows_full = slot.rows_full,
        .is_exact = is_exact};
    if (counts.lost_uncommitted == 0)
        ret_sums->open += slot.rowless_open;
    memcpy(ret_sums->dropped, counts.dropped, sizeof(counts.dropped));
    ret_sums->balances = is_exact && ring_sums_balance(ret_sums);
}

void ring_sums_add(struct ring_sums *to, const struct ring_sums *from)
{
    to->started += from->started;
    to->open += from->open;
    to->in_ring += from->in_ring;
    to->in_heap += from->in_heap;
    to->acked += from->acked;
    to->rejected += from->rejected;
    to->dropped_ring_full += from->dropped_ring_full;
    to->lost_uncommitted += from->lost_uncommitted;
    to->rows_full += from->rows_full;
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        to->dropped[i] += from->dropped[i];
    to->is_exact = to->is_exact && from->is_exact;
    to->balances = to->balances && from->balances;
}
