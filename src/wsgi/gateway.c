/* gateway.c - the table's four functions of this room: start, handle, stop, and the table.
 *
 * The state of the process hangs on one static pointer, because the table's `handle` is given
 * nothing but the exchange; it is made in `start` (after the fork) and let go in `stop`. */
#include "call.h"

#include "ctserve/log.h"
#include "ctserve/wsgi.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct wsgi_state *process_state;

/* -- start and stop -----------------------------------------------------------------------------
 */

static void state_free(struct wsgi_state *state)
{
    if (state == NULL)
        return;
    environ_stop(state);
    fields_stop(state);
    Py_CLEAR(state->status_text);
    Py_CLEAR(state->spare_start_response);
    Py_CLEAR(state->spare_write);
    Py_CLEAR(state->spare_early_hints);
    Py_CLEAR(state->spare_input);
    Py_CLEAR(state->spare_socket);
    cts_buffer_free(&state->spare_head);
    Py_CLEAR(state->pre_request);
    Py_CLEAR(state->post_request);
    Py_CLEAR(state->no_more_data);
    Py_CLEAR(state->parse_exception);
    Py_CLEAR(state->start_response_type);
    Py_CLEAR(state->write_type);
    Py_CLEAR(state->early_hints_type);
    Py_CLEAR(state->input_type);
    Py_CLEAR(state->socket_type);
    Py_CLEAR(state->errors_type);
    Py_CLEAR(state->file_wrapper_type);
    Py_CLEAR(state->request_type);
    Py_CLEAR(state->response_type);
    free(state);
}

static int make_types(struct wsgi_state *state)
{
    state->start_response_type = start_response_type_new();
    state->write_type = write_type_new();
    state->early_hints_type = early_hints_type_new();
    state->input_type = input_type_new();
    state->socket_type = socket_type_new();
    state->errors_type = errors_type_new();
    state->file_wrapper_type = file_wrapper_type_new();
    state->request_type = request_type_new();
    state->response_type = response_type_new();
    state->no_more_data = PyErr_NewExceptionWithDoc("ctserve.wsgi.NoMoreData",
                                                    "The client left before the body was whole.",
                                                    PyExc_OSError, NULL);
    state->parse_exception = PyErr_NewExceptionWithDoc(
        "ctserve.wsgi.ParseException", "The framing of the request body is invalid.", NULL, NULL);
    if (state->start_response_type == NULL || state->write_type == NULL ||
        state->early_hints_type == NULL ||
        state->input_type == NULL || state->socket_type == NULL || state->errors_type == NULL ||
        state->file_wrapper_type == NULL || state->request_type == NULL ||
        state->response_type == NULL || state->no_more_data == NULL ||
        state->parse_exception == NULL)
        return -1;
    return 0;
}

/* As in gunicorn None means yes; and so does True, unlike there. */
static bool sends_files(const struct cts_settings *settings)
{
    return settings == NULL ||
           settings->values[CTS_SETTING_sendfile].kind == CTS_VALUE_NONE ||
           cts_settings_bool(settings, CTS_SETTING_sendfile);
}

static int fill_state(struct wsgi_state *state)
{
    if (make_types(state) < 0 || environ_start(state) < 0)
        return -1;
    if (cts_py_settings() != NULL && access_start(&state->access, cts_py_settings()) < 0)
        return -1;
    state->sends_files = sends_files(cts_py_settings());
    state->pre_request = Py_XNewRef(cts_py_hook(CTS_SETTING_pre_request));
    state->post_request = Py_XNewRef(cts_py_hook(CTS_SETTING_post_request));
    if (state->post_request != NULL)
        state->post_request_arity = cts_py_hook_arity(CTS_SETTING_post_request);
    return 0;
}

static int start(void *worker, struct cts_error *error)
{
    struct wsgi_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return cts_error_set(error, CTS_EXIT_WORKER_BOOT, "no memory for the WSGI gateway");
    if (fill_state(state) < 0) {
        char message[256] = "";
        cts_py_log_exception("Cannot start the WSGI gateway", NULL, 0, message, sizeof(message));
        state_free(state);
        return cts_error_set(error, CTS_EXIT_WORKER_BOOT, "cannot start the WSGI gateway: %s",
                             message);
    }
    state_free(process_state);
    process_state = state;
    return 0;
}

static void stop(void)
{
    struct wsgi_state *state = process_state;
    process_state = NULL;
    state_free(state);
}

/* -- one request ----------------------------------------------------------------------------------
 */

static int call_application(struct wsgi_call *call)
{
    PyObject *app = cts_py_app();
    if (app == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "no application is loaded");
        return -1;
    }
    call->environ = environ_new(call);
    if (call->environ == NULL)
        return -1;
    PyObject *args[3] = {NULL, call->environ, (PyObject *)call->start_response};
    PyObject *result = PyObject_Vectorcall(app, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL)
        return -1;
    int r = iterate_result(call, result);
    Py_DECREF(result);
    return r;
}

static int serve(struct wsgi_call *call)
{
    if (objects_take(call) < 0)
        return -1;
    if (CTS_UNLIKELY(call->state->pre_request != NULL || call->state->post_request != NULL) &&
        hooks_pre_request(call) < 0)
        return -1;
    return call_application(call);
}

static void note_error(struct cts_exchange *exchange, const char *type, const char *message)
{
    snprintf(exchange->error_type, sizeof(exchange->error_type), "%s", type);
    snprintf(exchange->error_message, sizeof(exchange->error_message), "%s", message);
}

static void log_failure(struct wsgi_call *call)
{
    struct cts_exchange *exchange = call->exchange;
    char method[64], target[512], what[700];
    cts_bytes_escape(exchange->request->method, method, sizeof(method));
    cts_bytes_escape(exchange->request->target, target, sizeof(target));
    snprintf(what, sizeof(what), "Error handling request %s %s", method, target);
    cts_py_log_exception(what, exchange->error_type, sizeof(exchange->error_type),
                         exchange->error_message, sizeof(exchange->error_message));
}

/* The client is gone: what the application made of it is of no interest, unless it is new. */
static void drop_client(struct wsgi_call *call)
{
    if (PyErr_ExceptionMatches(PyExc_OSError))
        PyErr_Clear();
    else
        log_failure(call);
    if (call->exchange->error_type[0] == '\0')
        note_error(call->exchange, "ctserve.client_disconnect", "the client left");
    call->exchange->must_close = call->exchange->abort = true;
}

/* An exception is set: tell the log, the span and, as far as possible, the client. */
static void answer_failure(struct wsgi_call *call)
{
    struct cts_exchange *exchange = call->exchange;
    if (cts_py_take_system_exit(&exchange->exit_code)) {
        exchange->wants_exit = true;
        note_error(exchange, "SystemExit", "the application asked to exit");
        reply_fail(call, 500);
    } else if (call->refusal != NULL) {
        char type[64];
        PyErr_Clear();
        snprintf(type, sizeof(type), "http.parse.%s", call->refusal);
        note_error(exchange, type, "");
        exchange->is_refused = true;
        cts_warning("Invalid request from ip=%s: %s (400)", exchange->peer->remote_address,
                    call->refusal);
        reply_fail(call, 400);
    } else if (call->client_is_gone) {
        drop_client(call);
    } else if (call->framing_is_bad && PyErr_ExceptionMatches(call->state->parse_exception)) {
        /* The connection knows which rule was broken and answers, if no head is out. */
        PyErr_Clear();
        exchange->must_close = true;
        exchange->abort = call->is_committed && !call->is_finished;
    } else if (call->body_timed_out && PyErr_ExceptionMatches(PyExc_TimeoutError)) {
        PyErr_Clear();
        note_error(exchange, "ctserve.body_timeout", "the client stopped sending the body");
        reply_fail(call, 408);
    } else {
        log_failure(call);
        reply_fail(call, 500);
    }
}

/* A thread of the application may still be reading or writing, with the GIL given away. The
 * exchange must not go from under it. The connection's own time limits bound this; a thread that
 * never returns is a hung worker, which the master ends. */
static void wait_until_unused(struct wsgi_call *call)
{
    while (CTS_UNLIKELY(call->busy_count > 0)) {
        struct timespec pause = {0, 1000000};
        Py_BEGIN_ALLOW_THREADS nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
}

static void release(struct wsgi_call *call)
{
    if (call->framing_is_bad || call->body_timed_out)
        call->exchange->must_close = true;
    /* From here the application's copies of our objects say "too late". */
    if (call->start_response != NULL)
        call->start_response->call = NULL;
    if (call->write != NULL)
        call->write->call = NULL;
    if (call->early_hints != NULL)
        call->early_hints->call = NULL;
    if (call->input != NULL)
        call->input->call = NULL;
    wait_until_unused(call);
    Py_CLEAR(call->hook_request);
    Py_CLEAR(call->headers);
    environ_give(call);
    Py_CLEAR(call->status_text);
    objects_give(call);
}

static void handle(struct cts_exchange *exchange)
{
    struct wsgi_call call = {.state = process_state, .exchange = exchange, .content_length = -1};
    uint64_t begin_ns = CTS_UNLIKELY(exchange->access != NULL) ? cts_clock_mono_ns() : 0;
    if (CTS_UNLIKELY(call.state == NULL)) {
        note_error(exchange, "ctserve.not_started", "the WSGI gateway was not started");
        reply_fail(&call, 503);
        return;
    }
    if (CTS_UNLIKELY(serve(&call) < 0))
        answer_failure(&call);
    if (CTS_UNLIKELY(exchange->access != NULL))
        access_line(&call, begin_ns);
    if (CTS_UNLIKELY(call.hook_request != NULL))
        hooks_post_request(&call);
    release(&call);
    /* Letting go may have run a destructor that raised; it was reported, nothing may stay set. */
    if (CTS_UNLIKELY(PyErr_Occurred() != NULL))
        PyErr_Clear();
}

const struct cts_gateway *cts_wsgi_gateway(void)
{
    static struct cts_gateway gateway;
    if (gateway.handle == NULL) {
        cts_py_fill_gateway(&gateway);
        gateway.name = "wsgi";
        gateway.start = start;
        gateway.stop = stop;
        gateway.handle = handle;
        gateway.body_new = input_body_new;
        gateway.body_free = input_body_free;
    }
    return &gateway;
}
