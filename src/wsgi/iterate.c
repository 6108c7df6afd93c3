/* iterate.c - what the application returned, sent piece by piece, and closed exactly once.
 *
 * A list or a tuple is there as a whole and is gathered into one write. Anything else is asked
 * for piece after piece, and the client has each piece before the next one is asked for.
 * Source: PEP 3333, "Handling the start_response() Callable" and "Buffering and Streaming". */
#include "call.h"

void aside_put(struct wsgi_aside *aside)
{
#if PY_VERSION_HEX >= 0x030c0000
    aside->type = aside->traceback = NULL;
    aside->value = PyErr_GetRaisedException();
#else
    PyErr_Fetch(&aside->type, &aside->value, &aside->traceback);
#endif
}

void aside_restore(struct wsgi_aside *aside)
{
#if PY_VERSION_HEX >= 0x030c0000
    PyErr_SetRaisedException(aside->value);
#else
    PyErr_Restore(aside->type, aside->value, aside->traceback);
#endif
}

static int check_bytes(PyObject *piece)
{
    if (CTS_LIKELY(PyBytes_Check(piece)))
        return 0;
    PyErr_Format(PyExc_TypeError, "the body must be made of bytes, not %.100s",
                 Py_TYPE(piece)->tp_name);
    return -1;
}

static struct cts_bytes piece_view(PyObject *piece)
{
    return (struct cts_bytes){PyBytes_AS_STRING(piece), (size_t)PyBytes_GET_SIZE(piece)};
}

/* A list of one: the length of the body is known, unless write() has been used before. */
static int put_sequence(struct wsgi_call *call, PyObject *result)
{
    bool is_whole = PySequence_Fast_GET_SIZE(result) == 1 && !call->has_written;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(result); i++) {
        PyObject *borrowed_piece = PySequence_Fast_GET_ITEM(result, i);
        if (check_bytes(borrowed_piece) < 0)
            return -1;
        CTS_AUTO_REF PyObject *piece = Py_NewRef(borrowed_piece);
        struct cts_bytes view = piece_view(piece);
        if (reply_put(call, view, is_whole ? (int64_t)view.count : -1, false) < 0)
            return -1;
    }
    return reply_finish(call, false);
}

static int put_iterable(struct wsgi_call *call, PyObject *result)
{
    CTS_AUTO_REF PyObject *iterator = PyObject_GetIter(result);
    if (iterator == NULL)
        return -1;
    for (;;) {
        CTS_AUTO_REF PyObject *piece = PyIter_Next(iterator);
        if (piece == NULL)
            break;
        if (check_bytes(piece) < 0 || reply_put(call, piece_view(piece), -1, true) < 0)
            return -1;
    }
    if (PyErr_Occurred())
        return -1;
    return reply_finish(call, true);
}

/* close() of the result, or NULL; *ret_close_failed when asking for it raised. */
static PyObject *close_method(PyObject *result, bool *ret_failed)
{
    PyObject *method = NULL;
#if PY_VERSION_HEX >= 0x030d0000
    *ret_failed = PyObject_GetOptionalAttrString(result, "close", &method) < 0;
#else
    method = PyObject_GetAttrString(result, "close");
    *ret_failed = method == NULL && !PyErr_ExceptionMatches(PyExc_AttributeError);
    if (method == NULL && !*ret_failed)
        PyErr_Clear();
#endif
    return method;
}

static int close_result(PyObject *result)
{
    bool has_failed;
    CTS_AUTO_REF PyObject *method = close_method(result, &has_failed);
    if (method == NULL)
        return has_failed ? -1 : 0;
    CTS_AUTO_REF PyObject *returned = PyObject_CallNoArgs(method);
    return returned == NULL ? -1 : 0;
}

int iterate_result(struct wsgi_call *call, PyObject *result)
{
    /* A plain list or tuple has no close(). */
    if (CTS_LIKELY(PyList_CheckExact(result) || PyTuple_CheckExact(result)))
        return put_sequence(call, result);

    struct wsgi_aside aside = {NULL, NULL, NULL};
    struct file_range range;
    bool is_file = !call->is_committed && file_wrapper_range(call->state, result, &range);
    int r = is_file ? reply_file(call, range.fd, range.at, range.count)
                    : put_iterable(call, result);
    if (r < 0)
        aside_put(&aside);
    if (close_result(result) < 0) {
        if (r == 0)
            return -1;
        cts_py_log_exception("Error closing the response", NULL, 0, NULL, 0);
    }
    if (r < 0)
        aside_restore(&aside);
    return r;
}
