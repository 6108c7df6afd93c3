/* reload.c - see reload.h. */
#include "reload.h"

#include "boot.h"
#include "server_ops.h"
#include "telemetry.h"

#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void reload_failed(struct master *master, const char *text)
{
    cts_error_log("Reload failed, the old workers go on serving:\n%s", text);
    struct cts_attribute attributes[] = {spans_int("ctserve.workers", master->supervisor.target)};
    spans_end(&master->reload_mark, &(struct span_story){.name = "ctserve.reload",
                                                         .error_type = "ctserve.reload_failed",
                                                         .message = text,
                                                         .attributes = attributes,
                                                         .attributes_count = 1});
    master->supervisor.parent = NULL;
}

void reload_free_settings(struct cts_settings **settings)
{
    if (*settings == NULL)
        return;
    cts_settings_done(*settings);
    free(*settings);
    *settings = NULL;
}

/* Back to what the serving generation was started with. */
static void restore_old(struct master *master)
{
    struct cts_error error = {0};
    if (master->old_settings == NULL)
        return;
    struct cts_settings *given_up = master->settings;
    master->settings = master->old_settings;
    master->old_settings = NULL;
    master->supervisor.settings = master->settings;
    if (master->gateway->configure(master->settings, &server_ops, &error) < 0)
        cts_error_log("restoring the old configuration: %s", error.text);
    reload_free_settings(&given_up);
    if (master->listeners_changed) {
        listener_close_all(&master->listeners, true, &master->old_listeners);
        master->listeners = master->old_listeners;
        master->old_listeners = (struct listeners){0};
        master->listeners_changed = false;
    }
    int64_t count = cts_settings_int(master->settings, CTS_SETTING_workers);
    if (count != master->supervisor.target &&
        master_set_workers(master, count, master->supervisor.target, &error) < 0)
        cts_error_log("nworkers_changed hook failed:\n%s", error.text);
}

static bool binds_differ(const struct cts_settings *one, const struct cts_settings *other)
{
    char *const *texts[2];
    size_t count = cts_settings_list(one, CTS_SETTING_bind, &texts[0]);
    if (count != cts_settings_list(other, CTS_SETTING_bind, &texts[1]))
        return true;
    for (size_t i = 0; i < count; i++)
        if (strcmp(texts[0][i], texts[1][i]) != 0)
            return true;
    return false;
}

static int rebind(struct master *master, struct cts_error *error)
{
    if (master->inherited_count > 0 || !binds_differ(master->settings, master->old_settings))
        return 0;
    struct listeners fresh = {0};
    if (listener_open_all(&fresh, master->settings, &master->listeners, NULL, 0, true, error) !=
        LISTENER_OPEN) {
        listener_close_all(&fresh, true, &master->listeners);
        return -1;
    }
    if (master->listeners_changed) /* a reload overtakes another one */
        listener_close_all(&master->listeners, true, &fresh);
    else
        master->old_listeners = master->listeners;
    master->listeners = fresh;
    master->listeners_changed = true;
    master_say_names(master, "Listening at");
    return 0;
}

/* The new settings are read; from here on a failure has to be undone. */
static int take_over(struct master *master, struct cts_error *error)
{
    if (master->gateway->configure(master->settings, &server_ops, error) < 0 ||
        master_set_workers(master, cts_settings_int(master->settings, CTS_SETTING_workers),
                           master->supervisor.target, error) < 0 ||
        rebind(master, error) < 0 || master_run_hook(master, CTS_HOOK_ON_RELOAD, error) < 0)
        return -1;
    master_remove_pidfile(master);
    return master_write_pidfile(master, error);
}

/* Settings are read where the first start read them: a relative path, and a `chdir` that has left
 * the file, mean the same again. NULL: nothing has changed, we stand where we stood. */
static struct cts_settings *read_again(struct master *master, struct cts_error *error)
{
    int here_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct cts_settings *fresh = calloc(1, sizeof(*fresh));
    if (fresh == NULL)
        cts_error_set(error, CTS_EXIT_FAILURE, "no memory");
    else if (chdir(master->upgrade->directory) < 0)
        cts_error_set(error, CTS_EXIT_FAILURE, "can't chdir to '%s': %s",
                      master->upgrade->directory, strerror(errno));
    if (error->text[0] != '\0' ||
        boot_read_settings(master->entry, master->gateway, fresh, error) < 0) {
        free(fresh);
        fresh = NULL;
        if (here_fd >= 0 && fchdir(here_fd) < 0)
            cts_warning("the working directory is gone");
    }
    cts_fd_close(&here_fd);
    return fresh;
}

void reload_begin(struct master *master)
{
    struct cts_error error = {0};
    cts_info("Hang up: %s", master->name);
    spans_begin(&master->reload_mark, NULL);
    struct cts_settings *fresh = read_again(master, &error);
    if (fresh == NULL) {
        reload_failed(master, error.text);
        return;
    }
    telemetry_put_past("ctserve.config", &master->reload_mark, master->reload_mark.start_mono_ns,
                       cts_clock_mono_ns());
    if (master->old_settings == NULL) {
        master->old_settings = master->settings;
        master->settings = fresh;
    } else { /* a reload overtakes another one: that one's settings never served */
        struct cts_settings *overtaken = master->settings;
        master->settings = fresh;
        reload_free_settings(&overtaken);
    }
    master->supervisor.settings = master->settings;
    if (take_over(master, &error) < 0) {
        reload_failed(master, error.text);
        restore_old(master);
        supervisor_reload_abort(&master->supervisor);
        return;
    }
    if (cts_log_reopen() < 0)
        cts_warning("the error log could not be opened again");
    cts_tracer_enable(telemetry_is_on(master->settings));
    master_set_title(master, "master");
    master->supervisor.parent = &master->reload_mark;
    supervisor_reload_begin(&master->supervisor);
}

void reload_look(struct master *master)
{
    struct supervisor *supervisor = &master->supervisor;
    if (supervisor->reload == RELOAD_DONE) {
        supervisor->reload = RELOAD_NONE;
        reload_free_settings(&master->old_settings);
        if (master->listeners_changed)
            listener_close_all(&master->old_listeners, true, &master->listeners);
        master->listeners_changed = false;
        struct cts_attribute attributes[] = {spans_int("ctserve.workers", supervisor->target)};
        spans_end(&master->reload_mark, &(struct span_story){.name = "ctserve.reload",
                                                             .attributes = attributes,
                                                             .attributes_count = 1});
        supervisor->parent = NULL;
    } else if (supervisor->reload == RELOAD_FAILED) {
        reload_failed(master, supervisor->reload_failure);
        restore_old(master);
        supervisor_reload_abort(supervisor);
    }
}
