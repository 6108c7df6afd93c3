/* help.c - what --help says, made from the settings table. */
#include "help.h"

#include "ctserve/buffer.h"
#include "ctserve/settings.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>

#define COLUMN_BYTES 32   /* where the sentences begin */
#define LINE_BYTES 100

/* -- pieces ----------------------------------------------------------------------------- */
static bool has_words(const struct cts_setting_row *row)
{
    return row->kind != CTS_KIND_BOOL && row->metavar[0] != '\0' &&
           strcmp(row->metavar, "flag") != 0;
}

/* "-w, --workers INT" */
static int put_flags(struct cts_buffer *out, const struct cts_setting_row *row)
{
    struct cts_bytes word;
    const char *rest = row->flags;
    int r = 0;

    for (int i = 0; r == 0 && (rest = options_next_word(rest, &word)) != NULL; i++)
        r = cts_buffer_printf(out, "%s%.*s", i > 0 ? ", " : "", (int)word.count, word.at);
    if (r == 0 && has_words(row))
        r = cts_buffer_printf(out, " %s", row->metavar);
    else if (r == 0 && row->kind != CTS_KIND_BOOL)
        r = cts_buffer_printf(out, " VALUE");
    return r;
}

/* `text` from the present column on, broken at blanks, further lines indented. */
static int put_wrapped(struct cts_buffer *out, const char *text, size_t column, size_t indent)
{
    struct cts_bytes word;
    int r = 0;

    for (bool is_first = true; r == 0 && (text = options_next_word(text, &word)) != NULL;
         is_first = false) {
        if (!is_first && column + 1 + word.count > LINE_BYTES) {
            r = cts_buffer_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!is_first) {
            r = cts_buffer_put(out, " ", 1);
            column++;
        }
        if (r == 0)
            r = cts_buffer_put(out, word.at, word.count);
        column += word.count;
    }
    return r < 0 ? r : cts_buffer_put(out, "\n", 1);
}

/* The first sentence of a doc line is enough where many stand below each other. */
static size_t first_sentence(const char *doc)
{
    const char *end = strstr(doc, ". ");
    size_t count = strlen(doc);

    if (end != NULL)
        return (size_t)(end - doc);
    return count > 0 && doc[count - 1] == '.' ? count - 1 : count;
}

static int put_option(struct cts_buffer *out, const struct cts_setting_row *row, bool is_brief)
{
    size_t start;
    size_t width;
    char doc[512];
    int r = cts_buffer_printf(out, "  ");

    if (r < 0)
        return r;
    start = cts_buffer_count(out) - 2;
    r = row->flags[0] != '\0' ? put_flags(out, row)
                              : cts_buffer_printf(out, "(config file) %s", row->name);
    width = cts_buffer_count(out) - start;
    if (r == 0 && width + 2 > COLUMN_BYTES) {
        r = cts_buffer_put(out, "\n", 1);
        width = 0;
    }
    if (r == 0)
        r = cts_buffer_printf(out, "%*s", (int)(COLUMN_BYTES - width), "");
    if (r < 0)
        return r;
    (void)snprintf(doc, sizeof(doc), "%.*s", (int)first_sentence(row->doc), row->doc);
    if (is_brief && strstr(doc, "; ") != NULL)
        *strstr(doc, "; ") = '\0';
    if (is_brief) /* one line each: the page has a bound */
        return cts_buffer_printf(out, "%.*s\n", LINE_BYTES - COLUMN_BYTES, doc);
    return put_wrapped(out, doc, COLUMN_BYTES, COLUMN_BYTES);
}

/* -- the everyday page ------------------------------------------------------------------ */
static const struct {
    const char *title;
    enum cts_setting_id ids[8];
    size_t ids_count;
} groups[] = {
    {"Where and how many",
     {CTS_SETTING_bind, CTS_SETTING_workers, CTS_SETTING_threads, CTS_SETTING_worker_class,
      CTS_SETTING_preload_app},
     5},
    {"Limits", {CTS_SETTING_timeout, CTS_SETTING_request_timeout}, 2},
    {"Configuration and logs",
     {CTS_SETTING_config, CTS_SETTING_check_config, CTS_SETTING_print_config,
      CTS_SETTING_loglevel},
     4},
    {"Tracing (on unless told otherwise)",
     {CTS_SETTING_tracing, CTS_SETTING_trace_otlp_endpoint, CTS_SETTING_trace_service_name,
      CTS_SETTING_trace_api},
     4},
};

static int put_everyday(struct cts_buffer *out)
{
    int r = cts_buffer_printf(
        out, "usage: ctserve [options] MODULE:APP\n\n"
             "  ctserve shop:app --workers 4     serve `app` of shop.py with four processes\n"
             "  ctserve shop:app --threads 8     the same with eight threads in one\n"
             "  ctserve -c gunicorn.conf.py      everything from a file, gunicorn's do\n");

    for (size_t i = 0; r == 0 && i < CTS_COUNT(groups); i++) {
        r = cts_buffer_printf(out, "\n%s\n", groups[i].title);
        for (size_t j = 0; r == 0 && j < groups[i].ids_count; j++)
            r = put_option(out, &cts_setting_rows[groups[i].ids[j]], true);
    }
    if (r == 0)
        r = cts_buffer_printf(out, "\n"
                                   "  ctserve --help all               every option\n"
                                   "  ctserve --help workers           one setting, in full\n"
                                   "  ctserve --version\n");
    return r;
}

/* -- everything ------------------------------------------------------------------------- */
static bool is_first_of_section(int id)
{
    for (int before = 0; before < id; before++) {
        if (strcmp(cts_setting_rows[before].section, cts_setting_rows[id].section) == 0)
            return false;
    }
    return true;
}

static int put_section(struct cts_buffer *out, const char *section)
{
    int r = cts_buffer_printf(out, "\n%s\n", section);

    for (int id = 0; r == 0 && id < CTS_SETTINGS_COUNT; id++) {
        if (strcmp(cts_setting_rows[id].section, section) == 0)
            r = put_option(out, &cts_setting_rows[id], false);
    }
    return r;
}

static int put_everything(struct cts_buffer *out)
{
    int r = cts_buffer_printf(out, "usage: ctserve [options] MODULE:APP\n\n"
                                   "  -h, --help [all|NAME]         %s\n"
                                   "  -v, --version                 %s\n",
                              "This page's short form, all of it, or one setting",
                              "Print the version");

    for (int id = 0; r == 0 && id < CTS_SETTINGS_COUNT; id++) {
        if (is_first_of_section(id))
            r = put_section(out, cts_setting_rows[id].section);
    }
    return r;
}

/* -- one setting ------------------------------------------------------------------------ */
static const char *kind_text(enum cts_setting_kind kind)
{
    switch (kind) {
    case CTS_KIND_INT:
        return "whole number";
    case CTS_KIND_BOOL:
        return "True or False";
    case CTS_KIND_TEXT:
        return "text or None";
    case CTS_KIND_CHOICE:
        return "one of these words";
    case CTS_KIND_LIST:
        return "list of texts";
    case CTS_KIND_DICT:
        return "dictionary";
    case CTS_KIND_HOOK:
        return "function";
    }
    return "";
}

static const char *status_text(enum cts_setting_status status)
{
    switch (status) {
    case CTS_STATUS_WORKS:
        return NULL;
    case CTS_STATUS_PENDING:
        return "does nothing yet; a warning says so when it is set";
    case CTS_STATUS_REFUSED:
        return "not possible yet; ctserve does not start when it is set";
    }
    return NULL;
}

static int put_fact(struct cts_buffer *out, const char *name, const char *fact)
{
    int r;

    if (fact == NULL || fact[0] == '\0')
        return 0;
    r = cts_buffer_printf(out, "  %-14s", name);
    return r < 0 ? r : put_wrapped(out, fact, 16, 16);
}

static int put_kind(struct cts_buffer *out, enum cts_setting_id id)
{
    const struct cts_setting_row *row = &cts_setting_rows[id];
    int64_t min, max;
    char fact[160];

    cts_settings_range(id, &min, &max);
    if (row->kind == CTS_KIND_INT)
        (void)snprintf(fact, sizeof(fact), "%s, %lld to %lld", kind_text(row->kind),
                       (long long)min, (long long)max);
    else if (row->kind == CTS_KIND_HOOK && row->arity_min != row->arity_max)
        (void)snprintf(fact, sizeof(fact), "%s of %d to %d arguments", kind_text(row->kind),
                       row->arity_min, row->arity_max);
    else if (row->kind == CTS_KIND_HOOK)
        (void)snprintf(fact, sizeof(fact), "%s of %d argument%s", kind_text(row->kind),
                       row->arity_min, row->arity_min == 1 ? "" : "s");
    else if (row->kind == CTS_KIND_CHOICE)
        (void)snprintf(fact, sizeof(fact), "%s: %s", kind_text(row->kind), row->metavar);
    else
        (void)snprintf(fact, sizeof(fact), "%s", kind_text(row->kind));
    return put_fact(out, "takes", fact);
}

static int put_one(struct cts_buffer *out, enum cts_setting_id id)
{
    const struct cts_setting_row *row = &cts_setting_rows[id];
    int r = cts_buffer_printf(out, "%s", row->name);

    if (r == 0 && row->flags[0] != '\0')
        r = cts_buffer_printf(out, "   ");
    if (r == 0 && row->flags[0] != '\0')
        r = put_flags(out, row);
    if (r == 0)
        r = cts_buffer_printf(out, "\n\n  ");
    if (r == 0)
        r = put_wrapped(out, row->doc, 2, 2);
    if (r == 0)
        r = cts_buffer_printf(out, "\n");
    if (r == 0)
        r = put_kind(out, id);
    if (r == 0)
        r = put_fact(out, "default", row->default_text != NULL && row->default_text[0] != '\0'
                                         ? row->default_text
                                         : row->default_text == NULL          ? "None"
                                           : row->kind == CTS_KIND_LIST ? "[]"
                                                                        : "''");
    if (r == 0)
        r = put_fact(out, "environment", row->env);
    if (r == 0)
        r = cts_buffer_printf(out, "  %-14s%s = ...\n", "config file", row->name);
    if (r == 0)
        r = put_fact(out, "reload", row->reloadable ? "read again on SIGHUP"
                                                    : "only read at the start");
    if (r == 0)
        r = put_fact(out, "status", status_text(row->status));
    if (r == 0)
        r = put_fact(out, "gunicorn", row->ours ? "does not have this setting"
                                     : row->difference[0] != '\0' ? row->difference
                                                                  : "the same");
    return r;
}

/* "workers", "--workers", "-w", "keep-alive": the setting that is meant, or -1. */
static int find_topic(const char *topic)
{
    int id = cts_settings_find(topic);
    char flag[OPTION_FLAG_BYTES_MAX];
    struct option_match match;
    struct cts_error ignored;

    if (id >= 0)
        return id;
    (void)snprintf(flag, sizeof(flag), "%s%s", topic[0] == '-' ? "" : "--", topic);
    if (options_find(flag, strlen(flag), &match, &ignored) == 0 && match.kind == OPTION_SETTING)
        return (int)match.id;
    return -1;
}

static int unknown_topic(const char *topic, struct cts_error *error)
{
    const char *near = cts_settings_nearest(topic);
    char shown[100];

    (void)cts_bytes_escape(cts_bytes_of(topic), shown, sizeof(shown));
    if (near != NULL)
        return cts_error_set(error, CTS_EXIT_USAGE, "no setting is called '%s', did you mean '%s'?",
                             shown, near);
    return cts_error_set(error, CTS_EXIT_USAGE,
                         "no setting is called '%s'\n'ctserve --help all' lists every setting.",
                         shown);
}

int help_text(const char *topic, char **ret_text, struct cts_error *error)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    int id = -1;
    int r;

    if (topic != NULL && strcmp(topic, "all") != 0) {
        id = find_topic(topic);
        if (id < 0)
            return unknown_topic(topic, error);
    }
    if (topic == NULL)
        r = put_everyday(&out);
    else if (id < 0)
        r = put_everything(&out);
    else
        r = put_one(&out, (enum cts_setting_id)id);
    if (r == 0)
        r = cts_buffer_put(&out, "", 1); /* the NUL */
    if (r < 0) {
        cts_buffer_free(&out);
        return cts_error_set(error, CTS_EXIT_FAILURE, "out of memory while writing help");
    }
    *ret_text = out.at; /* nothing was dropped, so the text begins where the block does */
    return 0;
}
