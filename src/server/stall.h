/* stall.h - workers that hang: found in shared memory, asked for their stacks, aborted, killed.
 *
 *     dump signal, SIGCONT -> 50 ms -> SIGABRT -> 1 s -> SIGKILL
 * `timeout` is the silence of a worker where it should not be silent (in sync that is a request
 * that takes too long); `request_timeout` is the age of one request in any kind of worker. */
#ifndef SERVER_STALL_H
#define SERVER_STALL_H

#include "supervisor.h"

/* Begin to look at the workers, as often as the limits need it and once a second at least; each
 * time their lines are seen to as well. */
void stall_start(struct supervisor *supervisor);
void stall_stop(struct supervisor *supervisor);

/* The next stage of a worker that is stuck. */
void stall_next_stage(struct member *member);

#endif
