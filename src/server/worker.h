/* worker.h - the life of one worker process, from the fork to its exit code. */
#ifndef SERVER_WORKER_H
#define SERVER_WORKER_H

#include "ctserve/gateway.h"
#include "ctserve/settings.h"
#include "ctserve/tracing.h"

/* A listening socket, made by the master. */
struct listener {
    int fd;
    bool is_unix;
    bool is_reserved;             /* reuse_port: bound but not listening, it holds the address */
    bool is_own;                  /* reuse_port: of one place of the service, see berths.h */
    char name[160];               /* "http://127.0.0.1:8000", "unix:/run/x.sock": log and banner */
    char server_name[108];        /* SERVER_NAME; for unix sockets taken from Host */
    uint16_t server_port;
};

struct worker_plan {
    const struct cts_gateway *gateway;
    const struct cts_settings *settings;
    const struct listener *listeners;
    size_t listeners_count;
    struct cts_slot *slot;        /* this worker's, not attached yet */
    struct cts_worker_facts facts;
    void *worker;                 /* gateway->worker_new's */
    int control_fd;               /* see control.h */
    int dump_fd;                  /* memfd for faulthandler, made by the master */
    int dump_signo;               /* real-time signal */
    bool app_is_loaded;           /* preload_app */
};

/* Everything after fork.c has done its part in the child (PyOS call, inheritance list, signals at
 * their defaults and still blocked): attach the slot, hooks, application, READY, serve, drain,
 * worker_exit. Lock held. Returns the exit code of the process. */
int worker_run(const struct worker_plan *plan);

/* What struct cts_server_ops offers of the worker that this process is: worker.nr, worker.alive,
 * and worker.alive = False (finish what runs, then leave). In the master: 0, true, nothing. */
uint64_t worker_requests_count(void);
bool worker_is_alive(void);
void worker_set_alive(bool alive);

#endif
