/* python.h - what wsgi (and later asgi) may ask of the python room. Room: python.
 * The only door that includes Python.h; server and agent never open it. */
#ifndef CTSERVE_PYTHON_H
#define CTSERVE_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ctserve/base.h"
#include "ctserve/error.h"
#include "ctserve/gateway.h"

/* -- references ------------------------------------------------------------------------------ */
static inline void cts_auto_unref(PyObject **object)
{
    Py_XDECREF(*object);
}
#define CTS_AUTO_REF __attribute__((cleanup(cts_auto_unref), unused))
/* Hand a local CTS_AUTO_REF reference over to the caller. */
static inline PyObject *cts_give(PyObject **object)
{
    PyObject *given = *object;
    *object = NULL;
    return given;
}
#define CTS_GIVE(object) cts_give(&(object))
#define CTS_RAISES CTS_MUST_USE  /* NULL or -1 means an exception is set */
#define CTS_BORROWED             /* the reference that comes back is borrowed */
#define CTS_STEALS(position)     /* the reference at that parameter is consumed */

/* -- the application and its surroundings; all borrowed, valid after configure/load_app ------- */
CTS_BORROWED PyObject *cts_py_app(void);       /* the WSGI callable */
CTS_BORROWED PyObject *cts_py_cfg(void);       /* ctserve._objects.Config */
CTS_BORROWED PyObject *cts_py_server(void);
CTS_BORROWED PyObject *cts_py_worker(void);    /* this process's Worker, NULL in the master */
CTS_BORROWED PyObject *cts_py_log(void);       /* .info .error .exception .access ... */
const struct cts_settings *cts_py_settings(void);   /* in force */

/* The user's callable for a hook setting, borrowed, or NULL when it was not set. */
CTS_BORROWED PyObject *cts_py_hook(enum cts_setting_id id);
int cts_py_hook_arity(enum cts_setting_id id);  /* positional arguments it takes, for post_request */

/* -- exceptions ------------------------------------------------------------------------------- */
/* Log the exception that is set (with traceback, as gunicorn's log.exception) under `what`, clear
 * it, and copy class and message (cut) if the buffers are given. */
void cts_py_log_exception(const char *what, char *ret_type, size_t type_bytes, char *ret_message,
                          size_t message_bytes);
/* Is a SystemExit set? Then clear it, set *ret_code and return true. */
bool cts_py_take_system_exit(int *ret_code);

/* -- filled by python, used by wsgi to complete its table -------------------------------------- */
/* Everything of struct cts_gateway but name, start, handle and stop. */
void cts_py_fill_gateway(struct cts_gateway *gateway);

#endif
