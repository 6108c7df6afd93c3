/* faults.c - see faults.h. */
#include "faults.h"

#include <stddef.h>

static long fail_at;
static long seen;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *at, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);

void faults_arm(long nth)
{
    fail_at = nth;
    seen = 0;
}

long faults_seen(void)
{
    return seen;
}

void *__wrap_malloc(size_t bytes)
{
    return ++seen == fail_at ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return ++seen == fail_at ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *at, size_t bytes)
{
    return ++seen == fail_at ? NULL : __real_realloc(at, bytes);
}
