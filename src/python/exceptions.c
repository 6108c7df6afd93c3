/* exceptions.c - from an exception to a sentence, a log entry, or an exit code. */
#include "room.h"

#include <stdio.h>

PyObject *exception_take(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* gunicorn lets SystemExit through: its code is the process's. None is 0, text is 1. */
static int system_exit_code(PyObject *exception)
{
    CTS_AUTO_REF PyObject *code = attribute_get(exception, "code");
    int number = CTS_EXIT_FAILURE;
    if (code == Py_None)
        number = 0;
    else if (code != NULL && PyLong_Check(code))
        number = (int)(PyLong_AsLong(code) & 0xff);
    if (code != NULL && !PyLong_Check(code) && code != Py_None)
        PySys_FormatStderr("%S\n", code);
    PyErr_Clear();
    return number;
}

bool cts_py_take_system_exit(int *ret_code)
{
    if (!PyErr_ExceptionMatches(PyExc_SystemExit))
        return false;
    CTS_AUTO_REF PyObject *exception = exception_take();
    *ret_code = exception != NULL ? system_exit_code(exception) : CTS_EXIT_FAILURE;
    return true;
}

static void copy_text(PyObject *object, char *to, size_t to_bytes)
{
    if (to == NULL || to_bytes == 0)
        return;
    to[0] = '\0';
    CTS_AUTO_REF PyObject *text = object != NULL ? PyObject_Str(object) : NULL;
    CTS_AUTO_REF PyObject *bytes =
        text != NULL ? PyUnicode_AsEncodedString(text, "utf-8", "replace") : NULL;
    if (bytes == NULL) {
        PyErr_Clear();
        return;
    }
    size_t count = (size_t)PyBytes_GET_SIZE(bytes);
    const char *from = PyBytes_AS_STRING(bytes);
    if (count >= to_bytes) {
        count = to_bytes - 1;
        /* Do not cut a character in two. */
        while (count > 0 && ((unsigned char)from[count] & 0xc0) == 0x80)
            count--;
    }
    memcpy(to, from, count);
    to[count] = '\0';
}

/* A StartError of ctserve._errors: it knows its code and text. */
static bool take_start_error(struct python_state *state, PyObject *exception,
                             struct cts_error *error)
{
    if (state == NULL || state->errors == NULL)
        return false;
    CTS_AUTO_REF PyObject *type = attribute_get(state->errors, "StartError");
    if (type == NULL || PyObject_IsInstance(exception, type) != 1) {
        PyErr_Clear();
        return false;
    }
    CTS_AUTO_REF PyObject *code = attribute_get(exception, "code");
    CTS_AUTO_REF PyObject *text = attribute_get(exception, "text");
    error->exit_code = code != NULL ? (int)PyLong_AsLong(code) : CTS_EXIT_FAILURE;
    copy_text(text, error->text, sizeof(error->text));
    PyErr_Clear();
    return true;
}

int exception_to_error(struct cts_error *error, int exit_code, const char *what)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *exception = exception_take();
    if (exception == NULL)
        return cts_error_set(error, exit_code, "%s failed without saying why", what);
    if (PyErr_GivenExceptionMatches(exception, PyExc_SystemExit)) {
        int code = system_exit_code(exception);
        return cts_error_set(error, code, "%s raised SystemExit: %d", what, code);
    }
    if (take_start_error(state, exception, error))
        return -1;
    error->exit_code = exit_code;
    CTS_AUTO_REF PyObject *text =
        state != NULL && state->errors != NULL
            ? PyObject_CallMethod(state->errors, "hook_report", "sO", what, exception)
            : NULL;
    if (text == NULL) {
        PyErr_Clear();
        char message[512];
        copy_text(exception, message, sizeof(message));
        return cts_error_set(error, exit_code, "%s raised %s: %s", what,
                             Py_TYPE(exception)->tp_name, message);
    }
    copy_text(text, error->text, sizeof(error->text));
    return -1;
}

void cts_py_log_exception(const char *what, char *ret_type, size_t type_bytes, char *ret_message,
                          size_t message_bytes)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *exception = exception_take();
    if (exception == NULL)
        return;
    if (ret_type != NULL && type_bytes > 0) {
        CTS_AUTO_REF PyObject *name =
            attribute_get((PyObject *)Py_TYPE(exception), "__qualname__");
        copy_text(name, ret_type, type_bytes);
    }
    copy_text(exception, ret_message, message_bytes);
    CTS_AUTO_REF PyObject *method =
        state->log != NULL ? attribute_get(state->log, "error") : NULL;
    /* The text goes in as an argument, because a percent sign in it is not a format. */
    CTS_AUTO_REF PyObject *arguments = Py_BuildValue("(ss)", "%s", what);
    CTS_AUTO_REF PyObject *keywords = Py_BuildValue("{s:O}", "exc_info", exception);
    CTS_AUTO_REF PyObject *done = method != NULL && arguments != NULL && keywords != NULL
                                      ? PyObject_Call(method, arguments, keywords)
                                      : NULL;
    /* A log handler that raises must not hide the first exception; Python's own last resort. */
    if (done == NULL)
        PyErr_WriteUnraisable(exception);
    PyErr_Clear();
}
