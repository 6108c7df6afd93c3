/* channel_http.c - OTLP/HTTP: protobuf bodies by libcurl's multi interface, driven by our loop. */
#include "channel.h"
#include "otlp.h"

#include <assert.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#define ANSWER_BYTES_MAX (64u << 10)

struct http_channel {
    struct channel channel;
    struct channel_plan plan;
    uint32_t timeout_ms;
    char *url;
    CURLM *multi;
    struct curl_slist *headers;
    struct ev_timer timer;
    struct cts_list calls;
};

struct call {
    struct cts_list link;
    struct http_channel *owner;
    CURL *easy;
    void *cookie;
    struct cts_buffer answer;
    int64_t retry_after_ms;
    char problem[CURL_ERROR_SIZE];
};

/* A descriptor that curl wants watched. */
struct watch {
    struct ev_io io;
    struct http_channel *owner;
};

int64_t channel_retry_after_ms(const char *value, int64_t now_s)
{
    while (*value == ' ' || *value == '\t')
        value++;
    if (*value >= '0' && *value <= '9') {
        char *end;
        unsigned long long seconds = strtoull(value, &end, 10);
        while (*end == ' ' || *end == '\r' || *end == '\n')
            end++;
        if (*end == '\0')
            return seconds > 86400 ? 86400000 : (int64_t)seconds * 1000;
        return -1;
    }
    time_t at = curl_getdate(value, NULL);
    if (at == (time_t)-1)
        return -1;
    int64_t seconds = (int64_t)at - now_s;
    if (seconds < 0)
        seconds = 0;
    return (seconds > 86400 ? 86400 : seconds) * 1000;
}

static void call_free(struct call *call)
{
    cts_list_take(&call->link);
    if (call->easy != NULL) {
        curl_multi_remove_handle(call->owner->multi, call->easy);
        curl_easy_cleanup(call->easy);
    }
    cts_buffer_free(&call->answer);
    free(call);
}

/* More than the bound is read and thrown away; the time limit ends a reply that never ends. */
static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    struct call *call = context;
    size_t taken = size * count;
    size_t room = ANSWER_BYTES_MAX - cts_buffer_count(&call->answer);
    if (cts_buffer_put(&call->answer, bytes, taken < room ? taken : room) < 0)
        return 0;
    return taken;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *context)
{
    static const char name[] = "retry-after:";
    struct call *call = context;
    size_t taken = size * count;
    char value[128];
    if (taken > sizeof(name) - 1 && taken < sizeof(value) &&
        cts_bytes_equal_nocase((struct cts_bytes){bytes, sizeof(name) - 1}, cts_bytes_of(name))) {
        size_t value_bytes = taken - (sizeof(name) - 1);
        memcpy(value, bytes + sizeof(name) - 1, value_bytes);
        while (value_bytes > 0 && (unsigned char)value[value_bytes - 1] <= ' ')
            value_bytes--;
        value[value_bytes] = '\0';
        call->retry_after_ms =
            channel_retry_after_ms(value, (int64_t)(cts_clock_real_ns() / 1000000000u));
    }
    return taken;
}

static struct outcome judge(struct call *call, CURLcode result)
{
    struct outcome outcome = {.retry_after_ms = call->retry_after_ms};
    struct cts_bytes answer = cts_buffer_view(&call->answer);
    long status = 0;
    if (result != CURLE_OK) {
        outcome.kind = OUTCOME_RETRY;
        cts_bytes_escape(cts_bytes_of(call->problem[0] != '\0' ? call->problem
                                                               : curl_easy_strerror(result)),
                         outcome.text, sizeof(outcome.text));
        return outcome;
    }
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 300) {
        struct otlp_answer said;
        outcome.is_nonsense = otlp_answer_decode(answer.at, answer.count, &said) < 0;
        outcome.rejected_count = said.rejected_count;
        snprintf(outcome.text, sizeof(outcome.text), "%s", said.message);
        return outcome;
    }
    if (status == 429 || status == 502 || status == 503 || status == 504)
        outcome.kind = OUTCOME_RETRY;
    else
        outcome.kind = status == 413 ? OUTCOME_TOO_LARGE : OUTCOME_REFUSED;
    snprintf(outcome.text, sizeof(outcome.text), "the collector answered %ld", status);
    return outcome;
}

static void collect_finished(struct http_channel *channel)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(channel->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        struct call *call;
        CURLcode result = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        struct outcome outcome = judge(call, result);
        void *cookie = call->cookie;
        call_free(call);
        channel->plan.done(channel->plan.context, cookie, &outcome);
    }
}

static void on_io(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct http_channel *channel = ((struct watch *)io)->owner;
    int running;
    int wanted = (events & EV_READ ? CURL_CSELECT_IN : 0) |
                 (events & EV_WRITE ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(channel->multi, io->fd, wanted, &running);
    collect_finished(channel);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct http_channel *channel = CTS_CONTAINER(timer, struct http_channel, timer);
    int running;
    curl_multi_socket_action(channel->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    collect_finished(channel);
}

static int set_timer(CURLM *multi, long timeout_ms, void *context)
{
    struct http_channel *channel = context;
    ev_timer_stop(channel->plan.loop, &channel->timer);
    if (timeout_ms >= 0) {
        ev_timer_set(&channel->timer, (double)timeout_ms / 1000.0, 0.0);
        ev_timer_start(channel->plan.loop, &channel->timer);
    }
    return 0;
}

static int set_watch(CURL *easy, curl_socket_t fd, int what, void *context, void *socket_context)
{
    struct http_channel *channel = context;
    struct watch *watch = socket_context;
    if (watch != NULL)
        ev_io_stop(channel->plan.loop, &watch->io);
    if (what == CURL_POLL_REMOVE) {
        free(watch);
        curl_multi_assign(channel->multi, fd, NULL);
        return 0;
    }
    if (watch == NULL) {
        watch = calloc(1, sizeof(*watch));
        if (watch == NULL)
            return -1;
        watch->owner = channel;
        curl_multi_assign(channel->multi, fd, watch);
    }
    int events = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);
    ev_io_init(&watch->io, on_io, fd, events);
    ev_io_start(channel->plan.loop, &watch->io);
    return 0;
}

static void http_send(struct channel *base, const void *body, size_t body_bytes, void *cookie)
{
    struct http_channel *channel = CTS_CONTAINER(base, struct http_channel, channel);
    struct call *call = calloc(1, sizeof(*call));
    if (call != NULL) {
        cts_list_init(&call->link);
        call->owner = channel;
        call->cookie = cookie;
        call->retry_after_ms = -1;
        call->easy = curl_easy_init();
    }
    if (call == NULL || call->easy == NULL) {
        free(call);
        struct outcome outcome = {.kind = OUTCOME_RETRY, .retry_after_ms = -1,
                                  .text = "out of memory"};
        channel->plan.done(channel->plan.context, cookie, &outcome);
        return;
    }
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_URL, channel->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->problem);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)channel->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_bytes);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, channel->headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
    cts_list_put_last(&channel->calls, &call->link);
    curl_multi_add_handle(channel->multi, easy);
}

static void http_free(struct channel *base)
{
    struct http_channel *channel = CTS_CONTAINER(base, struct http_channel, channel);
    CTS_LIST_EACH(&channel->calls, link) {
        call_free(CTS_CONTAINER(link, struct call, link));
    }
    ev_timer_stop(channel->plan.loop, &channel->timer);
    if (channel->multi != NULL)
        curl_multi_cleanup(channel->multi);
    curl_slist_free_all(channel->headers);
    free(channel->url);
    free(channel);
}

static bool add_header(struct http_channel *channel, const char *line)
{
    struct curl_slist *longer = curl_slist_append(channel->headers, line);
    if (longer != NULL)
        channel->headers = longer;
    return longer != NULL;
}

static bool add_headers(struct http_channel *channel, const struct env_plan *env)
{
    bool fine = add_header(channel, "Content-Type: application/x-protobuf") &&
                add_header(channel, "Expect:") &&
                add_header(channel, "User-Agent: ctserve/" CTS_VERSION
                                    " OTel-OTLP-Exporter-C/" CTS_VERSION);
    for (size_t i = 0; fine && i < env->headers_count; i++) {
        char line[4096];
        snprintf(line, sizeof(line), "%s: %s", env->headers[i].name, env->headers[i].value);
        fine = add_header(channel, line);
    }
    return fine;
}

struct channel *channel_http_new(const struct channel_plan *plan)
{
    struct http_channel *channel = calloc(1, sizeof(*channel));
    if (channel == NULL)
        return NULL;
    channel->channel = (struct channel){http_send, http_free};
    channel->plan = *plan;
    channel->timeout_ms = plan->env->timeout_ms;
    cts_list_init(&channel->calls);
    ev_timer_init(&channel->timer, on_timer, 0.0, 0.0);
    channel->url = strdup(plan->env->url);
    channel->multi = curl_multi_init();
    if (channel->url == NULL || channel->multi == NULL || !add_headers(channel, plan->env)) {
        http_free(&channel->channel);
        return NULL;
    }
    curl_multi_setopt(channel->multi, CURLMOPT_SOCKETFUNCTION, set_watch);
    curl_multi_setopt(channel->multi, CURLMOPT_SOCKETDATA, channel);
    curl_multi_setopt(channel->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(channel->multi, CURLMOPT_TIMERDATA, channel);
    return &channel->channel;
}
