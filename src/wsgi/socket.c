/* socket.c - gunicorn.socket: the client's connection as the application sees it.
 *
 * A real socket.socket costs two system calls to make and would close the connection when it is
 * collected, so this is a light stand-in: fileno() at once, everything else from a real socket
 * over a duplicate of the descriptor, made when it is first asked for. */
#include "call.h"

#include <fcntl.h>
#include <unistd.h>

static PyObject *socket_fileno(PyObject *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLong(((struct wsgi_socket *)self)->fd);
}

/* An application that takes the connection over (a WebSocket) closes its own duplicate. */
static PyObject *real_new(int fd)
{
    CTS_AUTO_REF PyObject *module = PyImport_ImportModule("socket");
    if (module == NULL)
        return NULL;
    CTS_AUTO_REF PyObject *type = PyObject_GetAttrString(module, "socket");
    if (type == NULL)
        return NULL;
    int duplicate_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (duplicate_fd < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    CTS_AUTO_REF PyObject *none = PyTuple_New(0);
    CTS_AUTO_REF PyObject *named = Py_BuildValue("{s:i}", "fileno", duplicate_fd);
    PyObject *real = none == NULL || named == NULL ? NULL : PyObject_Call(type, none, named);
    if (real == NULL)
        close(duplicate_fd);
    return real;
}

static PyObject *socket_getattro(PyObject *self, PyObject *name)
{
    struct wsgi_socket *socket = (struct wsgi_socket *)self;
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || socket->fd < 0 || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return found;
    PyErr_Clear();
    if (socket->real == NULL && (socket->real = real_new(socket->fd)) == NULL)
        return NULL;
    return PyObject_GetAttr(socket->real, name);
}

static PyObject *socket_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<ctserve connection, fd=%d>", ((struct wsgi_socket *)self)->fd);
}

static void socket_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((struct wsgi_socket *)self)->real);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef socket_methods[] = {
    {"fileno", socket_fileno, METH_NOARGS,
     "fileno() -> int\n\nDescriptor of the connection; -1 once the request is over."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot socket_slots[] = {
    {Py_tp_doc, "gunicorn.socket: the connection of one request."},
    {Py_tp_dealloc, socket_dealloc},
    {Py_tp_getattro, socket_getattro},
    {Py_tp_repr, socket_repr},
    {Py_tp_methods, socket_methods},
    {0, NULL},
};

static PyType_Spec socket_spec = {
    .name = "ctserve.wsgi.Connection",
    .basicsize = sizeof(struct wsgi_socket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = socket_slots,
};

PyTypeObject *socket_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&socket_spec);
}
