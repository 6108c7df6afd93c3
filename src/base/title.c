/* title.c - what ps and top call this process.
 *
 * The kernel shows whatever stands in the memory where the arguments were put at exec. That
 * place is asked from /proc/self/stat, because in hosted mode the argv we were given is a copy
 * that Python made. The environment behind it is left alone, so a title never gets longer than
 * the command line was. */
#include "ctserve/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Fields are counted as in proc(5); the one behind the name in brackets is number 3. */
#define FIELD_AFTER_NAME 3
#define FIELD_ARGUMENTS_START 48

struct area {
    char *at;
    size_t count;
};

static bool read_stat(char *text, size_t text_bytes)
{
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t got;

    if (fd < 0)
        return false;
    got = read(fd, text, text_bytes - 1);
    cts_fd_close(&fd);
    if (got <= 0)
        return false;
    text[got] = '\0';
    return true;
}

static struct area find_area(void)
{
    struct area nowhere = {NULL, 0};
    char text[2048];
    unsigned long start = 0;
    unsigned long end = 0;
    char *at;

    if (!read_stat(text, sizeof(text)))
        return nowhere;
    /* The name may itself contain brackets and spaces: look for the last one. */
    at = strrchr(text, ')');
    if (at == NULL)
        return nowhere;
    at++;
    for (int field = FIELD_AFTER_NAME; field < FIELD_ARGUMENTS_START; field++) {
        at += strspn(at, " ");
        at += strcspn(at, " ");
    }
    if (sscanf(at, "%lu %lu", &start, &end) != 2 || start == 0 || end <= start)
        return nowhere;
    return (struct area){(char *)start, end - start}; /* NOLINT: the kernel tells addresses so */
}

void cts_title_set(const char *title)
{
    struct area area = find_area();

    (void)prctl(PR_SET_NAME, title, 0, 0, 0); /* cut to 15 bytes by the kernel */
    if (area.count < 2)
        return;
    size_t count = strlen(title);
    if (count > area.count - 1)
        count = area.count - 1;
    /* The last byte stays NUL: otherwise the kernel reads on into the environment. */
    memcpy(area.at, title, count);
    memset(area.at + count, 0, area.count - count);
}
