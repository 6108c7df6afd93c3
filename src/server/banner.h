/* banner.h - what a start looks like: on a terminal a few lines, one per fact; anywhere else
 * gunicorn's lines, because people grep for them. */
#ifndef SERVER_BANNER_H
#define SERVER_BANNER_H

#include "listener.h"

#include "ctserve/entry.h"

struct banner {
    const struct cts_entry *entry;
    const struct cts_gateway *gateway;
    const struct cts_settings *settings;
    const struct listeners *listeners;
    const char *traces;            /* address with token, "" without one */
    uint64_t boot_mono_ns;
    bool app_is_loaded;            /* then its kind is known */
};

/* Is stderr a terminal that can show a banner (and is the log going there)? */
bool banner_is_wanted(const struct cts_settings *settings);

/* The lines of a terminal, once the first workers are ready. */
void banner_show(const struct banner *banner);

/* "sync", or "gthread (threads: 4)"... as gunicorn names the worker class. */
const char *banner_worker_name(const struct cts_settings *settings);

#endif
