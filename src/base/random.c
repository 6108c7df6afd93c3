/* random.c - bytes nobody can guess, from the kernel. */
#include "ctserve/base.h"

#include <errno.h>
#include <sys/random.h>

int cts_random_fill(void *to, size_t count)
{
    char *at = to;

    while (count > 0) {
        ssize_t got = getrandom(at, count, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        at += got;
        count -= (size_t)got;
    }
    return 0;
}
