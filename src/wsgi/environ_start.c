/* environ_start.c - what an environ is made of, once per process: keys, constants, and what the
 * settings and the environment of the process say about it. */
#include "call.h"

#include <stdlib.h>

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

static const char *const method_names[WSGI_METHODS_COUNT] = {
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE",
};

PyObject *latin1(struct cts_bytes bytes)
{
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, bytes.at, (Py_ssize_t)bytes.count);
}

int environ_set_constant(PyObject *constants, const char *key, PyObject *value)
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
    if (environ_set_constant(state->constants, "wsgi.errors", errors) < 0 ||
        environ_set_constant(state->constants, "wsgi.version", version) < 0 ||
        environ_set_constant(state->constants, "wsgi.run_once", Py_False) < 0 ||
        environ_set_constant(state->constants, "wsgi.file_wrapper",
                             (PyObject *)state->file_wrapper_type) < 0 ||
        environ_set_constant(state->constants, "wsgi.input_terminated", Py_True) < 0 ||
        environ_set_constant(state->constants, "wsgi.url_scheme", state->scheme) < 0 ||
        environ_set_constant(state->constants, "SERVER_SOFTWARE", software) < 0 ||
        environ_set_constant(state->constants, "SCRIPT_NAME", script_name) < 0)
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
    for (size_t i = 0; i < WSGI_METHODS_COUNT; i++)
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
    for (size_t i = 0; i < WSGI_METHODS_COUNT; i++)
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
