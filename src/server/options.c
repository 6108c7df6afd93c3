/* options.c - finding the option that a user typed. */
#include "options.h"

#include <stdio.h>

#define OPTIONS_COUNT_MAX 256
#define NAMED_COUNT_MAX 6

struct option {
    struct cts_bytes flag;
    int id; /* -1 help, -2 version */
};

#define ID_HELP (-1)
#define ID_VERSION (-2)

const char *options_next_word(const char *words, struct cts_bytes *ret_word)
{
    words += strspn(words, " ");
    if (*words == '\0')
        return NULL;
    *ret_word = (struct cts_bytes){words, strcspn(words, " ")};
    return words + ret_word->count;
}

static size_t all_options(struct option *options)
{
    static const struct {
        const char *flag;
        int id;
    } others[] = {{"-h", ID_HELP}, {"--help", ID_HELP}, {"-v", ID_VERSION},
                  {"--version", ID_VERSION}};
    size_t count = 0;

    for (size_t i = 0; i < CTS_COUNT(others); i++)
        options[count++] = (struct option){cts_bytes_of(others[i].flag), others[i].id};
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        struct cts_bytes word;
        const char *rest = cts_setting_rows[id].flags;

        while ((rest = options_next_word(rest, &word)) != NULL && count < OPTIONS_COUNT_MAX)
            options[count++] = (struct option){word, id};
    }
    return count;
}

static void fill_match(const struct option *option, struct option_match *ret_match)
{
    *ret_match = (struct option_match){.kind = OPTION_SETTING};
    if (option->id == ID_HELP || option->id == ID_VERSION) {
        ret_match->kind = option->id == ID_HELP ? OPTION_HELP : OPTION_VERSION;
        return;
    }
    ret_match->id = (enum cts_setting_id)option->id;
    ret_match->takes_value = cts_setting_rows[option->id].kind != CTS_KIND_BOOL;
    /* `--no-control-socket` sets control_socket_disable to True: there the name says no itself. */
    ret_match->says_false = option->flag.count > 5 && memcmp(option->flag.at, "--no-", 5) == 0 &&
                            ret_match->id != CTS_SETTING_control_socket_disable;
}

static int ambiguous(const char *flag, size_t count, const struct option *const *found,
                     size_t found_count, struct cts_error *error)
{
    char names[512];
    size_t used = 0;

    names[0] = '\0';
    for (size_t i = 0; i < found_count && i < NAMED_COUNT_MAX; i++)
        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%.*s", i > 0 ? ", " : "",
                                 (int)found[i]->flag.count, found[i]->flag.at);
    return cts_error_set(error, CTS_EXIT_USAGE, "ambiguous option: %.*s could be %s%s", (int)count,
                         flag, names, found_count > NAMED_COUNT_MAX ? ", ..." : "");
}

static int unknown(const char *flag, size_t count, const struct option *options,
                   size_t options_count, struct cts_error *error)
{
    char words[OPTIONS_COUNT_MAX][OPTION_FLAG_BYTES_MAX];
    const char *pointers[OPTIONS_COUNT_MAX];
    char typed[OPTION_FLAG_BYTES_MAX];
    char shown[128];
    size_t words_count = 0;
    int near = -1;

    (void)cts_bytes_escape((struct cts_bytes){flag, count}, shown, sizeof(shown));
    (void)snprintf(typed, sizeof(typed), "%.*s", (int)count, flag);
    for (size_t i = 0; i < options_count; i++) {
        if (options[i].flag.count < 4)
            continue;
        (void)snprintf(words[words_count], OPTION_FLAG_BYTES_MAX, "%.*s",
                       (int)options[i].flag.count, options[i].flag.at);
        pointers[words_count] = words[words_count];
        words_count++;
    }
    if (count > 3)
        near = cts_nearest_word(typed, pointers, words_count);
    if (near >= 0)
        return cts_error_set(error, CTS_EXIT_USAGE, "unknown option %s, did you mean %s?", shown,
                             pointers[near]);
    return cts_error_set(error, CTS_EXIT_USAGE,
                         "unknown option %s\n'ctserve --help all' lists every option.", shown);
}

int options_find(const char *flag, size_t count, struct option_match *ret_match,
                 struct cts_error *error)
{
    struct option options[OPTIONS_COUNT_MAX];
    const struct option *found[OPTIONS_COUNT_MAX];
    size_t options_count = all_options(options);
    size_t found_count = 0;

    for (size_t i = 0; i < options_count; i++) {
        if (cts_bytes_equal(options[i].flag, (struct cts_bytes){flag, count})) {
            fill_match(&options[i], ret_match);
            return 0;
        }
        if (count > 2 && options[i].flag.count > count && flag[1] == '-' &&
            memcmp(options[i].flag.at, flag, count) == 0)
            found[found_count++] = &options[i];
    }
    if (found_count == 1) {
        fill_match(found[0], ret_match);
        return 0;
    }
    if (found_count > 1)
        return ambiguous(flag, count, found, found_count, error);
    return unknown(flag, count, options, options_count, error);
}
