/* api.c - listening, reading one request, answering it. */
#include "api.h"

#include "ctserve/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES_MAX 16384u
#define RETRY_SECONDS 1.0

struct api {
    struct api_plan plan;
    struct ev_loop *loop;
    struct ev_io listener;           /* fd -1 while there is none */
    struct ev_timer retry;
    char host[64];                   /* "127.0.0.1" or "::1" */
    int wanted_port, port;
    bool is_auto;
    char token[128];
    struct cts_list connections;
    size_t connections_count;
};

struct connection {
    struct cts_list link;
    struct api *api;
    struct ev_io io;
    struct ev_timer deadline;
    struct cts_head_parser parser;
    struct cts_buffer in, out;
};

static const struct cts_http_rules rules = {
    .line_bytes_max = 4094, .fields_count_max = 64, .field_bytes_max = 8190,
    .head_bytes_max = HEAD_BYTES_MAX,
};

/* -- one connection --------------------------------------------------------------------------- */
static void connection_free(struct connection *connection)
{
    struct api *api = connection->api;
    ev_io_stop(api->loop, &connection->io);
    ev_timer_stop(api->loop, &connection->deadline);
    close(connection->io.fd);
    cts_head_parser_done(&connection->parser);
    cts_buffer_free(&connection->in);
    cts_buffer_free(&connection->out);
    cts_list_take(&connection->link);
    api->connections_count--;
    free(connection);
}

/* Every byte is compared, whatever came before it. */
static bool token_equals(struct cts_bytes given, const char *token)
{
    size_t count = strlen(token);
    unsigned char difference = given.count == count ? 0 : 1;
    for (size_t i = 0; i < count; i++)
        difference |= (unsigned char)(token[i] ^ (i < given.count ? given.at[i] : 0));
    return difference == 0;
}

static bool has_token(const struct api *api, const struct cts_request *request)
{
    static const char scheme[] = "bearer ";
    char value[sizeof(api->token)];
    const struct cts_header *field = cts_request_header(request, "authorization");
    if (field != NULL && field->value.count > sizeof(scheme) - 1 &&
        cts_bytes_equal_nocase((struct cts_bytes){field->value.at, sizeof(scheme) - 1},
                               cts_bytes_of(scheme)))
        return token_equals((struct cts_bytes){field->value.at + sizeof(scheme) - 1,
                                               field->value.count - (sizeof(scheme) - 1)},
                            api->token);
    return api_query_value(request->query, "t", value, sizeof(value)) &&
           token_equals(cts_bytes_of(value), api->token);
}

/* localhost, 127.0.0.1, [::1] and the address served, with any port: against names that were made
 * to point here. */
static bool host_is_allowed(const struct api *api, struct cts_bytes host)
{
    const char *const allowed[] = {"localhost", "127.0.0.1", "[::1]", api->host};
    for (size_t i = 0; i < CTS_COUNT(allowed); i++) {
        size_t count = strlen(allowed[i]);
        if (host.count >= count &&
            cts_bytes_equal_nocase((struct cts_bytes){host.at, count}, cts_bytes_of(allowed[i])) &&
            (host.count == count || host.at[count] == ':'))
            return true;
    }
    return false;
}

static int answer_error(struct cts_buffer *body, int status, const char *sentence)
{
    struct cts_json json;
    cts_json_init(&json, body);
    cts_json_object_open(&json);
    cts_json_key(&json, "error");
    cts_json_text(&json, cts_bytes_of(sentence));
    cts_json_object_close(&json);
    return json.failed ? 500 : status;
}

static int answer(struct api *api, const struct cts_request *request, struct cts_buffer *body)
{
    if (!host_is_allowed(api, request->host))
        return answer_error(body, 403, "This Host is not served here.");
    if (!has_token(api, request))
        return answer_error(body, 401, "The token is missing or wrong.");
    if (!cts_bytes_equal(request->method, cts_bytes_of("GET")))
        return answer_error(body, 405, "Only GET.");
    return api_answer(api->plan.agent, request->path, request->query, body);
}

static void on_writable(struct connection *connection)
{
    while (cts_buffer_count(&connection->out) > 0) {
        struct cts_bytes left = cts_buffer_view(&connection->out);
        ssize_t sent = send(connection->io.fd, left.at, left.count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (sent <= 0)
            break;
        cts_buffer_drop(&connection->out, (size_t)sent);
    }
    shutdown(connection->io.fd, SHUT_WR);
    connection_free(connection);
}

static void reply(struct connection *connection, int status, struct cts_buffer *body)
{
    struct api *api = connection->api;
    int r = cts_buffer_printf(&connection->out,
                              "HTTP/1.1 %d %s\r\nDate: %.29s\r\nConnection: close\r\n"
                              "Content-Type: application/json\r\nContent-Length: %zu\r\n"
                              "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                              "%s\r\n", status, cts_http_reason(status), cts_http_date(),
                              cts_buffer_count(body),
                              status == 401 ? "WWW-Authenticate: Bearer\r\n"
                                            : status == 405 ? "Allow: GET\r\n" : "");
    if (r == 0 && cts_buffer_count(body) > 0)
        r = cts_buffer_put(&connection->out, cts_buffer_view(body).at, cts_buffer_count(body));
    if (r < 0) {
        connection_free(connection);
        return;
    }
    ev_io_stop(api->loop, &connection->io);
    ev_io_set(&connection->io, connection->io.fd, EV_WRITE);
    ev_io_start(api->loop, &connection->io);
    on_writable(connection);
}

static void on_readable(struct connection *connection)
{
    struct cts_buffer body = CTS_BUFFER_EMPTY;
    struct cts_request request;
    if (cts_buffer_reserve(&connection->in, 4096) < 0) {
        connection_free(connection);
        return;
    }
    ssize_t got = recv(connection->io.fd, connection->in.at + connection->in.end, 4096,
                       MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        connection_free(connection);
        return;
    }
    connection->in.end += (size_t)got;
    int r = cts_http_parse_head(&connection->parser, cts_buffer_view(&connection->in), &request);
    if (r == CTS_NEED_MORE)
        return;
    int status = r != 0 ? answer_error(&body, r, "That was no request.")
                        : answer(connection->api, &request, &body);
    reply(connection, status, &body);
    cts_buffer_free(&body);
}

static void on_io(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct connection *connection = CTS_CONTAINER(io, struct connection, io);
    if (events & EV_WRITE)
        on_writable(connection);
    else
        on_readable(connection);
}

static void on_deadline(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    connection_free(CTS_CONTAINER(timer, struct connection, deadline));
}

static void connection_start(struct api *api, int fd)
{
    struct connection *connection =
        api->connections_count < API_CONNECTIONS_MAX ? calloc(1, sizeof(*connection)) : NULL;
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->api = api;
    cts_head_parser_init(&connection->parser, &rules);
    cts_list_put_last(&api->connections, &connection->link);
    api->connections_count++;
    ev_io_init(&connection->io, on_io, fd, EV_READ);
    ev_timer_init(&connection->deadline, on_deadline, API_SECONDS_PER_REQUEST, 0.0);
    ev_io_start(api->loop, &connection->io);
    ev_timer_start(api->loop, &connection->deadline);
}

static void on_connect(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct api *api = CTS_CONTAINER(io, struct api, listener);
    for (int i = 0; i < API_CONNECTIONS_MAX; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        connection_start(api, fd);
    }
}

/* -- listening -------------------------------------------------------------------------------- */
static int listen_on(const char *host, int port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    bool is_v6 = strchr(host, ':') != NULL;
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, host,
                  is_v6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
        return -EINVAL;
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    const struct sockaddr *address = is_v6 ? (void *)&v6 : (void *)&v4;
    if (bind(fd, address, is_v6 ? sizeof(v6) : sizeof(v4)) < 0 || listen(fd, 64) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
        return 0;
    return address.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&address)->sin6_port)
                                         : ntohs(((struct sockaddr_in *)&address)->sin_port);
}

/* From now on `fd` is what we listen on; the one before is closed. */
static void serve_on(struct api *api, int fd)
{
    char address[96];
    if (api->listener.fd >= 0) {
        ev_io_stop(api->loop, &api->listener);
        close(api->listener.fd);
    }
    ev_io_init(&api->listener, on_connect, fd, EV_READ);
    ev_io_start(api->loop, &api->listener);
    api->port = port_of(fd);
    snprintf(address, sizeof(address), strchr(api->host, ':') != NULL ? "[%s]:%d" : "%s:%d",
             api->host, api->port);
    api->plan.ready(api->plan.context, address, api->token);
}

static void on_retry(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct api *api = CTS_CONTAINER(timer, struct api, retry);
    int fd = listen_on(api->host, api->wanted_port);
    if (fd < 0)
        return;
    ev_timer_stop(loop, timer);
    serve_on(api, fd);
}

/* The wanted port, else the next free one for the time being. */
static bool find_port(struct api *api)
{
    for (int i = 0; i < API_PORTS_TRIED && api->wanted_port + i < 65536; i++) {
        int fd = listen_on(api->host, api->wanted_port + i);
        if (fd >= 0) {
            serve_on(api, fd);
            if (i > 0)
                ev_timer_start(api->loop, &api->retry);
            return true;
        }
        if (fd != -EADDRINUSE)
            return false;
    }
    return false;
}

static void note(struct api *api, int level, const char *sentence)
{
    master_link_note(api->plan.agent->link, level, sentence);
}

/* "127.0.0.1:8001", "localhost:8001", "[::1]:8001"; nothing but loopback. */
static bool read_address(struct api *api, const char *text)
{
    const char *colon = strrchr(text, ':');
    char *end;
    if (strcmp(text, "auto") == 0) {
        api->is_auto = true;
        api->wanted_port = API_PORT_FIRST;
        snprintf(api->host, sizeof(api->host), "127.0.0.1");
        return true;
    }
    if (colon == NULL || colon == text)
        return false;
    long port = strtol(colon + 1, &end, 10);
    if (*end != '\0' || end == colon + 1 || port < 0 || port > 65535)
        return false;
    struct cts_bytes host = {text, (size_t)(colon - text)};
    api->wanted_port = (int)port;
    if (cts_bytes_equal(host, cts_bytes_of("[::1]")) || cts_bytes_equal(host, cts_bytes_of("::1")))
        snprintf(api->host, sizeof(api->host), "::1");
    else if (cts_bytes_equal(host, cts_bytes_of("localhost")))
        snprintf(api->host, sizeof(api->host), "127.0.0.1");
    else if (host.count > 4 && host.count < sizeof(api->host) && memcmp(text, "127.", 4) == 0)
        snprintf(api->host, sizeof(api->host), "%.*s", (int)host.count, host.at);
    else
        return false;
    return true;
}

static bool make_token(struct api *api, const char *given)
{
    unsigned char bytes[16];
    if (given[0] != '\0') {
        snprintf(api->token, sizeof(api->token), "%s", given);
        return true;
    }
    if (cts_random_fill(bytes, sizeof(bytes)) < 0)
        return false;
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(api->token + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

struct api *api_new(const struct api_plan *plan)
{
    const struct hello *hello = &plan->agent->hello;
    if (hello->api[0] == '\0' || strcmp(hello->api, "off") == 0)
        return NULL;
    struct api *api = calloc(1, sizeof(*api));
    if (api == NULL)
        return NULL;
    api->plan = *plan;
    api->loop = plan->agent->loop;
    cts_list_init(&api->connections);
    ev_io_init(&api->listener, on_connect, -1, EV_READ);
    ev_timer_init(&api->retry, on_retry, RETRY_SECONDS, RETRY_SECONDS);
    if (!read_address(api, hello->api)) {
        note(api, CTS_LOG_ERROR, "trace_api: a loopback HOST:PORT, auto or off; the API is off");
    } else if (make_token(api, hello->token) && find_port(api)) {
        return api;
    } else {
        note(api, CTS_LOG_ERROR, "trace_api: no port could be had; the API is off");
    }
    free(api);
    return NULL;
}

void api_free(struct api *api)
{
    if (api == NULL)
        return;
    CTS_LIST_EACH(&api->connections, link) {
        connection_free(CTS_CONTAINER(link, struct connection, link));
    }
    ev_timer_stop(api->loop, &api->retry);
    if (api->listener.fd >= 0) {
        ev_io_stop(api->loop, &api->listener);
        close(api->listener.fd);
    }
    free(api);
}
