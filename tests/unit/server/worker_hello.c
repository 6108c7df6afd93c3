/* worker_hello.c - one worker without a master and without Python: worker_run in this process, on
 * a listener of its own, with the gateway that says hello. For measuring, and for the tests of
 * tests/wire that are about one worker.
 *
 *     worker_hello [PORT] [SETTING=VALUE]...
 * Prints "Listening at: http://127.0.0.1:N" when it listens (PORT 0 chooses one). */
#include "../../../src/server/worker.h"
#include "hello_gateway.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void give_up(const char *what)
{
    perror(what);
    exit(1);
}

static struct listener listen_on(int port)
{
    struct listener listener = {.server_name = "127.0.0.1"};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t bytes = sizeof(address);
    int one = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener.fd, (struct sockaddr *)(void *)&address, sizeof(address)) < 0)
        give_up("bind");
    if (listen(listener.fd, 2048) < 0)
        give_up("listen");
    getsockname(listener.fd, (struct sockaddr *)(void *)&address, &bytes);
    listener.server_port = ntohs(address.sin_port);
    snprintf(listener.name, sizeof(listener.name), "http://127.0.0.1:%d", listener.server_port);
    return listener;
}

static void set(struct cts_settings *settings, char *assignment)
{
    struct cts_error error = {0};
    char *equals = strchr(assignment, '=');
    int id = -1;
    if (equals != NULL) {
        *equals = '\0';
        id = cts_settings_find(assignment);
    }
    if (id < 0) {
        fprintf(stderr, "not SETTING=VALUE: %s\n", assignment);
        exit(2);
    }
    struct cts_value value = {.kind = CTS_VALUE_TEXT, .text = equals + 1};
    if (cts_settings_set(settings, (enum cts_setting_id)id, CTS_SOURCE_COMMAND_LINE, &value,
                         &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct cts_settings settings;
    struct cts_error error = {0};
    struct cts_slot slot;
    int first = argc > 1 && strchr(argv[1], '=') == NULL ? 2 : 1;
    struct listener listener = listen_on(first == 2 ? atoi(argv[1]) : 0);

    if (cts_settings_init(&settings, &error) < 0)
        return 1;
    for (int i = first; i < argc; i++)
        set(&settings, argv[i]);
    struct cts_slot_plan slot_plan = {.ring_id = 2, .generation = 1, .age = 1,
                                      .ring_bytes = 4194304, .rows_count = 32};
    if (cts_slot_create(&slot_plan, &slot) < 0)
        give_up("slot");
    struct worker_plan plan = {
        .gateway = hello_gateway(),
        .settings = &settings,
        .listeners = &listener,
        .listeners_count = 1,
        .slot = &slot,
        .facts = {.age = 1, .timeout_s = 30,
                  .max_requests = cts_settings_int(&settings, CTS_SETTING_max_requests)},
        .control_fd = -1,
        .dump_fd = -1,
    };
    printf("Listening at: http://127.0.0.1:%d\n", listener.server_port);
    fflush(stdout);
    int exit_code = worker_run(&plan);
    cts_settings_done(&settings);
    close(listener.fd);
    return exit_code;
}
