/* settings.h - the settings table and the values in force. Room: base.
 *
 * `settings.def` is the one table. Every row gives: name, section, flags, metavar or choices,
 * kind, default, environment variable, reloadable, status, one doc line, gunicorn difference.
 * Command line, help, config file, --print-config, conf/full.conf.py and docs/settings.md are
 * made from it. Values are validated in one place (cts_settings_set), whatever they came from. */
#ifndef CTSERVE_SETTINGS_H
#define CTSERVE_SETTINGS_H

#include "ctserve/base.h"
#include "ctserve/buffer.h"
#include "ctserve/error.h"

enum cts_setting_id {
#define CTS_SETTING(name, ...) CTS_SETTING_##name,
#include "ctserve/settings.def"
#undef CTS_SETTING
    CTS_SETTINGS_COUNT,
};

/* What a setting is; how a text for it is read. */
enum cts_setting_kind {
    CTS_KIND_INT,       /* int64 within cts_settings_range; user and group: a name is looked up */
    CTS_KIND_BOOL,
    CTS_KIND_TEXT,      /* text or None */
    CTS_KIND_CHOICE,    /* text out of a list */
    CTS_KIND_LIST,      /* list of text; a lone text is one element, but forwarded_allow_ips,
                           proxy_allow_ips, uwsgi_allow_ips, forwarder_headers and http_protocols
                           take exactly one text and cut it at its commas, as gunicorn does */
    CTS_KIND_DICT,      /* a Python dict, kept by the python room as an object */
    CTS_KIND_HOOK,      /* a Python callable, kept by the python room */
};

/* Which arity a hook has is in the row (arity_min, arity_max). */

enum cts_setting_status {
    CTS_STATUS_WORKS,
    CTS_STATUS_PENDING,   /* does nothing yet: named in one warning when set */
    CTS_STATUS_REFUSED,   /* decides who may connect or as whom we run and does not work yet:
                             a value other than the default ends the start with exit 1 */
};

enum cts_setting_source {
    CTS_SOURCE_DEFAULT,
    CTS_SOURCE_ENV_DEFAULT,  /* PORT, WEB_CONCURRENCY, FORWARDED_ALLOW_IPS, ... */
    CTS_SOURCE_FILE,
    CTS_SOURCE_GUNICORN_ARGS,
    CTS_SOURCE_CTSERVE_ARGS,
    CTS_SOURCE_COMMAND_LINE,
};

struct cts_setting_row {
    const char *name;
    const char *section;
    const char *flags;        /* "-w --workers", "" when config file only */
    const char *metavar;      /* "INT"; "a|b|c" for a choice */
    enum cts_setting_kind kind;
    const char *default_text; /* NULL means None */
    const char *env;          /* the variable that changes the default, or "" */
    bool reloadable;          /* taken over on SIGHUP */
    enum cts_setting_status status;
    bool everyday;            /* shown by plain --help */
    bool ours;                /* not a gunicorn setting */
    int arity_min, arity_max; /* hooks only */
    const char *doc;
    const char *difference;   /* what differs from gunicorn, or "" */
};

extern const struct cts_setting_row cts_setting_rows[CTS_SETTINGS_COUNT];

enum cts_value_kind {
    CTS_VALUE_NONE,
    CTS_VALUE_INT,
    CTS_VALUE_BOOL,
    CTS_VALUE_TEXT,
    CTS_VALUE_LIST,
    CTS_VALUE_OBJECT,   /* something only Python understands; `object` is borrowed by settings */
};

struct cts_value {
    enum cts_value_kind kind;
    int64_t number;          /* INT, BOOL */
    char *text;              /* TEXT; owned */
    char **list;             /* LIST; owned, each element owned */
    size_t list_count;
    void *object;            /* OBJECT; reference owned by the python room */
};

struct cts_settings {
    struct cts_value values[CTS_SETTINGS_COUNT];
    enum cts_setting_source sources[CTS_SETTINGS_COUNT];
    char *app_uri;            /* the positional MODULE:APP, or NULL; owned */
    uint64_t unused_count;    /* unknown names seen in the config file */
};

/* All rows at their defaults, environment defaults applied (PORT, WEB_CONCURRENCY,
 * FORWARDED_ALLOW_IPS, SENDFILE, XDG_RUNTIME_DIR). 0 or -1 with `error`. */
int cts_settings_init(struct cts_settings *settings, struct cts_error *error) CTS_MUST_USE;
void cts_settings_done(struct cts_settings *settings);
int cts_settings_copy(const struct cts_settings *from, struct cts_settings *ret_copy) CTS_MUST_USE;

/* Take over a copy of the positional MODULE:APP. 0 or -ENOMEM. */
int cts_settings_set_app(struct cts_settings *settings, const char *app_uri) CTS_MUST_USE;

/* What titles show: proc_name, else default_proc_name, which set_app has made the application. */
const char *cts_settings_process_name(const struct cts_settings *settings);

/* The row called `name` (case-sensitive), or -1. */
int cts_settings_find(const char *name);

/* The setting that somebody who wrote `name` probably meant ("wrokers" -> "workers", "preload" ->
 * "preload_app"), or NULL when none is near. */
const char *cts_settings_nearest(const char *name);

/* Smallest and largest number an INT setting takes. */
void cts_settings_range(enum cts_setting_id id, int64_t *ret_min, int64_t *ret_max);

/* Validate and take over a copy of `raw` for one setting (a higher source wins over a lower one
 * whatever the order of calls; an equal one replaces). Text is converted by the row's kind.
 * 0, or -1 with a sentence that names setting, value and what would be right. */
int cts_settings_set(struct cts_settings *settings, enum cts_setting_id id,
                     enum cts_setting_source source, const struct cts_value *raw,
                     struct cts_error *error) CTS_MUST_USE;

/* Typed reading; asking with the wrong kind is a bug (asserted). Text may be NULL (None). */
int64_t cts_settings_int(const struct cts_settings *settings, enum cts_setting_id id);
bool cts_settings_bool(const struct cts_settings *settings, enum cts_setting_id id);
const char *cts_settings_text(const struct cts_settings *settings, enum cts_setting_id id);
size_t cts_settings_list(const struct cts_settings *settings, enum cts_setting_id id,
                         char *const **ret_list);
/* Did nobody set it? True also when only the environment moved the default (PORT, ...). */
bool cts_settings_is_default(const struct cts_settings *settings, enum cts_setting_id id);

/* gthread by worker_class, or sync (whatever its spelling) with more than one thread. */
bool cts_settings_is_gthread(const struct cts_settings *settings);

/* Append the value as gunicorn's --print-config writes it (objects as <object>: the python room
 * knows better, see value_text in ctserve/gateway.h). 0 or -ENOMEM. */
int cts_settings_put_value(const struct cts_settings *settings, enum cts_setting_id id,
                           struct cts_buffer *out) CTS_MUST_USE;

/* After everything was read: cross-checks, refused settings (exit 1), one warning line that
 * names every pending setting that was set. 0, or -1 with `error`. */
int cts_settings_check(const struct cts_settings *settings, struct cts_error *error) CTS_MUST_USE;

#endif
