/* gateway.h - the table of functions through which the server drives an application.
 *
 * Room: base (neutral ground: server calls it, python and wsgi fill it, tests/unit fills it with a
 * gateway written in C that says hello). The server knows nothing of Python; it knows that there
 * is an interpreter lock ("the lock") which exactly one thread holds while it calls in here.
 *
 * Unless said otherwise: called in the main thread, lock held, returns 0 or -1 with `error` set
 * (error->exit_code says how the process would end). */
#ifndef CTSERVE_GATEWAY_H
#define CTSERVE_GATEWAY_H

#include "ctserve/base.h"
#include "ctserve/buffer.h"
#include "ctserve/error.h"
#include "ctserve/http.h"
#include "ctserve/settings.h"
#include "ctserve/tracing.h"

#include <sys/types.h>

/* gunicorn's hooks, in the order of a life. Arguments in brackets. */
enum cts_hook {
    CTS_HOOK_NWORKERS_CHANGED,  /* (server, new, old or None) */
    CTS_HOOK_ON_STARTING,       /* (server) */
    CTS_HOOK_WHEN_READY,        /* (server) */
    CTS_HOOK_PRE_FORK,          /* (server, worker) */
    CTS_HOOK_POST_FORK,         /* (server, worker) */
    CTS_HOOK_POST_WORKER_INIT,  /* (worker) */
    CTS_HOOK_WORKER_INT,        /* (worker) */
    CTS_HOOK_WORKER_ABORT,      /* (worker) */
    CTS_HOOK_CHILD_EXIT,        /* (server, worker) */
    CTS_HOOK_WORKER_EXIT,       /* (server, worker) */
    CTS_HOOK_ON_RELOAD,         /* (server) */
    CTS_HOOK_ON_EXIT,           /* (server) */
    CTS_HOOK_PRE_EXEC,          /* (server) */
};  /* pre_request and post_request are called inside `handle` */

struct cts_hook_call {
    void *worker;                 /* what worker_new returned, or NULL */
    int64_t new_count, old_count; /* nworkers_changed; old_count -1 = None */
};

/* What the `server` and `worker` objects of Python may ask of the real server. Given once. */
struct cts_server_ops {
    void (*signal_self)(int signo);             /* server.reload()/stop()/halt()/wakeup(): as if the
                                                   master had got that signal */
    int (*kill_worker)(pid_t pid, int signo);   /* 0 or -errno */
    int (*listener_fds)(int *fds, int count_max);  /* current listening sockets; returns how many */
    size_t (*listener_names)(char *text, size_t text_bytes);  /* "127.0.0.1:8000,unix:/x" */
    uint64_t (*requests_count)(void);           /* worker.nr of this worker */
    bool (*is_alive)(void);                     /* worker.alive of this worker */
    void (*set_alive)(bool alive);              /* worker.alive = False: finish and leave */
    int64_t (*workers_count)(void);             /* server.num_workers */
};

/* Facts about one worker; python's Worker object shows them. */
struct cts_worker_facts {
    uint64_t age;
    int slot_index;
    int64_t max_requests;         /* jitter added, 0 = never */
    int64_t timeout_s;
    pid_t master_pid;
};

/* -- one request between connection and gateway ------------------------------------------------ */
struct cts_peer {
    char remote_address[48];      /* "" on unix sockets */
    uint16_t remote_port;
    char server_name[108];        /* bound address of the listener, or unix path */
    uint16_t server_port;
    bool is_unix;
    bool is_trusted;              /* in forwarded_allow_ips, or a unix socket */
    const struct cts_proxy *proxy;  /* what a proxy said at the start of the connection, or NULL */
    int fd;                       /* for environ["gunicorn.socket"] */
};

struct cts_exchange;

struct cts_exchange_ops {
    /* Read decoded request body: buffered bytes first, then from the client (sends 100 Continue
     * first when that is owed). Gives the lock away while it sleeps. Returns the count, 0 at the
     * regular end, -ECONNRESET when the client left early, -ETIMEDOUT when it stalled, -EBADMSG
     * when the framing is bad (the connection then answers 400 unless a head was sent). */
    ssize_t (*read_body)(struct cts_exchange *exchange, char *to, size_t count);
    /* Everything in exchange->out, then `bytes`, now (a streamed reply: first chunk while the next
     * is made). What a slow client does not take is put by, in memory and then on the disk; only
     * when all bounds are reached this sleeps, lock given away. 0, or -EPIPE when the client is
     * gone. */
    int (*send)(struct cts_exchange *exchange, struct cts_bytes bytes);
    /* Behind everything in exchange->out: `count` bytes of the regular file `file_fd` from `at`
     * on. They leave after `handle` has returned, from a duplicate of the descriptor. 0, or a
     * negative errno: then nothing was queued, and the caller sends the bytes by itself. */
    int (*send_file)(struct cts_exchange *exchange, int file_fd, uint64_t at, uint64_t count);
    /* The trailer section of a chunked body for cts_trailer_next(), once the body has come to its
     * end; empty before, and without trailers. A view that lives until `handle` returns. */
    struct cts_bytes (*trailers)(const struct cts_exchange *exchange);
};

struct cts_exchange {
    /* given by the connection */
    const struct cts_request *request;
    const struct cts_peer *peer;
    const struct cts_exchange_ops *ops;
    struct cts_trace_request *trace;
    struct cts_bytes body;            /* the whole decoded body, when body_is_whole */
    void *body_object;                /* of body_new, holding exactly `body`; or NULL */
    bool body_is_whole;
    bool may_keep_alive;              /* the connection would like to go on after this */
    bool worker_is_multithread;
    bool worker_is_multiprocess;
    struct cts_buffer *out;           /* append head and small bodies here: the connection writes it
                                         after `handle` returns, gathered with pipelined replies */
    struct cts_buffer *access;        /* append one line for the access log here; NULL: none */
    /* filled by the gateway */
    int status;                       /* of the reply, 0 while none */
    uint64_t body_sent_bytes;
    bool head_sent;                   /* the head is in `out` or beyond: too late for an error page */
    bool must_close;                  /* close after this reply (truncated, HTTP/1.0, app said) */
    bool abort;                       /* drop the connection now: the client must see truncation */
    bool is_refused;                  /* answered by us; the application had no say */
    bool wants_exit;                  /* SystemExit: finish, then leave with exit_code */
    int exit_code;
    char error_type[96];              /* class of an exception that escaped, for the span */
    char error_message[256];
    char route[160];                  /* when the framework reveals it */
};

/* -- the table ----------------------------------------------------------------------------------- */
struct cts_gateway {
    const char *name;                 /* "wsgi", "hello" */

    /* Settings, in the master before any fork; again on reload.
     * load_config: execute a config file ("file:PATH", "python:MODULE" or a path). Every
     * recognised name is set into `settings` with CTS_SOURCE_FILE; unknown ones are looked at for
     * 'did you mean'. required=false: a missing file is fine. */
    int (*load_config)(const char *spec, bool required, struct cts_settings *settings,
                       struct cts_error *error);
    /* Make (or refresh) cfg, server and log objects from the settings in force. The server keeps
     * `settings` alive until the next configure. */
    int (*configure)(const struct cts_settings *settings, const struct cts_server_ops *ops,
                     struct cts_error *error);
    /* The text of a setting for --print-config: callables as <qualname()>. Malloc'ed. */
    char *(*value_text)(const struct cts_settings *settings, enum cts_setting_id id);

    /* Import the application; exit_code 3 or 4 on failure, text is what the user should read. */
    int (*load_app)(struct cts_error *error);
    /* "WSGI" or "ASGI", and why ("callable takes 2 arguments"). Valid after load_app. */
    const char *(*app_kind)(const char **ret_why);

    int (*run_hook)(enum cts_hook hook, const struct cts_hook_call *call, struct cts_error *error);

    /* Workers as Python objects. worker_new runs before pre_fork (pid "[booting]"). */
    void *(*worker_new)(const struct cts_worker_facts *facts, struct cts_error *error);
    void (*worker_forked)(void *worker, pid_t pid);   /* parent and child: pid known; parent: put
                                                         into server.WORKERS */
    void (*worker_gone)(void *worker);                /* parent: out of WORKERS, before child_exit */
    void (*worker_free)(void *worker);                /* after child_exit */
    void (*workers_changed)(int64_t count);           /* server.num_workers */

    /* Around the one fork. */
    void (*before_fork)(void);
    void (*after_fork_parent)(void);
    void (*after_fork_child)(void);
    void (*flush_stdio)(void);

    /* Register Python callables for the signals this process owns, so that signal.getsignal
     * returns what it would under gunicorn. The server lays its C handlers on top afterwards. */
    int (*own_signals)(bool is_worker, struct cts_error *error);
    /* Async-signal-safe: make Python run its callable for `signo` soon (PyErr_SetInterruptEx). */
    void (*interrupt)(int signo);
    /* Run pending Python signal callables now. 0, or -1 when one raised SystemExit
     * (error->exit_code). */
    int (*run_pending)(struct cts_error *error);
    /* faulthandler.register(signo, file=fd, all_threads=True). */
    int (*dump_on_signal)(int signo, int fd);

    /* In a worker. */
    int (*start)(void *worker, struct cts_error *error);  /* after load_app, before the loop */
    /* Serve one request. Never fails: what goes wrong is in the exchange. */
    void (*handle)(struct cts_exchange *exchange);
    void (*stop)(void);                                   /* before worker_exit */
    /* An object of the application's world for a body of `count` bytes, which the connection
     * writes to *ret_at before any request sees it; NULL: no memory. Both with or without the
     * lock, in any thread. body_new may be NULL: there are no such objects. */
    void *(*body_new)(size_t count, char **ret_at);
    void (*body_free)(void *object);

    /* The lock. give returns a token for take; each thread for itself. */
    void *(*lock_give)(void);
    void (*lock_take)(void *token);
    /* In a new thread made by the server: get a thread state for life, lock taken. */
    void *(*thread_start)(void);
    void (*thread_stop)(void *state);

    /* End of the process. exit_code as decided so far; atexit handlers run here. */
    void (*finalize)(void);
};

#endif
