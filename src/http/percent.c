/* percent.c - "%41" is "A". Source: RFC 3986 2.1; PEP 3333 wants PATH_INFO decoded. */
#include "ctserve/http.h"
#include "classes.h"

size_t cts_http_percent_decode(struct cts_bytes from, char *to)
{
    const char *percent = from.count == 0 ? NULL : memchr(from.at, '%', from.count);
    size_t read, written;

    if (percent == NULL) {
        if (from.count != 0)
            memmove(to, from.at, from.count);
        return from.count;
    }
    read = written = (size_t)(percent - from.at);
    memmove(to, from.at, read);
    while (read < from.count) {
        if (from.at[read] == '%' && from.count - read >= 3) {
            int high = http_hex((unsigned char)from.at[read + 1]);
            int low = http_hex((unsigned char)from.at[read + 2]);
            if (high >= 0 && low >= 0) {
                to[written++] = (char)(high * 16 + low);
                read += 3;
                continue;
            }
        }
        to[written++] = from.at[read++];
    }
    return written;
}
