/* error.c - one sentence for a person. */
#include "ctserve/error.h"

#include <stdarg.h>
#include <stdio.h>

int cts_error_set(struct cts_error *error, int exit_code, const char *format, ...)
{
    va_list arguments;
    size_t count;

    error->exit_code = exit_code;
    va_start(arguments, format);
    if (vsnprintf(error->text, sizeof(error->text), format, arguments) < 0)
        error->text[0] = '\0';
    va_end(arguments);
    count = strlen(error->text);
    while (count > 0 && error->text[count - 1] == '\n')
        error->text[--count] = '\0';
    return -1;
}
