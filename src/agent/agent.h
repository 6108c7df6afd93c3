/* agent.h - the whole agent: what its parts are and how far its life has come. */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "exporter.h"
#include "master_link.h"
#include "rings.h"
#include "store.h"

struct api;

struct agent {
    struct ev_loop *loop;
    struct master_link *link;
    struct store *store;
    struct exporter *exporter;       /* NULL: nothing is sent anywhere */
    struct rings *rings;             /* NULL before HELLO */
    struct api *api;                 /* NULL: off */
    struct env_plan env;
    struct hello hello;
    bool is_stopping;
    uint64_t stop_at_ns;
    uint64_t started_mono_ns;
    struct ev_timer drain_timer;
    bool master_is_gone;
};

#define AGENT_DRAIN_SECONDS 0.1
#define AGENT_ORPHAN_MS 5000u

/* Run until the master says STOP or is gone. Returns the exit code. */
int agent_run(int link_fd);

#endif
