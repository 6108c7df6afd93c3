/* early_hints.c - wsgi.early_hints: an interim 103 response, so that a browser fetches what the
 * page will need while the application still works on it.
 *
 * As in gunicorn: (name, value) pairs of str or bytes; may be called several times; does nothing
 * for HTTP/1.0 and once the reply has begun. Every field is checked before the first byte leaves.
 * Source: RFC 8297; RFC 9110 15.2. */
#include "call.h"

#include <errno.h>
#include <stddef.h>
#include <structmember.h>

#define EARLY_FIELDS_MAX 256
#define EARLY_BYTES_MAX 65536u

/* A view of what a str or bytes holds. */
static int part_view(PyObject *part, const char *what, struct cts_bytes *ret_bytes)
{
    if (!PyBytes_Check(part))
        return text_view(part, what, ret_bytes);
    *ret_bytes = (struct cts_bytes){PyBytes_AS_STRING(part), (size_t)PyBytes_GET_SIZE(part)};
    return 0;
}

/* Fields that would say where a message ends have no place in an interim response. */
static bool is_forbidden(struct cts_bytes name)
{
    return cts_http_is_hop_by_hop(name) ||
           cts_bytes_equal_nocase(name, cts_bytes_of("content-length"));
}

static int put_field(struct cts_buffer *lines, PyObject *name_object, PyObject *value_object)
{
    struct cts_bytes name, value;
    if (part_view(name_object, "an early hint's name", &name) < 0 ||
        part_view(value_object, "an early hint's value", &value) < 0)
        return -1;
    if (!cts_http_name_ok(name) || is_forbidden(name)) {
        PyErr_Format(PyExc_ValueError, "Invalid early hint name %R", name_object);
        return -1;
    }
    if (!cts_http_value_ok(value)) {
        /* The value is not shown: it may be a secret. */
        PyErr_Format(PyExc_ValueError, "Invalid value of early hint %R", name_object);
        return -1;
    }
    value = value_trim(value);
    if (cts_buffer_count(lines) + name.count + value.count + 4 > EARLY_BYTES_MAX) {
        PyErr_SetString(PyExc_ValueError, "the early hints are too long");
        return -1;
    }
    if (cts_buffer_put(lines, name.at, name.count) < 0 || cts_buffer_put(lines, ": ", 2) < 0 ||
        cts_buffer_put(lines, value.at, value.count) < 0 || cts_buffer_put(lines, "\r\n", 2) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int put_fields(struct cts_buffer *lines, PyObject *headers)
{
    /* A tuple, not a list: CPython 3.11 loses `headers` when it has no memory for a list of it. */
    CTS_AUTO_REF PyObject *fields = PySequence_Tuple(headers);
    if (fields == NULL)
        return -1;
    if (PyTuple_GET_SIZE(fields) > EARLY_FIELDS_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many early hints");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++) {
        PyObject *item = PyTuple_GET_ITEM(fields, i);
        CTS_AUTO_REF PyObject *pair =
            PySequence_Fast(item, "each early hint must be a (name, value) pair");
        if (pair == NULL)
            return -1;
        if (PySequence_Fast_GET_SIZE(pair) != 2) {
            PyErr_SetString(PyExc_ValueError, "each early hint must be a (name, value) pair");
            return -1;
        }
        CTS_AUTO_REF PyObject *name = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 0));
        CTS_AUTO_REF PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 1));
        if (put_field(lines, name, value) < 0)
            return -1;
    }
    return 0;
}

/* May a 103 still be sent, and would the client understand it? */
static bool is_welcome(const struct wsgi_call *call)
{
    const struct cts_request *request = call->exchange->request;
    return call->environ != NULL && !call->is_committed && !call->client_is_gone &&
           request->version_major == 1 && request->version_minor >= 1;
}

static int send_hints(struct wsgi_call *call, struct cts_buffer *lines)
{
    static const struct cts_bytes nothing = {"", 0};
    static const char first[] = "HTTP/1.1 103 Early Hints\r\n";
    struct cts_buffer *out = call->exchange->out;
    struct cts_bytes view = cts_buffer_view(lines);
    int r;
    if (cts_buffer_reserve(out, sizeof(first) + view.count + 2) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    /* There is room: none of these can fail half-way. */
    if (cts_buffer_put(out, first, sizeof(first) - 1) < 0 ||
        cts_buffer_put(out, view.at, view.count) < 0 || cts_buffer_put(out, "\r\n", 2) < 0)
        return -1;
    call->busy_count++;
    r = call->exchange->ops->send(call->exchange, nothing);
    call->busy_count--;
    if (r == 0)
        return 0;
    call->client_is_gone = true;
    errno = -r;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static PyObject *early_hints_call(PyObject *self, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    struct wsgi_early_hints *hints = (struct wsgi_early_hints *)self;
    struct cts_buffer lines = CTS_BUFFER_EMPTY;
    int r;
    if (PyVectorcall_NARGS(nargsf) + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0) != 1) {
        PyErr_SetString(PyExc_TypeError, "early_hints(headers) takes a list of pairs");
        return NULL;
    }
    if (hints->call == NULL || !is_welcome(hints->call))
        Py_RETURN_NONE;
    r = put_fields(&lines, args[0]);
    /* Iterating may have run any code, the reply among it. */
    if (r == 0 && hints->call != NULL && is_welcome(hints->call))
        r = send_hints(hints->call, &lines);
    cts_buffer_free(&lines);
    if (r < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -- the type ---------------------------------------------------------------------------------- */

struct wsgi_early_hints *early_hints_new(struct wsgi_state *state)
{
    struct wsgi_early_hints *made = PyObject_New(struct wsgi_early_hints, state->early_hints_type);
    if (made != NULL) {
        made->vectorcall = early_hints_call;
        made->call = NULL;
    }
    return made;
}

static void early_hints_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef early_hints_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct wsgi_early_hints, vectorcall), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot early_hints_slots[] = {
    {Py_tp_doc, "early_hints(headers) -> None\n\nSend an interim 103 response, now."},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_dealloc, early_hints_dealloc},
    {Py_tp_members, early_hints_members},
    {0, NULL},
};

static PyType_Spec early_hints_spec = {
    .name = "ctserve.wsgi.EarlyHints",
    .basicsize = sizeof(struct wsgi_early_hints),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = early_hints_slots,
};

PyTypeObject *early_hints_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&early_hints_spec);
}
