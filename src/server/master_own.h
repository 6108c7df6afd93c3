/* master_own.h - what the files of the master share: its state, and the small things that several
 * of them do. master.c turns the loop, boots and ends; reload.c, succession.c (an older and a newer
 * master) and telemetry.c (its own spans, the agent) each know one thing more. */
#ifndef SERVER_MASTER_OWN_H
#define SERVER_MASTER_OWN_H

#include "agent_link.h"
#include "listener.h"
#include "master.h"
#include "spans.h"
#include "supervisor.h"

enum phase { PHASE_BINDING, PHASE_RUNNING, PHASE_STOPPING, PHASE_LEAVING, PHASE_DONE };

struct master {
    const struct cts_entry *entry;
    const struct cts_gateway *gateway;
    struct cts_settings *settings;
    struct cts_settings *old_settings;   /* while a reload runs: those of the old generation */
    struct upgrade *upgrade;
    struct ev_loop *loop;
    void *lock_token;
    enum phase phase;
    int bind_tries;
    bool bind_is_due;
    ev_timer timer;                      /* BINDING: next try; RUNNING: promotion */
    struct listeners listeners;
    struct listeners old_listeners;      /* while a reload that changed `bind` runs */
    bool listeners_changed;
    int inherited_fds[LISTENERS_MAX];
    size_t inherited_count;
    bool is_systemd;
    struct supervisor supervisor;
    struct agent_link agent;
    struct ring *ring;                   /* the master's own */
    pid_t parent_master_pid;             /* the older master during an upgrade, or 0 */
    pid_t reexec_pid;                    /* the newer one, or 0 */
    const char *name;                    /* "Master", "Master.2" */
    char pidfile[4096];                  /* the one we wrote, or "" */
    uint64_t boot_mono_ns;
    struct span_mark boot_mark, reload_mark;
    bool boot_is_told;
    bool shows_banner, traces_shown;
    char traces[320];
    int exit_code;
    bool is_crash;                       /* ends without on_exit, as gunicorn does */
    bool stop_is_quick;
};

int master_run_hook(struct master *master, enum cts_hook hook, struct cts_error *error);
/* So many workers from now on, and the hook that hears of it. */
int master_set_workers(struct master *master, int64_t new_count, int64_t old_count,
                       struct cts_error *error);
void master_set_title(const struct master *master, const char *what);
void master_set_timer(struct master *master, double seconds);
/* "Listening at: http://127.0.0.1:8000 (4711)" */
void master_say_names(const struct master *master, const char *phrase);
int master_write_pidfile(struct master *master, struct cts_error *error);
void master_remove_pidfile(struct master *master);

#endif
