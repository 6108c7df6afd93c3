/* slot_read.h - looking into a slot that a worker writes. Room: tracing.
 *
 * For the agent (drain, status, a dead worker's rows) and for the master (supervision). The
 * mapping is hostile: the worker may write anything anywhere in its part at any time. So the
 * layout is checked once and then kept in the view, never read again; everything else is copied
 * out, then checked; every loop is bounded by the checked layout. Nothing here crashes, whatever
 * the bytes are, as long as the memfd is sealed (cts_slot_view_map insists on it).
 *
 * A drain, in short:
 *
 *     cts_slot_view_map(fd, true, &view);
 *     cts_consumer_read(&view, &counts);
 *     cursor = (struct cts_record_cursor){.position = counts.tail};
 *     while (cts_record_next(&view, &cursor, &record) == CTS_LOOK_RECORD)
 *         send(&record);
 *     on acknowledge: counts.acked += n; counts.tail = end_position of the last of them;
 *     cts_consumer_write(&view, &counts);
 *
 * and when the worker is dead and the ring is empty: cts_slot_count for lost_uncommitted, and
 * every row that cts_row_read calls CTS_ROW_OPEN becomes an ERROR span. */
#ifndef CTSERVE_SLOT_READ_H
#define CTSERVE_SLOT_READ_H

#include "ctserve/slot.h"

/* -- the view ------------------------------------------------------------------------------- */
struct cts_slot_view {
    const unsigned char *map;
    size_t map_bytes;
    struct cts_consumer *consumer;   /* NULL when this side may not write it */
    uint64_t ring_id;
    int32_t slot_index;
    uint32_t generation;
    uint64_t age;
    uint8_t fork_trace_id[16], fork_span_id[8];
    uint64_t created_mono_ns, created_real_ns;
    uint32_t rows_offset, rows_count;
    uint32_t ring_offset, ring_bytes;
    uint32_t consumer_offset;
};

/* The bytes that a slot of this shape needs, or 0 when a number is out of bounds (ring_bytes must
 * be a power of two from CTS_RING_BYTES_MIN to CTS_RING_BYTES_MAX, 1 to CTS_SLOT_ROWS_MAX rows). */
size_t cts_slot_bytes(uint32_t ring_bytes, uint32_t rows_count);

/* Check the header at `map` and remember its layout. `consumer_is_writable`: the last page is
 * mapped read-write. 0 or -EBADMSG (`ret_view` is then all zero). */
int cts_slot_view_open(const void *map, size_t map_bytes, bool consumer_is_writable,
                       struct cts_slot_view *ret_view) CTS_MUST_USE;

/* Map a memfd and open it: everything read-only, but for the consumer page if it is asked for.
 * Refuses a descriptor that is no memfd sealed against shrinking (-EPERM) or whose size does not
 * fit the header (-EBADMSG). The descriptor stays the caller's and may be closed. 0 or -errno. */
int cts_slot_view_map(int fd, bool consumer_is_writable,
                      struct cts_slot_view *ret_view) CTS_MUST_USE;
void cts_slot_view_unmap(struct cts_slot_view *view);   /* a zeroed view is fine */

/* Wall time of a monotonic time of this slot, by the pair taken when it was made. */
uint64_t cts_slot_real_ns(const struct cts_slot_view *view, uint64_t mono_ns);

/* -- the worker page ------------------------------------------------------------------------ */
struct cts_worker_copy {
    uint64_t head;
    uint64_t rows_full, attributes_dropped;
    uint64_t beat_mono_ns, beat_required_since_ns;
    uint64_t requests_count, answered_count, refused_count;
    int32_t connections_count, pid;
    uint32_t state;                  /* enum cts_worker_state, or rubbish */
};
void cts_worker_read(const struct cts_slot_view *view, struct cts_worker_copy *ret_worker);

/* How long the worker has been silent where it should not be; 0 while silence is fine. */
uint64_t cts_worker_silence_ns(const struct cts_slot_view *view, uint64_t now_mono_ns);

/* -- rows ----------------------------------------------------------------------------------- */
enum cts_row_state {
    CTS_ROW_FREE,        /* no request runs here */
    CTS_ROW_OPEN,        /* runs; of a dead worker: it never ended */
    CTS_ROW_COMMITTED,   /* its record lies in the ring, the row was not closed any more */
    CTS_ROW_DROPPED,     /* its record found the ring full, the row was not closed any more */
};

/* One row, copied out. The views point into `row`: do not move the struct. */
struct cts_row_copy {
    enum cts_row_state state;
    bool is_traced;                  /* false: not in the identity, make no span of it */
    uint32_t index;
    uint64_t sequence;               /* odd while open, of the one that moved */
    uint32_t phase, flags;           /* phase is one of enum cts_phase, or 0 when it was rubbish */
    uint64_t start_mono_ns, app_mono_ns, progress_mono_ns;
    uint8_t trace_id[16], span_id[8], parent_span_id[8];
    bool has_parent;
    uint8_t trace_flags, version_minor;
    uint16_t peer_port, server_port;
    int32_t thread_id;
    struct cts_bytes method, path, query, scheme, host, user_agent, peer;
    struct cts_row row;
};

/* Copy row `index` (below view->rows_count) out. A row that a live worker changes all the time is
 * tried a few times and then called free: that request is over by now. Of a dead worker it is
 * exact. Returns ret_row->state; nothing else in it is valid when that is CTS_ROW_FREE. */
enum cts_row_state cts_row_read(const struct cts_slot_view *view, uint32_t index,
                                struct cts_row_copy *ret_row);

/* The open row that has run for at least `limit_ns` at `now_mono_ns`, the oldest if several; a
 * streaming one is measured from its last progress. True if there is one. */
bool cts_row_find_hung(const struct cts_slot_view *view, uint64_t now_mono_ns, uint64_t limit_ns,
                       struct cts_row_copy *ret_row);

/* -- records -------------------------------------------------------------------------------- */
struct cts_record_cursor {
    uint64_t position;   /* bytes since the ring began; start at the consumer's tail */
    uint64_t index;      /* of the last record seen; 0: any may follow */
};

enum cts_record_look {
    CTS_LOOK_END,        /* everything committed has been seen; ask again later */
    CTS_LOOK_RECORD,
    CTS_LOOK_DAMAGED,    /* the ring is not to be trusted any more: quarantine it */
};

struct cts_span_attribute_view {
    uint16_t kind;       /* enum cts_attribute_kind of tracing.h: 0 text, 1 int, 2 bool */
    struct cts_bytes key;
    struct cts_bytes text;
    int64_t number;
};

/* One record, copied out and checked: lengths, checksum, order, kinds. Texts may still be any
 * bytes (no UTF-8 promise) and ids and times any number. Views point into the struct. */
struct cts_record_copy {
    enum cts_record_kind kind;
    uint64_t index;
    uint64_t end_position;           /* the tail once this record is done with */
    uint32_t row_index;              /* server spans */
    uint64_t row_sequence;
    union {
        struct {
            struct cts_server_span_payload head;
            struct cts_bytes method, path, query, scheme, host, user_agent, peer, route;
            struct cts_bytes error_type, error_message;
        } server;
        struct {
            struct cts_span_payload head;
            struct cts_bytes name, error_type, status_message;
            size_t attributes_count;
            struct cts_span_attribute_view attributes[CTS_SPAN_ATTRIBUTES_MAX];
        } span;
    };
    unsigned char bytes[CTS_RECORD_BYTES_MAX] __attribute__((aligned(8)));
};

/* The record at the cursor; moves it behind that record. PADs are skipped silently. The cursor
 * does not move on CTS_LOOK_END and CTS_LOOK_DAMAGED. */
enum cts_record_look cts_record_next(const struct cts_slot_view *view,
                                     struct cts_record_cursor *cursor,
                                     struct cts_record_copy *ret_record);

/* -- the identity --------------------------------------------------------------------------- */
struct cts_slot_counts {
    uint64_t started;            /* traced requests and rowless spans ever begun */
    uint64_t open;               /* requests begun, neither committed nor dropped. Of a dead worker
                                    counts.open_closed of them have been told by now: subtract */
    uint64_t rowless_open;       /* 0 or 1; of a dead worker this is lost_uncommitted */
    uint64_t dropped_ring_full;
    uint64_t committed;          /* started - open - rowless_open - dropped_ring_full: records that
                                    were ever made visible in the ring */
    uint64_t head;               /* bytes; belongs to the same moment as the rest */
    uint64_t rows_full, attributes_dropped;
    bool is_exact;               /* all of one moment: always for a dead worker; false when a busy
                                    worker outran a few tries, or when the numbers are rubbish */
};
void cts_slot_count(const struct cts_slot_view *view, struct cts_slot_counts *ret_counts);

/* How many records lie between `position` and the head. -EBADMSG when the ring is damaged.
 * Reads every record head on the way (no checksums): for tests, status pages and the end. */
int64_t cts_ring_count(const struct cts_slot_view *view, uint64_t position);

/* -- the consumer page (agent only, but for reading) ----------------------------------------- */
void cts_consumer_read(const struct cts_slot_view *view, struct cts_consumer_counts *ret_counts);
/* One atomic update: spare copy, selector, then the hint for the writer. A tail never goes back. */
void cts_consumer_write(const struct cts_slot_view *view, const struct cts_consumer_counts *counts);
/* After the agent was restarted: make the hint agree with the counts (killed in between). */
void cts_consumer_resume(const struct cts_slot_view *view);
void cts_consumer_quarantine(const struct cts_slot_view *view);
bool cts_consumer_is_quarantined(const struct cts_slot_view *view);

#endif
