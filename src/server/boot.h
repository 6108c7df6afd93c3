/* boot.h - from the command line to a running master: settings in gunicorn's order, the actions
 * that end at once (--help, --version, --print-config, --check-config), then the master. */
#ifndef SERVER_BOOT_H
#define SERVER_BOOT_H

#include "ctserve/entry.h"
#include "ctserve/gateway.h"
#include "ctserve/settings.h"

/* Run to the end of this process (a worker returns through here too). Lock held. Returns the
 * exit code. */
int boot_run(const struct cts_entry *entry, const struct cts_gateway *gateway);

/* Fill `settings` from defaults, config file, GUNICORN_CMD_ARGS, CTSERVE_CMD_ARGS and command
 * line, and stand in the directory that `chdir` names. Used at the start and on every reload.
 * 0, or -1 with `error`; `settings` is then empty. */
int boot_read_settings(const struct cts_entry *entry, const struct cts_gateway *gateway,
                       struct cts_settings *settings, struct cts_error *error);

#endif
