/* settings_read.c - from what a user wrote to a checked value, for every source and kind.
 *
 * The rules are gunicorn's: what its validators take we take, what they refuse we refuse, with a
 * sentence that names the setting, the value and what would be right. A word where a number
 * belongs, on a command line, is exit 2 as argparse has it; every other bad value is exit 1. */
#include "settings_value.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "settings_check.h"

#define INT_MAX_USUAL INT32_MAX

/* Rows whose numbers are bounded otherwise than 0 to INT_MAX_USUAL. */
static const struct {
    enum cts_setting_id id;
    int64_t min;
    int64_t max;
} ranges[] = {
    {CTS_SETTING_cert_reqs, 0, 2},
    {CTS_SETTING_http2_max_concurrent_streams, 1, INT32_MAX},
    {CTS_SETTING_http2_max_frame_size, 16384, 16777215},
    {CTS_SETTING_websocket_max_message_size, 0, INT64_MAX},
    {CTS_SETTING_trace_ring_bytes, 65536, 1 << 30},
    {CTS_SETTING_user, 0, UINT32_MAX - 1},
    {CTS_SETTING_group, 0, UINT32_MAX - 1},
};

void cts_settings_range(enum cts_setting_id id, int64_t *ret_min, int64_t *ret_max)
{
    *ret_min = 0;
    *ret_max = INT_MAX_USUAL;
    for (size_t i = 0; i < CTS_COUNT(ranges); i++) {
        if (ranges[i].id == id) {
            *ret_min = ranges[i].min;
            *ret_max = ranges[i].max;
        }
    }
}

bool value_is_comma_list(enum cts_setting_id id)
{
    return id == CTS_SETTING_forwarded_allow_ips || id == CTS_SETTING_proxy_allow_ips ||
           id == CTS_SETTING_uwsgi_allow_ips || id == CTS_SETTING_forwarder_headers ||
           id == CTS_SETTING_http_protocols;
}

/* -- sentences -------------------------------------------------------------------------- */
/* What the user wrote, short and printable. */
static void describe(const struct cts_value *raw, char *to, size_t to_bytes)
{
    char inner[160];

    switch (raw->kind) {
    case CTS_VALUE_NONE:
        (void)snprintf(to, to_bytes, "None");
        return;
    case CTS_VALUE_INT:
        (void)snprintf(to, to_bytes, "%lld", (long long)raw->number);
        return;
    case CTS_VALUE_BOOL:
        (void)snprintf(to, to_bytes, "%s", raw->number != 0 ? "True" : "False");
        return;
    case CTS_VALUE_TEXT:
        (void)cts_bytes_escape(cts_bytes_of(raw->text), inner, sizeof(inner));
        (void)snprintf(to, to_bytes, "'%s'", inner);
        return;
    case CTS_VALUE_LIST:
        (void)snprintf(to, to_bytes, "a list");
        return;
    case CTS_VALUE_OBJECT:
        (void)snprintf(to, to_bytes, "that object");
        return;
    }
    (void)snprintf(to, to_bytes, "that");
}

CTS_PRINTF(4, 5)
static int refuse(enum cts_setting_id id, const struct cts_value *raw, struct cts_error *error,
                  const char *format, ...)
{
    char value[200];
    char right[512];
    va_list arguments;

    describe(raw, value, sizeof(value));
    va_start(arguments, format);
    (void)vsnprintf(right, sizeof(right), format, arguments);
    va_end(arguments);
    return cts_error_set(error, CTS_EXIT_FAILURE, "%s: %s %s", cts_setting_rows[id].name, value,
                         right);
}

static int no_memory(struct cts_error *error)
{
    return cts_error_set(error, CTS_EXIT_FAILURE, "out of memory while reading settings");
}

/* -- text ------------------------------------------------------------------------------- */
/* The text without white space around it, as Python's str.strip() leaves it. */
static struct cts_bytes trimmed(const char *text, size_t count)
{
    struct cts_bytes view = {text, count};

    while (view.count > 0 && isspace((unsigned char)view.at[0])) {
        view.at++;
        view.count--;
    }
    while (view.count > 0 && isspace((unsigned char)view.at[view.count - 1]))
        view.count--;
    return view;
}

static struct cts_bytes trimmed_text(const char *text)
{
    return trimmed(text, strlen(text));
}

static bool may_be_object(enum cts_setting_id id)
{
    return id == CTS_SETTING_worker_class || id == CTS_SETTING_logger_class;
}

/* A relative directory counts from where the process started; it must exist. */
static int read_chdir(enum cts_setting_id id, const struct cts_value *raw,
                      struct cts_value *ret_value, struct cts_error *error)
{
    struct cts_bytes view = trimmed_text(raw->text);
    struct cts_value base = {0};
    char *parts, *part, *rest = NULL;
    char path[PATH_MAX + 1];
    size_t used = 0;
    bool from_env;
    int r = -1;

    if (value_default(id, false, &base, &from_env, error) < 0)
        return -1;
    size_t bytes = strlen(base.text) + view.count + 2;
    parts = malloc(bytes);
    if (parts == NULL || bytes > PATH_MAX) {
        value_free(&base);
        free(parts);
        return parts == NULL ? no_memory(error) : refuse(id, raw, error, "is too long a path");
    }
    (void)snprintf(parts, bytes, "%s/%.*s", view.count > 0 && view.at[0] == '/' ? "" : base.text,
                   (int)view.count, view.count > 0 ? view.at : "");
    /* Resolve "." and ".." by text alone, so that symlinks stay as typed. */
    for (part = strtok_r(parts, "/", &rest); part != NULL; part = strtok_r(NULL, "/", &rest)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            while (used > 0 && path[used - 1] != '/')
                used--;
            used -= used > 0;
            continue;
        }
        path[used++] = '/';
        memcpy(path + used, part, strlen(part));
        used += strlen(part);
    }
    if (used == 0)
        path[used++] = '/';
    path[used] = '\0';
    if (access(path, F_OK) != 0)
        r = refuse(id, raw, error, "is no directory we can change to (%s): %s", path,
                   strerror(errno));
    else if (value_set_text(ret_value, path, used) < 0)
        r = no_memory(error);
    else
        r = 0;
    free(parts);
    value_free(&base);
    return r;
}

static int read_text(enum cts_setting_id id, const struct cts_value *raw,
                     struct cts_value *ret_value, struct cts_error *error)
{
    struct cts_bytes view;

    if (raw->kind == CTS_VALUE_NONE)
        return id == CTS_SETTING_chdir
                   ? refuse(id, raw, error, "is not a path; leave it out to stay where you are")
                   : 0;
    if (raw->kind == CTS_VALUE_OBJECT && may_be_object(id)) {
        *ret_value = (struct cts_value){.kind = CTS_VALUE_OBJECT, .object = raw->object};
        return 0;
    }
    if (raw->kind != CTS_VALUE_TEXT)
        return refuse(id, raw, error, "is not a text; write it in quotes");
    if (id == CTS_SETTING_chdir)
        return read_chdir(id, raw, ret_value, error);
    view = trimmed_text(raw->text);
    return value_set_text(ret_value, view.at, view.count) < 0 ? no_memory(error) : 0;
}

/* -- numbers ---------------------------------------------------------------------------- */
static int digit_of(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return 99;
}

enum number_habit {
    NUMBER_DECIMAL, /* int("12"): command line, environment */
    NUMBER_LITERAL, /* int("0x10", 0): a text in a config file; 010 is a mistake */
    NUMBER_OCTAL,   /* as a literal, but 022 means 0o22: umask and file modes */
};

/* Python's int() for the bases we need: sign, one underscore between digits, white space around.
 * false when it is no number; too large ones are cut to the end of int64. */
static bool read_number(struct cts_bytes text, enum number_habit habit, int64_t *ret_number)
{
    struct cts_bytes view = trimmed(text.at, text.count);
    bool is_negative = false, had_digit = false, all_zero = true, leading_zero;
    uint64_t number = 0;
    unsigned base = 10;
    size_t i = 0;

    if (view.count > 0 && (view.at[0] == '-' || view.at[0] == '+')) {
        is_negative = view.at[0] == '-';
        i = 1;
    }
    if (habit != NUMBER_DECIMAL && view.count > i + 1 && view.at[i] == '0') {
        char mark = (char)(view.at[i + 1] | 0x20);
        base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
        if (base != 10) {
            i += 2;
            if (i < view.count && view.at[i] == '_')
                i++;
        } else if (habit == NUMBER_OCTAL && isdigit((unsigned char)view.at[i + 1])) {
            base = 8;
        }
    }
    leading_zero = i < view.count && view.at[i] == '0';
    for (; i < view.count; i++) {
        int digit = digit_of(view.at[i]);

        if (view.at[i] == '_' && had_digit && i + 1 < view.count && view.at[i + 1] != '_')
            continue;
        if (digit >= (int)base)
            return false;
        had_digit = true;
        all_zero = all_zero && digit == 0;
        if (number <= INT64_MAX / 16u - 1)
            number = number * base + (unsigned)digit;
        else
            number = INT64_MAX; /* stays there: far above every range */
    }
    if (!had_digit || (habit == NUMBER_LITERAL && base == 10 && leading_zero && !all_zero))
        return false;
    *ret_number = is_negative ? -(int64_t)number : (int64_t)number;
    return true;
}

static enum number_habit habit_of(enum cts_setting_id id, enum cts_setting_source source)
{
    if (id == CTS_SETTING_umask || id == CTS_SETTING_control_socket_mode)
        return NUMBER_OCTAL;
    return source == CTS_SOURCE_FILE ? NUMBER_LITERAL : NUMBER_DECIMAL;
}

static int check_range(enum cts_setting_id id, const struct cts_value *raw, int64_t number,
                       struct cts_error *error)
{
    int64_t min, max;

    cts_settings_range(id, &min, &max);
    if (number < min || number > max)
        return refuse(id, raw, error, "is out of range: %lld to %lld is right", (long long)min,
                      (long long)max);
    if (id == CTS_SETTING_trace_ring_bytes && (number & (number - 1)) != 0)
        return refuse(id, raw, error, "is not a power of two, such as 1048576 or 4194304");
    return 0;
}

/* A user or group by name; the number, -1 for nobody known. */
static int64_t find_account(enum cts_setting_id id, const char *name)
{
    if (id == CTS_SETTING_user) {
        const struct passwd *user = getpwnam(name);
        return user != NULL ? (int64_t)user->pw_uid : -1;
    }
    const struct group *group = getgrnam(name);
    return group != NULL ? (int64_t)group->gr_gid : -1;
}

static int read_account(enum cts_setting_id id, const struct cts_value *raw, int64_t *ret_number,
                        struct cts_error *error)
{
    size_t digits_count = strspn(raw->text, "0123456789");

    if (digits_count > 0 && digits_count <= 10 && raw->text[digits_count] == '\0') {
        *ret_number = strtoll(raw->text, NULL, 10);
        return 0;
    }
    *ret_number = find_account(id, raw->text);
    if (*ret_number < 0)
        return refuse(id, raw, error, "is no %s that this machine knows",
                      id == CTS_SETTING_user ? "user" : "group");
    return 0;
}

static int read_int(enum cts_setting_id id, enum cts_setting_source source,
                    const struct cts_value *raw, struct cts_value *ret_value,
                    struct cts_error *error)
{
    bool is_account = id == CTS_SETTING_user || id == CTS_SETTING_group;
    int64_t number = 0, min, max;

    cts_settings_range(id, &min, &max);
    if (raw->kind == CTS_VALUE_INT || raw->kind == CTS_VALUE_BOOL) {
        number = raw->number; /* True is 1 in Python */
    } else if (is_account && raw->kind == CTS_VALUE_NONE) {
        number = id == CTS_SETTING_user ? (int64_t)geteuid() : (int64_t)getegid();
    } else if (is_account && raw->kind == CTS_VALUE_TEXT) {
        if (read_account(id, raw, &number, error) < 0)
            return -1;
    } else if (raw->kind != CTS_VALUE_TEXT ||
               !read_number(cts_bytes_of(raw->text), habit_of(id, source), &number)) {
        (void)refuse(id, raw, error, "is not a whole number; %lld to %lld is right",
                     (long long)min, (long long)max);
        if (source >= CTS_SOURCE_GUNICORN_ARGS)
            error->exit_code = CTS_EXIT_USAGE;
        return -1;
    }
    if (check_range(id, raw, number, error) < 0)
        return -1;
    *ret_value = (struct cts_value){.kind = CTS_VALUE_INT, .number = number};
    return 0;
}

/* -- yes or no, one of a few words ------------------------------------------------------ */
static bool is_word(struct cts_bytes view, const char *word)
{
    return cts_bytes_equal_nocase(view, cts_bytes_of(word));
}

static int read_bool(enum cts_setting_id id, const struct cts_value *raw,
                     struct cts_value *ret_value, struct cts_error *error)
{
    bool yes;

    if (raw->kind == CTS_VALUE_NONE)
        return 0;
    if (raw->kind == CTS_VALUE_BOOL) {
        yes = raw->number != 0;
    } else if (raw->kind == CTS_VALUE_TEXT && is_word(trimmed_text(raw->text), "true")) {
        yes = true;
    } else if (raw->kind == CTS_VALUE_TEXT && is_word(trimmed_text(raw->text), "false")) {
        yes = false;
    } else {
        return refuse(id, raw, error, "is neither True nor False");
    }
    *ret_value = (struct cts_value){.kind = CTS_VALUE_BOOL, .number = yes};
    return 0;
}

/* Other spellings that gunicorn takes for a word of these settings. */
static const struct {
    enum cts_setting_id id;
    const char *said;
    const char *meant;
} spellings[] = {
    {CTS_SETTING_proxy_protocol, "false", "off"}, {CTS_SETTING_proxy_protocol, "0", "off"},
    {CTS_SETTING_proxy_protocol, "none", "off"},  {CTS_SETTING_proxy_protocol, "true", "auto"},
    {CTS_SETTING_proxy_protocol, "1", "auto"},
};

static const char *spelling(enum cts_setting_id id, const struct cts_value *raw)
{
    if (raw->kind == CTS_VALUE_BOOL && id == CTS_SETTING_proxy_protocol)
        return raw->number != 0 ? "auto" : "off";
    if (raw->kind == CTS_VALUE_BOOL && id == CTS_SETTING_http2_cleartext)
        return raw->number != 0 ? "prior-knowledge" : "off";
    for (size_t i = 0; raw->kind == CTS_VALUE_TEXT && i < CTS_COUNT(spellings); i++) {
        if (spellings[i].id == id && is_word(trimmed_text(raw->text), spellings[i].said))
            return spellings[i].meant;
    }
    return NULL;
}

/* The word of "a|b|c" that `view` says, in any case, or nothing. */
static struct cts_bytes find_choice(const char *words, struct cts_bytes view)
{
    const char *at = words;

    while (*at != '\0') {
        size_t count = strcspn(at, "|");
        struct cts_bytes word = {at, count};

        if (cts_bytes_equal_nocase(word, view))
            return word;
        at += count;
        at += *at == '|';
    }
    return (struct cts_bytes){NULL, 0};
}

static int read_choice(enum cts_setting_id id, const struct cts_value *raw,
                       struct cts_value *ret_value, struct cts_error *error)
{
    const struct cts_setting_row *row = &cts_setting_rows[id];
    const char *other = spelling(id, raw);
    struct cts_bytes word;

    if (raw->kind == CTS_VALUE_NONE) {
        if (row->default_text == NULL)
            return 0;
        word = cts_bytes_of(row->default_text);
    } else if (other != NULL) {
        word = cts_bytes_of(other);
    } else if (raw->kind != CTS_VALUE_TEXT) {
        return refuse(id, raw, error, "is none of its words: %s", row->metavar);
    } else if (id == CTS_SETTING_loglevel || id == CTS_SETTING_protocol) {
        /* gunicorn takes any word here and falls back to the default; so do we, and
         * cts_settings_check says so. */
        word = trimmed_text(raw->text);
    } else {
        word = find_choice(row->metavar, trimmed_text(raw->text));
        if (word.at == NULL)
            return refuse(id, raw, error, "is none of its words: %s", row->metavar);
    }
    return value_set_text(ret_value, word.at, word.count) < 0 ? no_memory(error) : 0;
}

/* -- lists ------------------------------------------------------------------------------ */
static int add_element(enum cts_setting_id id, struct cts_bytes view, struct cts_value *list,
                       struct cts_error *error)
{
    int r;

    if (settings_check_element(id, view, error) < 0)
        return -1;
    if (id == CTS_SETTING_http_protocols) {
        view = cts_bytes_of(cts_bytes_equal_nocase(view, cts_bytes_of("h1")) ? "h1" : "h2");
        for (size_t i = 0; i < list->list_count; i++) {
            if (cts_bytes_equal(view, cts_bytes_of(list->list[i])))
                return cts_error_set(error, CTS_EXIT_FAILURE,
                                     "http_protocols: %s stands there twice", list->list[i]);
        }
    }
    r = value_list_add(list, view.at, view.count);
    if (r == -E2BIG)
        return cts_error_set(error, CTS_EXIT_FAILURE, "%s: more than %d values",
                             cts_setting_rows[id].name, SETTINGS_LIST_COUNT_MAX);
    return r < 0 ? no_memory(error) : 0;
}

static int read_commas(enum cts_setting_id id, const char *text, struct cts_value *list,
                       struct cts_error *error)
{
    const char *at = text;

    while (*at != '\0') {
        size_t count = strcspn(at, ",");

        /* Nothing between two commas is nothing; blanks alone are an element, as in gunicorn. */
        if (count > 0 && add_element(id, trimmed(at, count), list, error) < 0)
            return -1;
        at += count;
        at += *at == ',';
    }
    return 0;
}

static int read_list(enum cts_setting_id id, const struct cts_value *raw,
                     struct cts_value *ret_value, struct cts_error *error)
{
    struct cts_value list = {.kind = CTS_VALUE_LIST};
    int r = 0;

    if (raw->kind == CTS_VALUE_LIST && value_is_comma_list(id))
        return refuse(id, raw, error, "is not right here: write one text with commas");
    if (raw->kind == CTS_VALUE_LIST) {
        for (size_t i = 0; r == 0 && i < raw->list_count; i++)
            r = add_element(id, trimmed_text(raw->list[i]), &list, error);
    } else if (raw->kind == CTS_VALUE_TEXT && value_is_comma_list(id)) {
        struct cts_value whole;
        struct cts_bytes view = trimmed_text(raw->text);

        if (value_set_text(&whole, view.at, view.count) < 0)
            return no_memory(error);
        r = read_commas(id, whole.text, &list, error);
        value_free(&whole);
    } else if (raw->kind == CTS_VALUE_TEXT) {
        /* One lone text is a list of one. */
        if (raw->text[0] != '\0')
            r = add_element(id, trimmed_text(raw->text), &list, error);
    } else if (raw->kind != CTS_VALUE_NONE &&
               !(raw->kind == CTS_VALUE_BOOL && raw->number == 0)) {
        return refuse(id, raw, error, "is not a list of texts");
    }
    if (r == 0 && id == CTS_SETTING_http_protocols && list.list_count == 0)
        r = add_element(id, cts_bytes_of("h1"), &list, error);
    if (r < 0) {
        value_free(&list);
        return -1;
    }
    *ret_value = list;
    return 0;
}

/* -- what only Python understands ------------------------------------------------------- */
static int read_object(enum cts_setting_id id, const struct cts_value *raw,
                       struct cts_value *ret_value, struct cts_error *error)
{
    if (raw->kind != CTS_VALUE_OBJECT)
        return refuse(id, raw, error, cts_setting_rows[id].kind == CTS_KIND_HOOK
                                          ? "is not callable; a hook is a function"
                                          : "is not a dictionary");
    *ret_value = (struct cts_value){.kind = CTS_VALUE_OBJECT, .object = raw->object};
    return 0;
}

int value_read(enum cts_setting_id id, enum cts_setting_source source,
               const struct cts_value *raw, struct cts_value *ret_value, struct cts_error *error)
{
    *ret_value = (struct cts_value){.kind = CTS_VALUE_NONE};
    switch (cts_setting_rows[id].kind) {
    case CTS_KIND_INT:
        return read_int(id, source, raw, ret_value, error);
    case CTS_KIND_BOOL:
        return read_bool(id, raw, ret_value, error);
    case CTS_KIND_TEXT:
        return read_text(id, raw, ret_value, error);
    case CTS_KIND_CHOICE:
        return read_choice(id, raw, ret_value, error);
    case CTS_KIND_LIST:
        return read_list(id, raw, ret_value, error);
    case CTS_KIND_DICT:
    case CTS_KIND_HOOK:
        return read_object(id, raw, ret_value, error);
    }
    return cts_error_set(error, CTS_EXIT_FAILURE, "%s: a kind nobody knows",
                         cts_setting_rows[id].name);
}
