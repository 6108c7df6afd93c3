/* call_objects.c - the five objects of a call that an application sees: taken when it begins, given
 * back when it ends. One of each is kept for the next request, unless the application kept it. */
#include "call.h"

static struct wsgi_start_response *take_start_response(struct wsgi_state *state)
{
    struct wsgi_start_response *made = state->spare_start_response;
    state->spare_start_response = NULL;
    return CTS_LIKELY(made != NULL) ? made : start_response_new(state);
}

static struct wsgi_write *take_write(struct wsgi_state *state)
{
    struct wsgi_write *made = state->spare_write;
    state->spare_write = NULL;
    return CTS_LIKELY(made != NULL) ? made : write_new(state);
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
