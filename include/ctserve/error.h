/* error.h - a sentence for a person, and the exit code that goes with it. Room: base. */
#ifndef CTSERVE_ERROR_H
#define CTSERVE_ERROR_H

#include "ctserve/base.h"

/* Exit codes are gunicorn's. */
enum cts_exit {
    CTS_EXIT_OK = 0,
    CTS_EXIT_FAILURE = 1,      /* bad config, bad value, no app, bind failed, ... */
    CTS_EXIT_USAGE = 2,        /* unknown or bad option on the command line */
    CTS_EXIT_WORKER_BOOT = 3,  /* the application or a hook raised while a worker booted */
    CTS_EXIT_APP_LOAD = 4,     /* attribute missing or not callable */
    CTS_EXIT_FORK_HOOK = 255,  /* pre_fork raised */
};

struct cts_error {
    int exit_code;       /* enum cts_exit; 0 while nothing went wrong */
    char text[4096];     /* one or more lines, no trailing newline */
};

/* Set code and text (cut to fit). Returns -1, so that a caller may `return cts_error_set(...)`. */
int cts_error_set(struct cts_error *error, int exit_code, const char *format, ...) CTS_PRINTF(3, 4);

#endif
