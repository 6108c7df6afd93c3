/* pidfile.h - the file that holds the master's pid, by gunicorn's rules: written whole or not at
 * all, mode 0644, refused while the pid in it lives, removed only if it still holds ours. */
#ifndef SERVER_PIDFILE_H
#define SERVER_PIDFILE_H

#include "ctserve/error.h"

/* 0, or -1 with `error` (exit code 1). */
int pidfile_write(const char *path, struct cts_error *error) CTS_MUST_USE;
void pidfile_remove(const char *path);

#endif
