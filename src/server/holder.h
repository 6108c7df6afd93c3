/* holder.h - who sits on a port, and which one is free: the two facts a person wants to read when
 * a bind fails. */
#ifndef SERVER_HOLDER_H
#define SERVER_HOLDER_H

#include "listener.h"

/* The first port above address->port that can be bound right now, or 0. Looks at most 100 up. */
uint16_t holder_next_free_port(const struct listener_address *address);

#endif
