/* words.c - cutting a text into words as a POSIX shell would (and as Python's shlex does). */
#include "words.h"

#include <errno.h>
#include <stdlib.h>

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* One word from *at on, unquoted, to `to`. 0 or -EINVAL. */
static int take_word(const char **at, char **to)
{
    const char *from = *at;
    char *out = *to;
    char quote = '\0';

    for (; *from != '\0' && (quote != '\0' || !is_blank(*from)); from++) {
        if (quote == '\0' && (*from == '\'' || *from == '"')) {
            quote = *from;
        } else if (quote != '\0' && *from == quote) {
            quote = '\0';
        } else if (*from == '\\' && quote != '\'') {
            /* Between double quotes a backslash means itself unless it protects something. */
            if (from[1] == '\0')
                return -EINVAL;
            if (quote == '"' && from[1] != '"' && from[1] != '\\')
                *out++ = *from;
            else
                *out++ = *++from;
        } else {
            *out++ = *from;
        }
    }
    if (quote != '\0')
        return -EINVAL;
    *out++ = '\0';
    *at = from;
    *to = out;
    return 0;
}

int words_split(const char *text, char ***ret_words)
{
    size_t text_bytes = strlen(text);
    char **words;
    char *bytes;
    int count = 0;
    int r = 0;

    /* One block: the pointers, then the bytes. A word with its NUL is never longer than the text
     * it came from, but for the NUL of the last. */
    words = malloc((WORDS_COUNT_MAX + 1) * sizeof(*words) + text_bytes + 2);
    if (words == NULL)
        return -ENOMEM;
    bytes = (char *)(words + WORDS_COUNT_MAX + 1);
    for (;;) {
        while (is_blank(*text))
            text++;
        if (*text == '\0')
            break;
        if (count >= WORDS_COUNT_MAX)
            r = -E2BIG;
        if (r == 0) {
            words[count++] = bytes;
            r = take_word(&text, &bytes);
        }
        if (r < 0) {
            free(words);
            return r;
        }
    }
    words[count] = NULL;
    *ret_words = words;
    return count;
}
