/* state.c - the module state of _core, and what other rooms may read of it. */
#include "room.h"

/* The one exception to "no file statics": see room.h. */
static struct python_state *the_state;

struct python_state *state_get(void)
{
    return the_state;
}

/* Two _core in one process would be two masters' worth of statics over one set of signals. */
static int refuse_second_core(PyObject *module)
{
    CTS_AUTO_REF PyObject *file = PyObject_GetAttrString(module, "__file__");
    if (file == NULL) {
        PyErr_Clear();
        file = PyUnicode_FromString("?");
        if (file == NULL)
            return -1;
    }
    PyObject *borrowed_first = PySys_GetObject("_ctserve_core");
    if (borrowed_first != NULL) {
        PyErr_Format(PyExc_ImportError,
                     "a second ctserve._core (%U) in one process; %U is loaded already", file,
                     borrowed_first);
        return -1;
    }
    return PySys_SetObject("_ctserve_core", file);
}

int state_init(PyObject *module)
{
    if (refuse_second_core(module) < 0)
        return -1;
    struct python_state *state = PyModule_GetState(module);
    state->core = module;
    state->kept = PyList_New(0);
    if (state->kept == NULL)
        return -1;
    the_state = state;
    return process_watch_forks();
}

int state_load_modules(struct python_state *state)
{
    static const char *const names[] = {"ctserve._errors", "ctserve._config", "ctserve._objects"};
    PyObject **const places[] = {&state->errors, &state->config, &state->objects};
    for (size_t i = 0; i < CTS_COUNT(names); i++) {
        if (*places[i] != NULL)
            continue;
        *places[i] = PyImport_ImportModule(names[i]);
        if (*places[i] == NULL)
            return -1;
    }
    return 0;
}

int state_visit(PyObject *module, visitproc visit, void *arg)
{
    struct python_state *state = PyModule_GetState(module);
    if (state == NULL)
        return 0;
    Py_VISIT(state->objects);
    Py_VISIT(state->config);
    Py_VISIT(state->errors);
    Py_VISIT(state->cfg);
    Py_VISIT(state->server);
    Py_VISIT(state->log);
    Py_VISIT(state->application);
    Py_VISIT(state->app);
    Py_VISIT(state->app_kind);
    Py_VISIT(state->app_why);
    Py_VISIT(state->worker);
    Py_VISIT(state->kept);
    return 0;
}

int state_clear(PyObject *module)
{
    struct python_state *state = PyModule_GetState(module);
    if (state == NULL)
        return 0;
    memset(state->hooks, 0, sizeof(state->hooks));
    Py_CLEAR(state->objects);
    Py_CLEAR(state->config);
    Py_CLEAR(state->errors);
    Py_CLEAR(state->cfg);
    Py_CLEAR(state->server);
    Py_CLEAR(state->log);
    Py_CLEAR(state->application);
    Py_CLEAR(state->app);
    Py_CLEAR(state->app_kind);
    Py_CLEAR(state->app_why);
    Py_CLEAR(state->worker);
    Py_CLEAR(state->kept);
    if (the_state == state)
        the_state = NULL;
    return 0;
}

PyObject *attribute_get(PyObject *object, const char *name)
{
    CTS_AUTO_REF PyObject *interned = PyUnicode_InternFromString(name);
    return interned != NULL ? PyObject_GetAttr(object, interned) : NULL;
}

int attribute_set(PyObject *object, const char *name, PyObject *value)
{
    CTS_AUTO_REF PyObject *interned = PyUnicode_InternFromString(name);
    return interned != NULL ? PyObject_SetAttr(object, interned, value) : -1;
}

PyObject *cts_py_app(void)
{
    return the_state->app;
}

PyObject *cts_py_cfg(void)
{
    return the_state->cfg;
}

PyObject *cts_py_server(void)
{
    return the_state->server;
}

PyObject *cts_py_worker(void)
{
    return the_state->worker;
}

PyObject *cts_py_log(void)
{
    return the_state->log;
}

const struct cts_settings *cts_py_settings(void)
{
    return the_state->settings;
}

PyObject *cts_py_hook(enum cts_setting_id id)
{
    return the_state->hooks[id];
}

int cts_py_hook_arity(enum cts_setting_id id)
{
    return the_state->hook_arities[id];
}
