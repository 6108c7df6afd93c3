/* order.h - the two fences of the row protocol, and what ThreadSanitizer may not look at.
 *
 * ThreadSanitizer knows no fences and calls the reader's copy of a changing row a race; it is one,
 * on purpose: the copy is thrown away when the row moved. Under it (x86 only) the fences are for
 * the compiler alone, which is what they are on x86 in any build. */
#ifndef TRACING_ORDER_H
#define TRACING_ORDER_H

#include "ctserve/base.h"

#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__)
#define TRACING_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TRACING_UNDER_TSAN 1
#endif
#endif

#ifdef TRACING_UNDER_TSAN
#define order_stores() atomic_signal_fence(memory_order_release)
#define order_loads() atomic_signal_fence(memory_order_acquire)
#define LOOKS_AT_CHANGING_BYTES __attribute__((no_sanitize("thread")))
#else
#define order_stores() atomic_thread_fence(memory_order_release)
#define order_loads() atomic_thread_fence(memory_order_acquire)
#define LOOKS_AT_CHANGING_BYTES
#endif

static inline uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline uint64_t load_acquire(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static inline void store_release(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* Copy `count` bytes (a multiple of 8, both ends aligned) that another process may be changing:
 * each word is read exactly once. */
LOOKS_AT_CHANGING_BYTES static inline void copy_words(void *to, const void *from, size_t count)
{
    typedef uint64_t __attribute__((may_alias)) word;
    word *to_words = to;
    const volatile word *from_words = from;
    for (size_t i = 0; i < count / sizeof(word); i++)
        to_words[i] = from_words[i];
}

#endif
