/* access.c - one line of the access log per request, made of gunicorn's atoms.
 *
 * The format is cut into pieces once, at start. What comes from outside is escaped: a quote gets a
 * backslash, as in gunicorn, and every byte outside 0x20-0x7E, and the backslash, becomes \xHH,
 * so that no client can write a line of its own or speak to a terminal. */
#include "call.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define ATOM_BYTES_MAX 8192u   /* of one escaped value; the rest is cut */

static const char single_atoms[] = "hlutrmUqHsBbfaTMDLp";

/* -- the format ------------------------------------------------------------------------------ */

static int add_piece(struct wsgi_access *access, struct wsgi_piece piece)
{
    if (access->pieces_count == WSGI_PIECES_MAX) {
        PyErr_SetString(PyExc_ValueError, "access_log_format has too many parts");
        return -1;
    }
    access->pieces[access->pieces_count++] = piece;
    return 0;
}

/* "%(name)s" at `at`: its end, or NULL when it is none. */
static const char *read_atom(const char *at, struct wsgi_piece *ret_piece)
{
    const char *name = at + 2, *end;
    size_t count;

    if (at[0] != '%' || at[1] != '(')
        return NULL;
    end = strchr(name, ')');
    if (end == NULL || end[1] == '\0' || strchr("sdirf", end[1]) == NULL)
        return NULL;
    count = (size_t)(end - name);
    *ret_piece = (struct wsgi_piece){.kind = '-'};
    if (count == 1 && strchr(single_atoms, *name) != NULL)
        ret_piece->kind = *name;
    else if (count > 3 && name[0] == '{' && name[count - 2] == '}' &&
             strchr("ioeIOE", name[count - 1]) != NULL)
        *ret_piece = (struct wsgi_piece){.kind = (char)((name[count - 1] | 0x20) - 'a' + 1),
                                         .text = {name + 1, count - 3}};
    return end + 2;
}

int access_start(struct wsgi_access *access, const struct cts_settings *settings)
{
    const char *format = cts_settings_text(settings, CTS_SETTING_access_log_format);
    const char *at, *literal;

    access->pieces_count = 0;
    for (at = literal = format == NULL ? "" : format; *at != '\0';) {
        struct wsgi_piece piece = {.kind = '%'};
        const char *end = at[0] == '%' && at[1] == '%' ? at + 2 : read_atom(at, &piece);
        if (end == NULL) {
            at++;
            continue;
        }
        if (piece.kind == '%')
            piece.text = (struct cts_bytes){"%", 1};
        if (at > literal &&
            add_piece(access, (struct wsgi_piece){'%', {literal, (size_t)(at - literal)}}) < 0)
            return -1;
        if (add_piece(access, piece) < 0)
            return -1;
        at = literal = end;
    }
    if (at > literal)
        return add_piece(access, (struct wsgi_piece){'%', {literal, (size_t)(at - literal)}});
    return 0;
}

/* -- one line -------------------------------------------------------------------------------- */

#define EACH(byte) (0x0101010101010101ull * (byte))

/* Do eight bytes stand in a line as they are? Of each test the highest bit of a byte says that it
 * is met there; one that is wrongly met lies above one that is rightly. */
static inline bool is_plain_word(uint64_t word)
{
    uint64_t quote = word ^ EACH('"'), backslash = word ^ EACH('\\'), delete = word ^ EACH(0x7f);
    uint64_t met = word | ((word - EACH(0x20)) & ~word) | ((quote - EACH(1)) & ~quote) |
                   ((backslash - EACH(1)) & ~backslash) | ((delete - EACH(1)) & ~delete);
    return (met & EACH(0x80)) == 0;
}

/* The bytes from `from` on that stand in a line as they are, eight at a time; how many. */
static inline size_t put_plain(char *to, const char *from, size_t count)
{
    size_t done = 0;
    uint64_t word;
    for (; count - done >= sizeof(word); done += sizeof(word)) {
        memcpy(&word, from + done, sizeof(word));
        if (!is_plain_word(word))
            break;
        memcpy(to + done, &word, sizeof(word));
    }
    return done;
}

/* Escaped, cut to ATOM_BYTES_MAX. Without memory the value is left out. */
static void put_escaped(struct cts_buffer *line, struct cts_bytes text)
{
    size_t count = text.count < ATOM_BYTES_MAX ? text.count : ATOM_BYTES_MAX;
    char *to;

    if (cts_buffer_reserve(line, count * 4) < 0)
        return;
    to = line->at + line->end;
    size_t plain = put_plain(to, text.at, count);
    to += plain;
    for (size_t i = plain; i < count; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        if (CTS_LIKELY(byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\')) {
            *to++ = (char)byte;
        } else if (byte == '"') {
            *to++ = '\\';
            *to++ = '"';
        } else {
            *to++ = '\\';
            *to++ = 'x';
            *to++ = "0123456789abcdef"[byte >> 4];
            *to++ = "0123456789abcdef"[byte & 15];
        }
    }
    line->end = (size_t)(to - line->at);
}

static inline void put_raw(struct cts_buffer *line, struct cts_bytes text)
{
    if (cts_buffer_reserve(line, text.count) < 0)
        return;   /* without memory the line is shorter */
    if (text.count > 0)
        memcpy(line->at + line->end, text.at, text.count);
    line->end += text.count;
}

static void put_number(struct cts_buffer *line, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put_raw(line, (struct cts_bytes){digits + at, sizeof(digits) - at});
}

static void put_or_dash(struct cts_buffer *line, const struct cts_bytes *text)
{
    if (text == NULL)
        put_raw(line, (struct cts_bytes){"-", 1});
    else
        put_escaped(line, *text);
}

/* What str() of an environ value says, borrowed from `*ret_held`. */
static bool environ_text(PyObject *value, PyObject **ret_held, struct cts_bytes *ret_text)
{
    Py_ssize_t count;
    if (CTS_LIKELY(value != NULL && PyUnicode_CheckExact(value) &&
                   PyUnicode_IS_COMPACT_ASCII(value))) {
        *ret_held = Py_NewRef(value);
        *ret_text = (struct cts_bytes){(const char *)PyUnicode_1BYTE_DATA(value),
                                       (size_t)PyUnicode_GET_LENGTH(value)};
        return true;
    }
    *ret_held = value == NULL ? NULL : PyObject_Str(value);
    const char *text = *ret_held == NULL ? NULL : PyUnicode_AsUTF8AndSize(*ret_held, &count);
    if (text == NULL) {
        PyErr_Clear();
        return false;
    }
    *ret_text = (struct cts_bytes){text, (size_t)count};
    return true;
}

static void put_environ(struct cts_buffer *line, struct wsgi_call *call, PyObject *key)
{
    PyObject *value = call->environ == NULL ? NULL : PyDict_GetItemWithError(call->environ, key);
    CTS_AUTO_REF PyObject *kept = Py_XNewRef(value);
    CTS_AUTO_REF PyObject *held = NULL;
    struct cts_bytes text;
    bool is_there = environ_text(kept, &held, &text);
    put_or_dash(line, is_there ? &text : NULL);
    PyErr_Clear();
}

/* {name}e: keys of the environ in any case; the last one counts. */
static void put_environ_named(struct cts_buffer *line, struct wsgi_call *call,
                              struct cts_bytes name)
{
    CTS_AUTO_REF PyObject *found = NULL, *held = NULL;
    PyObject *borrowed_key, *borrowed_value;
    Py_ssize_t position = 0;
    struct cts_bytes text;
    bool is_there;
    while (call->environ != NULL &&
           PyDict_Next(call->environ, &position, &borrowed_key, &borrowed_value)) {
        Py_ssize_t count;
        const char *key =
            PyUnicode_Check(borrowed_key) ? PyUnicode_AsUTF8AndSize(borrowed_key, &count) : NULL;
        if (key == NULL)
            PyErr_Clear();
        else if (cts_bytes_equal_nocase((struct cts_bytes){key, (size_t)count}, name))
            Py_XSETREF(found, Py_NewRef(borrowed_value));
    }
    is_there = environ_text(found, &held, &text);
    put_or_dash(line, is_there ? &text : NULL);
}

static void put_request_field(struct cts_buffer *line, const struct cts_request *request,
                              struct cts_bytes name)
{
    const struct cts_bytes *found = NULL;
    for (uint32_t i = 0; i < request->headers_count; i++)
        if (request->headers[i].name.count == name.count &&
            cts_bytes_equal_nocase(request->headers[i].name, name))
            found = &request->headers[i].value;
    put_or_dash(line, found);
}

/* Among the lines of the head that start_response() left. */
static void put_response_field(struct cts_buffer *line, struct wsgi_call *call,
                               struct cts_bytes name)
{
    struct cts_bytes rest = cts_buffer_view(&call->head), found = {NULL, 0};
    const char *end;
    while (rest.count > 0 && (end = memchr(rest.at, '\r', rest.count)) != NULL) {
        size_t count = (size_t)(end - rest.at);
        if (count >= name.count + 2 && rest.at[name.count] == ':' &&
            cts_bytes_equal_nocase((struct cts_bytes){rest.at, name.count}, name))
            found = (struct cts_bytes){rest.at + name.count + 2, count - name.count - 2};
        rest.at += count + 2;
        rest.count -= count + 2;
    }
    put_or_dash(line, found.at == NULL ? NULL : &found);
}

/* "[23/Nov/2026:14:20:31 +0000]", made once a second. Lock held, so one is enough. */
static void put_time(struct cts_buffer *line, struct wsgi_access *access)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != access->second) {
        access->second = now.tv_sec;
        if (localtime_r(&now.tv_sec, &parts) == NULL ||
            strftime(access->time, sizeof(access->time), "[%d/%b/%Y:%H:%M:%S %z]", &parts) == 0)
            access->time[0] = '\0';
    }
    put_raw(line, cts_bytes_of(access->time));
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The user of a Basic authorization: what stands before the colon. */
static void put_user(struct cts_buffer *line, const struct cts_request *request)
{
    const struct cts_header *header = cts_request_header(request, "authorization");
    char user[256];
    size_t count = 0;
    uint32_t bits = 0, bits_count = 0;
    if (header == NULL || header->value.count < 7 ||
        !cts_bytes_equal_nocase((struct cts_bytes){header->value.at, 6},
                                (struct cts_bytes){"basic ", 6})) {
        put_or_dash(line, NULL);
        return;
    }
    for (size_t i = 6; i < header->value.count && count < sizeof(user); i++) {
        int value = base64_value(header->value.at[i]);
        if (value < 0)
            continue;
        bits = bits << 6 | (uint32_t)value;
        bits_count += 6;
        if (bits_count < 8)
            continue;
        bits_count -= 8;
        user[count] = (char)(bits >> bits_count & 255);
        if (user[count] == ':')
            break;
        count++;
    }
    struct cts_bytes text = {user, count};
    put_or_dash(line, count == 0 ? NULL : &text);
}

static void put_protocol(struct cts_buffer *line, const struct cts_request *request)
{
    char text[9] = "HTTP/1.1";
    text[5] = (char)('0' + request->version_major % 10);
    text[7] = (char)('0' + request->version_minor % 10);
    put_raw(line, (struct cts_bytes){text, 8});
}

static void put_seconds(struct cts_buffer *line, uint64_t us)
{
    char text[32];
    int count = snprintf(text, sizeof(text), "%llu.%06u", (unsigned long long)(us / 1000000),
                         (unsigned)(us % 1000000));
    put_raw(line, (struct cts_bytes){text, (size_t)count});
}

static void put_piece(struct cts_buffer *line, struct wsgi_call *call,
                      const struct wsgi_piece *piece, uint64_t us)
{
    struct wsgi_state *state = call->state;
    const struct cts_exchange *exchange = call->exchange;
    const struct cts_request *request = exchange->request;
    switch (piece->kind) {
    case '%':
        put_raw(line, piece->text);
        break;
    case 'h':
        put_environ(line, call, state->keys[WSGI_KEY_REMOTE_ADDR]);
        break;
    case 'u':
        put_user(line, request);
        break;
    case 't':
        put_time(line, &state->access);
        break;
    case 'r':
        put_escaped(line, request->method);
        put_raw(line, (struct cts_bytes){" ", 1});
        put_escaped(line, request->target);
        put_raw(line, (struct cts_bytes){" ", 1});
        put_protocol(line, request);
        break;
    case 's':
        put_number(line, (uint64_t)exchange->status);
        break;
    case 'm':
        put_escaped(line, request->method);
        break;
    case 'U':
        put_environ(line, call, state->keys[WSGI_KEY_PATH_INFO]);
        break;
    case 'q':
        put_escaped(line, request->query);
        break;
    case 'H':
        put_protocol(line, request);
        break;
    case 'b':
    case 'B':
        put_number(line, exchange->body_sent_bytes);
        break;
    case 'f':
        put_request_field(line, request, (struct cts_bytes){"referer", 7});
        break;
    case 'a':
        put_or_dash(line, request->user_agent.count > 0 ? &request->user_agent : NULL);
        break;
    case 'T':
        put_number(line, us / 1000000);
        break;
    case 'M':
        put_number(line, us / 1000);
        break;
    case 'D':
        put_number(line, us);
        break;
    case 'L':
        put_seconds(line, us);
        break;
    case 'p':
        put_raw(line, (struct cts_bytes){"<", 1});
        put_number(line, (uint64_t)getpid());
        put_raw(line, (struct cts_bytes){">", 1});
        break;
    case WSGI_PIECE_REQUEST_FIELD:
        put_request_field(line, request, piece->text);
        break;
    case WSGI_PIECE_RESPONSE_FIELD:
        put_response_field(line, call, piece->text);
        break;
    case WSGI_PIECE_ENVIRON:
        put_environ_named(line, call, piece->text);
        break;
    default:
        put_or_dash(line, NULL);
        break;
    }
}

void access_line(struct wsgi_call *call, uint64_t begin_ns)
{
    struct cts_buffer *line = call->exchange->access;
    const struct wsgi_access *access = &call->state->access;
    struct wsgi_aside aside = {NULL, NULL, NULL};
    uint64_t us = (cts_clock_mono_ns() - begin_ns) / 1000;
    bool had_error = PyErr_Occurred() != NULL;
    if (had_error)
        aside_put(&aside);
    for (size_t i = 0; i < access->pieces_count; i++)
        put_piece(line, call, &access->pieces[i], us);
    put_raw(line, (struct cts_bytes){"\n", 1});
    if (had_error)
        aside_restore(&aside);
}
