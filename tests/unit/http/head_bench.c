/* head_bench.c - parse one head N times, for callgrind: instructions(N) - instructions(0).
 *
 *     head_bench hello|browser COUNT */
#include "ctserve/http.h"

#include <stdio.h>
#include <stdlib.h>

static const char hello[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n";
static const char browser[] =
    "GET /articles/2026/11/hello-world?page=2&sort=newest HTTP/1.1\r\n"
    "Host: www.example.com\r\n"
    "Connection: keep-alive\r\n"
    "Cache-Control: max-age=0\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Referer: https://www.example.com/articles/2026/11/index.html\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
    "Cookie: session=3f9d0c2ab1e84d7f; theme=dark; seen=1\r\n\r\n";

int main(int argc, char **argv)
{
    const struct cts_http_rules rules = {
        .line_bytes_max = 4094, .fields_count_max = 100, .field_bytes_max = 8190};
    struct cts_head_parser parser;
    struct cts_request request;
    struct cts_bytes bytes;
    size_t sum = 0;
    int count;

    if (argc != 3)
        return 2;
    count = atoi(argv[2]);
    bytes = cts_bytes_of(strcmp(argv[1], "hello") == 0 ? hello : browser);
    cts_head_parser_init(&parser, &rules);
    for (int i = 0; i < count; i++) {
        cts_head_parser_reset(&parser);
        if (cts_http_parse_head(&parser, bytes, &request) != 0)
            return 1;
        sum += request.headers_count;
    }
    printf("%zu bytes, %zu fields\n", bytes.count, sum);
    cts_head_parser_done(&parser);
    return 0;
}
