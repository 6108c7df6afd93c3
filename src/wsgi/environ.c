/* environ.c - the environ of PEP 3333 with gunicorn's additions.
 *
 * A template dict is kept per process: the constants, and for every key that each request has,
 * the value it had when the template was made. A request copies it and overwrites what differs,
 * which for most requests is the path, the client's port and the header fields. The template's
 * table is made larger than its content, so that the first header field does not resize it.
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
#include <stdlib.h>

/* A table of 32 slots is full at 21 keys; one of 64 holds 42. Keys placed and taken out again leave
 * the larger one behind. Not more of them than needed: PyDict_Copy copies a table as it is only
 * while two thirds of its entries are in use. */
#define WIDE_KEYS 24

static const char *const key_names[WSGI_KEYS_COUNT] = {
    [WSGI_KEY_INPUT] = "wsgi.input",
    [WSGI_KEY_SOCKET] = "gunicorn.socket",
    [WSGI_KEY_EARLY_HINTS] = "wsgi.early_hints",
    [WSGI_KEY_METHOD] = "REQUEST_METHOD",
    [WSGI_KEY_RAW_URI] = "RAW_URI",
    [WSGI_KEY_PATH_INFO] = "PATH_INFO",
    [WSGI_KEY_QUERY] = "QUERY_STRING",
    [WSGI_KEY_PROTOCOL] = "SERVER_PROTOCOL",
    [WSGI_KEY_SERVER_NAME] = "SERVER_NAME",
    [WSGI_KEY_SERVER_PORT] = "SERVER_PORT",
    [WSGI_KEY_REMOTE_ADDR] = "REMOTE_ADDR",
    [WSGI_KEY_REMOTE_PORT] = "REMOTE_PORT",
    [WSGI_KEY_CONTENT_TYPE] = "CONTENT_TYPE",
    [WSGI_KEY_CONTENT_LENGTH] = "CONTENT_LENGTH",
    [WSGI_KEY_HOST] = "HTTP_HOST",
    [WSGI_KEY_TRACEPARENT] = "traceparent",
    [WSGI_KEY_WERKZEUG_REQUEST] = "werkzeug.request",
    [WSGI_KEY_BOTTLE_ROUTE] = "bottle.route",
    [WSGI_KEY_URL_SCHEME] = "wsgi.url_scheme",
    [WSGI_KEY_SCRIPT_NAME] = "SCRIPT_NAME",
    [WSGI_KEY_PROXY_PROTOCOL] = "PROXY_PROTOCOL",
    [WSGI_KEY_PROXY_ADDR] = "PROXY_ADDR",
    [WSGI_KEY_PROXY_PORT] = "PROXY_PORT",
};

static const char *const method_names[] = {"GET",    "HEAD",    "POST",  "PUT",
                                           "DELETE", "OPTIONS", "PATCH", "TRACE"};

PyObject *latin1(struct cts_bytes bytes)
{
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, bytes.at, (Py_ssize_t)bytes.count);
}

static int set_constant(PyObject *constants, const char *key, PyObject *value)
{
    CTS_AUTO_REF PyObject *name = PyUnicode_InternFromString(key);
    return name == NULL || value == NULL ? -1 : PyDict_SetItem(constants, name, value);
}

static int fill_constants(struct wsgi_state *state)
{
    CTS_AUTO_REF PyObject *version = Py_BuildValue("(ii)", 1, 0);
    CTS_AUTO_REF PyObject *software = PyUnicode_FromString("ctserve/" CTS_VERSION);
    CTS_AUTO_REF PyObject *errors = PyObject_CallNoArgs((PyObject *)state->errors_type);
    PyObject *script_name = state->script_name ? state->script_name : state->empty_text;
    if (set_constant(state->constants, "wsgi.errors", errors) < 0 ||
        set_constant(state->constants, "wsgi.version", version) < 0 ||
        set_constant(state->constants, "wsgi.run_once", Py_False) < 0 ||
        set_constant(state->constants, "wsgi.file_wrapper", (PyObject *)state->file_wrapper_type) <
            0 ||
        set_constant(state->constants, "wsgi.input_terminated", Py_True) < 0 ||
        set_constant(state->constants, "wsgi.url_scheme", state->scheme) < 0 ||
        set_constant(state->constants, "SERVER_SOFTWARE", software) < 0 ||
        set_constant(state->constants, "SCRIPT_NAME", script_name) < 0)
        return -1;
    return 0;
}

/* gunicorn takes SCRIPT_NAME from the environment of the process. */
static int take_script_name(struct wsgi_state *state)
{
    const char *script_name = getenv("SCRIPT_NAME");
    if (script_name == NULL || *script_name == '\0')
        return 0;
    state->script_name = latin1(cts_bytes_of(script_name));
    if (state->script_name == NULL)
        return -1;
    state->script_name_bytes =
        (struct cts_bytes){(const char *)PyUnicode_1BYTE_DATA(state->script_name),
                           (size_t)PyUnicode_GET_LENGTH(state->script_name)};
    return 0;
}

static int take_secure_field(struct wsgi_state *state, PyObject *name_text, PyObject *value_text)
{
    struct wsgi_secure_field *field = &state->secure_fields[state->secure_fields_count];
    struct cts_bytes name, value;
    if (text_view(name_text, "secure_scheme_headers", &name) < 0 ||
        text_view(value_text, "secure_scheme_headers", &value) < 0)
        return -1;
    if (name.count == 0 || name.count >= sizeof(field->name) ||
        value.count >= sizeof(field->value) ||
        state->secure_fields_count == WSGI_SECURE_FIELDS_MAX) {
        PyErr_SetString(PyExc_ValueError,
                        "secure_scheme_headers: at most 16 names and values of at most 63 bytes");
        return -1;
    }
    memcpy(field->name, name.at, field->name_count = name.count);
    memcpy(field->value, value.at, field->value_count = value.count);
    state->secure_fields_count++;
    state->secure_lengths |= 1ull << name.count;
    return 0;
}

static int take_secure_fields(struct wsgi_state *state)
{
    PyObject *config = cts_py_cfg();
    CTS_AUTO_REF PyObject *dict =
        config == NULL ? NULL : PyObject_GetAttrString(config, "secure_scheme_headers");
    Py_ssize_t position = 0;
    PyObject *borrowed_name, *borrowed_value;
    if (config == NULL)
        return 0;
    if (dict == NULL)
        return -1;
    while (PyDict_Check(dict) && PyDict_Next(dict, &position, &borrowed_name, &borrowed_value))
        if (take_secure_field(state, borrowed_name, borrowed_value) < 0)
            return -1;
    return 0;
}

int environ_start(struct wsgi_state *state)
{
    for (int i = 0; i < WSGI_KEYS_COUNT; i++)
        if ((state->keys[i] = PyUnicode_InternFromString(key_names[i])) == NULL)
            return -1;
    for (size_t i = 0; i < CTS_COUNT(method_names); i++)
        if ((state->methods[i] = PyUnicode_InternFromString(method_names[i])) == NULL)
            return -1;
    state->empty_text = PyUnicode_FromString("");
    state->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    state->http_10 = PyUnicode_InternFromString("HTTP/1.0");
    state->http_11 = PyUnicode_InternFromString("HTTP/1.1");
    state->scheme = PyUnicode_InternFromString("http");
    state->https = PyUnicode_InternFromString("https");
    state->constants = PyDict_New();
    if (state->empty_text == NULL || state->empty_bytes == NULL || state->http_10 == NULL ||
        state->http_11 == NULL || state->scheme == NULL || state->https == NULL ||
        state->constants == NULL)
        return -1;
    if (take_script_name(state) < 0 || fill_constants(state) < 0 || take_secure_fields(state) < 0)
        return -1;
    return names_start(state);
}

void environ_stop(struct wsgi_state *state)
{
    names_stop(state);
    environ_forget_memos(state);
    for (size_t i = 0; i < WSGI_MEMO_SLOTS; i++)
        cts_buffer_free(&state->memos[i].block);
    for (int i = 0; i < WSGI_KEYS_COUNT; i++)
        Py_CLEAR(state->keys[i]);
    for (size_t i = 0; i < CTS_COUNT(state->methods); i++)
        Py_CLEAR(state->methods[i]);
    Py_CLEAR(state->template);
    Py_CLEAR(state->constants);
    Py_CLEAR(state->script_name);
    Py_CLEAR(state->empty_text);
    Py_CLEAR(state->empty_bytes);
    Py_CLEAR(state->http_10);
    Py_CLEAR(state->http_11);
    Py_CLEAR(state->scheme);
    Py_CLEAR(state->https);
    Py_CLEAR(state->peer.remote_addr_text);
    Py_CLEAR(state->peer.remote_port_text);
    Py_CLEAR(state->peer.server_name_text);
    Py_CLEAR(state->peer.server_port_text);
    for (size_t i = 0; i < WSGI_PORT_SLOTS; i++)
        Py_CLEAR(state->ports[i].text);
}

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
    if (set_constant(template, "wsgi.multithread",
                     call->exchange->worker_is_multithread ? Py_True : Py_False) < 0 ||
        set_constant(template, "wsgi.multiprocess",
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

/* -- the parts of one environ ---------------------------------------------------------------- */

/* Set a borrowed value unless the environ has it already. */
static inline int put(struct wsgi_call *call, PyObject *wsgi_environ, enum wsgi_key key,
                      PyObject *value)
{
    if (value == call->values[key])
        return 0;
    call->values[key] = value;
    return PyDict_SetItem(wsgi_environ, call->state->keys[key], value);
}

/* Set an owned value and let it go; NULL is an exception already set. */
static inline int put_new(struct wsgi_call *call, PyObject *wsgi_environ, enum wsgi_key key,
                          PyObject *value)
{
    if (value == NULL)
        return -1;
    int r = put(call, wsgi_environ, key, value);
    Py_DECREF(value);
    return r;
}

static int refresh(PyObject **text, PyObject *renewed)
{
    if (renewed == NULL)
        return -1;
    Py_XSETREF(*text, renewed);
    return 0;
}

static PyObject *port_text(uint16_t port)
{
    char digits[5];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + port % 10);
        port /= 10;
    } while (port > 0);
    return latin1((struct cts_bytes){digits + at, sizeof(digits) - at});
}

/* A client that keeps its connection keeps its port. */
static PyObject *kept_port_text(struct wsgi_state *state, uint16_t port)
{
    struct wsgi_port *slot = &state->ports[(port * 0x9E37u >> 8) & (WSGI_PORT_SLOTS - 1)];
    if (slot->text == NULL || slot->port != port) {
        PyObject *text = port_text(port);
        if (text == NULL)
            return NULL;
        Py_XSETREF(slot->text, text);
        slot->port = port;
    }
    return Py_NewRef(slot->text);
}

static int refresh_peer(struct wsgi_state *state, const struct cts_peer *peer)
{
    struct wsgi_peer_texts *texts = &state->peer;
    if (texts->remote_addr_text == NULL ||
        strcmp(texts->remote_address, peer->remote_address) != 0) {
        if (refresh(&texts->remote_addr_text, latin1(cts_bytes_of(peer->remote_address))) < 0)
            return -1;
        memcpy(texts->remote_address, peer->remote_address, sizeof(texts->remote_address));
    }
    if (texts->remote_port_text == NULL || texts->remote_port != peer->remote_port) {
        if (refresh(&texts->remote_port_text, kept_port_text(state, peer->remote_port)) < 0)
            return -1;
        texts->remote_port = peer->remote_port;
    }
    if (texts->server_name_text == NULL || strcmp(texts->server_name, peer->server_name) != 0) {
        if (refresh(&texts->server_name_text, latin1(cts_bytes_of(peer->server_name))) < 0)
            return -1;
        memcpy(texts->server_name, peer->server_name, sizeof(texts->server_name));
    }
    if (texts->server_port_text == NULL || texts->server_port != peer->server_port) {
        if (refresh(&texts->server_port_text, port_text(peer->server_port)) < 0)
            return -1;
        texts->server_port = peer->server_port;
    }
    return 0;
}

/* On a unix socket gunicorn takes the server's name and port from the Host field: up to the
 * colon, and 80 (https: 443) when there is none. An IPv6 literal keeps its brackets together. */
static int put_server_from_host(struct wsgi_call *call, PyObject *wsgi_environ)
{
    struct cts_bytes host = call->exchange->request->host;
    struct cts_bytes port = cts_bytes_of(call->scheme_said == 2 ? "443" : "80");
    if (host.count == 0) {
        port.count = 0;
        host = cts_bytes_of(call->exchange->peer->server_name);
    } else {
        const char *bracket = host.at[0] == '[' ? memchr(host.at, ']', host.count) : NULL;
        const char *from = bracket != NULL ? bracket : host.at;
        const char *colon = memchr(from, ':', host.count - (size_t)(from - host.at));
        if (colon != NULL) {
            size_t name_bytes = (size_t)(colon - host.at);
            port = (struct cts_bytes){colon + 1, host.count - name_bytes - 1};
            const char *second = memchr(port.at, ':', port.count);
            if (second != NULL)
                port.count = (size_t)(second - port.at);
            host.count = name_bytes;
        }
    }
    if (put_new(call, wsgi_environ, WSGI_KEY_SERVER_NAME, latin1(host)) < 0)
        return -1;
    return put_new(call, wsgi_environ, WSGI_KEY_SERVER_PORT, latin1(port));
}

/* What the proxy said about itself and its client. LOCAL and UNSPEC say nothing about a client:
 * then it is the one we see. */
static int put_proxy(struct wsgi_call *call, PyObject *wsgi_environ)
{
    const struct cts_proxy *proxy = call->exchange->peer->proxy;
    if (put_new(call, wsgi_environ, WSGI_KEY_PROXY_PROTOCOL,
                latin1(cts_bytes_of(proxy->protocol))) < 0)
        return -1;
    if (proxy->client_address[0] == '\0')
        return 0;
    if (put_new(call, wsgi_environ, WSGI_KEY_REMOTE_ADDR,
                latin1(cts_bytes_of(proxy->client_address))) < 0 ||
        put_new(call, wsgi_environ, WSGI_KEY_REMOTE_PORT, port_text(proxy->client_port)) < 0 ||
        put_new(call, wsgi_environ, WSGI_KEY_PROXY_ADDR,
                latin1(cts_bytes_of(proxy->proxy_address))) < 0)
        return -1;
    return put_new(call, wsgi_environ, WSGI_KEY_PROXY_PORT, port_text(proxy->proxy_port));
}

static int put_peer(struct wsgi_call *call, PyObject *wsgi_environ)
{
    struct wsgi_state *state = call->state;
    if (put(call, wsgi_environ, WSGI_KEY_REMOTE_ADDR, state->peer.remote_addr_text) < 0)
        return -1;
    if (call->exchange->peer->is_unix)
        return put_server_from_host(call, wsgi_environ);
    if (put(call, wsgi_environ, WSGI_KEY_REMOTE_PORT, state->peer.remote_port_text) < 0 ||
        put(call, wsgi_environ, WSGI_KEY_SERVER_NAME, state->peer.server_name_text) < 0 ||
        put(call, wsgi_environ, WSGI_KEY_SERVER_PORT, state->peer.server_port_text) < 0)
        return -1;
    return 0;
}

static PyObject *method_text(struct wsgi_state *state, struct cts_bytes method)
{
    for (size_t i = 0; i < CTS_COUNT(method_names); i++)
        if (method.count == (size_t)PyUnicode_GET_LENGTH(state->methods[i]) &&
            memcmp(method.at, method_names[i], method.count) == 0)
            return Py_NewRef(state->methods[i]);
    return latin1(method);
}

static PyObject *protocol_text(struct wsgi_state *state, const struct cts_request *request)
{
    if (CTS_LIKELY(request->version_major == 1 && request->version_minor == 1))
        return Py_NewRef(state->http_11);
    if (request->version_major == 1 && request->version_minor == 0)
        return Py_NewRef(state->http_10);
    return PyUnicode_FromFormat("HTTP/%d.%d", request->version_major, request->version_minor);
}

static PyObject *query_text(struct wsgi_state *state, struct cts_bytes query)
{
    return CTS_LIKELY(query.count == 0) ? Py_NewRef(state->empty_text) : latin1(query);
}

/* Percent-decoding never makes a path longer. */
static PyObject *decoded_path(struct cts_bytes path)
{
    char space[1024];
    char *to = path.count <= sizeof(space) ? space : PyMem_Malloc(path.count);
    if (to == NULL)
        return PyErr_NoMemory();
    size_t count = cts_http_percent_decode(path, to);
    PyObject *text = latin1((struct cts_bytes){to, count});
    if (to != space)
        PyMem_Free(to);
    return text;
}

static int put_path(struct wsgi_call *call, PyObject *wsgi_environ)
{
    struct wsgi_state *state = call->state;
    const struct cts_request *request = call->exchange->request;
    struct cts_bytes path = request->path;
    struct cts_bytes prefix = state->script_name_bytes;
    if (CTS_UNLIKELY(request->has_script_name)) {
        prefix = request->script_name;
        if (put_new(call, wsgi_environ, WSGI_KEY_SCRIPT_NAME, latin1(prefix)) < 0)
            return -1;
    }
    CTS_AUTO_REF PyObject *target = latin1(request->target);
    if (target == NULL || put(call, wsgi_environ, WSGI_KEY_RAW_URI, target) < 0)
        return -1;
    if (prefix.count > 0) {
        if (path.count < prefix.count || memcmp(path.at, prefix.at, prefix.count) != 0) {
            CTS_AUTO_REF PyObject *script_name = latin1(prefix);
            PyErr_Format(PyExc_ValueError, "Request path does not start with SCRIPT_NAME %R",
                         script_name);
            return -1;
        }
        path = (struct cts_bytes){path.at + prefix.count, path.count - prefix.count};
    }
    if (path.count > 0 && memchr(path.at, '%', path.count) != NULL)
        return put_new(call, wsgi_environ, WSGI_KEY_PATH_INFO, decoded_path(path));
    if (path.at == request->target.at && path.count == request->target.count)
        return put(call, wsgi_environ, WSGI_KEY_PATH_INFO, target);
    return put_new(call, wsgi_environ, WSGI_KEY_PATH_INFO, latin1(path));
}

static bool is_named(struct cts_bytes name, const char *lower, size_t count)
{
    return name.count == count && cts_bytes_equal_nocase(name, (struct cts_bytes){lower, count});
}

/* Two fields have keys without HTTP_; a Host beside an absolute target loses to it. */
static int put_header(struct wsgi_call *call, PyObject *wsgi_environ,
                      const struct cts_header *header)
{
    struct wsgi_state *state = call->state;
    if (CTS_UNLIKELY(header->name.count == 12 && is_named(header->name, "content-type", 12)))
        return put_new(call, wsgi_environ, WSGI_KEY_CONTENT_TYPE, latin1(header->value));
    if (CTS_UNLIKELY(header->name.count == 14 && is_named(header->name, "content-length", 14)))
        return put_new(call, wsgi_environ, WSGI_KEY_CONTENT_LENGTH, latin1(header->value));
    return names_put(state, wsgi_environ, header);
}

/* Does this field of a trusted proxy speak of the scheme? Two that contradict each other are a
 * way past whoever believes one of them: the request is refused. */
static int hear_scheme(struct wsgi_call *call, const struct cts_header *header)
{
    struct wsgi_state *state = call->state;
    for (size_t i = 0; i < state->secure_fields_count; i++) {
        const struct wsgi_secure_field *field = &state->secure_fields[i];
        if (!cts_bytes_equal_nocase(header->name,
                                    (struct cts_bytes){field->name, field->name_count}))
            continue;
        int said = 1 + cts_bytes_equal(header->value,
                                       (struct cts_bytes){field->value, field->value_count});
        if (call->scheme_said != 0 && call->scheme_said != said) {
            call->refusal = "scheme_headers";
            PyErr_SetString(PyExc_ValueError, "Contradictory scheme headers");
            return -1;
        }
        call->scheme_said = said;
    }
    return 0;
}

int environ_hear_scheme(struct wsgi_call *call)
{
    const struct cts_request *request = call->exchange->request;
    call->scheme_said = 0;
    for (uint32_t i = 0; i < request->headers_count && call->exchange->peer->is_trusted; i++)
        if (hear_scheme(call, &request->headers[i]) < 0)
            return -1;
    return 0;
}

static int put_headers(struct wsgi_call *call, PyObject *wsgi_environ)
{
    struct wsgi_state *state = call->state;
    const struct cts_request *request = call->exchange->request;
    uint64_t lengths = call->exchange->peer->is_trusted ? state->secure_lengths : 0;
    state->serial++;
    call->scheme_said = 0;
    for (uint32_t i = 0; i < request->headers_count; i++) {
        const struct cts_header *header = &request->headers[i];
        if (CTS_UNLIKELY(header->name.count < 64 && (lengths >> header->name.count & 1) != 0) &&
            hear_scheme(call, header) < 0)
            return -1;
        if (put_header(call, wsgi_environ, header) < 0)
            return -1;
    }
    if (CTS_UNLIKELY(call->scheme_said == 2) &&
        put(call, wsgi_environ, WSGI_KEY_URL_SCHEME, state->https) < 0)
        return -1;
    if (CTS_UNLIKELY(request->form == CTS_TARGET_ABSOLUTE && request->authority.count > 0))
        return put_new(call, wsgi_environ, WSGI_KEY_HOST, latin1(request->authority));
    return 0;
}

/* The server span as the parent of what the application starts. */
static int put_traceparent(struct wsgi_call *call, PyObject *wsgi_environ)
{
    const struct cts_trace_request *trace = call->exchange->trace;
    if (trace == NULL || !trace->is_recording)
        return 0;
    PyObject *text = PyUnicode_New(CTS_TRACEPARENT_BYTES, 127);
    if (text == NULL)
        return -1;
    cts_traceparent_write(trace->trace_id, trace->span_id, trace->flags,
                          (char *)PyUnicode_1BYTE_DATA(text));
    return put_new(call, wsgi_environ, WSGI_KEY_TRACEPARENT, text);
}

static int fill(struct wsgi_call *call, PyObject *wsgi_environ, bool has_fields)
{
    struct wsgi_state *state = call->state;
    const struct cts_request *request = call->exchange->request;
    if (put(call, wsgi_environ, WSGI_KEY_INPUT, (PyObject *)call->input) < 0 ||
        put(call, wsgi_environ, WSGI_KEY_SOCKET, (PyObject *)call->socket) < 0 ||
        put(call, wsgi_environ, WSGI_KEY_EARLY_HINTS, (PyObject *)call->early_hints) < 0 ||
        put_new(call, wsgi_environ, WSGI_KEY_METHOD, method_text(state, request->method)) < 0 ||
        put_new(call, wsgi_environ, WSGI_KEY_PROTOCOL, protocol_text(state, request)) < 0 ||
        put_path(call, wsgi_environ) < 0)
        return -1;
    if (put_new(call, wsgi_environ, WSGI_KEY_QUERY, query_text(state, request->query)) < 0)
        return -1;
    if ((!has_fields && put_headers(call, wsgi_environ) < 0) || put_peer(call, wsgi_environ) < 0)
        return -1;
    if (CTS_UNLIKELY(call->exchange->peer->proxy != NULL) && put_proxy(call, wsgi_environ) < 0)
        return -1;
    return put_traceparent(call, wsgi_environ);
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
    if (filled != NULL && is_current && put_headers(call, filled) == 0) {
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

/* The kept environ, or a copy of the template. Copying may run the garbage collector, and with it any code: should
 * another thread have renewed the template meanwhile, the copy is thrown away. */
static PyObject *copy_template(struct wsgi_call *call, struct wsgi_memo *memo,
                               struct cts_bytes block, bool *ret_has_fields)
{
    struct wsgi_state *state = call->state;
    bool is_trusted = call->exchange->peer->is_trusted;
    for (int tries = 0; tries < 8; tries++) {
        if (CTS_UNLIKELY(!template_fits(call)) &&
            (refresh_peer(state, call->exchange->peer) < 0 || renew_template(call) < 0))
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
    if (refresh_peer(call->state, call->exchange->peer) < 0 ||
        fill(call, wsgi_environ, has_fields) < 0) {
        Py_DECREF(wsgi_environ);
        return NULL;
    }
    if (has_fields && call->exchange->peer->proxy == NULL) {
        call->environ_version = version_of(wsgi_environ);
        call->environ_serial = memo->serial;
    }
    return wsgi_environ;
}
