/* leaks.c - what LeakSanitizer has to know about CPython; in builds with AddressSanitizer only.
 *
 * In a forked child, CPython up to 3.12 gives the interpreter's locks new semaphores and leaves the
 * old ones behind on purpose (_PyThread_at_fork_reinit); every worker would be reported for it. Only
 * the bare semaphore is forgiven: a lock object that we leak is an allocation of its own. */
#include "launcher.h"

__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_options(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:PyThread_allocate_lock\n";
}

/* Otherwise every process says how often it forgave, where a report would be. */
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}
