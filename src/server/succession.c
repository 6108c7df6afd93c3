/* succession.c - see succession.h. */
#include "succession.h"

#include "fork.h"

#include "ctserve/log.h"

#include <stdlib.h>
#include <unistd.h>

/* In the child of USR2. Returns the exit code when the exec did not happen. */
static int exec_again(struct master *master, pid_t old_pid)
{
    struct cts_error error = {0};
    if (master_run_hook(master, CTS_HOOK_PRE_EXEC, &error) < 0) {
        cts_error_log("pre_exec hook failed:\n%s", error.text);
        return CTS_EXIT_FAILURE;
    }
    int r = upgrade_exec(master->upgrade, &master->listeners, old_pid, master->is_systemd);
    cts_error_log("can't start %s again: %s", master->upgrade->program, strerror(-r));
    return CTS_EXIT_FAILURE;
}

void succession_start(struct master *master)
{
    if (master->reexec_pid != 0) {
        cts_warning("USR2 signal ignored. Child exists.");
        return;
    }
    if (master->parent_master_pid != 0) {
        cts_warning("USR2 signal ignored. Parent exists.");
        return;
    }
    pid_t old_pid = getpid();
    pid_t pid = fork_for_exec(master->gateway, master->loop);
    if (pid == 0)
        _exit(exec_again(master, old_pid));
    if (pid < 0)
        cts_error_log("USR2: can't fork: %s", strerror(-pid));
    else
        master->reexec_pid = pid;
}

void succession_look(struct master *master)
{
    struct cts_error error = {0};
    if (master->parent_master_pid == 0)
        return;
    if (getppid() == master->parent_master_pid) {
        if (!ev_is_active(&master->timer))
            master_set_timer(master, SUCCESSION_LOOK_S);
        return;
    }
    cts_info("Master has been promoted.");
    master->name = "Master";
    master->parent_master_pid = 0;
    unsetenv("GUNICORN_PID");
    master_remove_pidfile(master);
    if (master_write_pidfile(master, &error) < 0)
        cts_error_log("%s", error.text);
    master_set_title(master, "master");
}
