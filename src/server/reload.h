/* reload.h - SIGHUP: settings are read again, a new generation of workers is made ready, and only
 * then the old one is told to go. Whatever fails on the way leaves the old one serving. */
#ifndef SERVER_RELOAD_H
#define SERVER_RELOAD_H

#include "master_own.h"

void reload_begin(struct master *master);
/* Has the supervisor come to an end with it? */
void reload_look(struct master *master);
void reload_free_settings(struct cts_settings **settings);

#endif
