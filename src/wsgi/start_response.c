/* start_response.c - the callable an application announces its reply with, and write().
 * Source: PEP 3333, "The start_response() Callable". */
#include "call.h"

#include <stddef.h>
#include <structmember.h>

static void forget_head(struct wsgi_call *call)
{
    Py_CLEAR(call->status_text);
    call->head.start = call->head.end = 0;
    call->content_length = -1;
    call->is_upgrade = false;
    call->omits_body = false;
    call->status = 0;
    if (call->headers != NULL)
        (void)PyList_SetSlice(call->headers, 0, PyList_GET_SIZE(call->headers), NULL);
}

/* Raise what the application handed over: the head is out, it cannot be replaced. */
static int reraise(PyObject *exc_info)
{
    if (!PyTuple_Check(exc_info) || PyTuple_GET_SIZE(exc_info) != 3 ||
        !PyExceptionClass_Check(PyTuple_GET_ITEM(exc_info, 0))) {
        PyErr_SetString(PyExc_TypeError, "exc_info must be what sys.exc_info() returns");
        return -1;
    }
    PyObject *traceback = PyTuple_GET_ITEM(exc_info, 2);
    if (traceback != Py_None && !PyTraceBack_Check(traceback))
        traceback = Py_None;
    PyErr_Restore(Py_NewRef(PyTuple_GET_ITEM(exc_info, 0)),
                  Py_NewRef(PyTuple_GET_ITEM(exc_info, 1)),
                  traceback == Py_None ? NULL : Py_NewRef(traceback));
    return -1;
}

static int check_again(struct wsgi_call *call, PyObject *exc_info)
{
    int has_exc_info = exc_info == NULL || exc_info == Py_None ? 0 : PyObject_IsTrue(exc_info);
    if (has_exc_info < 0)
        return -1;
    if (call->status_text == NULL)
        return 0;
    if (has_exc_info && call->is_committed)
        return reraise(exc_info);
    if (!has_exc_info) {
        PyErr_SetString(PyExc_AssertionError, "Response headers already set!");
        return -1;
    }
    return 0;
}

static int announce(struct wsgi_call *call, PyObject *status, PyObject *headers, PyObject *exc_info)
{
    if (CTS_UNLIKELY(exc_info != NULL || call->status_text != NULL) &&
        check_again(call, exc_info) < 0)
        return -1;
    if (CTS_UNLIKELY(call->is_committed)) {
        PyErr_SetString(PyExc_AssertionError, "the reply was sent already");
        return -1;
    }
    forget_head(call);
    if (reply_take_status(call, status) < 0)
        return -1;
    CTS_AUTO_REF PyObject *held_status = Py_NewRef(status);
    if (reply_take_fields(call, headers) < 0) {
        forget_head(call);
        return -1;
    }
    /* Iterating may have run any code, another start_response() among it. */
    if (call->status_text != NULL || call->is_committed) {
        PyErr_SetString(PyExc_AssertionError, "Response headers already set!");
        return -1;
    }
    call->status_text = CTS_GIVE(held_status);
    struct cts_bytes method = call->exchange->request->method;
    call->omits_body = call->status < 200 || call->status == 204 || call->status == 304 ||
                       (method.count == 4 && memcmp(method.at, "HEAD", 4) == 0);
    if (call->status < 200 || call->status == 204)
        call->content_length = -1;
    route_take(call);
    return 0;
}

/* Put positional and named arguments into their three places. */
static int parse(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **places)
{
    static const char *const names[] = {"status", "headers", "exc_info"};
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < nargs && i < 3; i++)
        places[i] = args[i];
    bool is_good = nargs <= 3;
    for (Py_ssize_t i = 0; i < named && is_good; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        size_t at = 0;
        while (at < 3 && PyUnicode_CompareWithASCIIString(name, names[at]) != 0)
            at++;
        is_good = at < 3 && places[at] == NULL;
        if (is_good)
            places[at] = args[nargs + i];
    }
    if (is_good && places[0] != NULL && places[1] != NULL)
        return 0;
    PyErr_SetString(PyExc_TypeError, "start_response(status, headers, exc_info=None)");
    return -1;
}

static PyObject *start_response_call(PyObject *self, PyObject *const *args, size_t nargsf,
                                     PyObject *kwnames)
{
    struct wsgi_call *call = ((struct wsgi_start_response *)self)->call;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    PyObject *places[3] = {NULL, NULL, NULL};
    if (CTS_LIKELY(nargs == 2 && kwnames == NULL)) {
        places[0] = args[0];
        places[1] = args[1];
    } else if (parse(args, nargs, kwnames, places) < 0) {
        return NULL;
    }
    if (call == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "start_response() was called after its request ended");
        return NULL;
    }
    if (announce(call, places[0], places[1], places[2]) < 0)
        return NULL;
    return Py_NewRef((PyObject *)call->write);
}

static PyObject *write_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    struct wsgi_call *call = ((struct wsgi_write *)self)->call;
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) ||
        !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "write(data) takes bytes");
        return NULL;
    }
    if (call == NULL || call->is_finished) {
        PyErr_SetString(PyExc_RuntimeError, "write() was called after its request ended");
        return NULL;
    }
    call->has_written = true;
    struct cts_bytes body = {PyBytes_AS_STRING(args[0]), (size_t)PyBytes_GET_SIZE(args[0])};
    if (reply_put(call, body, -1, true) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -- types ------------------------------------------------------------------------------------ */

static void plain_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef start_response_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct wsgi_start_response, vectorcall), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot start_response_slots[] = {
    {Py_tp_doc, "start_response(status, headers, exc_info=None) -> write"},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_members, start_response_members},
    {0, NULL},
};

static PyType_Spec start_response_spec = {
    .name = "ctserve.wsgi.StartResponse",
    .basicsize = sizeof(struct wsgi_start_response),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = start_response_slots,
};

static PyMemberDef write_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct wsgi_write, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot write_slots[] = {
    {Py_tp_doc, "write(data) -> None\n\nSend bytes of the body now."},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_members, write_members},
    {0, NULL},
};

static PyType_Spec write_spec = {
    .name = "ctserve.wsgi.Write",
    .basicsize = sizeof(struct wsgi_write),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = write_slots,
};

PyTypeObject *start_response_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&start_response_spec);
}

PyTypeObject *write_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&write_spec);
}

struct wsgi_start_response *start_response_new(struct wsgi_state *state)
{
    struct wsgi_start_response *made =
        PyObject_New(struct wsgi_start_response, state->start_response_type);
    if (made != NULL)
        made->vectorcall = start_response_call;
    return made;
}

struct wsgi_write *write_new(struct wsgi_state *state)
{
    struct wsgi_write *made = PyObject_New(struct wsgi_write, state->write_type);
    if (made != NULL)
        made->vectorcall = write_call;
    return made;
}
