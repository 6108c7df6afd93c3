/* start_response.c - the callable an application announces its reply with, and write().
 *
 * Every field is checked here, before a byte of it can reach the wire: a bad name, value or
 * status raises into the application, and the client gets a 500 without anything of it.
 * Source: PEP 3333, "The start_response() Callable". */
#include "call.h"

#include <stddef.h>
#include <structmember.h>

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

static int take_status(struct wsgi_call *call, PyObject *text)
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

/* -- header fields ------------------------------------------------------------------------------
 */

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

static struct cts_bytes trim(struct cts_bytes value)
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
    value = trim(value);
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

static int take_fields(struct wsgi_call *call, PyObject *headers)
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

/* -- the route, for the span --------------------------------------------------------------------
 */

static void copy_route(struct wsgi_call *call, PyObject *holder, const char *first,
                       const char *second)
{
    CTS_AUTO_REF PyObject *inner = PyObject_GetAttrString(holder, first);
    CTS_AUTO_REF PyObject *rule = NULL;
    if (inner != NULL && inner != Py_None && second != NULL)
        rule = PyObject_GetAttrString(inner, second);
    else
        rule = Py_XNewRef(inner);
    const char *text = rule != NULL && PyUnicode_Check(rule) ? PyUnicode_AsUTF8(rule) : NULL;
    if (text != NULL) {
        size_t room = sizeof(call->exchange->route) - 1, count = strlen(text);
        while (count > room) /* cut between characters */
            for (count--; count > 0 && (text[count] & 0xc0) == 0x80;)
                count--;
        memcpy(call->exchange->route, text, count);
        call->exchange->route[count] = '\0';
    }
    PyErr_Clear(); /* a framework without a route is no failure */
}

/* Flask and other werkzeug applications leave their request in the environ, bottle its route. */
static void take_route(struct wsgi_call *call)
{
    const struct cts_trace_request *trace = call->exchange->trace;
    if (trace == NULL || !trace->is_recording || call->environ == NULL ||
        environ_is_untouched(call))
        return;
    PyObject *found =
        PyDict_GetItemWithError(call->environ, call->state->keys[WSGI_KEY_WERKZEUG_REQUEST]);
    if (found != NULL) {
        CTS_AUTO_REF PyObject *held = Py_NewRef(found);
        copy_route(call, held, "url_rule", "rule");
        return;
    }
    found = PyDict_GetItemWithError(call->environ, call->state->keys[WSGI_KEY_BOTTLE_ROUTE]);
    if (found != NULL) {
        CTS_AUTO_REF PyObject *held = Py_NewRef(found);
        copy_route(call, held, "rule", NULL);
    }
    PyErr_Clear();
}

/* -- the call ------------------------------------------------------------------------------------
 */

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
    if (take_status(call, status) < 0)
        return -1;
    CTS_AUTO_REF PyObject *held_status = Py_NewRef(status);
    if (take_fields(call, headers) < 0) {
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
    take_route(call);
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

/* -- types ----------------------------------------------------------------------------------------
 */

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

/* -- one of each, for a call
 * ------------------------------------------------------------------------ */

static struct wsgi_start_response *take_start_response(struct wsgi_state *state)
{
    struct wsgi_start_response *made = state->spare_start_response;
    state->spare_start_response = NULL;
    if (CTS_UNLIKELY(made == NULL)) {
        made = PyObject_New(struct wsgi_start_response, state->start_response_type);
        if (made != NULL)
            made->vectorcall = start_response_call;
    }
    return made;
}

static struct wsgi_write *take_write(struct wsgi_state *state)
{
    struct wsgi_write *made = state->spare_write;
    state->spare_write = NULL;
    if (CTS_UNLIKELY(made == NULL)) {
        made = PyObject_New(struct wsgi_write, state->write_type);
        if (made != NULL)
            made->vectorcall = write_call;
    }
    return made;
}

static struct wsgi_input *take_input(struct wsgi_state *state)
{
    struct wsgi_input *made = state->spare_input;
    state->spare_input = NULL;
    if (CTS_UNLIKELY(made == NULL)) {
        made = PyObject_New(struct wsgi_input, state->input_type);
        if (made != NULL)
            made->ahead = CTS_BUFFER_EMPTY;
    }
    return made;
}

static struct wsgi_socket *take_socket(struct wsgi_state *state)
{
    struct wsgi_socket *made = state->spare_socket;
    state->spare_socket = NULL;
    if (CTS_UNLIKELY(made == NULL)) {
        made = PyObject_New(struct wsgi_socket, state->socket_type);
        if (made != NULL)
            made->real = NULL;
    }
    return made;
}

int objects_take(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    call->start_response = take_start_response(state);
    call->write = take_write(state);
    call->early_hints = state->spare_early_hints;
    state->spare_early_hints = NULL;
    if (CTS_UNLIKELY(call->early_hints == NULL))
        call->early_hints = early_hints_new(state);
    call->input = take_input(state);
    call->socket = take_socket(state);
    call->head = state->spare_head;
    state->spare_head = CTS_BUFFER_EMPTY;
    if (call->start_response != NULL)
        call->start_response->call = call;
    if (call->write != NULL)
        call->write->call = call;
    if (call->early_hints != NULL)
        call->early_hints->call = call;
    if (call->input != NULL) {
        call->input->call = call;
        call->input->position = 0;
        call->input->has_ended = call->input->is_busy = false;
    }
    if (call->socket != NULL)
        call->socket->fd = call->exchange->peer->fd;
    return call->start_response && call->write && call->early_hints && call->input && call->socket
               ? 0 : -1;
}

/* The template of the environ holds one reference more to the input, the socket and the hints, and
 * so does every memo made of it; and so may the kept environ. */
static bool is_ours_alone(struct wsgi_state *state, PyObject *object, enum wsgi_key key)
{
    bool is_in_template = state->template_values[key] == object;
    bool is_in_kept = state->kept.environ != NULL && state->kept.values[key] == object;
    if (Py_REFCNT(object) == 1 + (is_in_template ? 1 + state->memos_filled : 0) + is_in_kept)
        return true;
    if (is_in_kept)
        Py_CLEAR(state->kept.environ);
    if (is_in_template) {
        environ_forget_memos(state);
        /* The application kept it: the template must not hand it to the next request. */
        state->template_values[key] = NULL;
        if (PyDict_SetItem(state->template, state->keys[key], Py_None) < 0) {
            PyErr_Clear();
            Py_CLEAR(state->template);
        }
    }
    return false;
}

static void give_input(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    struct wsgi_input *input = call->input;
    if (input == NULL)
        return;
    input->call = NULL;
    if (input->ahead.capacity > 0)
        cts_buffer_free(&input->ahead);
    if (is_ours_alone(state, (PyObject *)input, WSGI_KEY_INPUT) && state->spare_input == NULL)
        state->spare_input = input;
    else
        Py_DECREF(input);
}

static void give_early_hints(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    struct wsgi_early_hints *hints = call->early_hints;
    if (hints == NULL)
        return;
    hints->call = NULL;
    if (is_ours_alone(state, (PyObject *)hints, WSGI_KEY_EARLY_HINTS) &&
        state->spare_early_hints == NULL)
        state->spare_early_hints = hints;
    else
        Py_DECREF(hints);
}

static void give_socket(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    struct wsgi_socket *socket = call->socket;
    if (socket == NULL)
        return;
    socket->fd = -1;
    if (is_ours_alone(state, (PyObject *)socket, WSGI_KEY_SOCKET)) {
        Py_CLEAR(socket->real);
        if (state->spare_socket == NULL) {
            state->spare_socket = socket;
            return;
        }
    }
    Py_DECREF(socket);
}

void objects_give(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    if (call->start_response != NULL) {
        call->start_response->call = NULL;
        if (Py_REFCNT(call->start_response) == 1 && state->spare_start_response == NULL)
            state->spare_start_response = call->start_response;
        else
            Py_DECREF(call->start_response);
    }
    if (call->write != NULL) {
        call->write->call = NULL;
        if (Py_REFCNT(call->write) == 1 && state->spare_write == NULL)
            state->spare_write = call->write;
        else
            Py_DECREF(call->write);
    }
    give_early_hints(call);
    give_input(call);
    give_socket(call);
    if (state->spare_head.at == NULL && call->head.capacity <= WSGI_SPARE_HEAD_BYTES_MAX) {
        call->head.start = call->head.end = 0;
        state->spare_head = call->head;
    } else {
        cts_buffer_free(&call->head);
    }
    call->head = CTS_BUFFER_EMPTY;
}
