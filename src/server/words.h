/* words.h - cutting a text into words as a POSIX shell would. */
#ifndef SERVER_WORDS_H
#define SERVER_WORDS_H

#include "ctserve/base.h"

#define WORDS_COUNT_MAX 1024

/* Split `text` at white space; quotes and backslashes as in a shell, without any expansion.
 * *ret_words is one malloc'ed block (free it alone). Returns the count, -EINVAL for an open
 * quote or a lone backslash at the end, -E2BIG, or -ENOMEM. */
int words_split(const char *text, char ***ret_words) CTS_MUST_USE;

#endif
