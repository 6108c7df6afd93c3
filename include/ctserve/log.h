/* log.h - log lines in gunicorn's shape. Room: base.
 *
 *     [2026-11-23 14:20:31 +0000] [812] [INFO] Listening at: http://127.0.0.1:8000 (812)
 *
 * One write(2) per line to the descriptor of the error log (2 unless told), O_APPEND, never
 * retried for long: a full pipe loses the line and counts it, it does not stop the server.
 * Text that came from outside must be escaped by the caller (cts_bytes_escape). */
#ifndef CTSERVE_LOG_H
#define CTSERVE_LOG_H

#include "ctserve/base.h"

#include <stdarg.h>

enum cts_log_level {
    CTS_LOG_DEBUG = 10,
    CTS_LOG_INFO = 20,
    CTS_LOG_WARNING = 30,
    CTS_LOG_ERROR = 40,
    CTS_LOG_CRITICAL = 50,
};

/* "debug", "info", ... any case; an unknown word means info, as in gunicorn. */
enum cts_log_level cts_log_level_of(const char *word);
void cts_log_set_level(enum cts_log_level level);
enum cts_log_level cts_log_get_level(void);

/* Send lines to the file `path` ("-" is stderr). Opened O_APPEND|O_CREAT|O_CLOEXEC.
 * Returns 0 or -errno; on failure the old target stays. */
int cts_log_open(const char *path) CTS_MUST_USE;
int cts_log_reopen(void);            /* SIGUSR1: open the same path again. 0 or -errno */
int cts_log_fd(void);
uint64_t cts_log_lost_count(void);   /* lines that could not be written */

void cts_log(enum cts_log_level level, const char *format, ...) CTS_PRINTF(2, 3);
void cts_log_va(enum cts_log_level level, const char *format, va_list arguments);

#define cts_debug(...) cts_log(CTS_LOG_DEBUG, __VA_ARGS__)
#define cts_info(...) cts_log(CTS_LOG_INFO, __VA_ARGS__)
#define cts_warning(...) cts_log(CTS_LOG_WARNING, __VA_ARGS__)
#define cts_error_log(...) cts_log(CTS_LOG_ERROR, __VA_ARGS__)
#define cts_critical(...) cts_log(CTS_LOG_CRITICAL, __VA_ARGS__)

#endif
