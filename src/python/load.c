/* load.c - importing the application. The rules and the sentences are in ctserve/_load.py. */
#include "room.h"

int load_app(struct cts_error *error)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *callable = PyObject_CallMethod(state->application, "wsgi", NULL);
    if (callable == NULL)
        return exception_to_error(error, CTS_EXIT_WORKER_BOOT, "the application");
    Py_XSETREF(state->app_kind, attribute_get(state->application, "kind"));
    PyErr_Clear();
    Py_XSETREF(state->app_why, attribute_get(state->application, "why"));
    PyErr_Clear();
    if (state->worker != NULL && attribute_set(state->worker, "wsgi", callable) < 0)
        PyErr_Clear();
    Py_XSETREF(state->app, CTS_GIVE(callable));
    return 0;
}

static const char *text_of(PyObject *object, const char *otherwise)
{
    const char *text = object != NULL && PyUnicode_Check(object) ? PyUnicode_AsUTF8(object) : NULL;
    if (text == NULL) {
        PyErr_Clear();
        return otherwise;
    }
    return text;
}

const char *load_app_kind(const char **ret_why)
{
    struct python_state *state = state_get();
    if (ret_why != NULL)
        *ret_why = text_of(state->app_why, "callable");
    return text_of(state->app_kind, "WSGI");
}
