/* master.c - see master.h. Phrases in the log are gunicorn's: people grep for them. */
#include "master_own.h"

#include "banner.h"
#include "fork.h"
#include "hardship.h"
#include "pidfile.h"
#include "reload.h"
#include "server_ops.h"
#include "siblings.h"
#include "signals.h"
#include "stall.h"
#include "succession.h"
#include "systemd.h"
#include "telemetry.h"

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
#define REAP_PER_TURN_MAX 4096

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
        if (!the_master->listeners.at[i].is_reserved)
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
int master_run_hook(struct master *master, enum cts_hook hook, struct cts_error *error)
{
    struct cts_hook_call call = {0};
    return master->gateway->run_hook(hook, &call, error);
}

int master_set_workers(struct master *master, int64_t new_count, int64_t old_count,
                       struct cts_error *error)
{
    struct cts_hook_call call = {.new_count = new_count, .old_count = old_count};
    supervisor_set_target(&master->supervisor, new_count);
    master->gateway->workers_changed(new_count);
    return master->gateway->run_hook(CTS_HOOK_NWORKERS_CHANGED, &call, error);
}

void master_set_title(const struct master *master, const char *what)
{
    char title[256];
    snprintf(title, sizeof(title), "ctserve: %s [%s%s]", what,
             cts_settings_process_name(master->settings),
             master->parent_master_pid != 0 ? ".2" : "");
    cts_title_set(title);
}

void master_set_timer(struct master *master, double seconds)
{
    ev_timer_stop(master->loop, &master->timer);
    ev_timer_set(&master->timer, seconds, 0);
    ev_timer_start(master->loop, &master->timer);
}

void master_say_names(const struct master *master, const char *phrase)
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

/* -- boot -------------------------------------------------------------------------------------- */
int master_write_pidfile(struct master *master, struct cts_error *error)
{
    const char *path = cts_settings_text(master->settings, CTS_SETTING_pidfile);
    if (path == NULL || path[0] == '\0')
        return 0;
    char named[sizeof(master->pidfile)];
    if (snprintf(named, sizeof(named), "%s%s", path, master->parent_master_pid != 0 ? ".2" : "") >=
        (int)sizeof(named))
        return cts_error_set(error, CTS_EXIT_FAILURE, "the pid file's path is too long");
    if (pidfile_write(named, error) < 0)
        return -1;
    memcpy(master->pidfile, named, sizeof(named));
    return 0;
}

void master_remove_pidfile(struct master *master)
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
    telemetry_put_past("ctserve.preload", &master->boot_mark, start_ns, cts_clock_mono_ns());
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
    master->supervisor.ring_bytes = telemetry_ring_bytes(master->settings);
    cts_tracer_enable(telemetry_is_on(master->settings));
    if (telemetry_is_on(master->settings))
        telemetry_open_ring(master);
    spans_begin(&master->boot_mark, NULL);
    master->boot_mark.start_mono_ns = master->boot_mono_ns;
    telemetry_put_past("ctserve.config", &master->boot_mark, plan->config_mono_ns[0],
                       plan->config_mono_ns[1]);

    find_inherited(master);
    if (gateway->configure(master->settings, &server_ops, error) < 0 ||
        master_set_workers(master, cts_settings_int(master->settings, CTS_SETTING_workers), -1,
                           error) < 0 ||
        preload(master, error) < 0)
        return -1;
    master->shows_banner = banner_is_wanted(master->settings);
    if (!master->shows_banner)
        cts_info("Starting ctserve %s", CTS_VERSION);
    if (master_write_pidfile(master, error) < 0 ||
        master_run_hook(master, CTS_HOOK_ON_STARTING, error) < 0 ||
        gateway->own_signals(false, error) < 0)
        return -1;
    int r = signals_start(master->loop);
    return r < 0 ? cts_error_set(error, CTS_EXIT_FAILURE, "signals: %s", strerror(-r)) : 0;
}

static struct banner banner_of(const struct master *master)
{
    return (struct banner){.entry = master->entry,
                           .gateway = master->gateway,
                           .settings = master->settings,
                           .listeners = &master->listeners,
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
        master_say_names(master, "Listening at");
        cts_info("Using worker: %s", banner_worker_name(master->settings));
    }
    systemd_notify("READY=1\nSTATUS=ctserve master booted");
    telemetry_start_agent(master);
    if (master_run_hook(master, CTS_HOOK_WHEN_READY, error) < 0)
        return -1;
    master_set_title(master, "master");
    stall_start(&master->supervisor);
    master->supervisor.parent = &master->boot_mark;
    if (master->parent_master_pid != 0)
        master_set_timer(master, SUCCESSION_LOOK_S);
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
        master_set_timer(master, BIND_PAUSE_S);
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
        bool unlinks =
            master->reexec_pid == 0 && master->parent_master_pid == 0 && !master->is_systemd;
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
                                   .message = failure,
                                   .attributes = attributes,
                                   .attributes_count = CTS_COUNT(attributes)});
    master->supervisor.parent = NULL;
}

static void run_on_exit(struct master *master)
{
    struct cts_error error = {0};
    if (master_run_hook(master, CTS_HOOK_ON_EXIT, &error) < 0) {
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
    master_remove_pidfile(master);
    if (!master->is_crash)
        run_on_exit(master);
    struct span_mark mark;
    spans_begin(&mark, NULL);
    struct cts_attribute attributes[] = {spans_int("process.exit.code", master->exit_code)};
    spans_end(&mark,
              &(struct span_story){.name = "ctserve.shutdown",
                                   .error_type = master->exit_code != 0 ? "ctserve.exit" : NULL,
                                   .message = supervisor->halt_reason,
                                   .attributes = attributes,
                                   .attributes_count = 1});
    if (master->ring != NULL)
        agent_link_event(&master->agent, master->ring, CTS_WORKER_EVENT_DRAINING, CTS_GONE_STOPPED,
                         0);
    agent_link_stop(&master->agent, AGENT_STOP_MS);
    master->phase = PHASE_LEAVING;
}

/* -- signals ----------------------------------------------------------------------------------- */
static void change_target(struct master *master, int64_t by)
{
    struct cts_error error = {0};
    int64_t old_count = master->supervisor.target;
    if (old_count + by < 1)
        return;
    if (master_set_workers(master, old_count + by, old_count, &error) < 0)
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
    if (master_set_workers(master, 0, master->supervisor.target, &error) < 0)
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
            reload_begin(master);
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
            succession_start(master);
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
    succession_look(master);
    const struct worker_plan *child = supervisor_manage(supervisor);
    if (child != NULL)
        return child;
    reload_look(master);
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

/* In a child: what hooks and the application see as worker.sockets. */
static void know_own_sockets(struct master *master, const struct worker_plan *plan)
{
    for (size_t i = 0; i < plan->listeners_count && i < LISTENERS_MAX; i++)
        master->listeners.at[i] = plan->listeners[i];
}

static int loop_until_done(struct master *master)
{
    master->bind_is_due = true;
    for (;;) {
        const struct worker_plan *child = step(master);
        if (child != NULL) {
            know_own_sockets(master, child);
            return worker_run(child);
        }
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
    /* Without it the workers take clients as they come. */
    if (siblings_make() < 0)
        cts_warning("No memory that the workers share: connections may spread unevenly");
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
    reload_free_settings(&master->old_settings);
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
