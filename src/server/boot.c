/* boot.c - see boot.h. The order is gunicorn's: command line and variables, chdir, config file,
 * then whatever the file says about chdir, pythonpath and raw_env (done by configure). */
#include "boot.h"

#include "cmdline.h"
#include "fork.h"
#include "master.h"
#include "server_ops.h"

#include "ctserve/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int enter_directory(const struct cts_settings *settings, struct cts_error *error)
{
    if (cts_settings_is_default(settings, CTS_SETTING_chdir))
        return 0;
    const char *path = cts_settings_text(settings, CTS_SETTING_chdir);
    if (path == NULL || path[0] == '\0' || chdir(path) == 0)
        return 0;
    return cts_error_set(error, CTS_EXIT_FAILURE, "can't chdir to '%s': %s", path,
                         strerror(errno));
}

/* Command line first (it names the config file), then the file; sources settle who wins. */
static int read_all(const struct cts_entry *entry, const struct cts_gateway *gateway,
                    struct cts_settings *settings, struct cmdline *ret_cmdline,
                    struct cts_error *error)
{
    if (cmdline_read(entry->argc, entry->argv, settings, ret_cmdline, error) < 0)
        return -1;
    if (ret_cmdline->action == CMDLINE_HELP || ret_cmdline->action == CMDLINE_VERSION)
        return 0;
    if (enter_directory(settings, error) < 0)
        return -1;
    if (ret_cmdline->config_spec != NULL && ret_cmdline->config_spec[0] != '\0' &&
        gateway->load_config(ret_cmdline->config_spec, ret_cmdline->config_is_explicit, settings,
                             error) < 0)
        return -1;
    return 0;
}

static bool has_app(const struct cts_settings *settings)
{
    return settings->app_uri != NULL ||
           cts_settings_text(settings, CTS_SETTING_wsgi_app) != NULL;
}

static int open_log(const struct cts_settings *settings, struct cts_error *error)
{
    const char *path = cts_settings_text(settings, CTS_SETTING_errorlog);
    cts_log_set_level(cts_log_level_of(cts_settings_text(settings, CTS_SETTING_loglevel)));
    int r = cts_log_open(path != NULL ? path : "-");
    return r < 0 ? cts_error_set(error, CTS_EXIT_FAILURE, "errorlog: can't open '%s': %s", path,
                                 strerror(-r))
                 : 0;
}

int boot_read_settings(const struct cts_entry *entry, const struct cts_gateway *gateway,
                       struct cts_settings *settings, struct cts_error *error)
{
    struct cmdline cmdline = {0};
    if (cts_settings_init(settings, error) < 0)
        return -1;
    int r = read_all(entry, gateway, settings, &cmdline, error);
    cmdline_done(&cmdline);
    if (r == 0 && !has_app(settings))
        r = cmdline_no_app(error);
    if (r == 0)
        r = cts_settings_check(settings, error);
    if (r == 0)
        r = open_log(settings, error);
    if (r < 0)
        cts_settings_done(settings);
    return r;
}

/* --print-config and --check-config: everything short of serving. */
static int check_config(const struct cts_gateway *gateway, const struct cts_settings *settings,
                        bool prints, struct cts_error *error)
{
    if (prints) {
        char *text = cmdline_config_text(settings, gateway->value_text);
        if (text == NULL)
            return cts_error_set(error, CTS_EXIT_FAILURE, "out of memory");
        fputs(text, stdout);
        fflush(stdout);
        free(text);
    }
    if (!has_app(settings))
        return cmdline_no_app(error);
    if (cts_settings_check(settings, error) < 0 ||
        gateway->configure(settings, &server_ops, error) < 0)
        return -1;
    if (gateway->load_app(error) < 0) {
        error->exit_code = CTS_EXIT_FAILURE;
        return -1;
    }
    return 0;
}

/* How to start again; the master keeps a pointer to it. */
static struct upgrade upgrade;

static int complain(const struct cts_error *error)
{
    fflush(stdout);
    fprintf(stderr, "%s\n", error->text);
    return error->exit_code != 0 ? error->exit_code : CTS_EXIT_FAILURE;
}

/* 0: go on as the daemon (or in the foreground). 1: this process is done. */
static int go_into_background(const struct cts_gateway *gateway,
                              const struct cts_settings *settings, struct cts_error *error)
{
    if (!cts_settings_bool(settings, CTS_SETTING_daemon))
        return 0;
    int r = fork_daemon(gateway, cts_settings_bool(settings, CTS_SETTING_enable_stdio_inheritance));
    if (r < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "daemon: %s", strerror(-r));
    if (r > 0)
        _exit(CTS_EXIT_OK); /* without atexit: the daemon is the one who lives on */
    return 0;
}

/* The settings stand; *settings goes over to the master. */
static int serve(const struct cts_entry *entry, const struct cts_gateway *gateway,
                 struct cts_settings **settings, const uint64_t times[3], struct cts_error *error)
{
    if (!has_app(*settings)) {
        cmdline_no_app(error);
        return complain(error);
    }
    int r = fork_watch();
    if (r < 0)
        cts_error_set(error, CTS_EXIT_FAILURE, "watching forks: %s", strerror(-r));
    if (r < 0 || cts_settings_check(*settings, error) < 0 || open_log(*settings, error) < 0 ||
        go_into_background(gateway, *settings, error) < 0)
        return complain(error);
    struct master_plan plan = {
        .entry = entry,
        .gateway = gateway,
        .settings = *settings,
        .upgrade = &upgrade,
        .boot_mono_ns = times[0],
        .config_mono_ns = {times[1], times[2]},
    };
    *settings = NULL;
    return master_run(&plan);
}

static int act(const struct cts_entry *entry, const struct cts_gateway *gateway,
               struct cts_settings **settings, const struct cmdline *cmdline,
               const uint64_t times[3], struct cts_error *error)
{
    if (cmdline->action == CMDLINE_HELP || cmdline->action == CMDLINE_VERSION) {
        fputs(cmdline->text, stdout);
        fflush(stdout);
        return CTS_EXIT_OK;
    }
    bool prints = cts_settings_bool(*settings, CTS_SETTING_print_config);
    if (!prints && !cts_settings_bool(*settings, CTS_SETTING_check_config))
        return serve(entry, gateway, settings, times, error);
    return check_config(gateway, *settings, prints, error) < 0 ? complain(error) : CTS_EXIT_OK;
}

/* The process title is written over the argument area, and a reload reads the arguments again. */
static int copy_arguments(const struct cts_entry *entry, struct cts_entry *ret_copy)
{
    *ret_copy = *entry;
    ret_copy->argv = calloc((size_t)entry->argc + 1, sizeof(*ret_copy->argv));
    if (ret_copy->argv == NULL)
        return -ENOMEM;
    for (int i = 0; i < entry->argc; i++) {
        ret_copy->argv[i] = strdup(entry->argv[i]);
        if (ret_copy->argv[i] == NULL)
            return -ENOMEM;
    }
    return 0;
}

static void free_arguments(struct cts_entry *entry)
{
    for (int i = 0; entry->argv != NULL && i < entry->argc; i++)
        free(entry->argv[i]);
    free(entry->argv);
}

static int run(const struct cts_entry *entry, const struct cts_gateway *gateway)
{
    uint64_t times[3] = {cts_clock_mono_ns()};
    struct cts_error error = {0};
    struct cmdline cmdline = {0};
    int exit_code;
    struct cts_settings *settings = calloc(1, sizeof(*settings));
    if (settings == NULL)
        return CTS_EXIT_FAILURE;
    /* Before `chdir` and the config file change what a second start would begin with. */
    int r = upgrade_remember(&upgrade, entry);
    if (r < 0)
        cts_error_set(&error, CTS_EXIT_FAILURE, "how we were started: %s", strerror(-r));
    if (r < 0 || cts_settings_init(settings, &error) < 0) {
        exit_code = complain(&error);
        free(settings);
        settings = NULL;
        goto done;
    }
    times[1] = cts_clock_mono_ns();
    if (read_all(entry, gateway, settings, &cmdline, &error) < 0) {
        exit_code = complain(&error);
    } else {
        times[2] = cts_clock_mono_ns();
        exit_code = act(entry, gateway, &settings, &cmdline, times, &error);
    }
    cmdline_done(&cmdline);
    if (settings != NULL) {
        cts_settings_done(settings);
        free(settings);
    }
done:
    upgrade_free(&upgrade);
    gateway->finalize();
    return exit_code;
}

int boot_run(const struct cts_entry *entry, const struct cts_gateway *gateway)
{
    struct cts_entry copy;
    int exit_code = CTS_EXIT_FAILURE;
    if (copy_arguments(entry, &copy) == 0)
        exit_code = run(&copy, gateway);
    free_arguments(&copy);
    return exit_code;
}
