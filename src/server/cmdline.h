/* cmdline.h - the command line, and the two environment variables that hold pieces of one.
 *
 * The order in a start: cts_settings_init, cmdline_read (which says the config file to execute),
 * the config file, cts_settings_check. Precedence is a matter of source, not of order, so the
 * file may be read after the command line and still loses to it. */
#ifndef SERVER_CMDLINE_H
#define SERVER_CMDLINE_H

#include "ctserve/error.h"
#include "ctserve/settings.h"

enum cmdline_action {
    CMDLINE_RUN,
    CMDLINE_HELP,           /* print `text` on stdout, exit 0 */
    CMDLINE_VERSION,        /* the same */
    CMDLINE_CHECK_CONFIG,   /* load config and application, exit 0 or 1 */
    CMDLINE_PRINT_CONFIG,   /* cmdline_config_text first, then as CHECK_CONFIG */
};

struct cmdline {
    enum cmdline_action action;  /* a config file may ask for the last two as well: look at the
                                    settings check_config and print_config once it was read */
    char *text;                  /* HELP and VERSION: what to print, newline at its end; owned */
    char *config_spec;           /* the config file to load; owned */
    bool config_is_explicit;     /* somebody asked for it by -c: missing is an error */
};

/* Read argv[1..argc), then GUNICORN_CMD_ARGS and CTSERVE_CMD_ARGS, into `settings` (initialised;
 * sources COMMAND_LINE, GUNICORN_ARGS, CTSERVE_ARGS). Habits are argparse's: `--opt value`,
 * `--opt=value`, `-w4`, `-w 4`, unambiguous beginnings of long options. The positional becomes
 * settings->app_uri; one inside the variables is ignored. Warns about variables whose name looks
 * like a slip of the two. Nothing is kept of argv. 0, or -1 with `error` (exit code 2 for a wrong
 * option, 1 for a wrong value); *ret_cmdline is then empty. */
int cmdline_read(int argc, char **argv, struct cts_settings *settings,
                 struct cmdline *ret_cmdline, struct cts_error *error) CTS_MUST_USE;
void cmdline_done(struct cmdline *cmdline);

/* Neither command line nor config file named an application: set the error that says so, with an
 * example and what the working directory seems to offer. Returns -1. */
int cmdline_no_app(struct cts_error *error);

/* --print-config: one `name = value` line per setting, sorted, names padded. `value_text` (may be
 * NULL) writes what only Python can: malloc'ed, or NULL to leave the value to us. The result is
 * malloc'ed; NULL without memory. */
char *cmdline_config_text(const struct cts_settings *settings,
                          char *(*value_text)(const struct cts_settings *settings,
                                              enum cts_setting_id id)) CTS_MUST_USE;

#endif
