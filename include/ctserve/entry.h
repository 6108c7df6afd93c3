/* entry.h - where a process of ctserve begins. Room: server (implemented in src/server/main.c),
 * called by src/python's two fronts (embedded and hosted) and by nothing else. */
#ifndef CTSERVE_ENTRY_H
#define CTSERVE_ENTRY_H

#include "ctserve/gateway.h"

struct cts_entry {
    int argc;
    char **argv;                        /* as typed; argv[0] is what error lines call us */
    const char *mode;                   /* "embedded" or "hosted" */
    const char *python_version;         /* "3.11.7" */
    const char *python_prefix;          /* sys.prefix */
    const char *agent_path;             /* absolute path of ctserve-agent */
    const char *launcher_path;          /* absolute path to exec again on USR2, or NULL: python -m */
    const char *launcher_options;       /* unused yet, NULL */
};

/* Run until the end of the master (or of a worker: the child returns through here too).
 * Lock held. Returns the exit code of this process. */
int cts_main(const struct cts_entry *entry);

#endif
