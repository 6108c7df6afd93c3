/* proxy.c - what a proxy says first: the verdict on every beginning of the input must be the one
 * on the whole, and what is accepted must be whole and printable. */
#include "fuzz.h"

#include <arpa/inet.h>

#define PROXY_BYTES_MAX 600u

struct outcome {
    int verdict;
    size_t used;
    const char *code;
    struct cts_proxy proxy;
};

static struct outcome read_proxy(const uint8_t *data, size_t count, enum cts_proxy_mode mode)
{
    struct outcome outcome = {.code = NULL};
    char *bytes = fuzz_copy(data, count);

    outcome.verdict = cts_http_proxy_read((struct cts_bytes){bytes, count}, mode, &outcome.proxy,
                                          &outcome.used, &outcome.code);
    free(bytes);
    return outcome;
}

static void check_same(const struct outcome *left, const struct outcome *right)
{
    FUZZ_CHECK(left->verdict == right->verdict);
    if (left->verdict == 400)
        FUZZ_CHECK(strcmp(left->code, right->code) == 0);
    if (left->verdict != 0)
        return;
    FUZZ_CHECK(left->used == right->used);
    FUZZ_CHECK(strcmp(left->proxy.protocol, right->proxy.protocol) == 0);
    FUZZ_CHECK(strcmp(left->proxy.client_address, right->proxy.client_address) == 0);
    FUZZ_CHECK(strcmp(left->proxy.proxy_address, right->proxy.proxy_address) == 0);
    FUZZ_CHECK(left->proxy.client_port == right->proxy.client_port);
    FUZZ_CHECK(left->proxy.proxy_port == right->proxy.proxy_port);
}

static void check_address(const char *address, const char *protocol)
{
    int family = strcmp(protocol, "TCP4") == 0 ? AF_INET : AF_INET6;
    unsigned char binary[16];

    if (strcmp(protocol, "TCP4") != 0 && strcmp(protocol, "TCP6") != 0)
        FUZZ_CHECK(address[0] == '\0');
    else
        FUZZ_CHECK(inet_pton(family, address, binary) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    enum cts_proxy_mode mode;
    struct outcome whole;

    if (count < FUZZ_PREFIX_BYTES || count > PROXY_BYTES_MAX)
        return 0;
    mode = (enum cts_proxy_mode)(data[0] % (CTS_PROXY_AUTO + 1));
    data += FUZZ_PREFIX_BYTES;
    count -= FUZZ_PREFIX_BYTES;
    whole = read_proxy(data, count, mode);
    FUZZ_CHECK(whole.verdict == 0 || whole.verdict == 400 || whole.verdict == CTS_NEED_MORE);
    for (size_t given = 0; given < count; given++) {
        struct outcome part = read_proxy(data, given, mode);
        if (part.verdict != CTS_NEED_MORE)
            check_same(&part, &whole);
        else
            FUZZ_CHECK(whole.verdict != 0 || given < whole.used || whole.used == 0);
    }
    if (whole.verdict == 0 && whole.used != 0) {
        FUZZ_CHECK(mode != CTS_PROXY_OFF && whole.used <= count);
        check_address(whole.proxy.client_address, whole.proxy.protocol);
        check_address(whole.proxy.proxy_address, whole.proxy.protocol);
    }
    return 0;
}
