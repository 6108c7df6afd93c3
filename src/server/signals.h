/* signals.h - the signals that the master owns, in the order in which they came.
 *
 * The C handler notes the number and wakes the loop; everything else happens in the loop, with no
 * frame of Python below it. */
#ifndef SERVER_SIGNALS_H
#define SERVER_SIGNALS_H

#include "ctserve/base.h"

#include <ev.h>

/* Lay our handlers over HUP INT QUIT TERM TTIN TTOU USR1 USR2 WINCH CHLD, ignore PIPE, and let
 * those through in case whoever started us had them blocked. 0 or -errno. */
int signals_start(struct ev_loop *loop) CTS_MUST_USE;
void signals_stop(void);

/* As if `signo` had arrived. Async-signal-safe. */
void signals_put(int signo);

/* The oldest signal not taken yet, or 0. */
int signals_take(void);

/* Remember `handler` as one of ours. A process that the application forks (multiprocessing,
 * os.fork) must not keep it: there, nobody looks at what it noted, and Pool.terminate() would wait
 * for ever. Whatever still has it stands at its default in that child. */
void signals_remember(void (*handler)(int));

/* The child side of every fork(3) of this process; fork.c calls it unless the fork is its own. */
void signals_forget_in_foreign_child(void);

/* In a child that the master made: every signal at its default (ignored ones stay ignored). */
void signals_reset_in_child(void);

/* "term" for SIGTERM, as gunicorn writes it. */
const char *signals_name(int signo);

/* The real-time signal on which a worker writes its Python stacks. */
int signals_dump_signo(void);

#endif
