/* hello_gateway.h - a gateway written in C that says hello: the server room without Python.
 *
 * Paths:
 *   /            "hello\n"
 *   /pid         the worker's pid
 *   /echo        the request body, read through exchange->ops
 *   /stream      three chunks, sent one by one
 *   /sleep?MS    sleeps that many milliseconds first, lock kept (a view that blocks)
 *   /wait?MS     the same with the lock given away (a view that waits for a database)
 *   /spin        never returns
 *   /crash       abort()
 *   anything else: 404
 *
 * Environment:
 *   HELLO_HOOKS  a file: every hook appends "HOOK PID WORKER_AGE NEW OLD\n"
 *   HELLO_RAISE  name of a hook that fails
 *   HELLO_CONFIG a file that stands in for the config file: lines "name = value"
 *   HELLO_LOAD   a file; while it exists, loading the application fails with the exit code that
 *                it holds (3 or 4), "hang" never returns, "slow MS" takes that long
 */
#ifndef HELLO_GATEWAY_H
#define HELLO_GATEWAY_H

#include "ctserve/gateway.h"

const struct cts_gateway *hello_gateway(void);

#endif
