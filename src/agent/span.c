/* span.c - counting who still needs a span. */
#include "span.h"

#include <assert.h>
#include <stdlib.h>

struct span *span_take(struct span *span)
{
    assert(span->references > 0);
    span->references++;
    return span;
}

void span_give(struct span *span)
{
    if (span == NULL)
        return;
    assert(span->references > 0);
    if (--span->references > 0)
        return;
    resource_give(span->resource);
    free(span);
}

struct resource *resource_take(struct resource *resource)
{
    assert(resource->references > 0);
    resource->references++;
    return resource;
}

void resource_give(struct resource *resource)
{
    if (resource == NULL)
        return;
    assert(resource->references > 0);
    if (--resource->references == 0)
        free(resource);
}
