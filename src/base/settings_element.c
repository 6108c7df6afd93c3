/* settings_element.c - checks of one element of a list setting. */
#include "settings_check.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define ELEMENT_TEXT_BYTES 200

static void element_text(struct cts_bytes element, char *to)
{
    (void)cts_bytes_escape(element, to, ELEMENT_TEXT_BYTES);
}

static bool begins(struct cts_bytes view, const char *word)
{
    size_t count = strlen(word);

    return view.count >= count && memcmp(view.at, word, count) == 0;
}

static int bad_port(struct cts_bytes element, struct cts_error *error)
{
    char text[ELEMENT_TEXT_BYTES];

    element_text(element, text);
    return cts_error_set(error, CTS_EXIT_FAILURE,
                         "bind: '%s' has no valid port; write HOST:PORT with a port from 0 to "
                         "65535, [V6]:PORT, unix:PATH or fd://N",
                         text);
}

/* Only what is wrong whatever the listener makes of it: the port. */
static int check_bind(struct cts_bytes element, struct cts_error *error)
{
    struct cts_bytes rest = element;
    long port = 0;

    if (begins(rest, "unix:") || begins(rest, "fd://"))
        return 0;
    if (begins(rest, "tcp://")) {
        rest.at += 6;
        rest.count -= 6;
    }
    const char *bracket = rest.count > 0 ? memrchr(rest.at, ']', rest.count) : NULL;
    if (bracket != NULL) {
        rest.count -= (size_t)(bracket + 1 - rest.at);
        rest.at = bracket + 1;
    }
    const char *colon = rest.count > 0 ? memchr(rest.at, ':', rest.count) : NULL;
    if (colon == NULL)
        return 0;
    rest.count -= (size_t)(colon + 1 - rest.at);
    rest.at = colon + 1;
    if (rest.count == 0 || rest.count > 5)
        return bad_port(element, error);
    for (size_t i = 0; i < rest.count; i++) {
        if (rest.at[i] < '0' || rest.at[i] > '9')
            return bad_port(element, error);
        port = port * 10 + (rest.at[i] - '0');
    }
    return port > 65535 ? bad_port(element, error) : 0;
}

static bool host_bits_are_zero(const unsigned char *address, size_t bytes, unsigned prefix_bits)
{
    for (size_t bit = prefix_bits; bit < bytes * 8; bit++) {
        if (address[bit / 8] & (0x80u >> (bit % 8)))
            return false;
    }
    return true;
}

/* An address or a network without host bits: 10.0.0.0/8, not 10.1.2.3/8. */
static bool is_network(const char *text)
{
    unsigned char address[16];
    char host[64];
    const char *slash = strchr(text, '/');
    size_t host_count = slash != NULL ? (size_t)(slash - text) : strlen(text);
    size_t bytes;
    unsigned long prefix_bits;
    char *end;

    if (host_count >= sizeof(host))
        return false;
    memcpy(host, text, host_count);
    host[host_count] = '\0';
    if (inet_pton(AF_INET, host, address) == 1)
        bytes = 4;
    else if (inet_pton(AF_INET6, host, address) == 1)
        bytes = 16;
    else
        return false;
    if (slash == NULL)
        return true;
    if (slash[1] < '0' || slash[1] > '9')
        return false;
    prefix_bits = strtoul(slash + 1, &end, 10);
    return *end == '\0' && prefix_bits <= bytes * 8 &&
           host_bits_are_zero(address, bytes, (unsigned)prefix_bits);
}

static int check_network(enum cts_setting_id id, struct cts_bytes element,
                         struct cts_error *error)
{
    char text[ELEMENT_TEXT_BYTES];

    element_text(element, text);
    if (strcmp(text, "*") == 0 || is_network(text))
        return 0;
    return cts_error_set(error, CTS_EXIT_FAILURE,
                         "%s: '%s' is neither an address, nor a network such as 10.0.0.0/8 "
                         "(no bits behind the prefix), nor *",
                         cts_setting_rows[id].name, text);
}

static int check_protocol(struct cts_bytes element, struct cts_error *error)
{
    char text[ELEMENT_TEXT_BYTES];

    if (cts_bytes_equal_nocase(element, cts_bytes_of("h1")) ||
        cts_bytes_equal_nocase(element, cts_bytes_of("h2")))
        return 0;
    element_text(element, text);
    return cts_error_set(error, CTS_EXIT_FAILURE,
                         "http_protocols: '%s' is not known; h1 and h2 are", text);
}

int settings_check_element(enum cts_setting_id id, struct cts_bytes element,
                           struct cts_error *error)
{
    switch (id) {
    case CTS_SETTING_bind:
        return check_bind(element, error);
    case CTS_SETTING_forwarded_allow_ips:
    case CTS_SETTING_proxy_allow_ips:
    case CTS_SETTING_uwsgi_allow_ips:
        return check_network(id, element, error);
    case CTS_SETTING_http_protocols:
        return check_protocol(element, error);
    default:
        return 0;
    }
}
