/* base.h - what every room may use: views of bytes, attributes, small helpers.
 *
 * Room: base. Nothing here allocates unless its name says so. */
#ifndef CTSERVE_BASE_H
#define CTSERVE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CTS_VERSION "0.1.0"

#define CTS_MUST_USE __attribute__((warn_unused_result))
#define CTS_PRINTF(at, first) __attribute__((format(printf, at, first)))
#define CTS_EXPORT __attribute__((visibility("default")))
#define CTS_LIKELY(x) __builtin_expect(!!(x), 1)
#define CTS_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define CTS_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A view of bytes that somebody else owns; not terminated by NUL. */
struct cts_bytes {
    const char *at;
    size_t count;
};

static inline struct cts_bytes cts_bytes_of(const char *text)
{
    return (struct cts_bytes){text, strlen(text)};
}

static inline bool cts_bytes_equal(struct cts_bytes left, struct cts_bytes right)
{
    return left.count == right.count &&
           (left.count == 0 || memcmp(left.at, right.at, left.count) == 0);
}

/* ASCII case does not matter. */
bool cts_bytes_equal_nocase(struct cts_bytes left, struct cts_bytes right);

/* Copy `bytes` into `to` with every byte outside 0x20-0x7E (and the backslash) written as \xHH.
 * Stops before `to` overflows; always terminates. Returns the length written. For log lines. */
size_t cts_bytes_escape(struct cts_bytes bytes, char *to, size_t to_bytes);

/* -- clock: nanoseconds -------------------------------------------------------------------- */
uint64_t cts_clock_mono_ns(void);   /* CLOCK_MONOTONIC; comparable between processes of a host */
uint64_t cts_clock_real_ns(void);   /* CLOCK_REALTIME; since 1970 */

/* -- random -------------------------------------------------------------------------------- */
/* Fill `to` from getrandom(2). Returns 0 or -errno. */
int cts_random_fill(void *to, size_t count) CTS_MUST_USE;

/* -- descriptors --------------------------------------------------------------------------- */
/* Close *fd unless it is -1 and set it to -1. Keeps errno. */
void cts_fd_close(int *fd);
int cts_fd_set_nonblocking(int fd) CTS_MUST_USE;  /* 0 or -errno */
int cts_fd_set_cloexec(int fd, bool on) CTS_MUST_USE;  /* 0 or -errno */

/* -- process title ------------------------------------------------------------------------- */
/* Write the process title over the argument area (found through /proc/self/stat, so that it
 * works embedded and hosted) and set the thread name. Cut to what fits; silently does nothing
 * when the area cannot be found. The strings of main's argv lie there: copy what is needed. */
void cts_title_set(const char *title);

/* -- edit distance ('did you mean') -------------------------------------------------------- */
/* The index of the word nearest to `word` among `words[0..count)`, or -1 if none is near enough
 * to be meant (distance at most 2, and below half the length). */
int cts_nearest_word(const char *word, const char *const *words, size_t count);

#endif
