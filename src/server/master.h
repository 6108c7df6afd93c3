/* master.h - the process that stays: boot, reload, upgrade, end. It decides when things happen;
 * how many workers there are is the supervisor's business.
 *
 *     BINDING -> RUNNING -> STOPPING (workers go) -> LEAVING (the agent drains) -> DONE
 *
 * One thread, one loop, no waiting outside of it. The interpreter lock is given away while the
 * loop sleeps, because a config file may have started threads. */
#ifndef SERVER_MASTER_H
#define SERVER_MASTER_H

#include "boot.h"
#include "upgrade.h"

struct master_plan {
    const struct cts_entry *entry;
    const struct cts_gateway *gateway;
    struct cts_settings *settings;     /* malloc'ed; the master takes it over */
    struct upgrade *upgrade;           /* how to start again */
    uint64_t boot_mono_ns;             /* when this process began */
    uint64_t config_mono_ns[2];        /* from, to: reading the settings */
};

/* Run until the end. Returns the exit code of this process: the master's, or, in a child that it
 * forked, the worker's. */
int master_run(const struct master_plan *plan);

#endif
