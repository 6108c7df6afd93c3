/* trust.h - lists of addresses and networks: whose word we take for who the client is.
 *
 * Made of a setting once per worker, asked once per connection. */
#ifndef SERVER_TRUST_H
#define SERVER_TRUST_H

#include "ctserve/settings.h"

#include <sys/socket.h>

#define TRUST_NETWORKS_MAX 256

struct trust {
    bool all;                  /* "*" */
    size_t count;
    struct trust_network {
        uint8_t address[16];   /* IPv4 in its first four bytes */
        uint8_t bits;
        bool is_v4;
    } *networks;
};

/* What cannot be read as an address or a network is left out, with a warning: nobody is trusted
 * by mistake. 0 or -ENOMEM. */
int trust_init(struct trust *trust, const struct cts_settings *settings,
               enum cts_setting_id id) CTS_MUST_USE;

/* `address` as text; "" (a unix socket) is trusted, as in gunicorn. */
bool trust_has(const struct trust *trust, const char *address);
/* The same of what accept() gave. */
bool trust_has_peer(const struct trust *trust, const struct sockaddr *address);

#endif
