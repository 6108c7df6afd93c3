/* options.c - the launcher's glance at the command line.
 *
 * The server reads everything again, with all its rules; here only --interpreter and --python
 * are looked for, so nothing is refused and nothing else is understood. */
#include "launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BYTES_MAX PATH_MAX
#define WORDS_COUNT_MAX 4096

struct reader {
    struct launch_options *options;
    char waiting;      /* the option whose value is the next word: 'i', 'p' or 0 */
    bool ended;        /* "--" was seen */
};

/* argparse takes unambiguous beginnings; "--int" is the shortest one of --interpreter. */
static bool is_interpreter(const char *word, size_t count)
{
    return count >= 5 && count <= strlen("--interpreter") &&
           strncmp(word, "--interpreter", count) == 0;
}

static void take_value(struct reader *reader, char which, const char *value)
{
    if (which == 'p') {
        size_t count = strlen(value);
        if (count < sizeof(reader->options->python)) {
            memcpy(reader->options->python, value, count + 1);
            reader->options->python_said_by = "--python";
        }
    } else if (strcmp(value, "embed") == 0) {
        reader->options->mode = LAUNCH_EMBED;
    } else if (strcmp(value, "host") == 0) {
        reader->options->mode = LAUNCH_HOST;
    } else if (strcmp(value, "auto") == 0) {
        reader->options->mode = LAUNCH_AUTO;
    }
}

static void take_word(struct reader *reader, const char *word)
{
    if (reader->waiting != 0) {
        take_value(reader, reader->waiting, word);
        reader->waiting = 0;
        return;
    }
    if (reader->ended)
        return;
    if (strcmp(word, "--") == 0) {
        reader->ended = true;
        return;
    }
    const char *equals = strchr(word, '=');
    size_t count = equals != NULL ? (size_t)(equals - word) : strlen(word);
    char which = 0;
    if (count == strlen("--python") && strncmp(word, "--python", count) == 0)
        which = 'p';
    else if (is_interpreter(word, count))
        which = 'i';
    if (which == 0)
        return;
    if (equals != NULL)
        take_value(reader, which, equals + 1);
    else
        reader->waiting = which;
}

/* One word of `text` by the quoting rules of a POSIX shell. Returns what follows it, or NULL at
 * the end. A word that does not fit comes out cut, hence matches nothing. */
static const char *next_word(const char *text, char word[WORD_BYTES_MAX])
{
    while (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r')
        text++;
    if (*text == '\0')
        return NULL;
    size_t count = 0;
    char quote = 0;
    for (; *text != '\0'; text++) {
        char c = *text;
        if (quote == 0 && (c == ' ' || c == '\t' || c == '\n' || c == '\r'))
            break;
        if (quote == 0 && (c == '\'' || c == '"')) {
            quote = c;
            continue;
        }
        if (quote != 0 && c == quote) {
            quote = 0;
            continue;
        }
        bool escapes = c == '\\' && text[1] != '\0' &&
                       (quote == 0 || (quote == '"' && (text[1] == '"' || text[1] == '\\')));
        if (escapes)
            c = *++text;
        if (count + 1 < WORD_BYTES_MAX)
            word[count++] = c;
    }
    word[count] = '\0';
    return text;
}

static void read_variable(struct launch_options *options, const char *name)
{
    static char word[WORD_BYTES_MAX];
    struct reader reader = {.options = options};
    const char *text = getenv(name);
    for (int i = 0; text != NULL && i < WORDS_COUNT_MAX; i++) {
        text = next_word(text, word);
        if (text != NULL)
            take_word(&reader, word);
    }
}

void options_read(int argc, char **argv, struct launch_options *ret_options)
{
    *ret_options = (struct launch_options){.mode = LAUNCH_AUTO};
    read_variable(ret_options, "GUNICORN_CMD_ARGS");
    read_variable(ret_options, "CTSERVE_CMD_ARGS");
    struct reader reader = {.options = ret_options};
    for (int i = 1; i < argc; i++)
        take_word(&reader, argv[i]);
    const char *variable = getenv("CTSERVE_PYTHON");
    if (ret_options->python[0] == '\0' && variable != NULL && variable[0] != '\0') {
        take_value(&reader, 'p', variable);
        ret_options->python_said_by = "CTSERVE_PYTHON";
    }
}
