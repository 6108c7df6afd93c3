/* reply_fields.c - the status and the header fields that an application announces.
 *
 * Each is checked here, before a byte of it can reach the wire: a bad name, value or status raises
 * into the application, and the client gets a 500 without anything of it. What was checked once
 * is known by its objects. Sources: PEP 3333, "The start_response() Callable"; RFC 9110 5. */
#include "call.h"

int text_view(PyObject *text, const char *what, struct cts_bytes *ret_bytes)
{
    if (!PyUnicode_Check(text)) {
        PyErr_Format(PyExc_TypeError, "%s must be str, not %.100s", what, Py_TYPE(text)->tp_name);
        return -1;
    }
#if PY_VERSION_HEX < 0x030c0000
    if (PyUnicode_READY(text) < 0)
        return -1;
#endif
    if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) {
        PyErr_Format(PyExc_ValueError, "%s has characters beyond latin-1", what);
        return -1;
    }
    *ret_bytes = (struct cts_bytes){(const char *)PyUnicode_1BYTE_DATA(text),
                                    (size_t)PyUnicode_GET_LENGTH(text)};
    return 0;
}

/* -- status ------------------------------------------------------------------------------------ */

int reply_take_status(struct wsgi_call *call, PyObject *text)
{
    struct wsgi_state *state = call->state;
    if (CTS_UNLIKELY(text != state->status_text)) {
        struct cts_bytes bytes;
        if (text_view(text, "status", &bytes) < 0)
            return -1;
        int status = cts_http_status_line(bytes);
        if (status < 0) {
            PyErr_SetString(PyExc_ValueError, "Invalid status: three digits, then a reason");
            return -1;
        }
        Py_INCREF(text);
        Py_XSETREF(state->status_text, text);
        state->status_code = status;
        state->status_bytes = bytes;
    }
    const struct cts_request *request = call->exchange->request;
    int status = state->status_code;
    if (status < 100 ||
        (status < 200 && request->version_major == 1 && request->version_minor == 0)) {
        PyErr_Format(PyExc_ValueError, "status %d cannot be sent to this client", status);
        return -1;
    }
    call->status = status;
    call->status_bytes = state->status_bytes;
    return 0;
}

/* -- header fields ---------------------------------------------------------------------------- */

static bool is_named(struct cts_bytes name, const char *lower)
{
    return cts_bytes_equal_nocase(name, cts_bytes_of(lower));
}

/* Digits only, and at most 18 of them. */
static int take_content_length(struct wsgi_call *call, struct cts_bytes value)
{
    int64_t length = 0;
    if (value.count == 0 || value.count > 18)
        goto bad;
    for (size_t i = 0; i < value.count; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            goto bad;
        length = length * 10 + (value.at[i] - '0');
    }
    if (call->content_length >= 0 && call->content_length != length)
        goto bad;
    call->content_length = length;
    return 0;
bad:
    PyErr_SetString(PyExc_ValueError, "Invalid response header Content-Length");
    return -1;
}

/* Fields that speak of the connection are ours, and so are Server and Date; gunicorn drops an
 * application's silently, but lets "Connection: upgrade" with "Upgrade: websocket" through.
 * The length tells most others apart. */
static bool is_dropped(struct wsgi_call *call, struct cts_bytes name, struct cts_bytes value)
{
    const uint32_t lengths = 1u << 2 | 1u << 4 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 10 | 1u << 16 |
                             1u << 17 | 1u << 18 | 1u << 19;
    if (name.count > 31 || (lengths >> name.count & 1) == 0)
        return false;
    if (is_named(name, "upgrade") && is_named(value, "websocket"))
        return false;
    if (is_named(name, "connection") && is_named(value, "upgrade"))
        call->is_upgrade = true;
    return cts_http_is_hop_by_hop(name) || is_named(name, "server") || is_named(name, "date");
}

struct cts_bytes value_trim(struct cts_bytes value)
{
    while (value.count > 0 && (value.at[0] == ' ' || value.at[0] == '\t')) {
        value.at++;
        value.count--;
    }
    while (value.count > 0 &&
           (value.at[value.count - 1] == ' ' || value.at[value.count - 1] == '\t'))
        value.count--;
    return value;
}

static int put_line(struct cts_buffer *head, struct cts_bytes name, struct cts_bytes value)
{
    if (cts_buffer_reserve(head, name.count + value.count + 4) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    char *to = head->at + head->end;
    memcpy(to, name.at, name.count);
    to += name.count;
    *to++ = ':';
    *to++ = ' ';
    memcpy(to, value.at, value.count);
    to += value.count;
    *to++ = '\r';
    *to++ = '\n';
    head->end = (size_t)(to - head->at);
    return 0;
}

/* Applications announce the same few fields again and again, most of them as constants. */
static inline struct wsgi_field *field_slot(struct wsgi_state *state, PyObject *name_text)
{
    return &state->fields[((uintptr_t)name_text >> 5) & (WSGI_FIELD_SLOTS - 1)];
}

static void keep_field(struct wsgi_call *call, PyObject *name_text, PyObject *value_text,
                       struct cts_bytes name, struct cts_bytes value)
{
    struct wsgi_field *slot = field_slot(call->state, name_text);
    /* A subclass of str may run code when it is let go; and what is long may be a secret. */
    if (!PyUnicode_CheckExact(name_text) || !PyUnicode_CheckExact(value_text) ||
        value.count > WSGI_KEPT_VALUE_BYTES_MAX || name.count > WSGI_NAME_BYTES_MAX ||
        (name.count == 10 && is_named(name, "set-cookie")))
        return;
    Py_INCREF(name_text);
    Py_XSETREF(slot->name, name_text);
    Py_INCREF(value_text);
    Py_XSETREF(slot->value, value_text);
    slot->name_bytes = name;
    slot->value_bytes = value;
    slot->content_length = name.count == 14 && is_named(name, "content-length")
                               ? call->content_length : -1;
}

void fields_stop(struct wsgi_state *state)
{
    for (size_t i = 0; i < WSGI_FIELD_SLOTS; i++) {
        Py_CLEAR(state->fields[i].name);
        Py_CLEAR(state->fields[i].value);
    }
}

/* Does what was found out last time hold now? */
static inline bool put_kept(struct wsgi_call *call, const struct wsgi_field *kept)
{
    if (call->headers != NULL)
        return false;
    if (kept->content_length < 0)
        return true;
    if (call->content_length >= 0 || call->status < 200 || call->status == 204)
        return false;
    call->content_length = kept->content_length;
    return true;
}

static int take_field(struct wsgi_call *call, PyObject *name_text, PyObject *value_text)
{
    struct cts_bytes name, value;
    const struct wsgi_field *kept = field_slot(call->state, name_text);
    if (kept->name == name_text && kept->value == value_text && put_kept(call, kept))
        return put_line(&call->head, kept->name_bytes, kept->value_bytes);
    if (text_view(name_text, "a response header name", &name) < 0)
        return -1;
    if (!cts_http_name_ok(name)) {
        PyErr_Format(PyExc_ValueError, "Invalid response header name %R", name_text);
        return -1;
    }
    if (text_view(value_text, "a response header value", &value) < 0)
        return -1;
    if (!cts_http_value_ok(value)) {
        /* The value is not shown: it may be a secret. */
        PyErr_Format(PyExc_ValueError, "Invalid value of response header %R", name_text);
        return -1;
    }
    value = value_trim(value);
    if (name.count == 14 && is_named(name, "content-length")) {
        bool is_again = call->content_length >= 0;
        if (take_content_length(call, value) < 0)
            return -1;
        bool is_forbidden = call->status < 200 || call->status == 204;
        if (is_again || is_forbidden)
            return 0;
    } else if (is_dropped(call, name, value)) {
        return 0;
    }
    keep_field(call, name_text, value_text, name, value);
    if (call->headers != NULL) {
        CTS_AUTO_REF PyObject *pair = PyTuple_Pack(2, name_text, value_text);
        if (pair == NULL || PyList_Append(call->headers, pair) < 0)
            return -1;
    }
    return put_line(&call->head, name, value);
}

static int take_pair(struct wsgi_call *call, PyObject *pair)
{
    if (CTS_LIKELY(PyTuple_CheckExact(pair) && PyTuple_GET_SIZE(pair) == 2))
        return take_field(call, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    CTS_AUTO_REF PyObject *fast =
        PySequence_Fast(pair, "each response header must be a (name, value) pair");
    if (fast == NULL)
        return -1;
    if (PySequence_Fast_GET_SIZE(fast) != 2) {
        PyErr_SetString(PyExc_ValueError, "each response header must be a (name, value) pair");
        return -1;
    }
    CTS_AUTO_REF PyObject *name = Py_NewRef(PySequence_Fast_GET_ITEM(fast, 0));
    CTS_AUTO_REF PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(fast, 1));
    return take_field(call, name, value);
}

int reply_take_fields(struct wsgi_call *call, PyObject *headers)
{
    CTS_AUTO_REF PyObject *fast = PySequence_Fast(headers, "response headers must be a list");
    if (fast == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast); i++) {
        CTS_AUTO_REF PyObject *pair = Py_NewRef(PySequence_Fast_GET_ITEM(fast, i));
        if (take_pair(call, pair) < 0)
            return -1;
    }
    return 0;
}
