/* environ.c - the environ of PEP 3333 with gunicorn's additions: where the dict comes from.
 *
 * A template dict is kept per process: the constants, and for every key that each request has,
 * the value it had when the template was made. A request copies it and overwrites what differs
 * (environ_fill.c), which for most requests is the path, the client's port and the header fields.
 * The template's table is made larger than its content, so that the first header field does not
 * resize it.
 *
 * Clients that come again send the same block of fields again, to the byte. A few blocks are
 * remembered per process; when one is seen for the second time, a template that has its fields is
 * made, and from then on they cost a comparison and no more.
 *
 * Most applications only look at their environ. One that nobody holds any more and that has not
 * changed serves the next request with the same fields: what differs is overwritten, as in a copy.
 * The version that CPython gives to every state of a dict (PEP 509) tells whether it has. */
#include "call.h"

#include <stdio.h>

/* A table of 32 slots is full at 21 keys; one of 64 holds 42. Keys placed and taken out again leave
 * the larger one behind. Not more of them than needed: PyDict_Copy copies a table as it is only
 * while two thirds of its entries are in use. */
#define WIDE_KEYS 24

/* -- the template ---------------------------------------------------------------------------- */

/* Grow the table of `dict` by keys that are taken out again: a copy keeps the size. */
static int widen(PyObject *dict)
{
    int used = (int)PyDict_GET_SIZE(dict);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = used; i < WIDE_KEYS; i++) {
            char name[32];
            snprintf(name, sizeof(name), "ctserve.room.%d", i);
            int r = pass == 0 ? PyDict_SetItemString(dict, name, Py_None)
                              : PyDict_DelItemString(dict, name);
            if (r < 0)
                return -1;
        }
    }
    return 0;
}

static int fill_template(struct wsgi_call *call, PyObject *template)
{
    struct wsgi_state *state = call->state;
    PyObject *values[WSGI_KEYS_COUNT] = {
        [WSGI_KEY_INPUT] = (PyObject *)call->input,
        [WSGI_KEY_SOCKET] = (PyObject *)call->socket,
        [WSGI_KEY_EARLY_HINTS] = (PyObject *)call->early_hints,
        [WSGI_KEY_METHOD] = state->methods[0],
        [WSGI_KEY_RAW_URI] = Py_None,
        [WSGI_KEY_PATH_INFO] = Py_None,
        [WSGI_KEY_QUERY] = state->empty_text,
        [WSGI_KEY_PROTOCOL] = state->http_11,
        [WSGI_KEY_SERVER_NAME] = state->peer.server_name_text,
        [WSGI_KEY_SERVER_PORT] = state->peer.server_port_text,
        [WSGI_KEY_REMOTE_ADDR] = state->peer.remote_addr_text,
    };
    if (environ_set_constant(template, "wsgi.multithread",
                     call->exchange->worker_is_multithread ? Py_True : Py_False) < 0 ||
        environ_set_constant(template, "wsgi.multiprocess",
                     call->exchange->worker_is_multiprocess ? Py_True : Py_False) < 0)
        return -1;
    for (int i = 0; i < WSGI_KEYS_COUNT; i++) {
        if (values[i] != NULL && PyDict_SetItem(template, state->keys[i], values[i]) < 0)
            return -1;
        state->template_values[i] = values[i];
    }
    return widen(template);
}

void environ_forget_memos(struct wsgi_state *state)
{
    Py_CLEAR(state->kept.environ);
    for (size_t i = 0; i < WSGI_MEMO_SLOTS && state->memos_filled > 0; i++) {
        if (state->memos[i].filled == NULL)
            continue;
        state->memos_filled--;
        Py_CLEAR(state->memos[i].filled);
    }
}

static int renew_template(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    environ_forget_memos(state);
    memset(state->template_values, 0, sizeof(state->template_values));
    Py_CLEAR(state->template);
    CTS_AUTO_REF PyObject *template = PyDict_Copy(state->constants);
    if (template == NULL)
        return -1;
    if (fill_template(call, template) < 0) {
        memset(state->template_values, 0, sizeof(state->template_values));
        return -1;
    }
    state->template = CTS_GIVE(template);
    state->template_multithread = call->exchange->worker_is_multithread;
    state->template_multiprocess = call->exchange->worker_is_multiprocess;
    return 0;
}

static bool template_fits(const struct wsgi_call *call)
{
    const struct wsgi_state *state = call->state;
    return state->template != NULL &&
           state->template_multithread == call->exchange->worker_is_multithread &&
           state->template_multiprocess == call->exchange->worker_is_multiprocess;
}

/* -- blocks of fields that come again --------------------------------------------------------- */

/* From the first byte of the first field to the last one of the last. */
static struct cts_bytes fields_block(const struct cts_request *request)
{
    if (request->headers_count == 0)
        return (struct cts_bytes){"", 0};
    const struct cts_header *last = &request->headers[request->headers_count - 1];
    const char *from = request->headers[0].name.at;
    return (struct cts_bytes){from, (size_t)(last->value.at + last->value.count - from)};
}

/* Where the block of this request is remembered, or would be; NULL when it is not to be. */
static struct wsgi_memo *memo_slot(struct wsgi_state *state, const struct cts_request *request,
                                   struct cts_bytes block)
{
    uint64_t middle, last;
    if (block.count < 16 || block.count > WSGI_MEMO_BYTES_MAX ||
        request->form != CTS_TARGET_ORIGIN)
        return NULL;
    memcpy(&middle, block.at + block.count / 2, sizeof(middle));
    memcpy(&last, block.at + block.count - sizeof(last), sizeof(last));
    middle = (middle ^ (last << 1) ^ block.count) * 0x9E3779B97F4A7C15u;
    return &state->memos[(middle >> 40) & (WSGI_MEMO_SLOTS - 1)];
}

static bool memo_has(const struct wsgi_memo *memo, struct cts_bytes block, bool is_trusted)
{
    return memo->is_trusted == is_trusted && cts_bytes_equal(cts_buffer_view(&memo->block), block);
}

/* Seen for the second time: a template with the fields. Failing is no matter, but for memory that
 * stays short. */
static void memo_fill(struct wsgi_call *call, struct wsgi_memo *memo)
{
    struct wsgi_state *state = call->state;
    PyObject *template = Py_NewRef(state->template);
    PyObject *filled = PyDict_Copy(template);
    bool is_current = template == state->template && memo->filled == NULL;
    Py_DECREF(template);
    if (filled != NULL && is_current && environ_put_headers(call, filled) == 0) {
        memo->filled = filled;
        memo->is_https = call->scheme_said == 2;
        memo->serial = ++state->memos_serial;
        state->memos_filled++;
        return;
    }
    PyErr_Clear();
    Py_XDECREF(filled);
}

static void memo_renew(struct wsgi_call *call, struct wsgi_memo *memo, struct cts_bytes block)
{
    struct wsgi_state *state = call->state;
    PyObject *filled = memo->filled;
    memo->filled = NULL;
    memo->is_trusted = call->exchange->peer->is_trusted;
    memo->block.start = memo->block.end = 0;
    if (cts_buffer_put(&memo->block, block.at, block.count) < 0)
        memo->block.start = memo->block.end = 0;
    if (filled != NULL) {
        state->memos_filled--;
        Py_DECREF(filled);
    }
}

/* -- an environ that is used again -------------------------------------------------------------- */

/* A number that no other state of this dict has or had, 0 when there is none. */
static uint64_t version_of(PyObject *dict)
{
#if PY_VERSION_HEX < 0x030c0000
    return ((PyDictObject *)dict)->ma_version_tag;
#else
    return 0; /* on its way out of CPython */
#endif
}

#define SHAPE_UNIX 1u
#define SHAPE_TRACED 2u
#define SHAPE_PROXY 4u /* never kept: which keys there are depends on what the proxy said */

/* Which keys there are besides those of the template and of the fields. */
static unsigned shape_of(const struct wsgi_call *call)
{
    const struct cts_exchange *exchange = call->exchange;
    return (exchange->peer->is_unix ? SHAPE_UNIX : 0) |
           (exchange->trace != NULL && exchange->trace->is_recording ? SHAPE_TRACED : 0) |
           (exchange->peer->proxy != NULL ? SHAPE_PROXY : 0);
}

/* The kept environ, if it is one of these fields. */
static PyObject *take_kept(struct wsgi_call *call, const struct wsgi_memo *memo)
{
    struct wsgi_kept *kept = &call->state->kept;
    PyObject *wsgi_environ = kept->environ;
    if (wsgi_environ == NULL || kept->serial != memo->serial || kept->shape != shape_of(call))
        return NULL;
    kept->environ = NULL;
    memcpy(call->values, kept->values, sizeof(call->values));
    return wsgi_environ;
}

bool environ_is_untouched(const struct wsgi_call *call)
{
    return call->environ_version != 0 && version_of(call->environ) == call->environ_version;
}

void environ_give(struct wsgi_call *call)
{
    struct wsgi_kept *kept = &call->state->kept;
    PyObject *wsgi_environ = call->environ;
    if (wsgi_environ == NULL)
        return;
    bool is_untouched = environ_is_untouched(call);
    call->environ = NULL;
    if (Py_REFCNT(wsgi_environ) == 1 && is_untouched) {
        PyObject *older = kept->environ;
        kept->environ = wsgi_environ;
        kept->serial = call->environ_serial;
        kept->shape = shape_of(call);
        memcpy(kept->values, call->values, sizeof(kept->values));
        wsgi_environ = older;
    }
    Py_XDECREF(wsgi_environ);
}

/* The kept environ, or a copy of the template. Copying may run the garbage collector, and with it
 * any code: should another thread have renewed the template meanwhile, the copy is thrown away. */
static PyObject *copy_template(struct wsgi_call *call, struct wsgi_memo *memo,
                               struct cts_bytes block, bool *ret_has_fields)
{
    struct wsgi_state *state = call->state;
    bool is_trusted = call->exchange->peer->is_trusted;
    for (int tries = 0; tries < 8; tries++) {
        if (CTS_UNLIKELY(!template_fits(call)) &&
            (environ_refresh_peer(state, call->exchange->peer) < 0 || renew_template(call) < 0))
            return NULL;
        bool is_known = memo != NULL && memo_has(memo, block, is_trusted);
        if (CTS_UNLIKELY(is_known && memo->filled == NULL))
            memo_fill(call, memo);
        *ret_has_fields = is_known && memo->filled != NULL;
        if (*ret_has_fields)
            call->scheme_said = 1 + memo->is_https;
        if (*ret_has_fields) {
            PyObject *kept = take_kept(call, memo);
            if (CTS_LIKELY(kept != NULL))
                return kept;
        }
        PyObject *template = state->template;
        PyObject *from = Py_NewRef(*ret_has_fields ? memo->filled : template);
        PyObject *copy = PyDict_Copy(from);
        bool is_current = template == state->template;
        Py_DECREF(from);
        memcpy(call->values, state->template_values, sizeof(call->values));
        if (CTS_LIKELY(copy == NULL || is_current))
            return copy;
        Py_DECREF(copy);
    }
    PyErr_SetString(PyExc_RuntimeError, "the environ template does not hold still");
    return NULL;
}

PyObject *environ_new(struct wsgi_call *call)
{
    struct cts_bytes block = fields_block(call->exchange->request);
    struct wsgi_memo *memo = memo_slot(call->state, call->exchange->request, block);
    bool has_fields;
    PyObject *wsgi_environ = copy_template(call, memo, block, &has_fields);
    if (wsgi_environ == NULL)
        return NULL;
    if (memo != NULL && !has_fields && !memo_has(memo, block, call->exchange->peer->is_trusted))
        memo_renew(call, memo, block);
    /* From here on only strings are made, so no other code runs and the state stands still. */
    if (environ_refresh_peer(call->state, call->exchange->peer) < 0 ||
        environ_fill(call, wsgi_environ, has_fields) < 0) {
        Py_DECREF(wsgi_environ);
        return NULL;
    }
    if (has_fields && call->exchange->peer->proxy == NULL) {
        call->environ_version = version_of(wsgi_environ);
        call->environ_serial = memo->serial;
    }
    return wsgi_environ;
}
