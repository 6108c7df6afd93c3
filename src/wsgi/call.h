/* call.h - what the files of this room share: the state of the process and of one call.
 *
 * A `struct wsgi_call` lives on the stack of `handle` and is the whole truth about one request
 * while the application runs. The Python objects which the application may keep (start_response,
 * write, wsgi.input, gunicorn.socket) only point at it and are detached before `handle` returns,
 * so a kept one says "too late" instead of reaching into a finished request.
 *
 * Every function here wants the GIL. NULL or -1 means that an exception is set. */
#ifndef WSGI_CALL_H
#define WSGI_CALL_H

#include "ctserve/gateway.h"
#include "ctserve/http.h"
#include "ctserve/python.h"
#include "ctserve/tracing.h"

#define WSGI_COPY_BYTES_MAX 16384u /* larger bodies are not copied into the reply buffer */
#define WSGI_SPARE_HEAD_BYTES_MAX 16384u
#define WSGI_NAME_SLOTS 256u /* power of two */
#define WSGI_NAME_PROBES 4u
#define WSGI_NAME_BYTES_MAX 47u /* longer header names are made anew each time */
#define WSGI_KEPT_VALUE_BYTES_MAX 256u
#define WSGI_FIELD_SLOTS 32u   /* power of two: response fields seen and checked */
#define WSGI_METHODS_COUNT 8
#define WSGI_MEMO_SLOTS 16u    /* power of two: blocks of request fields seen last */
#define WSGI_MEMO_BYTES_MAX 2048u
#define WSGI_PORT_SLOTS 128u   /* power of two: ports of clients seen last */

/* Keys of the environ that change from request to request, or may be absent. */
enum wsgi_key {
    WSGI_KEY_INPUT,
    WSGI_KEY_SOCKET,
    WSGI_KEY_EARLY_HINTS,
    WSGI_KEY_METHOD,
    WSGI_KEY_RAW_URI,
    WSGI_KEY_PATH_INFO,
    WSGI_KEY_QUERY,
    WSGI_KEY_PROTOCOL,
    WSGI_KEY_SERVER_NAME,
    WSGI_KEY_SERVER_PORT,
    WSGI_KEY_REMOTE_ADDR,
    WSGI_KEY_REMOTE_PORT,
    WSGI_KEY_CONTENT_TYPE,
    WSGI_KEY_CONTENT_LENGTH,
    WSGI_KEY_HOST,
    WSGI_KEY_TRACEPARENT,
    WSGI_KEY_WERKZEUG_REQUEST,
    WSGI_KEY_BOTTLE_ROUTE,
    WSGI_KEY_URL_SCHEME,
    WSGI_KEY_SCRIPT_NAME,
    WSGI_KEY_PROXY_PROTOCOL,
    WSGI_KEY_PROXY_ADDR,
    WSGI_KEY_PROXY_PORT,
    WSGI_KEYS_COUNT,
};

/* One header name that was seen, and the key it becomes. */
struct wsgi_name {
    char spelling[WSGI_NAME_BYTES_MAX + 1]; /* as last sent */
    uint8_t count;
    bool is_pinned;   /* a well-known name, never pushed out */
    bool keeps_value; /* the last value may be kept: no cookie, no secret */
    PyObject *key;    /* "HTTP_ACCEPT"; NULL: slot is free */
    PyObject *value;  /* last value, or NULL */
    uint64_t serial;  /* of the last request that had it */
};

/* What take_field() found out about a response field: strings do not change, so the same two
 * objects need no second look. */
struct wsgi_field {
    PyObject *name, *value;   /* owned; NULL: slot is free */
    struct cts_bytes name_bytes, value_bytes;
    int64_t content_length;   /* -1: it is another field */
};

/* A block of request fields, byte for byte, and from its second time on an environ that has them. */
struct wsgi_memo {
    struct cts_buffer block;
    bool is_trusted;          /* whether the peer's word on the scheme was taken */
    bool is_https;            /* what it said */
    PyObject *filled;         /* a copy of the template with the fields put in, or NULL */
    uint64_t serial;          /* of `filled`; never given twice */
};

/* The environ of a request that is over, when the application has neither kept nor changed it: the
 * next one with the same fields needs no copy of its own. */
struct wsgi_kept {
    PyObject *environ;        /* or NULL */
    uint64_t serial;          /* of the memo it was copied of */
    unsigned shape;           /* see environ.c */
    PyObject *values[WSGI_KEYS_COUNT]; /* borrowed from `environ` */
};

/* A field by which a trusted proxy says that its client came by https. */
#define WSGI_SECURE_FIELDS_MAX 16u
struct wsgi_secure_field {
    char name[64];
    char value[64];
    size_t name_count, value_count;
};

/* A part of access_log_format: an atom by its letter, '%' for literal text, '-' for an unknown
 * atom, or one of these with a name. */
enum { WSGI_PIECE_ENVIRON = 'e' - 'a' + 1, WSGI_PIECE_REQUEST_FIELD = 'i' - 'a' + 1,
       WSGI_PIECE_RESPONSE_FIELD = 'o' - 'a' + 1 };
#define WSGI_PIECES_MAX 128u
struct wsgi_piece {
    char kind;
    struct cts_bytes text;   /* points into the setting */
};
struct wsgi_access {
    struct wsgi_piece pieces[WSGI_PIECES_MAX];
    size_t pieces_count;
    int64_t second;          /* that `time` tells */
    char time[40];
};

/* Strings of the peer and the listener last seen: they rarely change. */
struct wsgi_peer_texts {
    char remote_address[48];
    char server_name[108];
    int32_t remote_port, server_port;
    PyObject *remote_addr_text, *remote_port_text, *server_name_text, *server_port_text;
};
struct wsgi_port {
    int32_t port;
    PyObject *text;          /* NULL: slot is free */
};

struct wsgi_call;

struct wsgi_start_response {
    PyObject_HEAD vectorcallfunc vectorcall;
    struct wsgi_call *call; /* NULL once the request is over */
};

struct wsgi_write {
    PyObject_HEAD vectorcallfunc vectorcall;
    struct wsgi_call *call;
};

struct wsgi_early_hints {
    PyObject_HEAD vectorcallfunc vectorcall;
    struct wsgi_call *call;
};

struct wsgi_input {
    PyObject_HEAD struct wsgi_call *call;
    size_t position;         /* in a whole body */
    struct cts_buffer ahead; /* read from the client, not yet by the application */
    bool has_ended;
    bool is_busy; /* a thread is inside, maybe with the GIL given away */
};

struct wsgi_socket {
    PyObject_HEAD int fd; /* -1 once the request is over */
    PyObject *real;       /* socket.socket over a duplicate, made when first needed */
};

struct wsgi_state {
    PyTypeObject *early_hints_type;
    PyTypeObject *start_response_type, *write_type, *input_type, *socket_type, *errors_type;
    PyTypeObject *file_wrapper_type, *request_type, *response_type;
    PyObject *no_more_data;    /* OSError: the client left within the body */
    PyObject *parse_exception; /* Exception: the framing of the body is bad */

    PyObject *keys[WSGI_KEYS_COUNT];
    PyObject *constants; /* what every environ of this process holds */
    PyObject *template;  /* copied for each request; see environ.c */
    bool template_multithread, template_multiprocess;
    PyObject *template_values[WSGI_KEYS_COUNT]; /* borrowed from `template`, NULL if not in it */
    PyObject *script_name;                      /* str, or NULL when empty */
    struct cts_bytes script_name_bytes;

    PyObject *empty_text, *empty_bytes, *http_10, *http_11, *scheme, *https;
    struct wsgi_secure_field secure_fields[WSGI_SECURE_FIELDS_MAX];
    size_t secure_fields_count;
    uint64_t secure_lengths; /* bit per length of such a name */
    PyObject *methods[WSGI_METHODS_COUNT];
    struct wsgi_peer_texts peer;
    struct wsgi_port ports[WSGI_PORT_SLOTS];
    struct wsgi_access access;
    uint64_t serial;
    struct wsgi_name names[WSGI_NAME_SLOTS];
    struct wsgi_memo memos[WSGI_MEMO_SLOTS];
    Py_ssize_t memos_filled; /* every one refers once to what the template refers to */
    uint64_t memos_serial;
    struct wsgi_kept kept;

    struct wsgi_field fields[WSGI_FIELD_SLOTS];
    PyObject *status_text; /* the last status line and its code */
    int status_code;
    struct cts_bytes status_bytes;

    /* One of each is kept for the next request; taken out while in use. */
    struct wsgi_start_response *spare_start_response;
    struct wsgi_write *spare_write;
    struct wsgi_early_hints *spare_early_hints;
    struct wsgi_input *spare_input;
    struct wsgi_socket *spare_socket;
    struct cts_buffer spare_head;

    bool sends_files;                     /* setting sendfile */
    PyObject *pre_request, *post_request; /* the user's hooks, NULL when not set */
    int post_request_arity;
};

struct wsgi_call {
    struct wsgi_state *state;
    struct cts_exchange *exchange;
    PyObject *environ;
    PyObject *values[WSGI_KEYS_COUNT]; /* what `environ` holds under these keys, borrowed; NULL:
                                          nothing, or not known */
    uint64_t environ_version;          /* as it was given to the application; 0: not to be kept */
    uint64_t environ_serial;
    struct wsgi_start_response *start_response;
    struct wsgi_write *write;
    struct wsgi_early_hints *early_hints;
    struct wsgi_input *input;
    struct wsgi_socket *socket;
    unsigned busy_count; /* threads inside read_body or send */

    /* the head as the application gave it */
    PyObject *status_text; /* owned; NULL until start_response */
    struct cts_bytes status_bytes;
    struct cts_buffer head; /* header lines, checked, ready for the wire */
    PyObject *headers;      /* list of (name, value), only when a hook will look */
    int status;
    int64_t content_length; /* -1: none given */
    bool is_upgrade;
    bool forces_close; /* a hook said so */

    /* the reply so far */
    bool is_committed; /* the head is on its way */
    bool is_chunked;
    bool omits_body; /* HEAD, 1xx, 204, 304 */
    bool is_finished;
    bool has_written;  /* write() was used */
    bool has_streamed; /* something was handed to the client already */
    bool warned_body, warned_length;
    uint64_t sent_bytes;

    /* what became of the client */
    bool client_is_gone, framing_is_bad, body_timed_out;
    const char *refusal; /* the request is not for the application: 400, and this is why */
    int scheme_said;     /* by a trusted proxy: 0 nothing yet, 1 http, 2 https */

    PyObject *hook_request;
};

/* -- names.c -------------------------------------------------------------------------------- */
/* Pin the names that browsers and proxies send. */
int names_start(struct wsgi_state *state);
void names_stop(struct wsgi_state *state);
/* Put one header into `environ`. Repeated fields are joined with a comma. */
CTS_RAISES int names_put(struct wsgi_state *state, PyObject *wsgi_environ,
                         const struct cts_header *header);

/* -- environ_start.c ------------------------------------------------------------------------ */
CTS_RAISES int environ_start(struct wsgi_state *state);
void environ_stop(struct wsgi_state *state);
/* A key that every request has; `value` NULL is an exception already set. */
CTS_RAISES int environ_set_constant(PyObject *constants, const char *key, PyObject *value);
/* str of bytes, each byte one character. */
CTS_RAISES PyObject *latin1(struct cts_bytes bytes);

/* -- environ.c ------------------------------------------------------------------------------ */
/* The environ of this request, a new reference. Source: PEP 3333, "environ Variables". */
CTS_RAISES PyObject *environ_new(struct wsgi_call *call);
/* Is the environ for certain as the application got it? */
bool environ_is_untouched(const struct wsgi_call *call);
/* The application is done with it: let it go, or keep it for the next request. */
void environ_give(struct wsgi_call *call);
/* Forget the environs made of the template, the kept one too: it is about to change. */
void environ_forget_memos(struct wsgi_state *state);

/* -- environ_fill.c ------------------------------------------------------------------------- */
/* The texts of this client and of the address it came to, made anew if they are others. */
CTS_RAISES int environ_refresh_peer(struct wsgi_state *state, const struct cts_peer *peer);
/* The fields, and what a trusted proxy says of the scheme (call->scheme_said). */
CTS_RAISES int environ_put_headers(struct wsgi_call *call, PyObject *wsgi_environ);
/* Everything that this request has of its own; the fields unless `has_fields`. */
CTS_RAISES int environ_fill(struct wsgi_call *call, PyObject *wsgi_environ, bool has_fields);
/* Find out call->scheme_said before there is an environ, for hooks. */
CTS_RAISES int environ_hear_scheme(struct wsgi_call *call);

/* -- input.c: body_new and body_free of the table -------------------------------------------- */
void *input_body_new(size_t count, char **ret_at);
void input_body_free(void *object);

/* -- the objects an application sees ----------------------------------------------------------- */
PyTypeObject *input_type_new(void);
PyTypeObject *socket_type_new(void);
PyTypeObject *errors_type_new(void);
PyTypeObject *file_wrapper_type_new(void);
PyTypeObject *start_response_type_new(void);
PyTypeObject *write_type_new(void);
PyTypeObject *early_hints_type_new(void);
PyTypeObject *request_type_new(void);
PyTypeObject *response_type_new(void);

CTS_RAISES struct wsgi_early_hints *early_hints_new(struct wsgi_state *state);
CTS_RAISES struct wsgi_start_response *start_response_new(struct wsgi_state *state);
CTS_RAISES struct wsgi_write *write_new(struct wsgi_state *state);

/* -- call_objects.c --------------------------------------------------------------------------- */
/* Point the five objects of a call at it (made, or taken from the spares). */
CTS_RAISES int objects_take(struct wsgi_call *call);
/* Detach them; those that nobody kept become the spares. */
void objects_give(struct wsgi_call *call);

/* -- reply_fields.c --------------------------------------------------------------------------- */
/* Check what the application announces and keep it in the call. The status, borrowed until the
 * caller keeps its text: */
CTS_RAISES int reply_take_status(struct wsgi_call *call, PyObject *text);
/* The fields, a sequence of pairs of str; any code may run meanwhile. */
CTS_RAISES int reply_take_fields(struct wsgi_call *call, PyObject *headers);
/* Let go of the response fields that were kept. */
void fields_stop(struct wsgi_state *state);
/* A view of the bytes of a latin-1 str. */
CTS_RAISES int text_view(PyObject *text, const char *what, struct cts_bytes *ret_bytes);
/* A field's value without the blanks around it. */
struct cts_bytes value_trim(struct cts_bytes value);

/* -- route.c ---------------------------------------------------------------------------------- */
/* Tell the span of this request its route, if the environ says one. Raises nothing. */
void route_take(struct wsgi_call *call);

/* -- reply.c ---------------------------------------------------------------------------------- */
/* Send `body` (head first if it is due). known_length: of the whole body, -1 if not known.
 * now: the client must have it before the application goes on. */
CTS_RAISES int reply_put(struct wsgi_call *call, struct cts_bytes body, int64_t known_length,
                         bool now);
/* The whole body: `count` bytes of the regular file `file_fd` from `at` on. */
CTS_RAISES int reply_file(struct wsgi_call *call, int file_fd, uint64_t at, uint64_t count);
/* The body is complete. */
CTS_RAISES int reply_finish(struct wsgi_call *call, bool now);
/* Answer with an error page; too late for one, the connection is dropped. Raises nothing. */
void reply_fail(struct wsgi_call *call, int status);

/* -- files.c ---------------------------------------------------------------------------------- */
/* A regular file, from where it stands to its end. */
struct file_range {
    int fd;
    uint64_t at, count;
};
/* Is `result` our file wrapper around a file that can be sent without reading it? Raises nothing:
 * what cannot be sent so is read. */
bool file_wrapper_range(struct wsgi_state *state, PyObject *result, struct file_range *ret_range);

/* -- iterate.c -------------------------------------------------------------------------------- */
/* Send what the application returned, and close it. */
CTS_RAISES int iterate_result(struct wsgi_call *call, PyObject *result);

/* -- hooks.c ---------------------------------------------------------------------------------- */
CTS_RAISES int hooks_pre_request(struct wsgi_call *call);
void hooks_post_request(struct wsgi_call *call);

/* -- access.c --------------------------------------------------------------------------------- */
CTS_RAISES int access_start(struct wsgi_access *access, const struct cts_settings *settings);
/* Append the line of this request to exchange->access. */
void access_line(struct wsgi_call *call, uint64_t begin_ns);

/* -- a set exception, put aside ------------------------------------------------------------- */
struct wsgi_aside {
    PyObject *type, *value, *traceback;
};
void aside_put(struct wsgi_aside *aside); /* none may be set: then nothing is put aside */
void aside_restore(struct wsgi_aside *aside);

#endif
