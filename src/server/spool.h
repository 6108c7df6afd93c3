/* spool.h - bytes that are too many to be held in memory: a file without a name.
 *
 * For the part of a request body that comes before the application runs, and for the part of a
 * reply that its client is slow to read. Written at the end, read at the front. The file lies in
 * TMPDIR, else in /tmp, and is gone when it is closed, also when the process is killed. All
 * spools of a worker together hold at most SERVICE_SPOOLED_BYTES_MAX. */
#ifndef SERVER_SPOOL_H
#define SERVER_SPOOL_H

#include "ctserve/base.h"

#include <stdatomic.h>
#include <sys/types.h>

struct spool {
    int fd;                    /* -1: nothing was spooled */
    uint64_t begin, end;       /* what was written and not taken yet */
    _Atomic uint64_t *all_bytes;  /* of the worker; our part is `end` */
};

#define SPOOL_NONE ((struct spool){.fd = -1})

/* Begin one, counted in *all_bytes until it is closed. 0 or -errno. */
int spool_open(struct spool *spool, _Atomic uint64_t *all_bytes) CTS_MUST_USE;
/* Close it and forget its bytes. */
void spool_close(struct spool *spool);

/* Behind everything else. 0 or -errno (-ENOSPC, -EDQUOT, -EIO); then the spool is as it was. */
int spool_put(struct spool *spool, struct cts_bytes bytes) CTS_MUST_USE;
/* From the front. The count, 0 when it is empty, or -errno. */
ssize_t spool_take(struct spool *spool, char *to, size_t count) CTS_MUST_USE;

static inline uint64_t spool_count(const struct spool *spool)
{
    return spool->end - spool->begin;
}

#endif
