/* listener.h - the listening sockets of the master: what `bind`, systemd or an older master give.
 *
 * struct listener itself stands in worker.h, because the workers accept on it. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include "worker.h"

#define LISTENERS_MAX 64

struct listeners {
    struct listener at[LISTENERS_MAX];
    char *texts[LISTENERS_MAX];   /* what `bind` said of it, NULL for adopted ones; owned */
    size_t count;
    struct berths *berths;   /* reuse_port: see berths.h, NULL until a worker needs one; owned */
    bool is_inherited;       /* from systemd or fd://: unix paths are not ours to remove */
};

enum listener_verdict {
    LISTENER_OPEN,           /* all are open */
    LISTENER_AGAIN,          /* an address is taken: try again in a second */
    LISTENER_FAILED,         /* error is set */
};

/* With reuse_port TCP addresses are reserved only: bound, not listening; berths.h opens the sockets
 * of the workers. One that `previous` (may be NULL) has open under the same text is shared with it.
 * Open every address of `bind`, or, when `fds_count` is not 0, adopt those descriptors instead
 * (systemd, an older master). On LISTENER_AGAIN the ones that are open stay so and the next call
 * goes on with the rest. `is_last`: an address that is taken is now an error, with who holds it
 * and which port is free. */
enum listener_verdict listener_open_all(struct listeners *listeners,
                                        const struct cts_settings *settings,
                                        const struct listeners *previous, const int *fds,
                                        size_t fds_count, bool is_last, struct cts_error *error);

/* Close all; `unlink_paths`: remove the unix sockets that we made, but for those that `but_for`
 * (may be NULL) still has. */
void listener_close_all(struct listeners *listeners, bool unlink_paths,
                        const struct listeners *but_for);

/* "http://127.0.0.1:8000,unix:/run/x.sock", cut to fit. Returns the length. */
size_t listener_names(const struct listeners *listeners, char *text, size_t text_bytes);

/* Is every address one that only this machine can reach by TCP (127/8, ::1)? */
bool listener_is_loopback(const struct listeners *listeners);

/* -- used inside and by tests ------------------------------------------------------------------ */
struct listener_address {
    enum { LISTENER_TCP, LISTENER_UNIX, LISTENER_FD } kind;
    char host[108];          /* or the unix path */
    uint16_t port;
    int fd;
    bool is_v6;
};

/* Read one `bind` text: HOST:PORT, HOST, :PORT, [V6]:PORT, tcp://..., unix:PATH, fd://N.
 * 0, or -1 with `error`. */
int listener_read_address(const char *text, struct listener_address *ret_address,
                          struct cts_error *error) CTS_MUST_USE;

/* Which process listens on `port`: "pid 812 (python3 -m http.server)", or "" when /proc does not
 * say. */
void listener_holder_text(uint16_t port, char *text, size_t text_bytes);

#endif
