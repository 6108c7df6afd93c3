/* trust.c - see trust.h. */
#include "trust.h"

#include "ctserve/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

static bool read_address(const char *text, uint8_t to[16], bool *ret_is_v4)
{
    *ret_is_v4 = inet_pton(AF_INET, text, to) == 1;
    return *ret_is_v4 || inet_pton(AF_INET6, text, to) == 1;
}

/* "10.0.0.0/8", "::1", "192.168.0.0/255.255.0.0" is not taken. */
static bool read_network(const char *text, struct trust_network *network)
{
    char address[64];
    const char *slash = strchr(text, '/');
    size_t count = slash != NULL ? (size_t)(slash - text) : strlen(text);
    char *end = NULL;
    long bits;

    if (count >= sizeof(address))
        return false;
    memcpy(address, text, count);
    address[count] = '\0';
    if (!read_address(address, network->address, &network->is_v4))
        return false;
    network->bits = network->is_v4 ? 32 : 128;
    if (slash == NULL)
        return true;
    if (slash[1] < '0' || slash[1] > '9')
        return false;
    bits = strtol(slash + 1, &end, 10);
    if (*end != '\0' || bits > network->bits)
        return false;
    network->bits = (uint8_t)bits;
    return true;
}

int trust_init(struct trust *trust, const struct cts_settings *settings, enum cts_setting_id id)
{
    char *const *list = NULL;
    size_t count = cts_settings_list(settings, id, &list);

    *trust = (struct trust){0};
    trust->networks = calloc(count > TRUST_NETWORKS_MAX ? TRUST_NETWORKS_MAX : count + 1,
                             sizeof(*trust->networks));
    if (trust->networks == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i], "*") == 0)
            trust->all = true;
        else if (trust->count < TRUST_NETWORKS_MAX && list[i][0] != '\0' &&
                 read_network(list[i], &trust->networks[trust->count]))
            trust->count++;
        else if (list[i][0] != '\0')
            cts_warning("%s: %s is no address or network and is left out",
                        cts_setting_rows[id].name, list[i]);
    }
    return 0;
}

/* `address` has 4 or 16 bytes. */
static bool is_in(const struct trust_network *network, const uint8_t *address, bool is_v4)
{
    unsigned bytes = network->bits / 8, bits = network->bits % 8;

    if (network->is_v4 != is_v4 || memcmp(network->address, address, bytes) != 0)
        return false;
    return bits == 0 || ((network->address[bytes] ^ address[bytes]) >> (8 - bits)) == 0;
}

static bool is_in_any(const struct trust *trust, const uint8_t *address, bool is_v4)
{
    for (size_t i = 0; i < trust->count; i++)
        if (is_in(&trust->networks[i], address, is_v4))
            return true;
    return false;
}

bool trust_has(const struct trust *trust, const char *address)
{
    uint8_t binary[16] = {0};
    bool is_v4;

    if (trust->all || *address == '\0')
        return true;
    return read_address(address, binary, &is_v4) && is_in_any(trust, binary, is_v4);
}

bool trust_has_peer(const struct trust *trust, const struct sockaddr *address)
{
    const void *any = address;
    const struct sockaddr_in *v4 = any;
    const struct sockaddr_in6 *v6 = any;

    if (trust->all)
        return true;
    if (address->sa_family == AF_INET)
        return is_in_any(trust, (const uint8_t *)&v4->sin_addr, true);
    if (address->sa_family == AF_INET6)
        return is_in_any(trust, v6->sin6_addr.s6_addr, false);
    return true;
}
