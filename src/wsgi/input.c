/* input.c - wsgi.input: the body of the request as a file.
 *
 * A whole body is read straight from the connection's buffer; a longer one comes through the
 * connection, which may sleep with the GIL given away. While a thread is inside, others are
 * turned away, because the buffer in its hands must not move. After the request it reads empty. */
#include "call.h"

#include <errno.h>
#include <stddef.h>

#define FIRST_BYTES 65536u /* of a body of unknown size; doubled as it grows */
#define LINE_BYTES 8192u

/* -- the body as an object -------------------------------------------------------------------- */
/* The connection writes a body of some length where read() will find it: in a bytes object, which
 * nobody has seen before it is whole. Python's way for threads of any origin is right here: a
 * thread that holds the lock already only counts one up. */
void *input_body_new(size_t count, char **ret_at)
{
    PyGILState_STATE lock = PyGILState_Ensure();
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)count);
    if (bytes != NULL)
        *ret_at = PyBytes_AS_STRING(bytes);
    else
        PyErr_Clear();
    PyGILState_Release(lock);
    return bytes;
}

void input_body_free(void *object)
{
    PyGILState_STATE lock = PyGILState_Ensure();
    Py_DECREF((PyObject *)object);
    PyGILState_Release(lock);
}

/* -- arguments -------------------------------------------------------------------------------- */
/* size=None and negative sizes mean everything. */
static int parse_size(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, size_t *ret_size)
{
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    *ret_size = SIZE_MAX;
    if (nargs + named == 0)
        return 0;
    if (nargs + named > 1) {
        PyErr_SetString(PyExc_TypeError, "at most one argument (size) is taken");
        return -1;
    }
    if (named == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "size") != 0 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "hint") != 0) {
        PyErr_SetString(PyExc_TypeError, "the only argument is called size");
        return -1;
    }
    if (args[0] == Py_None)
        return 0;
    if (!PyLong_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "size must be an integral type");
        return -1;
    }
    int overflow;
    long long size = PyLong_AsLongLongAndOverflow(args[0], &overflow);
    if (size == -1 && PyErr_Occurred())
        return -1;
    if (overflow == 0 && size >= 0)
        *ret_size = (size_t)size;
    return 0;
}

static void raise_read_failure(struct wsgi_call *call, ssize_t failure)
{
    struct wsgi_state *state = call->state;
    if (failure == -EBADMSG) {
        call->framing_is_bad = true;
        PyErr_SetString(state->parse_exception, "the framing of the request body is invalid");
    } else if (failure == -ETIMEDOUT) {
        call->body_timed_out = true;
        PyErr_SetString(PyExc_TimeoutError, "the client stopped sending the request body");
    } else {
        call->client_is_gone = true;
        PyErr_SetString(state->no_more_data, "the client left before the request body was whole");
    }
}

/* Up to `count` more bytes into `to`. 0 at the end. */
static ssize_t read_some(struct wsgi_input *input, char *to, size_t count)
{
    struct wsgi_call *call = input->call;
    if (call == NULL || input->has_ended || count == 0)
        return 0;
    if (count > PY_SSIZE_T_MAX)
        count = PY_SSIZE_T_MAX;
    input->is_busy = true;
    call->busy_count++;
    ssize_t got = call->exchange->ops->read_body(call->exchange, to, count);
    call->busy_count--;
    input->is_busy = false;
    if (got < 0) {
        raise_read_failure(call, got);
        return -1;
    }
    if (got == 0)
        input->has_ended = true;
    return got;
}

/* 0 fine, 1 over (answer empty), -1 with an exception. */
static int check_usable(struct wsgi_input *input)
{
    if (input->call == NULL)
        return 1;
    if (!input->is_busy)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "another thread is reading wsgi.input");
    return -1;
}

static size_t whole_left(const struct wsgi_input *input)
{
    return input->call->exchange->body.count - input->position;
}

static PyObject *take_whole(struct wsgi_input *input, size_t count)
{
    const struct cts_exchange *exchange = input->call->exchange;
    if (exchange->body_object != NULL && count == exchange->body.count) {
        input->position = count;
        return Py_NewRef((PyObject *)exchange->body_object);
    }
    const char *from = input->call->exchange->body.at + input->position;
    PyObject *bytes = PyBytes_FromStringAndSize(count > 0 ? from : NULL, (Py_ssize_t)count);
    if (bytes != NULL)
        input->position += count;
    return bytes;
}

static PyObject *take_ahead(struct wsgi_input *input, size_t count)
{
    struct cts_bytes view = cts_buffer_view(&input->ahead);
    PyObject *bytes = PyBytes_FromStringAndSize(count > 0 ? view.at : NULL, (Py_ssize_t)count);
    if (bytes != NULL && count > 0)
        cts_buffer_drop(&input->ahead, count);
    return bytes;
}

/* How much to make room for at first: what the head promised, within reason. */
static size_t first_capacity(const struct wsgi_input *input, size_t want)
{
    size_t capacity = cts_buffer_count(&input->ahead) + FIRST_BYTES;
    int64_t length = input->call->exchange->request->content_length;
    if (length >= 0 && (uint64_t)length < capacity)
        capacity = (size_t)length + 1; /* one more, so that the end is seen at once */
    if (capacity < cts_buffer_count(&input->ahead))
        capacity = cts_buffer_count(&input->ahead);
    return capacity < want ? capacity : want;
}

static PyObject *take_streamed(struct wsgi_input *input, size_t want)
{
    if (want > PY_SSIZE_T_MAX)
        want = PY_SSIZE_T_MAX;
    size_t capacity = first_capacity(input, want);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
    if (bytes == NULL)
        return NULL;
    size_t count = cts_buffer_count(&input->ahead);
    if (count > capacity)
        count = capacity;
    if (count > 0) {
        memcpy(PyBytes_AS_STRING(bytes), cts_buffer_view(&input->ahead).at, count);
        cts_buffer_drop(&input->ahead, count);
    }
    while (count < want) {
        if (count == capacity) {
            capacity = capacity > want / 2 ? want : capacity * 2;
            if (_PyBytes_Resize(&bytes, (Py_ssize_t)capacity) < 0)
                return NULL;
        }
        ssize_t got = read_some(input, PyBytes_AS_STRING(bytes) + count, capacity - count);
        if (got < 0) {
            Py_DECREF(bytes);
            return NULL;
        }
        if (got == 0)
            break;
        count += (size_t)got;
    }
    if (count != capacity && _PyBytes_Resize(&bytes, (Py_ssize_t)count) < 0)
        return NULL;
    return bytes;
}

static PyObject *input_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    struct wsgi_input *input = (struct wsgi_input *)self;
    size_t want;
    if (parse_size(args, nargs, kwnames, &want) < 0)
        return NULL;
    int r = check_usable(input);
    if (r < 0)
        return NULL;
    if (r > 0 || want == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (!input->call->exchange->body_is_whole)
        return take_streamed(input, want);
    size_t left = whole_left(input);
    return take_whole(input, want < left ? want : left);
}

static PyObject *whole_line(struct wsgi_input *input, size_t limit)
{
    const char *from = input->call->exchange->body.at + input->position;
    size_t left = whole_left(input);
    if (left > limit)
        left = limit;
    const char *end = left > 0 ? memchr(from, '\n', left) : NULL;
    return take_whole(input, end != NULL ? (size_t)(end - from) + 1 : left);
}

static PyObject *streamed_line(struct wsgi_input *input, size_t limit)
{
    struct cts_buffer *ahead = &input->ahead;
    size_t searched = 0;
    for (;;) {
        struct cts_bytes view = cts_buffer_view(ahead);
        size_t count = view.count < limit ? view.count : limit;
        const char *end =
            count > searched ? memchr(view.at + searched, '\n', count - searched) : NULL;
        if (end != NULL)
            return take_ahead(input, (size_t)(end - view.at) + 1);
        if (count == limit)
            return take_ahead(input, limit);
        searched = count;
        if (cts_buffer_reserve(ahead, LINE_BYTES) < 0)
            return PyErr_NoMemory();
        ssize_t got = read_some(input, ahead->at + ahead->end, LINE_BYTES);
        if (got < 0)
            return NULL;
        if (got == 0)
            return take_ahead(input, cts_buffer_count(ahead));
        ahead->end += (size_t)got;
    }
}

static PyObject *line(struct wsgi_input *input, size_t limit)
{
    int r = check_usable(input);
    if (r < 0)
        return NULL;
    if (r > 0 || limit == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    return input->call->exchange->body_is_whole ? whole_line(input, limit)
                                                : streamed_line(input, limit);
}

static PyObject *input_readline(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    size_t limit;
    if (parse_size(args, nargs, kwnames, &limit) < 0)
        return NULL;
    return line((struct wsgi_input *)self, limit);
}

/* As files do: lines until `hint` bytes are reached; 0 and None mean all. */
static PyObject *input_readlines(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    size_t hint, total = 0;
    if (parse_size(args, nargs, kwnames, &hint) < 0)
        return NULL;
    if (hint == 0)
        hint = SIZE_MAX;
    CTS_AUTO_REF PyObject *lines = PyList_New(0);
    if (lines == NULL)
        return NULL;
    while (total < hint) {
        CTS_AUTO_REF PyObject *one = line((struct wsgi_input *)self, SIZE_MAX);
        if (one == NULL)
            return NULL;
        if (PyBytes_GET_SIZE(one) == 0)
            break;
        if (PyList_Append(lines, one) < 0)
            return NULL;
        total += (size_t)PyBytes_GET_SIZE(one);
    }
    return CTS_GIVE(lines);
}

static PyObject *input_next(PyObject *self)
{
    PyObject *one = line((struct wsgi_input *)self, SIZE_MAX);
    if (one != NULL && PyBytes_GET_SIZE(one) == 0)
        Py_CLEAR(one); /* the end of the iteration: no exception */
    return one;
}

static PyObject *input_close(PyObject *self, PyObject *Py_UNUSED(none))
{
    Py_RETURN_NONE; /* the connection belongs to the server */
}

static void input_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cts_buffer_free(&((struct wsgi_input *)self)->ahead);
    type->tp_free(self);
    Py_DECREF(type);
}

#define METHOD(function) (PyCFunction)(void (*)(void))(function)
static PyMethodDef input_methods[] = {
    {"read", METHOD(input_read), METH_FASTCALL | METH_KEYWORDS,
     "read(size=None) -> bytes\n\nUp to size bytes of the request body; all of it without."},
    {"readline", METHOD(input_readline), METH_FASTCALL | METH_KEYWORDS,
     "readline(size=None) -> bytes\n\nOne line with its newline, cut at size bytes."},
    {"readlines", METHOD(input_readlines), METH_FASTCALL | METH_KEYWORDS,
     "readlines(size=None) -> list of bytes\n\nLines until size bytes were reached."},
    {"close", input_close, METH_NOARGS, "close() -> None\n\nDoes nothing."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot input_slots[] = {
    {Py_tp_doc, "wsgi.input: the body of one request, readable until the request ends."},
    {Py_tp_dealloc, input_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, input_next},
    {Py_tp_methods, input_methods},
    {0, NULL},
};

static PyType_Spec input_spec = {
    .name = "ctserve.wsgi.Input",
    .basicsize = sizeof(struct wsgi_input),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = input_slots,
};

PyTypeObject *input_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&input_spec);
}
