/* systemd.h - the two things that we share with systemd: sockets it opened, and READY. */
#ifndef SERVER_SYSTEMD_H
#define SERVER_SYSTEMD_H

#include "ctserve/base.h"

#define SYSTEMD_FDS_START 3

/* How many sockets LISTEN_FDS hands to this process (LISTEN_PID is ours), else 0. Clears both
 * variables, so that no child thinks they are meant for it. */
int systemd_listen_fds(void);

/* One datagram to NOTIFY_SOCKET, if there is one. What goes wrong is only worth a debug line. */
void systemd_notify(const char *text);

#endif
