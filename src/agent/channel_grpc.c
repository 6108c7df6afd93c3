/* channel_grpc.c - OTLP/gRPC by gRPC's C core.
 *
 * gRPC brings threads of its own; the only one of ours waits on the completion queue and wakes the
 * loop. It touches nothing but the list of finished calls, under its lock. */
#include "channel.h"
#include "otlp.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define METHOD "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
#define ANSWER_BYTES_MAX (4 << 20)

struct call {
    struct cts_list link;
    struct grpc_channel_of *owner;
    grpc_call *call;
    void *cookie;
    grpc_byte_buffer *request, *answer;
    grpc_metadata_array head_fields, trailer_fields;
    grpc_status_code status;
    grpc_slice detail;
    const char *problem;
    bool is_finished;              /* under the lock */
};

struct grpc_channel_of {
    struct channel channel;
    struct channel_plan plan;
    uint32_t timeout_ms;
    grpc_channel *core;
    grpc_completion_queue *queue;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    struct cts_list calls;         /* the loop's */
    struct ev_async wake;
    grpc_metadata fields[ENV_HEADERS_COUNT_MAX];
    size_t fields_count;
};

static void *wait_for_calls(void *context)
{
    struct grpc_channel_of *channel = context;
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(channel->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type != GRPC_OP_COMPLETE)
            continue;
        struct call *call = event.tag;
        pthread_mutex_lock(&channel->lock);
        call->is_finished = true;
        pthread_mutex_unlock(&channel->lock);
        ev_async_send(channel->plan.loop, &channel->wake);
    }
}

static void call_free(struct call *call)
{
    cts_list_take(&call->link);
    if (call->request != NULL)
        grpc_byte_buffer_destroy(call->request);
    if (call->answer != NULL)
        grpc_byte_buffer_destroy(call->answer);
    grpc_metadata_array_destroy(&call->head_fields);
    grpc_metadata_array_destroy(&call->trailer_fields);
    grpc_slice_unref(call->detail);
    gpr_free((void *)call->problem);
    if (call->call != NULL)
        grpc_call_unref(call->call);
    free(call);
}

/* OTLP's table. RESOURCE_EXHAUSTED is retried only when a RetryInfo asks for it. */
static bool is_retryable(grpc_status_code status, bool has_retry_info)
{
    switch (status) {
    case GRPC_STATUS_CANCELLED:
    case GRPC_STATUS_DEADLINE_EXCEEDED:
    case GRPC_STATUS_ABORTED:
    case GRPC_STATUS_OUT_OF_RANGE:
    case GRPC_STATUS_UNAVAILABLE:
    case GRPC_STATUS_DATA_LOSS:
        return true;
    case GRPC_STATUS_RESOURCE_EXHAUSTED:
        return has_retry_info;
    default:
        return false;
    }
}

/* Servers have no code of their own for 'your message is too large'; these are the words of the
 * implementations in C, Go and Java. */
static bool says_too_large(const char *text)
{
    return strstr(text, "larger than max") != NULL || strstr(text, "exceeds maximum size") != NULL;
}

static int64_t retry_info_of(const grpc_metadata_array *fields)
{
    for (size_t i = 0; i < fields->count; i++) {
        if (grpc_slice_str_cmp(fields->metadata[i].key, "grpc-status-details-bin") == 0)
            return otlp_retry_delay_ms(GRPC_SLICE_START_PTR(fields->metadata[i].value),
                                       GRPC_SLICE_LENGTH(fields->metadata[i].value));
    }
    return -1;
}

static void read_answer(struct call *call, struct outcome *outcome)
{
    struct otlp_answer said;
    grpc_byte_buffer_reader reader;
    outcome->is_nonsense = true;
    if (call->answer == NULL || !grpc_byte_buffer_reader_init(&reader, call->answer))
        return;
    grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
    outcome->is_nonsense = otlp_answer_decode(GRPC_SLICE_START_PTR(bytes),
                                              GRPC_SLICE_LENGTH(bytes), &said) < 0;
    outcome->rejected_count = said.rejected_count;
    snprintf(outcome->text, sizeof(outcome->text), "%s", said.message);
    grpc_slice_unref(bytes);
    grpc_byte_buffer_reader_destroy(&reader);
}

static struct outcome judge(struct call *call)
{
    struct outcome outcome = {.kind = OUTCOME_DELIVERED, .retry_after_ms = -1};
    if (call->status == GRPC_STATUS_OK) {
        read_answer(call, &outcome);
        return outcome;
    }
    char text[200];
    cts_bytes_escape((struct cts_bytes){(const char *)GRPC_SLICE_START_PTR(call->detail),
                                        GRPC_SLICE_LENGTH(call->detail)}, text, sizeof(text));
    outcome.retry_after_ms = retry_info_of(&call->trailer_fields);
    if (is_retryable(call->status, outcome.retry_after_ms >= 0))
        outcome.kind = OUTCOME_RETRY;
    else if (call->status == GRPC_STATUS_RESOURCE_EXHAUSTED && says_too_large(text))
        outcome.kind = OUTCOME_TOO_LARGE;
    else
        outcome.kind = OUTCOME_REFUSED;
    snprintf(outcome.text, sizeof(outcome.text), "gRPC status %d: %s", (int)call->status, text);
    return outcome;
}

static void on_wake(struct ev_loop *loop, struct ev_async *async, int events)
{
    struct grpc_channel_of *channel = CTS_CONTAINER(async, struct grpc_channel_of, wake);
    CTS_LIST_EACH(&channel->calls, link) {
        struct call *call = CTS_CONTAINER(link, struct call, link);
        pthread_mutex_lock(&channel->lock);
        bool is_finished = call->is_finished;
        pthread_mutex_unlock(&channel->lock);
        if (!is_finished)
            continue;
        struct outcome outcome = judge(call);
        void *cookie = call->cookie;
        call_free(call);
        channel->plan.done(channel->plan.context, cookie, &outcome);
        /* done may have started new calls, which stand behind, or changed the next link. */
        link_next = channel->calls.next;
    }
}

static grpc_call_error start(struct call *call)
{
    struct grpc_channel_of *channel = call->owner;
    grpc_op ops[6];
    memset(ops, 0, sizeof(ops));
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[0].data.send_initial_metadata.count = channel->fields_count;
    ops[0].data.send_initial_metadata.metadata = channel->fields;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = call->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->head_fields;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &call->answer;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &call->trailer_fields;
    ops[5].data.recv_status_on_client.status = &call->status;
    ops[5].data.recv_status_on_client.status_details = &call->detail;
    ops[5].data.recv_status_on_client.error_string = &call->problem;
    return grpc_call_start_batch(call->call, ops, 6, call, NULL);
}

static void grpc_send(struct channel *base, const void *body, size_t body_bytes, void *cookie)
{
    struct grpc_channel_of *channel = CTS_CONTAINER(base, struct grpc_channel_of, channel);
    struct call *call = calloc(1, sizeof(*call));
    if (call == NULL)
        goto failed;
    cts_list_init(&call->link);
    call->owner = channel;
    call->cookie = cookie;
    call->detail = grpc_empty_slice();
    grpc_metadata_array_init(&call->head_fields);
    grpc_metadata_array_init(&call->trailer_fields);
    grpc_slice slice = grpc_slice_from_copied_buffer(body, body_bytes);
    call->request = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                     gpr_time_from_millis((int64_t)channel->timeout_ms, GPR_TIMESPAN));
    call->call = grpc_channel_create_call(channel->core, NULL, GRPC_PROPAGATE_DEFAULTS,
                                          channel->queue, grpc_slice_from_static_string(METHOD),
                                          NULL, deadline, NULL);
    cts_list_put_last(&channel->calls, &call->link);
    /* The other thread gets the call through gRPC; the lock says so to tools that cannot look
     * into it. */
    pthread_mutex_lock(&channel->lock);
    call->is_finished = false;
    pthread_mutex_unlock(&channel->lock);
    if (call->call != NULL && start(call) == GRPC_CALL_OK)
        return;
    call_free(call);
failed:;
    struct outcome outcome = {.kind = OUTCOME_RETRY, .retry_after_ms = -1,
                              .text = "the call could not be started"};
    channel->plan.done(channel->plan.context, cookie, &outcome);
}

/* Every call that still flies is cancelled and waited for: the thread ends when the queue is
 * empty, and gRPC cancels at once. */
static void grpc_free(struct channel *base)
{
    struct grpc_channel_of *channel = CTS_CONTAINER(base, struct grpc_channel_of, channel);
    CTS_LIST_EACH(&channel->calls, link) {
        grpc_call_cancel(CTS_CONTAINER(link, struct call, link)->call, NULL);
    }
    if (channel->queue != NULL)
        grpc_completion_queue_shutdown(channel->queue);
    if (channel->has_thread)
        pthread_join(channel->thread, NULL);
    CTS_LIST_EACH(&channel->calls, other) {
        call_free(CTS_CONTAINER(other, struct call, link));
    }
    ev_async_stop(channel->plan.loop, &channel->wake);
    if (channel->core != NULL)
        grpc_channel_destroy(channel->core);
    if (channel->queue != NULL)
        grpc_completion_queue_destroy(channel->queue);
    for (size_t i = 0; i < channel->fields_count; i++) {
        grpc_slice_unref(channel->fields[i].key);
        grpc_slice_unref(channel->fields[i].value);
    }
    pthread_mutex_destroy(&channel->lock);
    free(channel);
    grpc_shutdown();
}

/* Names of metadata are lower case on the wire; one that gRPC does not like is left out. */
static void add_fields(struct grpc_channel_of *channel, const struct env_plan *env)
{
    for (size_t i = 0; i < env->headers_count; i++) {
        char name[256];
        size_t length = strlen(env->headers[i].name);
        if (length >= sizeof(name))
            continue;
        for (size_t k = 0; k <= length; k++) {
            char c = env->headers[i].name[k];
            name[k] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
        grpc_slice key = grpc_slice_from_copied_string(name);
        grpc_slice value = grpc_slice_from_copied_string(env->headers[i].value);
        if (!grpc_header_key_is_legal(key) || !grpc_header_nonbin_value_is_legal(value)) {
            grpc_slice_unref(key);
            grpc_slice_unref(value);
            continue;
        }
        channel->fields[channel->fields_count++] = (grpc_metadata){.key = key, .value = value};
    }
}

static grpc_channel *core_new(const struct env_plan *env)
{
    char agent[] = "ctserve/" CTS_VERSION " OTel-OTLP-Exporter-C/" CTS_VERSION;
    char names[5][48] = {"grpc.primary_user_agent", "grpc.initial_reconnect_backoff_ms",
                         "grpc.min_reconnect_backoff_ms", "grpc.max_reconnect_backoff_ms",
                         "grpc.max_receive_message_length"};
    /* When to try again is decided by the exporter: gRPC itself shall not wait longer. */
    grpc_arg args[] = {
        {.type = GRPC_ARG_STRING, .key = names[0], .value.string = agent},
        {.type = GRPC_ARG_INTEGER, .key = names[1], .value.integer = 200},
        {.type = GRPC_ARG_INTEGER, .key = names[2], .value.integer = 5000},
        {.type = GRPC_ARG_INTEGER, .key = names[3], .value.integer = 500},
        {.type = GRPC_ARG_INTEGER, .key = names[4], .value.integer = ANSWER_BYTES_MAX},
    };
    grpc_channel_args list = {CTS_COUNT(args), args};
    grpc_channel_credentials *credentials =
        env->use_tls ? grpc_ssl_credentials_create(NULL, NULL, NULL, NULL)
                     : grpc_insecure_credentials_create();
    if (credentials == NULL)
        return NULL;
    grpc_channel *core = grpc_channel_create(env->target, credentials, &list);
    grpc_channel_credentials_release(credentials);
    return core;
}

/* Signals belong to the loop's thread. */
static bool start_thread(struct grpc_channel_of *channel)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    channel->has_thread = pthread_create(&channel->thread, NULL, wait_for_calls, channel) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return channel->has_thread;
}

struct channel *channel_grpc_new(const struct channel_plan *plan)
{
    struct grpc_channel_of *channel = calloc(1, sizeof(*channel));
    if (channel == NULL)
        return NULL;
    grpc_init();
    channel->channel = (struct channel){grpc_send, grpc_free};
    channel->plan = *plan;
    channel->timeout_ms = plan->env->timeout_ms;
    pthread_mutex_init(&channel->lock, NULL);
    cts_list_init(&channel->calls);
    ev_async_init(&channel->wake, on_wake);
    ev_async_start(plan->loop, &channel->wake);
    channel->core = core_new(plan->env);
    channel->queue = grpc_completion_queue_create_for_next(NULL);
    add_fields(channel, plan->env);
    if (channel->core == NULL || channel->queue == NULL || !start_thread(channel)) {
        grpc_free(&channel->channel);
        return NULL;
    }
    return &channel->channel;
}
