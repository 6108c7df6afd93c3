/* main.c - ctserve-agent: reads the traces of a server from shared memory, sends and shows them.
 *
 * Started by the master only, with their socket on descriptor 3. Signals that a terminal sends to
 * the whole group are the master's business; it says STOP when the time has come, and a closed
 * socket says so too. */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static bool is_seqpacket(int fd)
{
    int type;
    socklen_t bytes = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_SEQPACKET;
}

static void ignore_signals(void)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2,
                                  SIGWINCH, SIGTTIN, SIGTTOU};
    sigset_t none;
    for (size_t i = 0; i < CTS_COUNT(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int main(int argc, char **argv)
{
    if (!is_seqpacket(CTS_AGENT_FD)) {
        fprintf(stderr, "ctserve-agent is started by ctserve; it does nothing by itself.\n");
        return 2;
    }
    ignore_signals();
    /* This process never forks; gRPC's handlers for that would only cost. */
    setenv("GRPC_ENABLE_FORK_SUPPORT", "0", 1);
    if (cts_fd_set_cloexec(CTS_AGENT_FD, true) < 0 || cts_fd_set_nonblocking(CTS_AGENT_FD) < 0)
        return 1;
    cts_title_set("ctserve-agent");
    return agent_run(CTS_AGENT_FD);
}
