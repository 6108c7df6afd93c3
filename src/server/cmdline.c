/* cmdline.c - reading the command line and its two environment variables. */
#include "cmdline.h"

#include "ctserve/buffer.h"
#include "ctserve/log.h"
#include "help.h"
#include "options.h"
#include "words.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

extern char **environ;

/* Bytes of a positional or value that are shown back. */
#define SHOWN_BYTES 100

/* One list of arguments on its way through. */
struct reading {
    char **words;
    int words_count;
    int at;                        /* the next one */
    enum cts_setting_source source;
    struct cts_settings *settings;
    struct cmdline *cmdline;
    struct cts_error *error;
    const char *app;               /* first positional, a view into words */
    bool options_ended;            /* after "--" */
    struct cts_value lists[CTS_SETTINGS_COUNT];  /* repeated options gather here */
    bool is_done;                  /* --help or --version: nothing after it matters */
};

static int no_memory(struct cts_error *error)
{
    return cts_error_set(error, CTS_EXIT_FAILURE, "out of memory while reading the command line");
}

static char *copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = malloc(bytes);

    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

/* Where a wrong option came from, when it was not typed on the command line. */
static int blame(struct reading *reading)
{
    struct cts_error inner;
    const char *name = reading->source == CTS_SOURCE_GUNICORN_ARGS ? "GUNICORN_CMD_ARGS"
                                                                   : "CTSERVE_CMD_ARGS";

    if (reading->source == CTS_SOURCE_COMMAND_LINE)
        return -1;
    inner = *reading->error;
    return cts_error_set(reading->error, inner.exit_code, "in %s: %.3900s", name, inner.text);
}

/* -- lists gather, everything else is set at once --------------------------------------- */
static int list_add(struct cts_value *list, const char *text)
{
    char **longer = realloc(list->list, (list->list_count + 1) * sizeof(*longer));

    if (longer == NULL)
        return -ENOMEM;
    list->list = longer;
    longer[list->list_count] = copy_text(text);
    if (longer[list->list_count] == NULL)
        return -ENOMEM;
    list->list_count++;
    list->kind = CTS_VALUE_LIST;
    return 0;
}

static void lists_free(struct reading *reading)
{
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        struct cts_value *list = &reading->lists[id];

        for (size_t i = 0; i < list->list_count; i++)
            free(list->list[i]);
        free(list->list);
    }
}

/* Settings whose flag is repeated, each adding one value. */
static bool gathers(enum cts_setting_id id)
{
    static const enum cts_setting_id ids[] = {
        CTS_SETTING_bind,       CTS_SETTING_reload_extra_files,    CTS_SETTING_raw_env,
        CTS_SETTING_dirty_apps, CTS_SETTING_raw_paste_global_conf,
    };

    for (size_t i = 0; i < CTS_COUNT(ids); i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

static int set_text(struct reading *reading, enum cts_setting_id id, const char *text)
{
    struct cts_value raw = {.kind = CTS_VALUE_TEXT};

    if (gathers(id))
        return list_add(&reading->lists[id], text) < 0 ? no_memory(reading->error) : 0;
    raw.text = (char *)(uintptr_t)text; /* only read */
    if (cts_settings_set(reading->settings, id, reading->source, &raw, reading->error) < 0) {
        struct cts_error inner = *reading->error;

        return cts_error_set(reading->error, inner.exit_code,
                             "%.3900s\n'ctserve --help %s' tells more.", inner.text,
                             cts_setting_rows[id].name);
    }
    return 0;
}

static int set_bool(struct reading *reading, enum cts_setting_id id, bool yes)
{
    struct cts_value raw = {.kind = CTS_VALUE_BOOL, .number = yes};

    return cts_settings_set(reading->settings, id, reading->source, &raw, reading->error);
}

static int set_lists(struct reading *reading)
{
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        if (reading->lists[id].list_count > 0 &&
            cts_settings_set(reading->settings, (enum cts_setting_id)id, reading->source,
                             &reading->lists[id], reading->error) < 0)
            return -1;
    }
    return 0;
}

/* -- one word --------------------------------------------------------------------------- */
/* Would argparse take this word as an option? "-", "-1" and "-0.5" are values. */
static bool looks_like_option(const char *word)
{
    if (word[0] != '-' || word[1] == '\0')
        return false;
    return strspn(word + 1, "0123456789.") != strlen(word + 1);
}

static bool is_choice(enum cts_setting_id id, const char *word)
{
    const char *at = cts_setting_rows[id].metavar;

    while (*at != '\0') {
        size_t count = strcspn(at, "|");

        if (cts_bytes_equal_nocase((struct cts_bytes){at, count}, cts_bytes_of(word)))
            return true;
        at += count;
        at += *at == '|';
    }
    return false;
}

static int take_value(struct reading *reading, enum cts_setting_id id, struct cts_bytes flag,
                      const char *attached)
{
    const char *value = attached;
    const char *next = reading->at < reading->words_count ? reading->words[reading->at] : NULL;

    if (value == NULL && id == CTS_SETTING_proxy_protocol) {
        /* Its value may be left out. The application that follows is not meant by it. */
        if (next == NULL || !is_choice(id, next))
            return set_text(reading, id, "auto");
    }
    if (value == NULL && (next == NULL || looks_like_option(next)))
        return cts_error_set(reading->error, CTS_EXIT_USAGE, "%.*s needs a value: %.*s %s",
                             (int)flag.count, flag.at, (int)flag.count, flag.at,
                             cts_setting_rows[id].metavar[0] != '\0' ? cts_setting_rows[id].metavar
                                                                     : "VALUE");
    if (value == NULL) {
        value = next;
        reading->at++;
    }
    return set_text(reading, id, value);
}

static int say_help(struct reading *reading, const char *topic)
{
    if (topic == NULL && reading->at < reading->words_count &&
        !looks_like_option(reading->words[reading->at]))
        topic = reading->words[reading->at];
    if (help_text(topic, &reading->cmdline->text, reading->error) < 0)
        return -1;
    reading->cmdline->action = CMDLINE_HELP;
    reading->is_done = true;
    return 0;
}

static int say_version(struct reading *reading)
{
    reading->cmdline->text = copy_text("ctserve (version " CTS_VERSION ")\n");
    if (reading->cmdline->text == NULL)
        return no_memory(reading->error);
    reading->cmdline->action = CMDLINE_VERSION;
    reading->is_done = true;
    return 0;
}

static int take_match(struct reading *reading, const struct option_match *match,
                      struct cts_bytes flag, const char *attached)
{
    if (match->kind == OPTION_HELP)
        return say_help(reading, attached);
    if (match->kind == OPTION_SETTING && match->takes_value)
        return take_value(reading, match->id, flag, attached);
    if (attached != NULL)
        return cts_error_set(reading->error, CTS_EXIT_USAGE, "%.*s takes no value",
                             (int)flag.count, flag.at);
    if (match->kind == OPTION_VERSION)
        return say_version(reading);
    return set_bool(reading, match->id, !match->says_false);
}

static int take_long(struct reading *reading, const char *word)
{
    struct cts_bytes flag = {word, strcspn(word, "=")};
    struct option_match match;

    if (options_find(flag.at, flag.count, &match, reading->error) < 0)
        return -1;
    return take_match(reading, &match, flag,
                      word[flag.count] == '=' ? word + flag.count + 1 : NULL);
}

/* "-w4", "-w=4", "-w 4", "-DR", "-Dw4". */
static int take_short(struct reading *reading, const char *word)
{
    for (const char *at = word + 1; *at != '\0' && !reading->is_done; at++) {
        char flag[3] = {'-', *at, '\0'};
        struct option_match match;
        const char *attached = at[1] == '=' ? at + 2 : at + 1;

        if (options_find(flag, 2, &match, reading->error) < 0)
            return -1;
        if (match.kind == OPTION_SETTING && match.takes_value)
            return take_match(reading, &match, cts_bytes_of(flag), at[1] == '\0' ? NULL : attached);
        if (take_match(reading, &match, cts_bytes_of(flag), NULL) < 0)
            return -1;
    }
    return 0;
}

static int take_positional(struct reading *reading, const char *word)
{
    char shown[SHOWN_BYTES];

    /* In the variables gunicorn ignores it, so do we. */
    if (reading->source != CTS_SOURCE_COMMAND_LINE)
        return 0;
    if (reading->app == NULL) {
        reading->app = word;
        return 0;
    }
    (void)cts_bytes_escape(cts_bytes_of(word), shown, sizeof(shown));
    cts_warning("'%s' is ignored: one application is served, and that is %s", shown, reading->app);
    return 0;
}

static int take_word(struct reading *reading)
{
    const char *word = reading->words[reading->at++];

    if (reading->options_ended || !looks_like_option(word))
        return take_positional(reading, word);
    if (strcmp(word, "--") == 0) {
        reading->options_ended = true;
        return 0;
    }
    return word[1] == '-' ? take_long(reading, word) : take_short(reading, word);
}

static int read_words(struct reading *reading)
{
    int r = 0;

    while (r == 0 && !reading->is_done && reading->at < reading->words_count)
        r = take_word(reading);
    if (r == 0 && !reading->is_done)
        r = set_lists(reading);
    if (r == 0 && reading->app != NULL && !reading->is_done &&
        cts_settings_set_app(reading->settings, reading->app) < 0)
        r = no_memory(reading->error);
    lists_free(reading);
    return r < 0 ? blame(reading) : 0;
}

/* -- the variables ---------------------------------------------------------------------- */
static int read_variable(const char *name, enum cts_setting_source source,
                         struct cts_settings *settings, struct cmdline *cmdline,
                         struct cts_error *error)
{
    const char *text = getenv(name);
    struct reading reading = {
        .source = source, .settings = settings, .cmdline = cmdline, .error = error};
    int r;

    if (text == NULL || cmdline->action == CMDLINE_HELP || cmdline->action == CMDLINE_VERSION)
        return 0;
    reading.words_count = words_split(text, &reading.words);
    if (reading.words_count == -EINVAL)
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "%s has a quote that is opened and never closed, or ends in a "
                             "backslash",
                             name);
    if (reading.words_count == -E2BIG)
        return cts_error_set(error, CTS_EXIT_FAILURE, "%s has more than %d words", name,
                             WORDS_COUNT_MAX);
    if (reading.words_count < 0)
        return no_memory(error);
    r = read_words(&reading);
    free(reading.words);
    return r;
}

static void warn_of_slips(void)
{
    static const char *const names[] = {"GUNICORN_CMD_ARGS", "CTSERVE_CMD_ARGS"};

    for (char **at = environ; at != NULL && *at != NULL; at++) {
        char name[32];
        size_t count = strcspn(*at, "=");
        int near;

        if (count >= sizeof(name))
            continue;
        memcpy(name, *at, count);
        name[count] = '\0';
        near = cts_nearest_word(name, names, CTS_COUNT(names));
        if (near >= 0 && strcmp(name, names[near]) != 0)
            cts_warning("environment: %s is not read, did you mean %s?", name, names[near]);
    }
}

/* -- the whole -------------------------------------------------------------------------- */
static int settle(const struct cts_settings *settings, struct cmdline *cmdline,
                  struct cts_error *error)
{
    const char *spec = cts_settings_text(settings, CTS_SETTING_config);

    cmdline->config_is_explicit = settings->sources[CTS_SETTING_config] > CTS_SOURCE_FILE;
    cmdline->config_spec = copy_text(spec != NULL ? spec : "");
    if (cmdline->config_spec == NULL)
        return no_memory(error);
    if (cmdline->action != CMDLINE_RUN)
        return 0;
    if (cts_settings_bool(settings, CTS_SETTING_print_config))
        cmdline->action = CMDLINE_PRINT_CONFIG;
    else if (cts_settings_bool(settings, CTS_SETTING_check_config))
        cmdline->action = CMDLINE_CHECK_CONFIG;
    return 0;
}

int cmdline_read(int argc, char **argv, struct cts_settings *settings,
                 struct cmdline *ret_cmdline, struct cts_error *error)
{
    struct cmdline cmdline = {.action = CMDLINE_RUN};
    struct reading reading = {.words = argv,
                              .words_count = argc,
                              .at = 1,
                              .source = CTS_SOURCE_COMMAND_LINE,
                              .settings = settings,
                              .cmdline = &cmdline,
                              .error = error};

    *ret_cmdline = cmdline;
    if (read_words(&reading) < 0 ||
        read_variable("GUNICORN_CMD_ARGS", CTS_SOURCE_GUNICORN_ARGS, settings, &cmdline, error) <
            0 ||
        read_variable("CTSERVE_CMD_ARGS", CTS_SOURCE_CTSERVE_ARGS, settings, &cmdline, error) < 0 ||
        settle(settings, &cmdline, error) < 0) {
        cmdline_done(&cmdline);
        return -1;
    }
    if (cmdline.action != CMDLINE_HELP && cmdline.action != CMDLINE_VERSION)
        warn_of_slips();
    *ret_cmdline = cmdline;
    return 0;
}

void cmdline_done(struct cmdline *cmdline)
{
    free(cmdline->text);
    free(cmdline->config_spec);
    *cmdline = (struct cmdline){0};
}
