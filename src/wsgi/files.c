/* files.c - the two small file-like things of the environ: wsgi.errors and wsgi.file_wrapper.
 *
 * A wrapped file of the file system is not read by Python at all: its descriptor is handed to the
 * connection, which sends it (reply.c). Source: PEP 3333, "Optional Platform-Specific File
 * Handling". */
#include "call.h"

#include "ctserve/log.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <structmember.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_TRIES_MAX 64 /* short writes of one text; a full pipe is not waited for */

/* -- wsgi.errors: text into the error log ---------------------------------------------------- */

static void write_bytes(const char *from, size_t left)
{
    int fd = cts_log_fd();
    for (int tries = 0; left > 0 && tries < WRITE_TRIES_MAX; tries++) {
        ssize_t written = write(fd, from, left);
        if (written < 0 && errno != EINTR)
            return;
        if (written > 0) {
            from += written;
            left -= (size_t)written;
        }
    }
}

static PyObject *errors_write(PyObject *self, PyObject *text)
{
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "wsgi.errors takes str");
        return NULL;
    }
    CTS_AUTO_REF PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    if (bytes == NULL)
        return NULL;
    write_bytes(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    return PyLong_FromSsize_t(PyUnicode_GetLength(text));
}

static PyObject *errors_writelines(PyObject *self, PyObject *lines)
{
    CTS_AUTO_REF PyObject *iterator = PyObject_GetIter(lines);
    if (iterator == NULL)
        return NULL;
    PyObject *one;
    while ((one = PyIter_Next(iterator)) != NULL) {
        PyObject *written = errors_write(self, one);
        Py_DECREF(one);
        if (written == NULL)
            return NULL;
        Py_DECREF(written);
    }
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *return_none(PyObject *self, PyObject *Py_UNUSED(none))
{
    Py_RETURN_NONE;
}

static PyObject *errors_fileno(PyObject *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLong(cts_log_fd());
}

static PyMethodDef errors_methods[] = {
    {"write", errors_write, METH_O, "write(text) -> int\n\nInto the error log, at once."},
    {"writelines", errors_writelines, METH_O, "writelines(lines) -> None"},
    {"flush", return_none, METH_NOARGS, "flush() -> None\n\nNothing is held back."},
    {"close", return_none, METH_NOARGS, "close() -> None\n\nDoes nothing."},
    {"fileno", errors_fileno, METH_NOARGS, "fileno() -> int\n\nThe error log's descriptor."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot errors_slots[] = {
    {Py_tp_doc, "wsgi.errors: a text stream into the error log."},
    {Py_tp_methods, errors_methods},
    {0, NULL},
};

static PyType_Spec errors_spec = {
    .name = "ctserve.wsgi.Errors",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = errors_slots,
};

PyTypeObject *errors_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&errors_spec);
}

/* -- wsgi.file_wrapper: blocks of a file ------------------------------------------------------- */

struct file_wrapper {
    PyObject_HEAD PyObject *filelike;
    PyObject *block_size;
    PyObject *close; /* filelike.close, or NULL */
};

static int file_wrapper_init(PyObject *self, PyObject *args, PyObject *named)
{
    static char *names[] = {"filelike", "blksize", NULL};
    struct file_wrapper *wrapper = (struct file_wrapper *)self;
    PyObject *filelike, *block_size = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, named, "O|O", names, &filelike, &block_size))
        return -1;
    PyObject *size = block_size ? Py_NewRef(block_size) : PyLong_FromLong(8192);
    if (size == NULL)
        return -1;
    PyObject *close = PyObject_GetAttrString(filelike, "close");
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            Py_DECREF(size);
            return -1;
        }
        PyErr_Clear();
    }
    Py_XSETREF(wrapper->filelike, Py_NewRef(filelike));
    Py_XSETREF(wrapper->block_size, size);
    Py_XSETREF(wrapper->close, close);
    return 0;
}

static PyObject *file_wrapper_read(struct file_wrapper *wrapper, PyObject *at_end)
{
    if (wrapper->filelike == NULL) {
        PyErr_SetString(PyExc_ValueError, "file_wrapper was not initialised");
        return NULL;
    }
    PyObject *block = PyObject_CallMethod(wrapper->filelike, "read", "O", wrapper->block_size);
    if (block == NULL)
        return NULL;
    int has_data = PyObject_IsTrue(block);
    if (has_data > 0)
        return block;
    Py_DECREF(block);
    if (has_data == 0 && at_end != NULL)
        PyErr_SetNone(at_end);
    return NULL;
}

static PyObject *file_wrapper_next(PyObject *self)
{
    return file_wrapper_read((struct file_wrapper *)self, NULL);
}

static PyObject *file_wrapper_getitem(PyObject *self, PyObject *Py_UNUSED(key))
{
    return file_wrapper_read((struct file_wrapper *)self, PyExc_IndexError);
}

static int file_wrapper_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct file_wrapper *wrapper = (struct file_wrapper *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(wrapper->filelike);
    Py_VISIT(wrapper->block_size);
    Py_VISIT(wrapper->close);
    return 0;
}

static int file_wrapper_clear(PyObject *self)
{
    struct file_wrapper *wrapper = (struct file_wrapper *)self;
    Py_CLEAR(wrapper->filelike);
    Py_CLEAR(wrapper->block_size);
    Py_CLEAR(wrapper->close);
    return 0;
}

static void file_wrapper_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)file_wrapper_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* A number that a method of the file says, or -1 when it has no such method or raises. */
static long long asked(PyObject *filelike, const char *method)
{
    CTS_AUTO_REF PyObject *said = PyObject_CallMethod(filelike, method, NULL);
    long long number = said != NULL && PyLong_Check(said) ? PyLong_AsLongLong(said) : -1;
    PyErr_Clear();
    return number;
}

bool file_wrapper_range(struct wsgi_state *state, PyObject *result, struct file_range *ret_range)
{
    struct file_wrapper *wrapper = (struct file_wrapper *)result;
    struct stat facts;
    if (!state->sends_files || Py_TYPE(result) != state->file_wrapper_type ||
        wrapper->filelike == NULL)
        return false;
    CTS_AUTO_REF PyObject *filelike = Py_NewRef(wrapper->filelike);
    long long fd = asked(filelike, "fileno");
    /* tell() knows what a buffered file has read ahead. */
    long long at = fd < 0 || fd > INT_MAX ? -1 : asked(filelike, "tell");
    if (at < 0 || fstat((int)fd, &facts) < 0 || !S_ISREG(facts.st_mode))
        return false;
    ret_range->fd = (int)fd;
    ret_range->at = (uint64_t)at;
    ret_range->count = at < facts.st_size ? (uint64_t)(facts.st_size - at) : 0;
    return true;
}

static PyMemberDef file_wrapper_members[] = {
    {"filelike", T_OBJECT, offsetof(struct file_wrapper, filelike), READONLY, "the file"},
    {"blksize", T_OBJECT, offsetof(struct file_wrapper, block_size), READONLY, "bytes per block"},
    {"close", T_OBJECT_EX, offsetof(struct file_wrapper, close), READONLY,
     "close() of the file; absent if it has none"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot file_wrapper_slots[] = {
    {Py_tp_doc, "FileWrapper(filelike, blksize=8192)\n\nThe blocks of a file, as an iterable."},
    {Py_tp_init, file_wrapper_init},
    {Py_tp_dealloc, file_wrapper_dealloc},
    {Py_tp_traverse, file_wrapper_traverse},
    {Py_tp_clear, file_wrapper_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, file_wrapper_next},
    {Py_mp_subscript, file_wrapper_getitem},
    {Py_tp_members, file_wrapper_members},
    {0, NULL},
};

static PyType_Spec file_wrapper_spec = {
    .name = "ctserve.wsgi.FileWrapper",
    .basicsize = sizeof(struct file_wrapper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = file_wrapper_slots,
};

PyTypeObject *file_wrapper_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&file_wrapper_spec);
}
