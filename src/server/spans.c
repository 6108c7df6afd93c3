/* spans.c - see spans.h. */
#include "spans.h"

void spans_begin(struct span_mark *ret_mark, const struct span_mark *parent)
{
    if (parent != NULL)
        memcpy(ret_mark->trace_id, parent->trace_id, sizeof(ret_mark->trace_id));
    else
        cts_trace_id_new(ret_mark->trace_id);
    cts_span_id_new(ret_mark->span_id);
    ret_mark->start_mono_ns = cts_clock_mono_ns();
}

void spans_end(const struct span_mark *mark, const struct span_story *story)
{
    if (!cts_tracer_is_attached())
        return;
    struct cts_span span = {
        .name = story->name,
        .start_mono_ns = mark->start_mono_ns,
        .end_mono_ns = cts_clock_mono_ns(),
        .is_error = story->error_type != NULL,
        .error_type = story->error_type,
        .status_message = story->message,
        .attributes = story->attributes,
        .attributes_count = story->attributes_count,
    };
    memcpy(span.trace_id, mark->trace_id, sizeof(span.trace_id));
    memcpy(span.span_id, mark->span_id, sizeof(span.span_id));
    if (story->parent != NULL)
        memcpy(span.parent_span_id, story->parent->span_id, sizeof(span.parent_span_id));
    if (story->link != NULL) {
        memcpy(span.link_trace_id, story->link->trace_id, sizeof(span.link_trace_id));
        memcpy(span.link_span_id, story->link->span_id, sizeof(span.link_span_id));
    }
    cts_span_put(&span);
}
