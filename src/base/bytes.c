/* bytes.c - views of bytes: comparing them, and writing them so that a log line stays one line. */
#include "ctserve/base.h"

static unsigned char lower(unsigned char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (unsigned char)(byte + ('a' - 'A')) : byte;
}

bool cts_bytes_equal_nocase(struct cts_bytes left, struct cts_bytes right)
{
    if (left.count != right.count)
        return false;
    for (size_t i = 0; i < left.count; i++) {
        if (lower((unsigned char)left.at[i]) != lower((unsigned char)right.at[i]))
            return false;
    }
    return true;
}

size_t cts_bytes_escape(struct cts_bytes bytes, char *to, size_t to_bytes)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;

    if (to_bytes == 0)
        return 0;
    for (size_t i = 0; i < bytes.count; i++) {
        unsigned char byte = (unsigned char)bytes.at[i];
        bool is_plain = byte >= 0x20 && byte <= 0x7e && byte != '\\';
        size_t need = is_plain ? 1 : 4;

        /* An escape is written whole or not at all, and the end always has room for its NUL. */
        if (used + need >= to_bytes)
            break;
        if (is_plain) {
            to[used++] = (char)byte;
            continue;
        }
        to[used++] = '\\';
        to[used++] = 'x';
        to[used++] = digits[byte >> 4];
        to[used++] = digits[byte & 15];
    }
    to[used] = '\0';
    return used;
}
