/* hooks.c - pre_request and post_request, and the request and response objects they see.
 *
 * Nothing here runs unless the user set one of the two hooks. Both objects carry gunicorn's
 * attributes in an ordinary __dict__, so a hook may add its own. */
#include "call.h"

#include "ctserve/log.h"

#include <stddef.h>
#include <structmember.h>

struct bag {
    PyObject_HEAD PyObject *dict;
};

static int bag_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct bag *)self)->dict);
    return 0;
}

static int bag_clear(PyObject *self)
{
    Py_CLEAR(((struct bag *)self)->dict);
    return 0;
}

static void bag_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)bag_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef bag_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(struct bag, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef bag_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *bag_force_close(PyObject *self, PyObject *Py_UNUSED(none))
{
    if (PyObject_SetAttrString(self, "must_close", Py_True) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Is the attribute true? 0 also when it is not there. */
static int is_set(PyObject *bag, const char *name)
{
    CTS_AUTO_REF PyObject *value = PyObject_GetAttrString(bag, name);
    if (value == NULL) {
        PyErr_Clear();
        return 0;
    }
    return PyObject_IsTrue(value);
}

static PyObject *bag_should_close(PyObject *self, PyObject *Py_UNUSED(none))
{
    int must = is_set(self, "must_close");
    if (must == 0)
        must = is_set(self, "_closes");
    return must < 0 ? NULL : PyBool_FromLong(must);
}

static PyMethodDef bag_methods[] = {
    {"force_close", bag_force_close, METH_NOARGS,
     "force_close() -> None\n\nClose the connection after this reply."},
    {"should_close", bag_should_close, METH_NOARGS,
     "should_close() -> bool\n\nWill the connection be closed after this reply?"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_doc, "What pre_request and post_request see of a request."},
    {Py_tp_dealloc, bag_dealloc},
    {Py_tp_traverse, bag_traverse},
    {Py_tp_clear, bag_clear},
    {Py_tp_members, bag_members},
    {Py_tp_getset, bag_getset},
    {Py_tp_methods, bag_methods},
    {0, NULL},
};

static PyType_Slot response_slots[] = {
    {Py_tp_doc, "What post_request sees of a reply."},
    {Py_tp_dealloc, bag_dealloc},
    {Py_tp_traverse, bag_traverse},
    {Py_tp_clear, bag_clear},
    {Py_tp_members, bag_members},
    {Py_tp_getset, bag_getset},
    {Py_tp_methods, bag_methods},
    {0, NULL},
};

static PyType_Spec request_spec = {
    .name = "ctserve.wsgi.Request",
    .basicsize = sizeof(struct bag),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = request_slots,
};

static PyType_Spec response_spec = {
    .name = "ctserve.wsgi.Response",
    .basicsize = sizeof(struct bag),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = response_slots,
};

PyTypeObject *request_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&request_spec);
}

PyTypeObject *response_type_new(void)
{
    return (PyTypeObject *)PyType_FromSpec(&response_spec);
}

/* -- filling -------------------------------------------------------------------------------------
 */

/* Set an attribute and let the value go; NULL is an exception already set. */
static int set_new(PyObject *bag, const char *name, PyObject *value)
{
    if (value == NULL)
        return -1;
    int r = PyObject_SetAttrString(bag, name, value);
    Py_DECREF(value);
    return r;
}

/* ("HOST", "localhost") to the end of `list`. */
static int append_field(PyObject *list, const struct cts_header *field)
{
    CTS_AUTO_REF PyObject *raw = latin1(field->name);
    CTS_AUTO_REF PyObject *name = raw == NULL ? NULL : PyObject_CallMethod(raw, "upper", NULL);
    CTS_AUTO_REF PyObject *value = latin1(field->value);
    if (name == NULL || value == NULL)
        return -1;
    CTS_AUTO_REF PyObject *pair = PyTuple_Pack(2, name, value);
    return pair == NULL ? -1 : PyList_Append(list, pair);
}

/* The fields of the head, in the order of the wire. */
static PyObject *header_list(const struct cts_request *request)
{
    CTS_AUTO_REF PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    for (uint32_t i = 0; i < request->headers_count; i++) {
        if (append_field(list, &request->headers[i]) < 0)
            return NULL;
    }
    return CTS_GIVE(list);
}

/* The fields behind a chunked body that has come to its end, as request.trailers. Without any the
 * attribute stays what it was. */
static int show_trailers(struct wsgi_call *call)
{
    const struct cts_exchange *exchange = call->exchange;
    struct cts_bytes section = exchange->ops->trailers(exchange);
    struct cts_header field;
    if (section.count == 0)
        return 0;
    CTS_AUTO_REF PyObject *list = PyList_New(0);
    if (list == NULL)
        return -1;
    while (cts_trailer_next(&section, &field)) {
        if (append_field(list, &field) < 0)
            return -1;
    }
    return PyObject_SetAttrString(call->hook_request, "trailers", list);
}

static PyObject *peer_object(const struct cts_peer *peer)
{
    if (peer->is_unix)
        return PyUnicode_FromString("");
    return Py_BuildValue("(si)", peer->remote_address, (int)peer->remote_port);
}

/* gunicorn's proxy_protocol_info, or None. */
static PyObject *proxy_info(const struct cts_proxy *proxy)
{
    if (proxy == NULL)
        Py_RETURN_NONE;
    if (proxy->client_address[0] == '\0')
        return Py_BuildValue("{sssOsOsOsO}", "proxy_protocol", proxy->protocol, "client_addr",
                             Py_None, "client_port", Py_None, "proxy_addr", Py_None, "proxy_port",
                             Py_None);
    return Py_BuildValue("{sssssisssi}", "proxy_protocol", proxy->protocol, "client_addr",
                         proxy->client_address, "client_port", (int)proxy->client_port,
                         "proxy_addr", proxy->proxy_address, "proxy_port", (int)proxy->proxy_port);
}

static PyObject *request_new(struct wsgi_call *call)
{
    const struct cts_request *request = call->exchange->request;
    CTS_AUTO_REF PyObject *bag = PyObject_CallNoArgs((PyObject *)call->state->request_type);
    if (bag == NULL)
        return NULL;
    if (set_new(bag, "method", latin1(request->method)) < 0 ||
        set_new(bag, "uri", latin1(request->target)) < 0 ||
        set_new(bag, "path", latin1(request->path)) < 0 ||
        set_new(bag, "query", latin1(request->query)) < 0 ||
        set_new(bag, "fragment", latin1(request->fragment)) < 0 ||
        set_new(bag, "headers", header_list(request)) < 0 ||
        set_new(bag, "trailers", PyList_New(0)) < 0 ||
        set_new(bag, "version",
                Py_BuildValue("(ii)", request->version_major, request->version_minor)) < 0 ||
        set_new(bag, "scheme", PyUnicode_FromString(call->scheme_said == 2 ? "https" : "http")) < 0 ||
        set_new(bag, "body", Py_NewRef((PyObject *)call->input)) < 0 ||
        set_new(bag, "peer_addr", peer_object(call->exchange->peer)) < 0 ||
        set_new(bag, "remote_addr", peer_object(call->exchange->peer)) < 0 ||
        set_new(bag, "req_number", PyLong_FromLong(1)) < 0 ||
        set_new(bag, "proxy_protocol_info", proxy_info(call->exchange->peer->proxy)) < 0 ||
        set_new(bag, "must_close", PyBool_FromLong(0)) < 0 ||
        set_new(bag, "_closes", PyBool_FromLong(!request->keep_alive)) < 0)
        return NULL;
    return CTS_GIVE(bag);
}

static PyObject *response_new(struct wsgi_call *call)
{
    CTS_AUTO_REF PyObject *bag = PyObject_CallNoArgs((PyObject *)call->state->response_type);
    if (bag == NULL)
        return NULL;
    PyObject *status = call->status_text != NULL ? call->status_text : Py_None;
    if (set_new(bag, "status", Py_NewRef(status)) < 0 ||
        set_new(bag, "status_code",
                call->status_text ? PyLong_FromLong(call->status) : Py_NewRef(Py_None)) < 0 ||
        set_new(bag, "headers", call->headers ? Py_NewRef(call->headers) : PyList_New(0)) < 0 ||
        set_new(bag, "headers_sent",
                PyBool_FromLong(call->is_committed && call->status_text != NULL)) < 0 ||
        set_new(bag, "sent", PyLong_FromUnsignedLongLong(call->sent_bytes)) < 0 ||
        set_new(bag, "response_length",
                call->content_length >= 0 ? PyLong_FromLongLong(call->content_length)
                                          : Py_NewRef(Py_None)) < 0 ||
        set_new(bag, "chunked", PyBool_FromLong(call->is_chunked)) < 0 ||
        set_new(bag, "upgrade", PyBool_FromLong(call->is_upgrade)) < 0 ||
        set_new(bag, "must_close", PyBool_FromLong(call->exchange->must_close)) < 0 ||
        set_new(bag, "version", PyUnicode_FromString("ctserve")) < 0 ||
        set_new(bag, "req", Py_NewRef(call->hook_request)) < 0)
        return NULL;
    return CTS_GIVE(bag);
}

/* -- calling
 * --------------------------------------------------------------------------------------- */

static PyObject *worker_or_none(void)
{
    PyObject *worker = cts_py_worker();
    return worker != NULL ? worker : Py_None;
}

int hooks_pre_request(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    if (state->post_request != NULL && (call->headers = PyList_New(0)) == NULL)
        return -1;
    if (environ_hear_scheme(call) < 0)
        return -1;
    call->hook_request = request_new(call);
    if (call->hook_request == NULL)
        return -1;
    if (state->pre_request != NULL) {
        CTS_AUTO_REF PyObject *returned = PyObject_CallFunctionObjArgs(
            state->pre_request, worker_or_none(), call->hook_request, NULL);
        if (returned == NULL)
            return -1;
    }
    int must_close = is_set(call->hook_request, "must_close");
    if (must_close < 0)
        return -1;
    call->forces_close = must_close > 0;
    return 0;
}

/* Called whatever happened; an exception of the hook is logged, not more. */
void hooks_post_request(struct wsgi_call *call)
{
    struct wsgi_state *state = call->state;
    if (state->post_request == NULL || call->hook_request == NULL)
        return;
    CTS_AUTO_REF PyObject *wsgi_environ =
        call->environ != NULL ? Py_NewRef(call->environ) : PyDict_New();
    CTS_AUTO_REF PyObject *response =
        call->environ != NULL ? response_new(call) : Py_NewRef(Py_None);
    CTS_AUTO_REF PyObject *returned = NULL;
    if (wsgi_environ != NULL && response != NULL && show_trailers(call) == 0) {
        PyObject *args[4] = {worker_or_none(), call->hook_request, wsgi_environ, response};
        int count = state->post_request_arity;
        count = count < 2 ? 2 : count > 4 ? 4 : count;
        returned = PyObject_Vectorcall(state->post_request, args, (size_t)count, NULL);
    }
    if (returned == NULL)
        cts_py_log_exception("Exception in post_request hook", NULL, 0, NULL, 0);
}
