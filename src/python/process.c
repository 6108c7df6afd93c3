/* process.c - Python around a fork, in threads, and at the end of a process. */
#include "room.h"

#include <pthread.h>
#include <stdlib.h>

/* A process that the application forks, with os.fork or from C, must never write into our ring.
 * The server's own child goes through here too and attaches its own slot afterwards. vfork runs no
 * handlers, which is right: its child shares our memory. */
int process_watch_forks(void)
{
    int r = pthread_atfork(NULL, NULL, cts_tracer_detach);
    if (r == 0)
        return 0;
    PyErr_SetString(PyExc_MemoryError, "pthread_atfork");
    return -1;
}

/* os.environ is a copy made at the start. What the server has taken out of the environment since
 * (the sockets of systemd or of an older master) must not be seen there either: the application
 * would hand it to its children. */
void process_forget_variables(void)
{
    static const char *const names[] = {"GUNICORN_PID", "GUNICORN_FD", "LISTEN_PID", "LISTEN_FDS",
                                        "LISTEN_FDNAMES"};
    CTS_AUTO_REF PyObject *os = PyImport_ImportModule("os");
    CTS_AUTO_REF PyObject *variables = os != NULL ? attribute_get(os, "environ") : NULL;
    for (size_t i = 0; variables != NULL && i < CTS_COUNT(names); i++) {
        if (getenv(names[i]) != NULL || !PyMapping_HasKeyString(variables, names[i]))
            continue;
        if (PyMapping_DelItemString(variables, names[i]) < 0)
            break;
    }
    PyErr_Clear();
}

void process_before_fork(void)
{
    process_forget_variables();
    PyOS_BeforeFork();
}

void process_after_fork_parent(void)
{
    PyOS_AfterFork_Parent();
}

void process_after_fork_child(void)
{
    PyOS_AfterFork_Child();
}

/* What lies in the buffers would otherwise be written by the child as well. */
void process_flush_stdio(void)
{
    static const char *const names[] = {"stdout", "stderr"};
    for (size_t i = 0; i < CTS_COUNT(names); i++) {
        PyObject *borrowed_stream = PySys_GetObject(names[i]);
        if (borrowed_stream == NULL || borrowed_stream == Py_None)
            continue;
        CTS_AUTO_REF PyObject *stream = Py_NewRef(borrowed_stream);
        CTS_AUTO_REF PyObject *method = attribute_get(stream, "flush");
        CTS_AUTO_REF PyObject *done = method != NULL ? PyObject_CallNoArgs(method) : NULL;
        PyErr_Clear();
    }
}

void *process_lock_give(void)
{
    return PyEval_SaveThread();
}

void process_lock_take(void *token)
{
    PyEval_RestoreThread(token);
}

/* The token of PyGILState_Ensure is an enum; one is added so that it is never NULL. */
void *process_thread_start(void)
{
    return (void *)((intptr_t)PyGILState_Ensure() + 1);
}

void process_thread_stop(void *state)
{
    PyGILState_Release((PyGILState_STATE)((intptr_t)state - 1));
}

/* Hosted, we run inside python's own call of our main, so the interpreter itself is taken down by
 * the front in both modes; here everything that the application can notice happens. */
void process_finalize(void)
{
    struct python_state *state = state_get();
    if (state == NULL || state->objects == NULL)
        return;
    CTS_AUTO_REF PyObject *done = PyObject_CallMethod(state->objects, "finish", NULL);
    if (done == NULL)
        PyErr_WriteUnraisable(state->objects);
}
