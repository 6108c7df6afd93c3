/* settings_check.c - the last look at all settings together, before anything starts.
 *
 * Three kinds of findings: a setting that decides who may connect, with what protection or as
 * whom we run, and that ctserve cannot honour yet, ends the start; so does a worker class that we
 * do not have. What merely does nothing yet is named in one warning line. */
#include "ctserve/buffer.h"
#include "ctserve/log.h"
#include "settings_value.h"

#include <strings.h>
#include <unistd.h>

#define CLASS_SYNC "sync"
#define CLASS_GTHREAD "gthread"

/* -- worker_class ----------------------------------------------------------------------- */
static const char *const sync_names[] = {CLASS_SYNC, "gunicorn.workers.sync.SyncWorker",
                                         "egg:gunicorn#sync"};
static const char *const gthread_names[] = {CLASS_GTHREAD, "gunicorn.workers.gthread.ThreadWorker",
                                            "egg:gunicorn#gthread"};

static bool is_among(const char *word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(word, words[i]) == 0)
            return true;
    }
    return false;
}

bool cts_settings_is_gthread(const struct cts_settings *settings)
{
    const char *name = cts_settings_text(settings, CTS_SETTING_worker_class);

    if (name != NULL && is_among(name, gthread_names, CTS_COUNT(gthread_names)))
        return true;
    return cts_settings_int(settings, CTS_SETTING_threads) > 1;
}

static bool contains(const char *name, const char *part)
{
    return strcasestr(name, part) != NULL;
}

static int check_worker_class(const struct cts_settings *settings, struct cts_error *error)
{
    static const char *const known[] = {CLASS_SYNC, CLASS_GTHREAD, "gevent", "tornado", "asgi",
                                        "eventlet"};
    const struct cts_value *value = &settings->values[CTS_SETTING_worker_class];
    const char *name = value->text;
    int near;

    if (value->kind != CTS_VALUE_TEXT)
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "worker_class: ctserve's workers are written in C, a class of your "
                             "own cannot replace them.\nUse sync or gthread (--threads N).");
    if (is_among(name, sync_names, CTS_COUNT(sync_names)) ||
        is_among(name, gthread_names, CTS_COUNT(gthread_names)))
        return 0;
    if (contains(name, "asgi") || contains(name, "uvicorn"))
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "worker_class: '%.100s' serves ASGI, which ctserve cannot do yet.\n"
                             "Use sync or gthread with a WSGI application.",
                             name);
    if (contains(name, "gevent") || contains(name, "eventlet") || contains(name, "tornado"))
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "worker_class: '%.100s' is not among ctserve's workers.\n"
                             "Use gthread (--threads N): idle and slow clients cost no thread.",
                             name);
    near = cts_nearest_word(name, known, CTS_COUNT(known));
    if (near >= 0)
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "worker_class: '%.100s' is unknown, did you mean '%s'?\n"
                             "ctserve has sync and gthread.",
                             name, known[near]);
    return cts_error_set(error, CTS_EXIT_FAILURE,
                         "worker_class: '%.100s' is unknown; ctserve has sync and gthread.", name);
}

/* -- refused settings ------------------------------------------------------------------- */
static const struct {
    enum cts_setting_id id;
    const char *advice;
} advices[] = {
    {CTS_SETTING_user, "start ctserve as that user (User= in a systemd unit, su, USER in a "
                       "container file)"},
    {CTS_SETTING_group, "start ctserve with that group (Group= in a systemd unit, sg, USER in a "
                        "container file)"},
    {CTS_SETTING_initgroups, "start ctserve as the user with its groups"},
    {CTS_SETTING_proxy_protocol, "let the proxy speak plain HTTP to ctserve"},
    {CTS_SETTING_protocol, "let the proxy speak HTTP to ctserve (proxy_pass instead of uwsgi_pass)"},
};

static const char *advice_for(enum cts_setting_id id)
{
    for (size_t i = 0; i < CTS_COUNT(advices); i++) {
        if (advices[i].id == id)
            return advices[i].advice;
    }
    return "take it out and end TLS in a proxy in front of ctserve";
}

/* Would this value make gunicorn do something else than ctserve does? */
static bool changes_behaviour(const struct cts_settings *settings, enum cts_setting_id id)
{
    const struct cts_value *value = &settings->values[id];

    switch (id) {
    case CTS_SETTING_user:
        return value->number != 0 && value->number != (int64_t)geteuid();
    case CTS_SETTING_group:
        return value->number != 0 && value->number != (int64_t)getegid();
    case CTS_SETTING_protocol:
        return value->text != NULL && strcmp(value->text, "uwsgi") == 0;
    default:
        return true;
    }
}

/* Does the value differ from what the row alone says? */
static bool differs(const struct cts_settings *settings, enum cts_setting_id id)
{
    struct cts_value usual = {0};
    struct cts_error ignored;
    bool from_env, is_equal;

    if (settings->sources[id] == CTS_SOURCE_DEFAULT)
        return false;
    if (value_default(id, false, &usual, &from_env, &ignored) < 0)
        return true;
    is_equal = value_equal(&usual, &settings->values[id]);
    value_free(&usual);
    return !is_equal;
}

static int check_refused(const struct cts_settings *settings, struct cts_error *error)
{
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        const struct cts_setting_row *row = &cts_setting_rows[id];

        if (row->status != CTS_STATUS_REFUSED || !differs(settings, (enum cts_setting_id)id) ||
            !changes_behaviour(settings, (enum cts_setting_id)id))
            continue;
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "%s is set, but ctserve cannot do that yet and will not start "
                             "without it.\nInstead: %s.",
                             row->name, advice_for((enum cts_setting_id)id));
    }
    return 0;
}

/* -- what does nothing yet -------------------------------------------------------------- */
/* Settings whose other values come to the same thing. */
static bool is_harmless(const struct cts_settings *settings, enum cts_setting_id id)
{
    const char *text = settings->values[id].text;

    return id == CTS_SETTING_logger_class && text != NULL && strcmp(text, "simple") == 0;
}

static void warn_pending(const struct cts_settings *settings)
{
    struct cts_buffer names = CTS_BUFFER_EMPTY;
    bool failed = false;

    for (int id = 0; id < CTS_SETTINGS_COUNT && !failed; id++) {
        if (cts_setting_rows[id].status != CTS_STATUS_PENDING ||
            !differs(settings, (enum cts_setting_id)id) ||
            is_harmless(settings, (enum cts_setting_id)id))
            continue;
        failed = cts_buffer_printf(&names, "%s%s", cts_buffer_count(&names) > 0 ? ", " : "",
                                   cts_setting_rows[id].name) < 0;
    }
    if (cts_buffer_count(&names) > 0)
        cts_warning("These settings do nothing in ctserve yet: %.*s",
                    (int)cts_buffer_count(&names), cts_buffer_view(&names).at);
    cts_buffer_free(&names);
}

static void warn_word(const struct cts_settings *settings, enum cts_setting_id id)
{
    const char *text = cts_settings_text(settings, id);
    char shown[100];

    if (text == NULL)
        return;
    for (const char *at = cts_setting_rows[id].metavar; *at != '\0';) {
        size_t count = strcspn(at, "|");

        if (cts_bytes_equal_nocase((struct cts_bytes){at, count}, cts_bytes_of(text)))
            return;
        at += count;
        at += *at == '|';
    }
    (void)cts_bytes_escape(cts_bytes_of(text), shown, sizeof(shown));
    cts_warning("%s: '%s' is none of %s, so it means %s", cts_setting_rows[id].name, shown,
                cts_setting_rows[id].metavar, cts_setting_rows[id].default_text);
}

/* -- pairs ------------------------------------------------------------------------------ */
static int check_raw_env(const struct cts_settings *settings, struct cts_error *error)
{
    char *const *list;
    size_t count = cts_settings_list(settings, CTS_SETTING_raw_env, &list);

    for (size_t i = 0; i < count; i++) {
        char shown[100];

        if (strchr(list[i], '=') != NULL && list[i][0] != '=')
            continue;
        (void)cts_bytes_escape(cts_bytes_of(list[i]), shown, sizeof(shown));
        return cts_error_set(error, CTS_EXIT_FAILURE, "raw_env: '%s' is not NAME=VALUE", shown);
    }
    return 0;
}

int cts_settings_check(const struct cts_settings *settings, struct cts_error *error)
{
    if (check_worker_class(settings, error) < 0 || check_refused(settings, error) < 0 ||
        check_raw_env(settings, error) < 0)
        return -1;
    warn_word(settings, CTS_SETTING_loglevel);
    warn_word(settings, CTS_SETTING_protocol);
    warn_pending(settings);
    return 0;
}
