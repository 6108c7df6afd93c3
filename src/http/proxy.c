/* proxy.c - the PROXY protocol: who the client is, said by the proxy before the first request.
 *
 * Version 1 is one line of text of at most 107 bytes, version 2 a binary head. The verdict comes
 * at the first byte that cannot be right. Source: proxy-protocol.txt of haproxy; values as
 * gunicorn takes them. */
#include "ctserve/http.h"
#include "classes.h"

#include <arpa/inet.h>
#include <stdio.h>

#define V1_LINE_BYTES_MAX 107u   /* line end included */
#define V2_HEAD_BYTES 16u
#define V2_BODY_BYTES_MAX 4096u  /* addresses and what a proxy may add to them */

static const char v1_start[] = "PROXY ";
static const char v2_start[] = "\r\n\r\n\0\r\nQUIT\n";

static int refuse(const char *code, const char **ret_code)
{
    *ret_code = code;
    return 400;
}

/* How the bytes compare with `start`: 0 begins with it, CTS_NEED_MORE could still, 1 does not. */
static int begins(struct cts_bytes bytes, const char *start, size_t count)
{
    size_t seen = bytes.count < count ? bytes.count : count;

    if (memcmp(bytes.at, start, seen) != 0)
        return 1;
    return seen == count ? 0 : CTS_NEED_MORE;
}

/* -- version 1 ------------------------------------------------------------------------------- */

/* The next word of the line, up to one blank; empty when there is none. */
static struct cts_bytes next_word(struct cts_bytes *line)
{
    const char *blank = line->count == 0 ? NULL : memchr(line->at, ' ', line->count);
    struct cts_bytes word = *line;

    if (blank != NULL)
        word.count = (size_t)(blank - line->at);
    line->at += word.count + (blank != NULL);
    line->count -= word.count + (blank != NULL);
    return word;
}

static bool read_address(struct cts_bytes word, int family, char *to, size_t to_bytes)
{
    unsigned char binary[16];

    if (word.count == 0 || word.count >= to_bytes)
        return false;
    memcpy(to, word.at, word.count);
    to[word.count] = '\0';
    return memchr(to, '\0', word.count) == NULL && inet_pton(family, to, binary) == 1;
}

static bool read_port(struct cts_bytes word, uint16_t *ret_port)
{
    uint32_t port = 0;

    if (word.count == 0 || word.count > 5)
        return false;
    for (size_t i = 0; i < word.count; i++) {
        if (!http_is((unsigned char)word.at[i], HTTP_DIGIT))
            return false;
        port = port * 10 + (uint32_t)(word.at[i] - '0');
    }
    *ret_port = (uint16_t)port;
    return port <= 65535;
}

static int read_v1(struct cts_bytes bytes, struct cts_proxy *proxy, size_t *ret_used,
                   const char **ret_code)
{
    size_t seen = bytes.count < V1_LINE_BYTES_MAX ? bytes.count : V1_LINE_BYTES_MAX, at;
    struct cts_bytes line, protocol;
    int family;

    for (at = 0; at < seen && bytes.at[at] >= ' ' && bytes.at[at] <= '~'; at++)
        ;
    if (at == V1_LINE_BYTES_MAX || (at < seen && bytes.at[at] != '\r') ||
        (at + 1 < seen && bytes.at[at + 1] != '\n'))
        return refuse("bad_proxy_line", ret_code);
    if (at + 1 >= seen)
        return bytes.count < V1_LINE_BYTES_MAX ? CTS_NEED_MORE
                                               : refuse("bad_proxy_line", ret_code);
    *ret_used = at + 2;
    line = (struct cts_bytes){bytes.at + sizeof(v1_start) - 1, at - (sizeof(v1_start) - 1)};
    protocol = next_word(&line);
    if (cts_bytes_equal(protocol, cts_bytes_of("TCP4")))
        family = AF_INET;
    else if (cts_bytes_equal(protocol, cts_bytes_of("TCP6")))
        family = AF_INET6;
    else
        return refuse("bad_proxy_line", ret_code);
    memcpy(proxy->protocol, protocol.at, protocol.count);
    if (!read_address(next_word(&line), family, proxy->client_address,
                      sizeof(proxy->client_address)) ||
        !read_address(next_word(&line), family, proxy->proxy_address,
                      sizeof(proxy->proxy_address)) ||
        !read_port(next_word(&line), &proxy->client_port) ||
        !read_port(line, &proxy->proxy_port))
        return refuse("bad_proxy_line", ret_code);
    return 0;
}

/* -- version 2 ------------------------------------------------------------------------------- */

static uint16_t number_at(const unsigned char *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static int read_v2_addresses(const unsigned char *at, size_t count, unsigned family,
                             struct cts_proxy *proxy, const char **ret_code)
{
    int af = family == 1 ? AF_INET : AF_INET6;
    size_t bytes = family == 1 ? 4 : 16;

    if (count < 2 * bytes + 4)
        return refuse("bad_proxy_head", ret_code);
    snprintf(proxy->protocol, sizeof(proxy->protocol), "%s", family == 1 ? "TCP4" : "TCP6");
    if (inet_ntop(af, at, proxy->client_address, sizeof(proxy->client_address)) == NULL ||
        inet_ntop(af, at + bytes, proxy->proxy_address, sizeof(proxy->proxy_address)) == NULL)
        return refuse("bad_proxy_head", ret_code);
    proxy->client_port = number_at(at + 2 * bytes);
    proxy->proxy_port = number_at(at + 2 * bytes + 2);
    return 0;
}

static int read_v2(struct cts_bytes bytes, struct cts_proxy *proxy, size_t *ret_used,
                   const char **ret_code)
{
    const unsigned char *at = (const unsigned char *)bytes.at;
    unsigned command, family;
    size_t count;

    if (bytes.count > 12 && (at[12] >> 4 != 2 || (at[12] & 15) > 1))
        return refuse("bad_proxy_head", ret_code);
    if (bytes.count > 13 && (at[12] & 15) == 1 && ((at[13] & 15) != 1 || at[13] >> 4 > 2))
        return refuse("bad_proxy_head", ret_code);
    if (bytes.count < V2_HEAD_BYTES)
        return CTS_NEED_MORE;
    count = number_at(at + 14);
    if (count > V2_BODY_BYTES_MAX)
        return refuse("long_proxy_head", ret_code);
    if (bytes.count < V2_HEAD_BYTES + count)
        return CTS_NEED_MORE;
    *ret_used = V2_HEAD_BYTES + count;
    command = at[12] & 15;
    family = at[13] >> 4;
    if (command == 0 || family == 0) {
        snprintf(proxy->protocol, sizeof(proxy->protocol), "%s", command == 0 ? "LOCAL" : "UNSPEC");
        return 0;
    }
    return read_v2_addresses(at + V2_HEAD_BYTES, count, family, proxy, ret_code);
}

int cts_http_proxy_read(struct cts_bytes bytes, enum cts_proxy_mode mode,
                        struct cts_proxy *ret_proxy, size_t *ret_used, const char **ret_code)
{
    int v1 = 1, v2 = 1;

    *ret_used = 0;
    *ret_proxy = (struct cts_proxy){0};
    if (mode == CTS_PROXY_V1 || mode == CTS_PROXY_AUTO)
        v1 = begins(bytes, v1_start, sizeof(v1_start) - 1);
    if (mode == CTS_PROXY_V2 || mode == CTS_PROXY_AUTO)
        v2 = begins(bytes, v2_start, sizeof(v2_start) - 1);
    if (v1 == 0)
        return read_v1(bytes, ret_proxy, ret_used, ret_code);
    if (v2 == 0)
        return read_v2(bytes, ret_proxy, ret_used, ret_code);
    return v1 == CTS_NEED_MORE || v2 == CTS_NEED_MORE ? CTS_NEED_MORE : 0;
}
