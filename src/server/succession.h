/* succession.h - SIGUSR2: a newer master is started beside this one with its sockets, and when the
 * older one is gone the newer one takes its name and its pid file. */
#ifndef SERVER_SUCCESSION_H
#define SERVER_SUCCESSION_H

#include "master_own.h"

#define SUCCESSION_LOOK_S 1.0

void succession_start(struct master *master);
/* Is the older master gone? */
void succession_look(struct master *master);

#endif
