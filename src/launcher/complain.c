/* complain.c - a sentence on standard error: there is no log yet. */
#include "launcher.h"

#include <stdarg.h>
#include <stdio.h>

void complain(const char *format, ...)
{
    char text[3 * PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    fprintf(stderr, "ctserve: %s\n", text);
}
