/* room.h - what the files of this room share.
 *
 * The gateway's functions carry no context, and Python is entered only in the main interpreter, so
 * one pointer to the module state of _core is kept in a file static (state.c). The references
 * themselves live in the module state and are visited and cleared with it. */
#ifndef PYTHON_ROOM_H
#define PYTHON_ROOM_H

#include "ctserve/python.h"

struct python_state {
    PyObject *core;          /* the module itself, borrowed */
    PyObject *objects;       /* ctserve._objects, ctserve._config, ctserve._errors */
    PyObject *config;
    PyObject *errors;
    PyObject *cfg, *server, *log, *application;
    PyObject *app;           /* the callable */
    PyObject *app_kind, *app_why;
    PyObject *worker;        /* this process's */
    PyObject *kept;          /* list: every object that some settings may point at */
    const struct cts_settings *settings;
    const struct cts_server_ops *ops;
    PyObject *hooks[CTS_SETTINGS_COUNT];  /* borrowed from kept, NULL where not set */
    int hook_arities[CTS_SETTINGS_COUNT];
};

/* The state of the one _core, or NULL before it is imported. */
struct python_state *state_get(void);
int state_init(PyObject *module);
int state_visit(PyObject *module, visitproc visit, void *arg);
int state_clear(PyObject *module);

/* Import the package's Python halves; not while _core itself is being imported. */
CTS_RAISES int state_load_modules(struct python_state *state);

/* -- exceptions.c ------------------------------------------------------------------------------- */
/* The exception that is set, normalised, its traceback on it; cleared. NULL if none is. */
PyObject *exception_take(void);
/* Turn the exception that is set into a sentence: a StartError and a SystemExit bring their own
 * code, anything else gets `exit_code` and a traceback of the user's frames under `what`.
 * Returns -1. */
int exception_to_error(struct cts_error *error, int exit_code, const char *what);

/* Attributes by interned names. Fresh strings, as PyObject_GetAttrString makes them before 3.13,
 * would each take a line of the interpreter's type cache and stay there. */
CTS_RAISES PyObject *attribute_get(PyObject *object, const char *name);
CTS_RAISES int attribute_set(PyObject *object, const char *name, PyObject *value);

/* -- values.c ---------------------------------------------------------------------------------- */
/* A setting's value as Python sees it. */
CTS_RAISES PyObject *value_to_object(const struct cts_settings *settings, enum cts_setting_id id);
/* Set one name of the config file. 0, or -1 with `error`. */
int value_set(struct python_state *state, struct cts_settings *settings, enum cts_setting_id id,
              PyObject *object, struct cts_error *error);
/* Let go of objects that the settings in force do not point at, and read the hooks out of them. */
CTS_RAISES int values_refresh(struct python_state *state);

/* -- the gateway's parts -------------------------------------------------------------------------- */
int config_load(const char *spec, bool required, struct cts_settings *settings,
                struct cts_error *error);
int objects_configure(const struct cts_settings *settings, const struct cts_server_ops *ops,
                      struct cts_error *error);
char *config_value_text(const struct cts_settings *settings, enum cts_setting_id id);
int load_app(struct cts_error *error);
const char *load_app_kind(const char **ret_why);
int hooks_run(enum cts_hook hook, const struct cts_hook_call *call, struct cts_error *error);
void *objects_worker_new(const struct cts_worker_facts *facts, struct cts_error *error);
void objects_worker_forked(void *worker, pid_t pid);
void objects_worker_gone(void *worker);
void objects_worker_free(void *worker);
void objects_workers_changed(int64_t count);
int signals_own(bool is_worker, struct cts_error *error);
void signals_interrupt(int signo);
int signals_run_pending(struct cts_error *error);
int signals_dump(int signo, int fd);
/* In the front, before the server has handlers: SIGINT ends the process, SIGPIPE is ignored, and
 * what the launcher blocked is let through. */
void signals_front(bool unblock);
void process_forget_variables(void);
void process_before_fork(void);
void process_after_fork_parent(void);
void process_after_fork_child(void);
void process_flush_stdio(void);
int process_watch_forks(void);
void *process_lock_give(void);
void process_lock_take(void *token);
void *process_thread_start(void);
void process_thread_stop(void *state);
void process_finalize(void);

extern PyMethodDef core_methods[];

#endif
