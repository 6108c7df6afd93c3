/* hooks.c - calling the user's hooks.
 *
 * Which arguments a hook takes and what its failure means for the process stand in one table; the
 * server decides what to do about it (reference: gunicorn's hooks). */
#include "room.h"

#include <unistd.h>

enum arguments { ARGUMENTS_SERVER, ARGUMENTS_WORKER, ARGUMENTS_BOTH, ARGUMENTS_COUNTS };

static const struct hook_row {
    enum cts_setting_id id;
    enum arguments arguments;
    int exit_code;      /* of the process the hook runs in */
    bool swallowed;     /* logged here, the process goes on */
} hook_rows[] = {
    [CTS_HOOK_NWORKERS_CHANGED] = {CTS_SETTING_nworkers_changed, ARGUMENTS_COUNTS,
                                   CTS_EXIT_FAILURE, false},
    [CTS_HOOK_ON_STARTING] = {CTS_SETTING_on_starting, ARGUMENTS_SERVER, CTS_EXIT_FAILURE, false},
    [CTS_HOOK_WHEN_READY] = {CTS_SETTING_when_ready, ARGUMENTS_SERVER, CTS_EXIT_FAILURE, false},
    [CTS_HOOK_PRE_FORK] = {CTS_SETTING_pre_fork, ARGUMENTS_BOTH, CTS_EXIT_FORK_HOOK, false},
    [CTS_HOOK_POST_FORK] = {CTS_SETTING_post_fork, ARGUMENTS_BOTH, CTS_EXIT_WORKER_BOOT, false},
    [CTS_HOOK_POST_WORKER_INIT] = {CTS_SETTING_post_worker_init, ARGUMENTS_WORKER,
                                   CTS_EXIT_WORKER_BOOT, false},
    [CTS_HOOK_WORKER_INT] = {CTS_SETTING_worker_int, ARGUMENTS_WORKER, CTS_EXIT_FORK_HOOK, false},
    [CTS_HOOK_WORKER_ABORT] = {CTS_SETTING_worker_abort, ARGUMENTS_WORKER, CTS_EXIT_FORK_HOOK,
                               false},
    [CTS_HOOK_CHILD_EXIT] = {CTS_SETTING_child_exit, ARGUMENTS_BOTH, CTS_EXIT_FAILURE, false},
    [CTS_HOOK_WORKER_EXIT] = {CTS_SETTING_worker_exit, ARGUMENTS_BOTH, CTS_EXIT_FAILURE, true},
    [CTS_HOOK_ON_RELOAD] = {CTS_SETTING_on_reload, ARGUMENTS_SERVER, CTS_EXIT_FAILURE, false},
    [CTS_HOOK_ON_EXIT] = {CTS_SETTING_on_exit, ARGUMENTS_SERVER, CTS_EXIT_FAILURE, false},
    [CTS_HOOK_PRE_EXEC] = {CTS_SETTING_pre_exec, ARGUMENTS_SERVER, CTS_EXIT_FAILURE, false},
};

static PyObject *call_hook(struct python_state *state, const struct hook_row *row,
                           PyObject *callable, const struct cts_hook_call *call)
{
    PyObject *borrowed_worker =
        call != NULL && call->worker != NULL ? call->worker : state->worker;
    if (borrowed_worker == NULL)
        borrowed_worker = Py_None;
    switch (row->arguments) {
    case ARGUMENTS_SERVER:
        return PyObject_CallFunctionObjArgs(callable, state->server, NULL);
    case ARGUMENTS_WORKER:
        return PyObject_CallFunctionObjArgs(callable, borrowed_worker, NULL);
    case ARGUMENTS_BOTH:
        return PyObject_CallFunctionObjArgs(callable, state->server, borrowed_worker, NULL);
    case ARGUMENTS_COUNTS:
        break;
    }
    CTS_AUTO_REF PyObject *new_count = PyLong_FromLongLong(call->new_count);
    CTS_AUTO_REF PyObject *old_count =
        call->old_count < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(call->old_count);
    if (new_count == NULL || old_count == NULL)
        return NULL;
    return PyObject_CallFunctionObjArgs(callable, state->server, new_count, old_count, NULL);
}

static int swallow(struct python_state *state)
{
    CTS_AUTO_REF PyObject *exception = exception_take();
    CTS_AUTO_REF PyObject *done =
        PyObject_CallMethod(state->objects, "log_worker_exit_error", "O", exception);
    PyErr_Clear();
    return 0;
}

/* server.pid is not known to the first hook (nworkers_changed), as in gunicorn. */
static void tell_pid(struct python_state *state)
{
    CTS_AUTO_REF PyObject *pid = PyLong_FromLong((long)getpid());
    if (pid == NULL || attribute_set(state->server, "pid", pid) < 0)
        PyErr_Clear();
}

/* worker.booted: from now on a death of this worker is no failed boot. */
static void tell_booted(struct python_state *state)
{
    if (state->worker != NULL && attribute_set(state->worker, "booted", Py_True) < 0)
        PyErr_Clear();
}

static int run(struct python_state *state, enum cts_hook hook, const struct cts_hook_call *call,
               struct cts_error *error)
{
    const struct hook_row *row = &hook_rows[hook];
    if (state->hooks[row->id] == NULL)
        return 0;
    /* The hook may replace settings, hence free itself: hold it. */
    CTS_AUTO_REF PyObject *callable = Py_NewRef(state->hooks[row->id]);
    CTS_AUTO_REF PyObject *done = call_hook(state, row, callable, call);
    if (done != NULL)
        return 0;
    if (row->swallowed && !PyErr_ExceptionMatches(PyExc_SystemExit))
        return swallow(state);
    return exception_to_error(error, row->exit_code, cts_setting_rows[row->id].name);
}

int hooks_run(enum cts_hook hook, const struct cts_hook_call *call, struct cts_error *error)
{
    struct python_state *state = state_get();
    if (hook == CTS_HOOK_ON_STARTING)
        tell_pid(state);
    int r = run(state, hook, call, error);
    if (r == 0 && hook == CTS_HOOK_POST_WORKER_INIT)
        tell_booted(state);
    return r;
}
