/* upgrade.h - the way to a new program: what USR2 needs to know of how we were started, and the
 * exec itself. Rules: gunicorn's (GUNICORN_PID, GUNICORN_FD, LISTEN_PID/LISTEN_FDS). */
#ifndef SERVER_UPGRADE_H
#define SERVER_UPGRADE_H

#include "listener.h"

#include "ctserve/entry.h"

struct upgrade {
    char *program;          /* to exec */
    char **arguments;
    char **environment;     /* as it was when we started */
    char *directory;
};

/* Remember how this process was started; before anything changes the environment or the title.
 * 0 or -errno (then USR2 is refused). */
int upgrade_remember(struct upgrade *upgrade, const struct cts_entry *entry);
void upgrade_free(struct upgrade *upgrade);

/* In the forked child: exec the program again with the listening sockets. Returns only on
 * failure, -errno. */
int upgrade_exec(const struct upgrade *upgrade, const struct listeners *listeners,
                 pid_t master_pid, bool is_systemd);

/* The older master's pid and its sockets, from the environment; 0 when there is none. Clears
 * GUNICORN_FD. */
pid_t upgrade_parent(int *fds, size_t fds_max, size_t *ret_count);

#endif
