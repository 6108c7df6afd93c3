/* banner.c - see banner.h. */
#include "banner.h"

#include "ctserve/buffer.h"
#include "ctserve/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool banner_is_wanted(const struct cts_settings *settings)
{
    const char *log = cts_settings_text(settings, CTS_SETTING_errorlog);
    const char *term = getenv("TERM");
    return isatty(2) && (log == NULL || strcmp(log, "-") == 0) &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

const char *banner_worker_name(const struct cts_settings *settings)
{
    const char *name = cts_settings_text(settings, CTS_SETTING_worker_class);
    if (cts_settings_int(settings, CTS_SETTING_threads) > 1 &&
        (name == NULL || strcmp(name, "sync") == 0))
        return "gthread";
    return name != NULL ? name : "sync";
}

static bool has_colour(void)
{
    const char *forced = getenv("FORCE_COLOR");
    const char *refused = getenv("NO_COLOR");
    if (refused != NULL && refused[0] != '\0')
        return false;
    return forced != NULL ? forced[0] != '\0' && forced[0] != '0' : true;
}

static int put_lines(struct cts_buffer *out, const struct banner *banner)
{
    const struct cts_settings *settings = banner->settings;
    const struct cts_entry *entry = banner->entry;
    const char *bold = has_colour() ? "\033[1m" : "", *plain = has_colour() ? "\033[0m" : "";
    char listening[1024], shown[512];
    listener_names(banner->listeners, listening, sizeof(listening));
    const char *app = settings->app_uri != NULL
                          ? settings->app_uri
                          : cts_settings_text(settings, CTS_SETTING_wsgi_app);
    cts_bytes_escape(cts_bytes_of(app != NULL ? app : "?"), shown, sizeof(shown));
    const char *prefix = entry->python_prefix != NULL ? entry->python_prefix : "?";
    int r = cts_buffer_printf(out, "%sctserve %s%s \u00b7 CPython %s (%s, %s) \u00b7 pid %d\n",
                              bold, CTS_VERSION, plain, entry->python_version, prefix, entry->mode,
                              (int)getpid());
    const char *why = NULL;
    if (r == 0 && banner->app_is_loaded) {
        const char *kind = banner->gateway->app_kind(&why);
        r = cts_buffer_printf(out, "app      %s  %s (%s)\n", shown, kind, why);
    } else if (r == 0) {
        r = cts_buffer_printf(out, "app      %s\n", shown);
    }
    if (r == 0)
        r = cts_buffer_printf(out, "listen   %s\n", listening);
    if (r == 0)
        r = cts_buffer_printf(out, "workers  %lld %s, timeout %lld s\n",
                              (long long)cts_settings_int(settings, CTS_SETTING_workers),
                              banner_worker_name(settings),
                              (long long)cts_settings_int(settings, CTS_SETTING_timeout));
    return r;
}

static void show(struct cts_buffer *out, int r)
{
    struct cts_bytes text = cts_buffer_view(out);
    if (r == 0 && write(2, text.at, text.count) < 0)
        cts_debug("the banner could not be written");
    cts_buffer_free(out);
}

void banner_show(const struct banner *banner)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    int r = put_lines(&out, banner);
    show(&out, r);
}

void banner_show_traces(const char *address)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    int r = cts_buffer_printf(&out, "traces   %s\n", address);
    show(&out, r);
}

void banner_show_ready(const struct banner *banner, const char *app_kind)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    unsigned long long ms = (cts_clock_mono_ns() - banner->boot_mono_ns) / 1000000;
    bool says_kind = !banner->app_is_loaded && app_kind[0] != '\0';
    int r = cts_buffer_printf(&out, "ready in %llu ms%s%s\n", ms, says_kind ? " \u00b7 " : "",
                              says_kind ? app_kind : "");
    show(&out, r);
}
