/* hello_gateway.c - see hello_gateway.h. One worker object is one struct; the lock is a mutex, so
 * that a server that forgets to give it away stands still here as it would with an interpreter. */
#include "hello_gateway.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct hello_worker {
    struct cts_worker_facts facts;
    pid_t pid;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct cts_server_ops *server_ops;
static volatile sig_atomic_t pending_signo;
static int dump_fd = -1;

static const char *const hook_names[] = {
    [CTS_HOOK_NWORKERS_CHANGED] = "nworkers_changed", [CTS_HOOK_ON_STARTING] = "on_starting",
    [CTS_HOOK_WHEN_READY] = "when_ready", [CTS_HOOK_PRE_FORK] = "pre_fork",
    [CTS_HOOK_POST_FORK] = "post_fork", [CTS_HOOK_POST_WORKER_INIT] = "post_worker_init",
    [CTS_HOOK_WORKER_INT] = "worker_int", [CTS_HOOK_WORKER_ABORT] = "worker_abort",
    [CTS_HOOK_CHILD_EXIT] = "child_exit", [CTS_HOOK_WORKER_EXIT] = "worker_exit",
    [CTS_HOOK_ON_RELOAD] = "on_reload", [CTS_HOOK_ON_EXIT] = "on_exit",
    [CTS_HOOK_PRE_EXEC] = "pre_exec",
};

static void sleep_ms(long ms)
{
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        continue;
}

/* -- settings ------------------------------------------------------------------------------- */
static char *trimmed(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    for (size_t count = strlen(text); count > 0 && isspace((unsigned char)text[count - 1]); count--)
        text[count - 1] = '\0';
    return text;
}

static int set_line(char *line, struct cts_settings *settings, struct cts_error *error)
{
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return *trimmed(line) == '\0' ? 0
                                      : cts_error_set(error, CTS_EXIT_FAILURE,
                                                      "config file: no '=' in '%s'", trimmed(line));
    *equals = '\0';
    int id = cts_settings_find(trimmed(line));
    if (id < 0)
        return 0;
    struct cts_value value = {.kind = CTS_VALUE_TEXT, .text = trimmed(equals + 1)};
    return cts_settings_set(settings, (enum cts_setting_id)id, CTS_SOURCE_FILE, &value, error);
}

static int hello_load_config(const char *spec, bool required, struct cts_settings *settings,
                             struct cts_error *error)
{
    const char *path = getenv("HELLO_CONFIG");
    FILE *file = path != NULL ? fopen(path, "re") : NULL;
    if (file == NULL)
        return 0;
    char line[512];
    int r = 0;
    while (r == 0 && fgets(line, sizeof(line), file) != NULL)
        r = set_line(line, settings, error);
    fclose(file);
    return r;
}

static int hello_configure(const struct cts_settings *settings, const struct cts_server_ops *ops,
                           struct cts_error *error)
{
    server_ops = ops;
    return 0;
}

static char *hello_value_text(const struct cts_settings *settings, enum cts_setting_id id)
{
    return strdup("<hello()>");
}

/* -- the application ------------------------------------------------------------------------- */
static int hello_load_app(struct cts_error *error)
{
    const char *path = getenv("HELLO_LOAD");
    FILE *file = path != NULL ? fopen(path, "re") : NULL;
    if (file == NULL)
        return 0;
    char word[32] = "";
    int number = 0;
    int count = fscanf(file, "%31s %d", word, &number);
    fclose(file);
    if (count >= 1 && strcmp(word, "hang") == 0)
        for (;;)
            pause();
    if (count == 2 && strcmp(word, "slow") == 0) {
        sleep_ms(number);
        return 0;
    }
    if (count >= 1 && strcmp(word, "crash") == 0)
        _exit(77);
    return cts_error_set(error, word[0] == '4' ? CTS_EXIT_APP_LOAD : CTS_EXIT_WORKER_BOOT,
                         "hello: told not to load (%s)", word);
}

static const char *hello_app_kind(const char **ret_why)
{
    if (ret_why != NULL)
        *ret_why = "it is written in C";
    return "HELLO";
}

static int hello_run_hook(enum cts_hook hook, const struct cts_hook_call *call,
                          struct cts_error *error)
{
    const struct hello_worker *worker = call != NULL ? call->worker : NULL;
    const char *path = getenv("HELLO_HOOKS");
    int fd = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        char line[160];
        int count = snprintf(line, sizeof(line), "%s %d %llu %lld %lld\n", hook_names[hook],
                             (int)getpid(),
                             worker != NULL ? (unsigned long long)worker->facts.age : 0ull,
                             call != NULL ? (long long)call->new_count : 0ll,
                             call != NULL ? (long long)call->old_count : 0ll);
        if (write(fd, line, (size_t)count) != count)
            abort();
        close(fd);
    }
    const char *raising = getenv("HELLO_RAISE");
    if (raising != NULL && strcmp(raising, hook_names[hook]) == 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "hello: hook %s was told to raise", raising);
    return 0;
}

/* -- workers ----------------------------------------------------------------------------------- */
static void *hello_worker_new(const struct cts_worker_facts *facts, struct cts_error *error)
{
    struct hello_worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        cts_error_set(error, CTS_EXIT_FAILURE, "no memory");
        return NULL;
    }
    worker->facts = *facts;
    return worker;
}

static void hello_worker_forked(void *worker, pid_t pid)
{
    ((struct hello_worker *)worker)->pid = pid;
}

static void hello_worker_gone(void *worker)
{
}

static void hello_worker_free(void *worker)
{
    free(worker);
}

static void hello_workers_changed(int64_t count)
{
}

static void hello_nothing(void)
{
}

/* The lock is held across the fork, by the only thread that goes on in the child. */
static void hello_after_fork_child(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_mutex_lock(&lock);
}

static void hello_flush_stdio(void)
{
    fflush(NULL);
}

/* -- signals ----------------------------------------------------------------------------------- */
static int hello_own_signals(bool is_worker, struct cts_error *error)
{
    return 0;
}

static void hello_interrupt(int signo)
{
    pending_signo = signo;
}

static int hello_run_pending(struct cts_error *error)
{
    pending_signo = 0;
    return 0;
}

static void write_dump(int signo)
{
    static const char text[] = "Current thread (most recent call first):\n"
                               "  File \"hello_gateway.c\", line 1 in hello_stands_here\n";
    if (write(dump_fd, text, sizeof(text) - 1) < 0)
        return;
}

static int hello_dump_on_signal(int signo, int fd)
{
    dump_fd = fd;
    struct sigaction action = {.sa_handler = write_dump, .sa_flags = SA_RESTART};
    return sigaction(signo, &action, NULL);
}

/* -- one request --------------------------------------------------------------------------------- */
static int hello_start(void *worker, struct cts_error *error)
{
    return 0;
}

static void answer(struct cts_exchange *exchange, int status, struct cts_bytes body)
{
    bool keep = exchange->may_keep_alive && exchange->request->keep_alive && !exchange->must_close;
    bool is_head = cts_bytes_equal(exchange->request->method, cts_bytes_of("HEAD"));
    exchange->status = status;
    exchange->head_sent = true;
    exchange->must_close = !keep;
    if (cts_buffer_printf(exchange->out,
                          "HTTP/1.1 %d %s\r\nServer: hello\r\nConnection: %s\r\n"
                          "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                          status, cts_http_reason(status), keep ? "keep-alive" : "close",
                          body.count) < 0)
        exchange->abort = true;
    if (!is_head && cts_buffer_put(exchange->out, body.at, body.count) < 0)
        exchange->abort = true;
    exchange->body_sent_bytes = is_head ? 0 : body.count;
}

static void handle_echo(struct cts_exchange *exchange)
{
    struct cts_buffer body = CTS_BUFFER_EMPTY;
    char piece[8192];
    ssize_t count;
    while ((count = exchange->ops->read_body(exchange, piece, sizeof(piece))) > 0)
        if (cts_buffer_put(&body, piece, (size_t)count) < 0)
            break;
    if (count < 0) {
        snprintf(exchange->error_type, sizeof(exchange->error_type), "hello.body");
        exchange->must_close = true;
    } else {
        answer(exchange, 200, cts_buffer_view(&body));
    }
    cts_buffer_free(&body);
}

static void handle_stream(struct cts_exchange *exchange)
{
    exchange->status = 200;
    exchange->head_sent = true;
    if (cts_buffer_printf(exchange->out, "HTTP/1.1 200 OK\r\nConnection: %s\r\n"
                                         "Transfer-Encoding: chunked\r\n\r\n",
                          exchange->may_keep_alive ? "keep-alive" : "close") < 0)
        exchange->abort = true;
    exchange->must_close = !exchange->may_keep_alive;
    for (int i = 0; i < 3; i++) {
        if (exchange->ops->send(exchange, cts_bytes_of("6\r\npiece\n\r\n")) < 0) {
            exchange->abort = true;
            return;
        }
        exchange->body_sent_bytes += 6;
    }
    if (cts_buffer_put(exchange->out, "0\r\n\r\n", 5) < 0)
        exchange->abort = true;
}

static long query_number(const struct cts_request *request)
{
    char digits[16] = "";
    size_t count = request->query.count < 15 ? request->query.count : 15;
    memcpy(digits, request->query.at, count);
    return atol(digits);
}

static void *hello_lock_give(void)
{
    pthread_mutex_unlock(&lock);
    return &lock;
}

static void hello_lock_take(void *token)
{
    pthread_mutex_lock(&lock);
}

static void hello_handle(struct cts_exchange *exchange)
{
    struct cts_bytes path = exchange->request->path;
    char text[64];
    if (cts_bytes_equal(path, cts_bytes_of("/"))) {
        answer(exchange, 200, cts_bytes_of("hello\n"));
    } else if (cts_bytes_equal(path, cts_bytes_of("/pid"))) {
        snprintf(text, sizeof(text), "%d\n", (int)getpid());
        answer(exchange, 200, cts_bytes_of(text));
    } else if (cts_bytes_equal(path, cts_bytes_of("/echo"))) {
        handle_echo(exchange);
    } else if (cts_bytes_equal(path, cts_bytes_of("/stream"))) {
        handle_stream(exchange);
    } else if (cts_bytes_equal(path, cts_bytes_of("/sleep"))) {
        sleep_ms(query_number(exchange->request));
        answer(exchange, 200, cts_bytes_of("slept\n"));
    } else if (cts_bytes_equal(path, cts_bytes_of("/wait"))) {
        void *token = hello_lock_give();
        sleep_ms(query_number(exchange->request));
        hello_lock_take(token);
        answer(exchange, 200, cts_bytes_of("waited\n"));
    } else if (cts_bytes_equal(path, cts_bytes_of("/spin"))) {
        for (;;)
            sleep_ms(1000);
    } else if (cts_bytes_equal(path, cts_bytes_of("/crash"))) {
        abort();
    } else {
        answer(exchange, 404, cts_bytes_of("not found\n"));
    }
}

/* A thread for life: the lock is all that it needs. */
static void *hello_thread_start(void)
{
    pthread_mutex_lock(&lock);
    return &lock;
}

static void hello_thread_stop(void *state)
{
    pthread_mutex_unlock(&lock);
}

static const struct cts_gateway gateway = {
    .name = "hello",
    .load_config = hello_load_config,
    .configure = hello_configure,
    .value_text = hello_value_text,
    .load_app = hello_load_app,
    .app_kind = hello_app_kind,
    .run_hook = hello_run_hook,
    .worker_new = hello_worker_new,
    .worker_forked = hello_worker_forked,
    .worker_gone = hello_worker_gone,
    .worker_free = hello_worker_free,
    .workers_changed = hello_workers_changed,
    .before_fork = hello_nothing,
    .after_fork_parent = hello_nothing,
    .after_fork_child = hello_after_fork_child,
    .flush_stdio = hello_flush_stdio,
    .own_signals = hello_own_signals,
    .interrupt = hello_interrupt,
    .run_pending = hello_run_pending,
    .dump_on_signal = hello_dump_on_signal,
    .start = hello_start,
    .handle = hello_handle,
    .stop = hello_nothing,
    .lock_give = hello_lock_give,
    .lock_take = hello_lock_take,
    .thread_start = hello_thread_start,
    .thread_stop = hello_thread_stop,
    .finalize = hello_nothing,
};

const struct cts_gateway *hello_gateway(void)
{
    static bool is_locked;
    if (!is_locked) {
        pthread_mutex_lock(&lock);
        is_locked = true;
    }
    return &gateway;
}
