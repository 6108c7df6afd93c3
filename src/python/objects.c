/* objects.c - server, worker and cfg: made in ctserve/_objects.py, kept and told here. */
#include "room.h"

#include "ctserve/log.h"

#include <unistd.h>

static PyObject *make_objects(struct python_state *state)
{
    if (state_load_modules(state) < 0)
        return NULL;
    const char *uri = state->settings->app_uri;
    CTS_AUTO_REF PyObject *name =
        uri != NULL ? PyUnicode_DecodeFSDefault(uri) : Py_NewRef(Py_None);
    if (name == NULL)
        return NULL;
    return PyObject_CallMethod(state->objects, "configure", "O", name);
}

int objects_configure(const struct cts_settings *settings, const struct cts_server_ops *ops,
                      struct cts_error *error)
{
    struct python_state *state = state_get();
    const struct cts_settings *settings_before = state->settings;
    state->settings = settings;
    if (ops != NULL)
        state->ops = ops;
    process_forget_variables();
    CTS_AUTO_REF PyObject *made = make_objects(state);
    if (made == NULL || values_refresh(state) < 0) {
        exception_to_error(error, CTS_EXIT_FAILURE, "ctserve");
        /* On reload the old settings stay in force. */
        if (settings_before != NULL) {
            state->settings = settings_before;
            if (values_refresh(state) < 0)
                PyErr_Clear();
        }
        return -1;
    }
    Py_XSETREF(state->cfg, Py_NewRef(PyTuple_GET_ITEM(made, 0)));
    Py_XSETREF(state->server, Py_NewRef(PyTuple_GET_ITEM(made, 1)));
    Py_XSETREF(state->log, Py_NewRef(PyTuple_GET_ITEM(made, 2)));
    Py_XSETREF(state->application, Py_NewRef(PyTuple_GET_ITEM(made, 3)));
    return 0;
}

void *objects_worker_new(const struct cts_worker_facts *facts, struct cts_error *error)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *type = attribute_get(state->objects, "Worker");
    CTS_AUTO_REF PyObject *arguments =
        Py_BuildValue("(KiLLi)", (unsigned long long)facts->age, facts->slot_index,
                      (long long)facts->max_requests, (long long)facts->timeout_s,
                      (int)facts->master_pid);
    PyObject *worker =
        type != NULL && arguments != NULL ? PyObject_CallObject(type, arguments) : NULL;
    if (worker == NULL)
        exception_to_error(error, CTS_EXIT_FAILURE, "Worker");
    /* gunicorn counts before it makes the worker, so pre_fork sees this one's age. */
    CTS_AUTO_REF PyObject *age = PyLong_FromUnsignedLongLong(facts->age);
    if (age == NULL || attribute_set(state->server, "worker_age", age) < 0)
        PyErr_Clear();
    return worker;
}

/* server.WORKERS[pid] = worker, or without it. */
static int change_workers(struct python_state *state, PyObject *pid, PyObject *worker)
{
    CTS_AUTO_REF PyObject *workers = attribute_get(state->server, "WORKERS");
    if (workers == NULL)
        return -1;
    if (worker != NULL)
        return PyObject_SetItem(workers, pid, worker);
    return PyObject_DelItem(workers, pid);
}

/* This process is `worker` from here on; with preload_app the application is there already. */
static void become(struct python_state *state, PyObject *worker)
{
    Py_XSETREF(state->worker, Py_NewRef(worker));
    if (state->app != NULL && attribute_set(worker, "wsgi", state->app) < 0)
        PyErr_Clear();
}

void objects_worker_forked(void *worker, pid_t pid)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *number = PyLong_FromLong((long)pid);
    if (number == NULL || attribute_set(worker, "pid", number) < 0)
        PyErr_Clear();
    else if (pid == getpid())
        become(state, worker);
    else if (change_workers(state, number, worker) < 0)
        PyErr_Clear();
}

void objects_worker_gone(void *worker)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *pid = attribute_get(worker, "pid");
    if (pid == NULL || change_workers(state, pid, NULL) < 0)
        PyErr_Clear();  /* never forked, or taken out by a hook */
}

void objects_worker_free(void *worker)
{
    Py_XDECREF((PyObject *)worker);
}

void objects_workers_changed(int64_t count)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *number = PyLong_FromLongLong(count);
    if (number == NULL || attribute_set(state->server, "_num_workers", number) < 0)
        PyErr_Clear();
}
