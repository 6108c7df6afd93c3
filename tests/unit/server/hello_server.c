/* hello_server.c - the whole server with the gateway that says hello, and no Python anywhere.
 *
 *     hello_server -w 2 -b 127.0.0.1:8000 hello:app
 * CTSERVE_AGENT names the agent's executable; without it there is none. */
#include "../../../src/server/boot.h"
#include "hello_gateway.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    const char *agent_path = getenv("CTSERVE_AGENT");
    struct cts_entry entry = {
        .argc = argc,
        .argv = argv,
        .mode = "embedded",
        .python_version = "0.0.0",
        .python_prefix = "/nowhere",
        .agent_path = agent_path != NULL ? agent_path : "",
        .launcher_path = argv[0],
    };
    return boot_run(&entry, hello_gateway());
}
