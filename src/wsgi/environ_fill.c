/* environ_fill.c - what one request puts into its environ.
 *
 * Each key is set only when its value is not the one that the dict has already (`call->values`). */
#include "call.h"

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

int environ_refresh_peer(struct wsgi_state *state, const struct cts_peer *peer)
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
    for (size_t i = 0; i < WSGI_METHODS_COUNT; i++)
        if (method.count == (size_t)PyUnicode_GET_LENGTH(state->methods[i]) &&
            memcmp(method.at, PyUnicode_1BYTE_DATA(state->methods[i]), method.count) == 0)
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

int environ_put_headers(struct wsgi_call *call, PyObject *wsgi_environ)
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

int environ_fill(struct wsgi_call *call, PyObject *wsgi_environ, bool has_fields)
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
    if (!has_fields && environ_put_headers(call, wsgi_environ) < 0)
        return -1;
    if (put_peer(call, wsgi_environ) < 0)
        return -1;
    if (CTS_UNLIKELY(call->exchange->peer->proxy != NULL) && put_proxy(call, wsgi_environ) < 0)
        return -1;
    return put_traceparent(call, wsgi_environ);
}
