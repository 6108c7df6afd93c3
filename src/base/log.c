/* log.c - log lines in gunicorn's shape, one write each.
 *
 * Nothing here waits for a reader that does not read: the line is lost and counted. State is a
 * level, a descriptor and the path behind it; the pid is asked for each line, because a fork
 * changes it and nobody should have to tell us. */
#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_USUAL 2048
#define LINE_BYTES_MAX (64 * 1024)
#define HEAD_BYTES_MAX 96
/* A pipe that says it is writable takes at least this much without blocking. */
#define PIECE_BYTES PIPE_BUF
/* How long the rest of a line that was begun waits for its reader. */
#define REST_WAIT_MS 10

static _Atomic int log_level = CTS_LOG_INFO;
static _Atomic uint64_t lost_count;
static int log_fd = STDERR_FILENO;
static char log_path[PATH_MAX] = "-";

static const struct {
    const char *word;
    enum cts_log_level level;
} levels[] = {
    {"debug", CTS_LOG_DEBUG},   {"info", CTS_LOG_INFO},         {"warning", CTS_LOG_WARNING},
    {"error", CTS_LOG_ERROR},   {"critical", CTS_LOG_CRITICAL},
};

enum cts_log_level cts_log_level_of(const char *word)
{
    for (size_t i = 0; word != NULL && i < CTS_COUNT(levels); i++) {
        if (strcasecmp(word, levels[i].word) == 0)
            return levels[i].level;
    }
    return CTS_LOG_INFO;
}

static const char *level_name(enum cts_log_level level)
{
    switch (level) {
    case CTS_LOG_DEBUG:
        return "DEBUG";
    case CTS_LOG_INFO:
        return "INFO";
    case CTS_LOG_WARNING:
        return "WARNING";
    case CTS_LOG_ERROR:
        return "ERROR";
    case CTS_LOG_CRITICAL:
        return "CRITICAL";
    }
    return "INFO";
}

void cts_log_set_level(enum cts_log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum cts_log_level cts_log_get_level(void)
{
    return (enum cts_log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

int cts_log_fd(void)
{
    return log_fd;
}

uint64_t cts_log_lost_count(void)
{
    return atomic_load_explicit(&lost_count, memory_order_relaxed);
}

static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);

    return fd < 0 ? -errno : fd;
}

int cts_log_open(const char *path)
{
    int old_fd = log_fd == STDERR_FILENO ? -1 : log_fd;
    int fd = STDERR_FILENO;

    if (strlen(path) >= sizeof(log_path))
        return -ENAMETOOLONG;
    if (strcmp(path, "-") != 0) {
        fd = open_file(path);
        if (fd < 0)
            return fd;
    }
    log_fd = fd;
    memmove(log_path, path, strlen(path) + 1);
    cts_fd_close(&old_fd);
    return 0;
}

int cts_log_reopen(void)
{
    int fd;
    int r = 0;

    if (strcmp(log_path, "-") == 0)
        return 0;
    fd = open_file(log_path);
    if (fd < 0)
        return fd;
    /* The number stays the same: other threads may be about to write to it. */
    if (dup3(fd, log_fd, O_CLOEXEC) < 0)
        r = -errno;
    cts_fd_close(&fd);
    return r;
}

static bool is_writable(int fd, int wait_ms)
{
    struct pollfd question = {.fd = fd, .events = POLLOUT};

    return poll(&question, 1, wait_ms) == 1 && (question.revents & POLLOUT) != 0;
}

static bool write_line(const char *line, size_t count)
{
    int waits = 0;

    while (count > 0) {
        size_t piece = count < PIECE_BYTES ? count : PIECE_BYTES;
        ssize_t wrote;

        if (!is_writable(log_fd, waits++ == 0 ? 0 : REST_WAIT_MS))
            return false;
        wrote = write(log_fd, line, piece);
        if (wrote < 0 && errno == EINTR && waits < 8)
            continue;
        if (wrote <= 0)
            return false;
        line += wrote;
        count -= (size_t)wrote;
    }
    return true;
}

static size_t put_head(char *to, enum cts_log_level level)
{
    time_t now = (time_t)(cts_clock_real_ns() / 1000000000u);
    struct tm parts;
    char date[48];

    if (localtime_r(&now, &parts) == NULL)
        memset(&parts, 0, sizeof(parts));
    if (strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S %z", &parts) == 0)
        date[0] = '\0';
    return (size_t)snprintf(to, HEAD_BYTES_MAX, "[%s] [%d] [%s] ", date, (int)getpid(),
                            level_name(level));
}

/* Put head and message into `line`; returns the bytes the message alone wants, without NUL. */
static size_t put_message(char *line, size_t line_bytes, size_t head_bytes, const char *format,
                          va_list arguments)
{
    int count = vsnprintf(line + head_bytes, line_bytes - head_bytes, format, arguments);

    return count < 0 ? 0 : (size_t)count;
}

void cts_log_va(enum cts_log_level level, const char *format, va_list arguments)
{
    int saved_errno = errno;
    char usual[LINE_BYTES_USUAL];
    char *line = usual;
    char *longer = NULL;
    size_t head_bytes, message_bytes, room = sizeof(usual);
    va_list again;

    if ((int)level < (int)cts_log_get_level())
        return;
    va_copy(again, arguments);
    head_bytes = put_head(usual, level);
    message_bytes = put_message(usual, sizeof(usual), head_bytes, format, arguments);
    if (head_bytes + message_bytes + 1 > room) {
        size_t want = head_bytes + message_bytes + 1;

        /* Stacks are long. Without memory the beginning has to do. */
        if (want > LINE_BYTES_MAX)
            want = LINE_BYTES_MAX;
        longer = malloc(want);
        if (longer != NULL) {
            memcpy(longer, usual, head_bytes);
            (void)put_message(longer, want, head_bytes, format, again);
            line = longer;
            room = want;
        }
        if (message_bytes > room - head_bytes - 1)
            message_bytes = room - head_bytes - 1;
    }
    va_end(again);
    while (message_bytes > 0 && line[head_bytes + message_bytes - 1] == '\n')
        message_bytes--;
    line[head_bytes + message_bytes] = '\n'; /* over the NUL: lines end once */
    if (!write_line(line, head_bytes + message_bytes + 1))
        atomic_fetch_add_explicit(&lost_count, 1, memory_order_relaxed);
    free(longer);
    errno = saved_errno;
}

void cts_log(enum cts_log_level level, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    cts_log_va(level, format, arguments);
    va_end(arguments);
}
