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
    uint64_t boot_mono_ns;
    bool app_is_loaded;            /* then its kind is known */
};

/* Is stderr a terminal that can show a banner (and is the log going there)? */
bool banner_is_wanted(const struct cts_settings *settings);

/* Six lines at most, one per fact: four before the first worker boots, one when the agent has said
 * where traces are, and the last one when the first workers are ready. With preload_app the kind of
 * application stands in the first four, else in the last (`app_kind`, "" when nobody told). */
void banner_show(const struct banner *banner);
void banner_show_traces(const char *address);
void banner_show_ready(const struct banner *banner, const char *app_kind);

/* "sync", or "gthread (threads: 4)"... as gunicorn names the worker class. */
const char *banner_worker_name(const struct cts_settings *settings);

#endif
