/* asked.c - what the Python halves ask of the server: the functions of _core. */
#include "room.h"

#include "ctserve/entry.h"
#include "ctserve/log.h"

#include <errno.h>
#include <stdlib.h>

#define LISTENERS_COUNT_MAX 256

/* argv as bytes of the operating system; `keep` owns them. */
static char **argv_of(PyObject *list, PyObject *keep, int *ret_count)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    char **argv = calloc((size_t)count + 1, sizeof(*argv));
    if (argv == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        CTS_AUTO_REF PyObject *bytes = PyUnicode_EncodeFSDefault(PyList_GET_ITEM(list, i));
        if (bytes == NULL || PyBytes_AsStringAndSize(bytes, &argv[i], NULL) < 0 ||
            PyList_Append(keep, bytes) < 0) {
            free(argv);
            return NULL;
        }
    }
    *ret_count = (int)count;
    return argv;
}

/* main(argv, mode, agent, launcher) -> exit code. Returns once per process: in every worker too. */
static PyObject *core_main(PyObject *module, PyObject *arguments)
{
    PyObject *borrowed_argv;
    const char *mode, *agent, *launcher;
    if (!PyArg_ParseTuple(arguments, "O!sss", &PyList_Type, &borrowed_argv, &mode, &agent,
                          &launcher))
        return NULL;
    CTS_AUTO_REF PyObject *keep = PyList_New(0);
    CTS_AUTO_REF PyObject *version = NULL;
    PyObject *borrowed_prefix = PySys_GetObject("prefix");
    CTS_AUTO_REF PyObject *prefix =
        borrowed_prefix != NULL ? PyUnicode_EncodeFSDefault(borrowed_prefix) : NULL;
    if (keep == NULL || prefix == NULL)
        return NULL;
    version = PyUnicode_FromStringAndSize(Py_GetVersion(),
                                          (Py_ssize_t)strcspn(Py_GetVersion(), " "));
    if (version == NULL)
        return NULL;
    struct cts_entry entry = {.mode = mode,
                              .agent_path = agent,
                              .launcher_path = launcher[0] != '\0' ? launcher : NULL,
                              .python_version = PyUnicode_AsUTF8(version),
                              .python_prefix = PyBytes_AS_STRING(prefix)};
    entry.argv = argv_of(borrowed_argv, keep, &entry.argc);
    if (entry.argv == NULL)
        return NULL;
    signals_front(true);
    int code = cts_main(&entry);
    free(entry.argv);
    PyErr_Clear();
    return PyLong_FromLong(code);
}

static PyObject *core_settings(PyObject *module, PyObject *unused)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *all = PyDict_New();
    if (all == NULL)
        return NULL;
    for (int id = 0; id < CTS_SETTINGS_COUNT && state->settings != NULL; id++) {
        CTS_AUTO_REF PyObject *value =
            value_to_object(state->settings, (enum cts_setting_id)id);
        if (value == NULL || PyDict_SetItemString(all, cts_setting_rows[id].name, value) < 0)
            return NULL;
    }
    return CTS_GIVE(all);
}

static PyObject *core_setting_rows(PyObject *module, PyObject *unused)
{
    static const char *const kinds[] = {
        [CTS_KIND_INT] = "int",   [CTS_KIND_BOOL] = "bool", [CTS_KIND_TEXT] = "text",
        [CTS_KIND_CHOICE] = "choice", [CTS_KIND_LIST] = "list", [CTS_KIND_DICT] = "dict",
        [CTS_KIND_HOOK] = "hook",
    };
    CTS_AUTO_REF PyObject *rows = PyList_New(0);
    for (int id = 0; rows != NULL && id < CTS_SETTINGS_COUNT; id++) {
        const struct cts_setting_row *row = &cts_setting_rows[id];
        CTS_AUTO_REF PyObject *item = Py_BuildValue("(ssszs)", row->name, row->section,
                                                    kinds[row->kind], row->default_text, row->doc);
        if (item == NULL || PyList_Append(rows, item) < 0)
            return NULL;
    }
    return CTS_GIVE(rows);
}

static const struct cts_server_ops *ops(void)
{
    static const struct cts_server_ops none;
    struct python_state *state = state_get();
    return state->ops != NULL ? state->ops : &none;
}

static PyObject *core_signal_self(PyObject *module, PyObject *arguments)
{
    int signo;
    if (!PyArg_ParseTuple(arguments, "i", &signo))
        return NULL;
    if (ops()->signal_self != NULL)
        ops()->signal_self(signo);
    Py_RETURN_NONE;
}

/* A worker that is gone is no error, as in gunicorn; anything else raises OSError. */
static PyObject *core_kill_worker(PyObject *module, PyObject *arguments)
{
    int pid, signo;
    if (!PyArg_ParseTuple(arguments, "ii", &pid, &signo))
        return NULL;
    int r = ops()->kill_worker != NULL ? ops()->kill_worker(pid, signo) : -ESRCH;
    if (r == 0 || r == -ESRCH)
        Py_RETURN_NONE;
    errno = -r;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *core_listener_fds(PyObject *module, PyObject *unused)
{
    int fds[LISTENERS_COUNT_MAX];
    int count = ops()->listener_fds != NULL ? ops()->listener_fds(fds, LISTENERS_COUNT_MAX) : 0;
    CTS_AUTO_REF PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        CTS_AUTO_REF PyObject *fd = PyLong_FromLong(fds[i]);
        if (fd == NULL || PyList_Append(list, fd) < 0)
            return NULL;
    }
    return CTS_GIVE(list);
}

static PyObject *core_requests_count(PyObject *module, PyObject *unused)
{
    return PyLong_FromUnsignedLongLong(
        ops()->requests_count != NULL ? ops()->requests_count() : 0);
}

static PyObject *core_is_alive(PyObject *module, PyObject *unused)
{
    return PyBool_FromLong(ops()->is_alive == NULL || ops()->is_alive());
}

static PyObject *core_set_alive(PyObject *module, PyObject *arguments)
{
    int alive;
    if (!PyArg_ParseTuple(arguments, "p", &alive))
        return NULL;
    if (ops()->set_alive != NULL)
        ops()->set_alive(alive != 0);
    Py_RETURN_NONE;
}

static PyObject *core_log_fd(PyObject *module, PyObject *unused)
{
    return PyLong_FromLong(cts_log_fd());
}

static PyObject *core_log_reopen(PyObject *module, PyObject *unused)
{
    int r = cts_log_reopen();
    if (r == 0)
        Py_RETURN_NONE;
    errno = -r;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyMethodDef core_methods[] = {
    {"main", core_main, METH_VARARGS, "main(argv, mode, agent, launcher) -> exit code"},
    {"settings", core_settings, METH_NOARGS, "The settings in force, by name."},
    {"setting_rows", core_setting_rows, METH_NOARGS,
     "(name, section, kind, default text or None, doc) of every setting, in the table's order."},
    {"signal_self", core_signal_self, METH_VARARGS, "As if the master had got that signal."},
    {"kill_worker", core_kill_worker, METH_VARARGS, "Send a signal to one worker."},
    {"listener_fds", core_listener_fds, METH_NOARGS, "Descriptors of the listening sockets."},
    {"requests_count", core_requests_count, METH_NOARGS, "worker.nr of this worker."},
    {"is_alive", core_is_alive, METH_NOARGS, "worker.alive of this worker."},
    {"set_alive", core_set_alive, METH_VARARGS, "False: finish what runs and leave."},
    {"log_fd", core_log_fd, METH_NOARGS, "The descriptor of the error log."},
    {"log_reopen", core_log_reopen, METH_NOARGS, "Open the error log's path again."},
    {NULL, NULL, 0, NULL},
};
