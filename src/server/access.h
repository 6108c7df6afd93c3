/* access.h - where the lines of the access log go: a file, or standard output.
 *
 * The gateway writes lines into a buffer of its hand; they leave with one write per turn of the
 * loop. A pipe that nobody reads never stops a worker: lines are lost and counted. */
#ifndef SERVER_ACCESS_H
#define SERVER_ACCESS_H

#include "ctserve/buffer.h"
#include "ctserve/settings.h"

#include <stdatomic.h>

#define ACCESS_BUFFER_BYTES_MAX 32768u   /* of one hand: then they leave at once */

struct access {
    int fd;                    /* -1: there is no access log */
    bool is_file;              /* never asks to wait */
    const char *path;          /* of the setting */
    _Atomic uint64_t lost_bytes;
};

/* Opens what `accesslog` names. A file that cannot be opened is said in the error log, and then
 * there is no access log. */
void access_open(struct access *access, const struct cts_settings *settings);
void access_close(struct access *access);
/* SIGUSR1: the same path again. 0 or -errno. */
int access_reopen(struct access *access) CTS_MUST_USE;

/* Write what is in `lines` and empty it. From any thread, each with lines of its own. */
void access_flush(struct access *access, struct cts_buffer *lines);

#endif
