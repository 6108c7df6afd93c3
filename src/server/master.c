/* master.c - see master.h. Phrases in the log are gunicorn's: people grep for them. */
#include "master.h"

#include "banner.h"
#include "fork.h"
#include "hardship.h"
#include "pidfile.h"
#include "server_ops.h"
#include "signals.h"
#include "stall.h"
#include "supervisor.h"
#include "systemd.h"

#include "ctserve/buffer.h"
#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIND_TRIES 5
#define BIND_PAUSE_S 1.0
#define QUICK_STOP_S 2.0
#define AGENT_STOP_MS 900u
#define PROMOTION_LOOK_S 1.0
#define REAP_PER_TURN_MAX 4096

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

/* Python asks the server through functions without a context; there is one master per process. */
static struct master *the_master;

/* -- what Python may ask ----------------------------------------------------------------------- */
static int ops_kill_worker(pid_t pid, int signo)
{
    struct member *member = supervisor_by_pid(&the_master->supervisor, pid);
    if (member == NULL)
        return -ESRCH;
    member_signal(member, signo);
    return 0;
}

static int ops_listener_fds(int *fds, int count_max)
{
    int count = 0;
    for (size_t i = 0; i < the_master->listeners.count && count < count_max; i++)
        fds[count++] = the_master->listeners.at[i].fd;
    return count;
}

static size_t ops_listener_names(char *text, size_t text_bytes)
{
    return listener_names(&the_master->listeners, text, text_bytes);
}

static int64_t ops_workers_count(void)
{
    return the_master->supervisor.target;
}

struct cts_server_ops server_ops = {
    .signal_self = signals_put,
    .kill_worker = ops_kill_worker,
    .listener_fds = ops_listener_fds,
    .listener_names = ops_listener_names,
    .requests_count = worker_requests_count,
    .is_alive = worker_is_alive,
    .set_alive = worker_set_alive,
    .workers_count = ops_workers_count,
};

/* -- small things ------------------------------------------------------------------------------ */
static int run_hook(struct master *master, enum cts_hook hook, struct cts_error *error)
{
    struct cts_hook_call call = {0};
    return master->gateway->run_hook(hook, &call, error);
}

static int run_nworkers_changed(struct master *master, int64_t new_count, int64_t old_count,
                                struct cts_error *error)
{
    struct cts_hook_call call = {.new_count = new_count, .old_count = old_count};
    supervisor_set_target(&master->supervisor, new_count);
    master->gateway->workers_changed(new_count);
    return master->gateway->run_hook(CTS_HOOK_NWORKERS_CHANGED, &call, error);
}

static void set_title(const struct master *master, const char *what)
{
    char title[256];
    snprintf(title, sizeof(title), "ctserve: %s [%s%s]", what,
             cts_settings_process_name(master->settings), master->parent_master_pid != 0 ? ".2" : "");
    cts_title_set(title);
}

static void set_timer(struct master *master, double seconds)
{
    ev_timer_stop(master->loop, &master->timer);
    ev_timer_set(&master->timer, seconds, 0);
    ev_timer_start(master->loop, &master->timer);
}

static void say_names(const struct master *master, const char *phrase)
{
    char names[1024];
    listener_names(&master->listeners, names, sizeof(names));
    cts_info("%s: %s (%d)", phrase, names, (int)getpid());
}

/* End with an error that a person reads, before or instead of a regular stop. */
static void crash(struct master *master, int exit_code, const char *text)
{
    if (text[0] != '\0')
        cts_error_log("%s", text);
    master->exit_code = exit_code;
    master->is_crash = true;
    master->stop_is_quick = true;
}

/* -- tracing ----------------------------------------------------------------------------------- */
static bool tracing_is_on(const struct cts_settings *settings)
{
    const char *disabled = getenv("OTEL_SDK_DISABLED");
    bool is_disabled = disabled != NULL && cts_bytes_equal_nocase(cts_bytes_of(disabled),
                                                                  cts_bytes_of("true"));
    return cts_settings_bool(settings, CTS_SETTING_tracing) && !is_disabled;
}

static uint32_t ring_bytes(const struct cts_settings *settings)
{
    int64_t wanted = tracing_is_on(settings)
                         ? cts_settings_int(settings, CTS_SETTING_trace_ring_bytes) : 0;
    uint32_t bytes = CTS_RING_BYTES_MIN;
    while (bytes < wanted && bytes < CTS_RING_BYTES_MAX)
        bytes *= 2;
    return bytes;
}

static const char *api_of(const struct master *master)
{
    const char *api = cts_settings_text(master->settings, CTS_SETTING_trace_api);
    if (api == NULL)
        return "off";
    if (strcmp(api, "auto") != 0)
        return api;
    return isatty(2) && listener_is_loopback(&master->listeners) ? "auto" : "off";
}

static void on_agent_ready(void *user, const char *api, const char *token)
{
    struct master *master = user;
    if (api[0] == '\0')
        return;
    snprintf(master->traces, sizeof(master->traces), "http://%s/?t=%s", api, token);
    if (master->shows_banner && !master->traces_shown)
        banner_show_traces(master->traces);
    else
        cts_info("Traces at: %s", master->traces);
    master->traces_shown = true;
}

static void on_agent_recycle(void *user, struct ring *ring)
{
    struct master *master = user;
    struct member *member = supervisor_by_ring(&master->supervisor, ring);
    if (member == NULL)
        return;
    cts_warning("the trace ring of worker (pid:%d) is damaged: the worker is replaced",
                (int)member->pid);
    supervisor_drain(member, CTS_GONE_RING_DAMAGED);
}

static int put_hello(struct cts_buffer *out, const struct master *master)
{
    const struct cts_settings *settings = master->settings;
    const char *endpoint = cts_settings_text(settings, CTS_SETTING_trace_otlp_endpoint);
    const char *protocol = cts_settings_text(settings, CTS_SETTING_trace_otlp_protocol);
    const char *service = cts_settings_text(settings, CTS_SETTING_trace_service_name);
    char binds[1024];
    listener_names(&master->listeners, binds, sizeof(binds));
    return cts_buffer_printf(
        out,
        "master_pid=%d\nserver_version=%s\napp=%s\nuid=%d\ngid=%d\nservice_name=%s\n"
        "otlp_endpoint=%s\notlp_protocol=%s\nworkers=%lld\nbind=%s\nstarted_real_ns=%llu\n",
        (int)getpid(), CTS_VERSION, cts_settings_process_name(master->settings), (int)geteuid(),
        (int)getegid(), service != NULL ? service : "", endpoint != NULL ? endpoint : "",
        protocol != NULL ? protocol : "", (long long)master->supervisor.target, binds,
        (unsigned long long)cts_clock_real_ns());
}

static void start_agent(struct master *master)
{
    const char *api = api_of(master);
    const char *asked = cts_settings_text(master->settings, CTS_SETTING_trace_api);
    bool api_is_asked = asked != NULL && strcmp(asked, "auto") != 0 && strcmp(asked, "off") != 0;
    if (!tracing_is_on(master->settings) && !api_is_asked)
        return;
    if (master->entry->agent_path == NULL || master->entry->agent_path[0] == '\0') {
        cts_debug("no ctserve-agent beside this program: traces are not collected");
        return;
    }
    struct cts_buffer hello = CTS_BUFFER_EMPTY;
    if (put_hello(&hello, master) == 0 && cts_buffer_put(&hello, "", 1) == 0) {
        struct agent_link_plan plan = {
            .loop = master->loop,
            .agent_path = master->entry->agent_path,
            .hello = cts_buffer_view(&hello).at,
            .api = api,
            .on_ready = on_agent_ready,
            .on_recycle = on_agent_recycle,
            .user = master,
        };
        agent_link_start(&master->agent, &plan);
    }
    cts_buffer_free(&hello);
}

/* The master's own ring. Without one (no memory), everything but its spans goes on. */
static void open_own_ring(struct master *master)
{
    struct cts_slot_plan plan = {.slot_index = -1, .generation = 1, .rows_count = 1,
                                 .ring_bytes = master->supervisor.ring_bytes};
    int r;
    master->ring = agent_link_ring_new(&master->agent, &plan, &r);
    if (master->ring == NULL || cts_tracer_attach_master(&master->ring->slot) < 0) {
        cts_warning("the master's spans are lost: no memory for their ring");
        return;
    }
    agent_link_ring_begin(&master->agent, master->ring, getpid());
}

static void put_past_span(const char *name, const struct span_mark *parent, uint64_t start_ns,
                          uint64_t end_ns)
{
    struct cts_span span = {.name = name, .start_mono_ns = start_ns, .end_mono_ns = end_ns};
    memcpy(span.trace_id, parent->trace_id, sizeof(span.trace_id));
    memcpy(span.parent_span_id, parent->span_id, sizeof(span.parent_span_id));
    cts_span_put(&span);
}

/* -- boot -------------------------------------------------------------------------------------- */
static int write_pidfile(struct master *master, struct cts_error *error)
{
    const char *path = cts_settings_text(master->settings, CTS_SETTING_pidfile);
    if (path == NULL || path[0] == '\0')
        return 0;
    char named[sizeof(master->pidfile)];
    if (snprintf(named, sizeof(named), "%s%s", path,
                 master->parent_master_pid != 0 ? ".2" : "") >= (int)sizeof(named))
        return cts_error_set(error, CTS_EXIT_FAILURE, "the pid file's path is too long");
    if (pidfile_write(named, error) < 0)
        return -1;
    memcpy(master->pidfile, named, sizeof(named));
    return 0;
}

static void remove_pidfile(struct master *master)
{
    if (master->pidfile[0] != '\0')
        pidfile_remove(master->pidfile);
    master->pidfile[0] = '\0';
}

static int preload(struct master *master, struct cts_error *error)
{
    if (!cts_settings_bool(master->settings, CTS_SETTING_preload_app))
        return 0;
    uint64_t start_ns = cts_clock_mono_ns();
    if (master->gateway->load_app(error) < 0) {
        error->exit_code = CTS_EXIT_FAILURE; /* gunicorn ends with 1 here, whatever was wrong */
        return -1;
    }
    put_past_span("ctserve.preload", &master->boot_mark, start_ns, cts_clock_mono_ns());
    master->supervisor.app_is_loaded = true;
    return 0;
}

static void find_inherited(struct master *master)
{
    int count = systemd_listen_fds();
    master->parent_master_pid =
        upgrade_parent(master->inherited_fds, LISTENERS_MAX, &master->inherited_count);
    if (count > 0) {
        master->is_systemd = true;
        master->inherited_count = 0;
        for (int i = 0; i < count && i < LISTENERS_MAX; i++)
            master->inherited_fds[master->inherited_count++] = SYSTEMD_FDS_START + i;
    }
    if (master->parent_master_pid != 0)
        master->name = "Master.2";
}

/* Up to the moment before sockets are bound. */
static int prepare(struct master *master, const struct master_plan *plan, struct cts_error *error)
{
    const struct cts_gateway *gateway = master->gateway;
    master->supervisor.ring_bytes = ring_bytes(master->settings);
    cts_tracer_enable(tracing_is_on(master->settings));
    if (tracing_is_on(master->settings))
        open_own_ring(master);
    spans_begin(&master->boot_mark, NULL);
    master->boot_mark.start_mono_ns = master->boot_mono_ns;
    put_past_span("ctserve.config", &master->boot_mark, plan->config_mono_ns[0],
                  plan->config_mono_ns[1]);

    find_inherited(master);
    if (gateway->configure(master->settings, &server_ops, error) < 0 ||
        run_nworkers_changed(master, cts_settings_int(master->settings, CTS_SETTING_workers), -1,
                             error) < 0 ||
        preload(master, error) < 0)
        return -1;
    master->shows_banner = banner_is_wanted(master->settings);
    if (!master->shows_banner)
        cts_info("Starting ctserve %s", CTS_VERSION);
    if (write_pidfile(master, error) < 0 || run_hook(master, CTS_HOOK_ON_STARTING, error) < 0 ||
        gateway->own_signals(false, error) < 0)
        return -1;
    int r = signals_start(master->loop);
    return r < 0 ? cts_error_set(error, CTS_EXIT_FAILURE, "signals: %s", strerror(-r)) : 0;
}

static struct banner banner_of(const struct master *master)
{
    return (struct banner){.entry = master->entry, .gateway = master->gateway,
                           .settings = master->settings, .listeners = &master->listeners,
                           .boot_mono_ns = master->boot_mono_ns,
                           .app_is_loaded = master->supervisor.app_is_loaded};
}

/* Sockets are open: agent, when_ready, workers. */
static int become_ready(struct master *master, struct cts_error *error)
{
    struct banner banner = banner_of(master);
    if (master->shows_banner) {
        banner_show(&banner);
    } else {
        say_names(master, "Listening at");
        cts_info("Using worker: %s", banner_worker_name(master->settings));
    }
    systemd_notify("READY=1\nSTATUS=ctserve master booted");
    start_agent(master);
    if (run_hook(master, CTS_HOOK_WHEN_READY, error) < 0)
        return -1;
    set_title(master, "master");
    stall_start(&master->supervisor);
    master->supervisor.parent = &master->boot_mark;
    if (master->parent_master_pid != 0)
        set_timer(master, PROMOTION_LOOK_S);
    master->phase = PHASE_RUNNING;
    return 0;
}

static void bind_step(struct master *master)
{
    if (!master->bind_is_due)
        return;
    master->bind_is_due = false;
    struct cts_error error = {0};
    bool is_last = ++master->bind_tries >= BIND_TRIES;
    enum listener_verdict verdict =
        listener_open_all(&master->listeners, master->settings, NULL, master->inherited_fds,
                          master->inherited_count, is_last, &error);
    if (verdict == LISTENER_AGAIN) {
        cts_debug("Retrying in 1 second.");
        set_timer(master, BIND_PAUSE_S);
        return;
    }
    master->listeners.is_inherited |= master->is_systemd;
    if (verdict == LISTENER_FAILED || become_ready(master, &error) < 0)
        crash(master, error.exit_code != 0 ? error.exit_code : CTS_EXIT_FAILURE, error.text);
}

/* -- the end ----------------------------------------------------------------------------------- */
static void begin_stop(struct master *master, int signo)
{
    if (master->phase < PHASE_STOPPING) {
        bool unlinks = master->reexec_pid == 0 && master->parent_master_pid == 0 &&
                       !master->is_systemd;
        listener_close_all(&master->listeners, unlinks, NULL);
        listener_close_all(&master->old_listeners, unlinks, NULL);
        stall_stop(&master->supervisor);
        ev_timer_stop(master->loop, &master->timer);
        master->phase = PHASE_STOPPING;
    }
    double limit_s = (double)cts_settings_int(master->settings, CTS_SETTING_graceful_timeout);
    if (signo == SIGQUIT)
        master->stop_is_quick = true;
    supervisor_stop(&master->supervisor, signo, limit_s);
}

static void end_boot_span(struct master *master, const char *failure)
{
    if (master->boot_is_told)
        return;
    master->boot_is_told = true;
    struct cts_attribute attributes[] = {
        spans_int("process.pid", getpid()),
        spans_int("ctserve.workers", master->supervisor.target),
        spans_text("process.runtime.version", master->entry->python_version),
    };
    spans_end(&master->boot_mark,
              &(struct span_story){.name = "ctserve.boot",
                                   .error_type = failure != NULL ? "ctserve.boot_failed" : NULL,
                                   .message = failure, .attributes = attributes,
                                   .attributes_count = CTS_COUNT(attributes)});
    master->supervisor.parent = NULL;
}

static void run_on_exit(struct master *master)
{
    struct cts_error error = {0};
    if (run_hook(master, CTS_HOOK_ON_EXIT, &error) < 0) {
        cts_error_log("on_exit hook failed:\n%s", error.text);
        if (master->exit_code == 0)
            master->exit_code = CTS_EXIT_FAILURE;
    }
}

/* No worker is left: last words, last hook, last spans. */
static void last_words(struct master *master)
{
    const struct supervisor *supervisor = &master->supervisor;
    end_boot_span(master, master->exit_code != 0 ? supervisor->halt_reason : NULL);
    if (!master->is_crash) {
        enum cts_log_level level = master->exit_code == 0 ? CTS_LOG_INFO : CTS_LOG_ERROR;
        cts_log(level, "Shutting down: %s", master->name);
        if (supervisor->halt_reason[0] != '\0')
            cts_log(level, "Reason: %s", supervisor->halt_reason);
    }
    remove_pidfile(master);
    if (!master->is_crash)
        run_on_exit(master);
    struct span_mark mark;
    spans_begin(&mark, NULL);
    struct cts_attribute attributes[] = {spans_int("process.exit.code", master->exit_code)};
    spans_end(&mark, &(struct span_story){.name = "ctserve.shutdown",
                                          .error_type = master->exit_code != 0 ? "ctserve.exit"
                                                                               : NULL,
                                          .message = supervisor->halt_reason,
                                          .attributes = attributes, .attributes_count = 1});
    if (master->ring != NULL)
        agent_link_event(&master->agent, master->ring, CTS_WORKER_EVENT_DRAINING,
                         CTS_GONE_STOPPED, 0);
    agent_link_stop(&master->agent, AGENT_STOP_MS);
    master->phase = PHASE_LEAVING;
}

/* -- reload ------------------------------------------------------------------------------------ */
static void reload_failed(struct master *master, const char *text)
{
    cts_error_log("Reload failed, the old workers go on serving:\n%s", text);
    struct cts_attribute attributes[] = {spans_int("ctserve.workers", master->supervisor.target)};
    spans_end(&master->reload_mark,
              &(struct span_story){.name = "ctserve.reload", .error_type = "ctserve.reload_failed",
                                   .message = text, .attributes = attributes,
                                   .attributes_count = 1});
    master->supervisor.parent = NULL;
}

static void settings_free(struct cts_settings **settings)
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
    settings_free(&given_up);
    if (master->listeners_changed) {
        listener_close_all(&master->listeners, true, &master->old_listeners);
        master->listeners = master->old_listeners;
        master->old_listeners = (struct listeners){0};
        master->listeners_changed = false;
    }
    int64_t count = cts_settings_int(master->settings, CTS_SETTING_workers);
    if (count != master->supervisor.target &&
        run_nworkers_changed(master, count, master->supervisor.target, &error) < 0)
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
    say_names(master, "Listening at");
    return 0;
}

/* The new settings are read; from here on a failure has to be undone. */
static int take_over(struct master *master, struct cts_error *error)
{
    if (master->gateway->configure(master->settings, &server_ops, error) < 0 ||
        run_nworkers_changed(master, cts_settings_int(master->settings, CTS_SETTING_workers),
                             master->supervisor.target, error) < 0 ||
        rebind(master, error) < 0 || run_hook(master, CTS_HOOK_ON_RELOAD, error) < 0)
        return -1;
    remove_pidfile(master);
    return write_pidfile(master, error);
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

static void reload(struct master *master)
{
    struct cts_error error = {0};
    cts_info("Hang up: %s", master->name);
    spans_begin(&master->reload_mark, NULL);
    struct cts_settings *fresh = read_again(master, &error);
    if (fresh == NULL) {
        reload_failed(master, error.text);
        return;
    }
    put_past_span("ctserve.config", &master->reload_mark, master->reload_mark.start_mono_ns,
                  cts_clock_mono_ns());
    if (master->old_settings == NULL) {
        master->old_settings = master->settings;
        master->settings = fresh;
    } else { /* a reload overtakes another one: that one's settings never served */
        struct cts_settings *overtaken = master->settings;
        master->settings = fresh;
        settings_free(&overtaken);
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
    cts_tracer_enable(tracing_is_on(master->settings));
    set_title(master, "master");
    master->supervisor.parent = &master->reload_mark;
    supervisor_reload_begin(&master->supervisor);
}

static void look_at_reload(struct master *master)
{
    struct supervisor *supervisor = &master->supervisor;
    if (supervisor->reload == RELOAD_DONE) {
        supervisor->reload = RELOAD_NONE;
        settings_free(&master->old_settings);
        if (master->listeners_changed)
            listener_close_all(&master->old_listeners, true, &master->listeners);
        master->listeners_changed = false;
        struct cts_attribute attributes[] = {spans_int("ctserve.workers", supervisor->target)};
        spans_end(&master->reload_mark,
                  &(struct span_story){.name = "ctserve.reload", .attributes = attributes,
                                       .attributes_count = 1});
        supervisor->parent = NULL;
    } else if (supervisor->reload == RELOAD_FAILED) {
        reload_failed(master, supervisor->reload_failure);
        restore_old(master);
        supervisor_reload_abort(supervisor);
    }
}

/* -- upgrade ----------------------------------------------------------------------------------- */
/* In the child of USR2. Returns the exit code when the exec did not happen. */
static int exec_again(struct master *master, pid_t old_pid)
{
    struct cts_error error = {0};
    if (run_hook(master, CTS_HOOK_PRE_EXEC, &error) < 0) {
        cts_error_log("pre_exec hook failed:\n%s", error.text);
        return CTS_EXIT_FAILURE;
    }
    int r = upgrade_exec(master->upgrade, &master->listeners, old_pid, master->is_systemd);
    cts_error_log("can't start %s again: %s", master->upgrade->program, strerror(-r));
    return CTS_EXIT_FAILURE;
}

static void reexec(struct master *master)
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

static void look_for_promotion(struct master *master)
{
    struct cts_error error = {0};
    if (master->parent_master_pid == 0)
        return;
    if (getppid() == master->parent_master_pid) {
        if (!ev_is_active(&master->timer))
            set_timer(master, PROMOTION_LOOK_S);
        return;
    }
    cts_info("Master has been promoted.");
    master->name = "Master";
    master->parent_master_pid = 0;
    unsetenv("GUNICORN_PID");
    remove_pidfile(master);
    if (write_pidfile(master, &error) < 0)
        cts_error_log("%s", error.text);
    set_title(master, "master");
}

/* -- signals ----------------------------------------------------------------------------------- */
static void change_target(struct master *master, int64_t by)
{
    struct cts_error error = {0};
    int64_t old_count = master->supervisor.target;
    if (old_count + by < 1)
        return;
    if (run_nworkers_changed(master, old_count + by, old_count, &error) < 0)
        cts_error_log("nworkers_changed hook failed:\n%s", error.text);
}

static void reap(struct master *master)
{
    for (int i = 0; i < REAP_PER_TURN_MAX; i++) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0)
            return;
        if (pid == master->reexec_pid)
            master->reexec_pid = 0;
        else if (!agent_link_reaped(&master->agent, pid, status) &&
                 !supervisor_reaped(&master->supervisor, pid, status))
            cts_debug("Reaped unknown child process (pid:%d, status:%d)", (int)pid, status);
    }
    signals_put(SIGCHLD); /* there are more: after the others had their turn */
}

static void graceful_stop_by_winch(struct master *master)
{
    if (!cts_settings_bool(master->settings, CTS_SETTING_daemon)) {
        cts_debug("SIGWINCH ignored. Not daemonized");
        return;
    }
    struct cts_error error = {0};
    cts_info("graceful stop of workers");
    if (run_nworkers_changed(master, 0, master->supervisor.target, &error) < 0)
        cts_error_log("nworkers_changed hook failed:\n%s", error.text);
}

static void handle_running(struct master *master, int signo)
{
    switch (signo) {
    case SIGTERM:
        begin_stop(master, SIGTERM);
        break;
    case SIGINT:
    case SIGQUIT:
        begin_stop(master, SIGQUIT);
        break;
    case SIGHUP:
        if (master->phase == PHASE_RUNNING)
            reload(master);
        break;
    case SIGTTIN:
        change_target(master, 1);
        break;
    case SIGTTOU:
        change_target(master, -1);
        break;
    case SIGUSR1:
        if (cts_log_reopen() < 0)
            cts_warning("the error log could not be opened again");
        supervisor_signal_all(&master->supervisor, SIGUSR1);
        break;
    case SIGUSR2:
        if (master->phase == PHASE_RUNNING)
            reexec(master);
        break;
    case SIGWINCH:
        graceful_stop_by_winch(master);
        break;
    default:
        break;
    }
}

static void handle(struct master *master, int signo)
{
    if (signo == SIGCHLD) {
        reap(master);
        return;
    }
    if (master->phase >= PHASE_STOPPING) {
        if (!master->stop_is_quick && (signo == SIGINT || signo == SIGQUIT)) {
            cts_info("Quick shutdown requested");
            master->stop_is_quick = true;
            supervisor_stop(&master->supervisor, SIGQUIT, QUICK_STOP_S);
        }
        return;
    }
    cts_info("Handling signal: %s", signals_name(signo));
    handle_running(master, signo);
}

/* -- the loop ---------------------------------------------------------------------------------- */
static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct master *master = timer->data;
    master->bind_is_due = true;
}

static void give_lock(struct ev_loop *loop) EV_NOEXCEPT
{
    the_master->lock_token = the_master->gateway->lock_give();
}

static void take_lock(struct ev_loop *loop) EV_NOEXCEPT
{
    the_master->gateway->lock_take(the_master->lock_token);
}

/* The first workers are ready. */
static void look_at_boot(struct master *master)
{
    struct supervisor *supervisor = &master->supervisor;
    bool is_ready = supervisor->serving_generation == supervisor->generation &&
                    supervisor->counts[MEMBER_READY] >= supervisor->target;
    if (master->boot_is_told || !is_ready)
        return;
    end_boot_span(master, NULL);
    struct banner banner = banner_of(master);
    if (master->shows_banner)
        banner_show_ready(&banner, supervisor->app_kind);
}

static const struct worker_plan *run_step(struct master *master)
{
    struct supervisor *supervisor = &master->supervisor;
    look_for_promotion(master);
    const struct worker_plan *child = supervisor_manage(supervisor);
    if (child != NULL)
        return child;
    look_at_reload(master);
    look_at_boot(master);
    if (supervisor->halt_code >= 0) {
        master->exit_code = supervisor->halt_code;
        if (supervisor->halt_code == CTS_EXIT_FORK_HOOK)
            crash(master, CTS_EXIT_FORK_HOOK, "");
        else
            begin_stop(master, SIGTERM);
    }
    return NULL;
}

/* Python handlers that a config file registered for signals that are not ours. */
static void run_pending(struct master *master)
{
    struct cts_error error = {0};
    if (master->gateway->run_pending(&error) < 0 && master->phase < PHASE_STOPPING)
        crash(master, error.exit_code, error.text);
}

/* Everything that can be done without waiting. In a child: its plan. */
static const struct worker_plan *step(struct master *master)
{
    enum phase before;
    do {
        before = master->phase;
        for (int signo = signals_take(); signo != 0; signo = signals_take())
            handle(master, signo);
        run_pending(master);
        if (master->phase == PHASE_BINDING && !master->is_crash)
            bind_step(master);
        if (master->phase == PHASE_RUNNING && !master->is_crash) {
            const struct worker_plan *child = run_step(master);
            if (child != NULL)
                return child;
        }
        if (master->is_crash && master->phase < PHASE_STOPPING)
            begin_stop(master, SIGQUIT);
        if (master->phase == PHASE_STOPPING && supervisor_alive_count(&master->supervisor) == 0)
            last_words(master);
        if (master->phase == PHASE_LEAVING && agent_link_is_idle(&master->agent))
            master->phase = PHASE_DONE;
    } while (master->phase != before);
    return NULL;
}

static int loop_until_done(struct master *master)
{
    master->bind_is_due = true;
    for (;;) {
        const struct worker_plan *child = step(master);
        if (child != NULL)
            return worker_run(child);
        if (master->phase == PHASE_DONE)
            return master->exit_code;
        ev_run(master->loop, EVRUN_ONCE);
    }
}

static bool init(struct master *master, const struct master_plan *plan)
{
    master->entry = plan->entry;
    master->gateway = plan->gateway;
    master->settings = plan->settings;
    master->upgrade = plan->upgrade;
    master->boot_mono_ns = plan->boot_mono_ns;
    master->name = "Master";
    hardship_prepare();
    master->loop = ev_default_loop(EVFLAG_AUTO | EVFLAG_NOENV);
    if (master->loop == NULL)
        return false;
    the_master = master;
    ev_set_loop_release_cb(master->loop, give_lock, take_lock);
    ev_init(&master->timer, on_timer);
    master->timer.data = master;
    agent_link_init(&master->agent);
    struct supervisor *supervisor = &master->supervisor;
    supervisor_init(supervisor);
    supervisor->gateway = master->gateway;
    supervisor->settings = master->settings;
    supervisor->listeners = &master->listeners;
    supervisor->agent = &master->agent;
    supervisor->loop = master->loop;
    return true;
}

static void done(struct master *master)
{
    cts_tracer_detach();
    agent_link_done(&master->agent);
    signals_stop();
    ev_loop_destroy(master->loop);
    settings_free(&master->old_settings);
}

int master_run(const struct master_plan *plan)
{
    struct cts_error error = {0};
    struct master *master = calloc(1, sizeof(*master));
    if (master == NULL || !init(master, plan)) {
        cts_error_log("no memory for the master");
        return CTS_EXIT_FAILURE;
    }
    pid_t master_pid = getpid();
    if (prepare(master, plan, &error) < 0)
        crash(master, error.exit_code, error.text);
    int exit_code = loop_until_done(master);
    if (getpid() == master_pid)
        done(master);
    return exit_code;
}
