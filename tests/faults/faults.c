/* faults.c - preloaded into a server under test: makes the N-th call of one function fail, or
 * moves the clock, whenever a test says so.
 *
 * The test writes a `struct order` into the file that CTSERVE_TEST_FAULTS names; every process of
 * the service maps it, and the one whose pid stands there obeys. Without an order nothing is
 * different but that long sleeps are cut to CAP_MS, so that a moved clock is noticed. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CAP_MS 50
#define LONG_MS 20000

/* The test knows this layout. */
struct order {
    _Atomic int32_t pid;        /* 0: nobody; -1: every process that has the name below */
    _Atomic int32_t first;      /* the first call to fail, from 1 */
    _Atomic int32_t count;      /* how many fail */
    _Atomic int32_t error;
    _Atomic int32_t calls;      /* seen since the order */
    _Atomic int32_t failed;
    _Atomic int64_t clock_ms;   /* added to the monotonic clock of every process */
    char function[32];
};

static struct order none;
static struct order *order = &none;

static void __attribute__((constructor)) prepare(void)
{
    const char *path = getenv("CTSERVE_TEST_FAULTS");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = (void *)syscall(SYS_mmap, NULL, sizeof(*order), PROT_READ | PROT_WRITE, MAP_SHARED,
                               fd, 0);
    if (at != MAP_FAILED)
        order = at;
    close(fd);
}

/* Must this call fail? Then errno is set. */
static int fails(const char *function)
{
    int32_t pid = atomic_load(&order->pid);
    if (pid == 0 || strcmp(order->function, function) != 0)
        return 0;
    if (pid != -1 && pid != (int32_t)syscall(SYS_getpid))
        return 0;
    int32_t call = atomic_fetch_add(&order->calls, 1) + 1;
    int32_t first = atomic_load(&order->first);
    if (call < first || call - first >= atomic_load(&order->count))
        return 0;
    atomic_fetch_add(&order->failed, 1);
    errno = atomic_load(&order->error);
    return 1;
}

#define NEXT(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))
#define PUBLIC __attribute__((visibility("default")))

/* -- memory: dlsym itself allocates, so these have names of their own in glibc -------------- */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

PUBLIC void *malloc(size_t bytes)
{
    return fails("malloc") ? NULL : __libc_malloc(bytes);
}

PUBLIC void *calloc(size_t count, size_t bytes)
{
    return fails("calloc") ? NULL : __libc_calloc(count, bytes);
}

PUBLIC void *realloc(void *old, size_t bytes)
{
    return fails("realloc") ? NULL : __libc_realloc(old, bytes);
}

PUBLIC void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (fails("mmap"))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}

/* -- calls of one shape ---------------------------------------------------------------------- */
#define WRAP(type, name, parameters, arguments)                                                    \
    PUBLIC type name parameters                                                                    \
    {                                                                                              \
        static __typeof__(&name) _Atomic next;                                                     \
        if (fails(#name))                                                                          \
            return -1;                                                                             \
        if (atomic_load(&next) == NULL)                                                            \
            atomic_store(&next, NEXT(name));                                                       \
        return atomic_load(&next) arguments;                                                       \
    }

WRAP(ssize_t, read, (int fd, void *to, size_t n), (fd, to, n))
WRAP(ssize_t, write, (int fd, const void *from, size_t n), (fd, from, n))
WRAP(ssize_t, recv, (int fd, void *to, size_t n, int flags), (fd, to, n, flags))
WRAP(ssize_t, send, (int fd, const void *from, size_t n, int flags), (fd, from, n, flags))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, pread, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
WRAP(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at))
WRAP(ssize_t, sendfile, (int fd, int from, off_t *at, size_t n), (fd, from, at, n))
WRAP(int, epoll_ctl, (int fd, int what, int which, struct epoll_event *event),
     (fd, what, which, event))
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(int, ftruncate, (int fd, off_t bytes), (fd, bytes))
WRAP(int, socketpair, (int domain, int type, int protocol, int ends[2]),
     (domain, type, protocol, ends))
WRAP(pid_t, fork, (void), ())
WRAP(int, shutdown, (int fd, int how), (fd, how))

PUBLIC int accept4(int fd, struct sockaddr *address, socklen_t *bytes, int flags)
{
    if (fails("accept4"))
        return -1;
    return (int)syscall(SYS_accept4, fd, address, bytes, flags);
}

PUBLIC int eventfd(unsigned count, int flags)
{
    return fails("eventfd") ? -1 : (int)syscall(SYS_eventfd2, count, flags);
}

/* These two answer with the error itself. */
PUBLIC int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *argument)
{
    return fails("pthread_create") ? errno
                                   : NEXT(pthread_create)(thread, attributes, start, argument);
}

PUBLIC int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const arguments[],
                       char *const environ_[])
{
    return fails("posix_spawn")
               ? errno
               : NEXT(posix_spawn)(pid, path, actions, attributes, arguments, environ_);
}

/* -- time ------------------------------------------------------------------------------------ */
static int capped(int timeout_ms)
{
    return timeout_ms > LONG_MS ? CAP_MS : timeout_ms;
}

PUBLIC int epoll_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
    static __typeof__(&epoll_wait) _Atomic next;
    if (fails("epoll_wait"))
        return -1;
    if (atomic_load(&next) == NULL)
        atomic_store(&next, NEXT(epoll_wait));
    return atomic_load(&next)(fd, events, count, capped(timeout_ms));
}

PUBLIC int poll(struct pollfd *asks, nfds_t count, int timeout_ms)
{
    static __typeof__(&poll) _Atomic next;
    if (fails("poll"))
        return -1;
    if (atomic_load(&next) == NULL)
        atomic_store(&next, NEXT(poll));
    return atomic_load(&next)(asks, count, capped(timeout_ms));
}

PUBLIC int clock_gettime(clockid_t clock, struct timespec *ret_now)
{
    static __typeof__(&clock_gettime) _Atomic next;
    if (atomic_load(&next) == NULL)
        atomic_store(&next, NEXT(clock_gettime));
    int r = atomic_load(&next)(clock, ret_now);
    if (r == 0 && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE))
        ret_now->tv_sec += (time_t)(atomic_load(&order->clock_ms) / 1000);
    return r;
}
