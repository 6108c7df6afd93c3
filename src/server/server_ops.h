/* server_ops.h - the functions through which Python's `server` and `worker` objects ask the real
 * server: one table for the life of the program, whose address gateway->configure gets. What
 * concerns `server` is answered by master.c, what concerns `worker` by worker.c. */
#ifndef SERVER_SERVER_OPS_H
#define SERVER_SERVER_OPS_H

#include "ctserve/gateway.h"

extern struct cts_server_ops server_ops;

#endif
