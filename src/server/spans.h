/* spans.h - what the master tells about itself: boot, config, forks, reloads, exits, timeouts.
 * The names are listed in docs/lifecycle.md. Detached, everything here is a cheap no-op. */
#ifndef SERVER_SPANS_H
#define SERVER_SPANS_H

#include "ctserve/tracing.h"

/* A span that has begun: who it is and when. */
struct span_mark {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint64_t start_mono_ns;
};

/* Begin now; `parent` NULL makes a root of a new trace. */
void spans_begin(struct span_mark *ret_mark, const struct span_mark *parent);

struct span_story {
    const char *name;
    const struct span_mark *parent;   /* NULL: a root */
    const struct span_mark *link;     /* NULL: no link */
    const char *error_type;           /* NULL: went well */
    const char *message;              /* with error_type */
    const struct cts_attribute *attributes;
    size_t attributes_count;
};
/* End now and put into the master's ring. */
void spans_end(const struct span_mark *mark, const struct span_story *story);

static inline struct cts_attribute spans_int(const char *key, int64_t number)
{
    return (struct cts_attribute){.key = key, .kind = CTS_ATTRIBUTE_INT, .number = number};
}

static inline struct cts_attribute spans_text(const char *key, const char *text)
{
    return (struct cts_attribute){.key = key, .kind = CTS_ATTRIBUTE_TEXT,
                                  .text = cts_bytes_of(text)};
}

#endif
