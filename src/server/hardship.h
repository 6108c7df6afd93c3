/* hardship.h - what libev does when memory or a system call fails.
 *
 * By itself it calls abort(), which looks like a crash of ours. A shortage that passes must be
 * outlived; one that stays ends the process with a sentence, and the supervisor replaces it. */
#ifndef SERVER_HARDSHIP_H
#define SERVER_HARDSHIP_H

/* Once per process, before the first loop is made; a fork inherits it. */
void hardship_prepare(void);

#endif
