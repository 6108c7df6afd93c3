/* classes.c - the table of classes.h and the scan that is worth eight bytes at a time. */
#include "classes.h"

#define TOKEN HTTP_TOKEN
#define METHOD HTTP_METHOD
#define TARGET (HTTP_PATH | HTTP_QUERY)
#define VALUE HTTP_VALUE
#define HOST HTTP_HOST

#define MARK (TARGET | VALUE)                           /* delimiters: ( ) , and so on */
#define UPPER (TOKEN | METHOD | TARGET | VALUE | HOST)
#define LOWER (TOKEN | TARGET | VALUE | HOST)
#define NUMBER (UPPER | HTTP_HEX | HTTP_DIGIT)
#define SIGN (TOKEN | METHOD | TARGET | VALUE)          /* tchar that no reg-name may have */
#define SUBDELIM (MARK | HOST)

const uint8_t http_classes[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = UPPER,
    ['"'] = MARK,
    ['#'] = TOKEN | VALUE,
    ['$'] = UPPER,
    ['%'] = SIGN,
    ['&'] = UPPER,
    ['\''] = UPPER,
    ['('] = SUBDELIM,
    [')'] = SUBDELIM,
    ['*'] = UPPER,
    ['+'] = UPPER,
    [','] = SUBDELIM,
    ['-'] = UPPER,
    ['.'] = UPPER,
    ['/'] = MARK,
    ['0' ... '9'] = NUMBER,
    [':'] = MARK,
    [';'] = SUBDELIM,
    ['<'] = MARK,
    ['='] = SUBDELIM,
    ['>'] = MARK,
    ['?'] = HTTP_QUERY | VALUE,
    ['@'] = MARK,
    ['A' ... 'F'] = UPPER | HTTP_HEX,
    ['G' ... 'Z'] = UPPER,
    ['['] = MARK,
    ['\\'] = MARK,
    [']'] = MARK,
    ['^'] = SIGN,
    ['_'] = UPPER,
    ['`'] = SIGN,
    ['a' ... 'f'] = LOWER | HTTP_HEX,
    ['g' ... 'z'] = LOWER,
    ['{'] = MARK,
    ['|'] = SIGN,
    ['}'] = MARK,
    ['~'] = UPPER,
    [0x80 ... 0xFF] = VALUE,
};

#define EACH(byte) (0x0101010101010101u * (byte))

/* Bit 7 of every byte below 0x20 or equal to 0x7F. Bytes behind the first hit may be marked
 * falsely (the subtraction borrows); the first one is right, and bytes before it are clean. */
static inline uint64_t control_bytes(uint64_t word)
{
    uint64_t delete_word = word ^ EACH(0x7Fu);

    return (((word - EACH(0x20u)) & ~word) | ((delete_word - EACH(0x01u)) & ~delete_word)) &
           EACH(0x80u);
}

const unsigned char *http_skip_value(const unsigned char *at, const unsigned char *end)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        uint64_t hits = control_bytes(word);
        if (hits == 0) {
            at += 8;
            continue;
        }
        at += __builtin_ctzll(hits) / 8;
        if (*at != '\t')
            return at;
        at++;
    }
#endif
    while (at < end && http_is(*at, HTTP_VALUE))
        at++;
    return at;
}

int http_hex(unsigned char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f')
        return (byte | 0x20) - 'a' + 10;
    return -1;
}
