/* route.c - which route of the application answered, for the span: http.route of the semantic
 * conventions of OpenTelemetry. Flask and other werkzeug applications leave their request in the
 * environ, bottle its route. */
#include "call.h"

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

void route_take(struct wsgi_call *call)
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
