/* signals.c - who owns signals.
 *
 * Python's callables are registered first, so that signal.getsignal answers as under gunicorn;
 * the server lays its C handlers on top and calls `interrupt` from them in workers. In the master
 * it must not: there the callable would act a second time. */
#include "room.h"

#include "ctserve/log.h"

#include <signal.h>

/* Until the server has its handlers: ctrl-c ends the start, without a traceback. A handler and not
 * SIG_DFL, because the first `import signal` replaces a SIG_DFL by default_int_handler. */
static void end_by_signal(int signo)
{
    signal(signo, SIG_DFL);
    raise(signo);
}

void signals_front(bool unblock)
{
    struct sigaction action = {.sa_handler = end_by_signal};
    sigemptyset(&action.sa_mask);
    /* raise() inside the handler must arrive. */
    action.sa_flags = SA_NODEFER;
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    if (unblock) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
    }
}

int signals_own(bool is_worker, struct cts_error *error)
{
    struct python_state *state = state_get();
    PyObject *borrowed_worker = is_worker && state->worker != NULL ? state->worker : Py_None;
    CTS_AUTO_REF PyObject *done =
        PyObject_CallMethod(state->objects, "own_signals", "O", borrowed_worker);
    if (done != NULL)
        return 0;
    return exception_to_error(error, is_worker ? CTS_EXIT_WORKER_BOOT : CTS_EXIT_FAILURE,
                              "registering signal handlers");
}

void signals_interrupt(int signo)
{
    PyErr_SetInterruptEx(signo);
}

int signals_run_pending(struct cts_error *error)
{
    if (PyErr_CheckSignals() == 0)
        return 0;
    bool leaves = PyErr_ExceptionMatches(PyExc_SystemExit);
    exception_to_error(error, CTS_EXIT_FORK_HOOK, "a signal handler");
    if (!leaves)
        cts_error_log("Exception in worker process\n%s", error->text);
    return -1;
}

int signals_dump(int signo, int fd)
{
    CTS_AUTO_REF PyObject *faulthandler = PyImport_ImportModule("faulthandler");
    CTS_AUTO_REF PyObject *method =
        faulthandler != NULL ? PyObject_GetAttrString(faulthandler, "register") : NULL;
    CTS_AUTO_REF PyObject *arguments = Py_BuildValue("(i)", signo);
    CTS_AUTO_REF PyObject *keywords =
        Py_BuildValue("{s:i,s:O}", "file", fd, "all_threads", Py_True);
    CTS_AUTO_REF PyObject *done = method != NULL && arguments != NULL && keywords != NULL
                                      ? PyObject_Call(method, arguments, keywords)
                                      : NULL;
    PyErr_Clear();
    return done != NULL ? 0 : -1;
}
