/* crc32c.c - the checksum of a record (Castagnoli polynomial, reflected, as in RFC 3720).
 *
 * With the processor's own instruction where it has one, else by a table of 4 bits at a time:
 * small, made at compile time, and only for machines that are slow anyway. */
#include "crc32c.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

/* What four bits that leave the register at its low end add to the rest. */
static const uint32_t nibble_table[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t crc_by_table(uint32_t crc, const unsigned char *at, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        crc ^= at[i];
        crc = (crc >> 4) ^ nibble_table[crc & 15];
        crc = (crc >> 4) ^ nibble_table[crc & 15];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t
crc_by_instruction(uint32_t crc, const unsigned char *at, size_t count)
{
    uint64_t wide = crc;
    for (; count >= 32; at += 32, count -= 32) {
        uint64_t words[4];
        memcpy(words, at, sizeof(words));
        wide = _mm_crc32_u64(wide, words[0]);
        wide = _mm_crc32_u64(wide, words[1]);
        wide = _mm_crc32_u64(wide, words[2]);
        wide = _mm_crc32_u64(wide, words[3]);
    }
    for (; count >= 8; at += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; count > 0; at++, count--)
        crc = _mm_crc32_u8(crc, *at);
    return crc;
}
static bool has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
static uint32_t crc_by_instruction(uint32_t crc, const unsigned char *at, size_t count)
{
    for (; count >= 8; at += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        crc = __crc32cd(crc, word);
    }
    for (; count > 0; at++, count--)
        crc = __crc32cb(crc, *at);
    return crc;
}
static bool has_instruction(void)
{
    return true;
}
#else
#define crc_by_instruction crc_by_table
static bool has_instruction(void)
{
    return false;
}
#endif

uint32_t cts_crc32c(const void *bytes, size_t count)
{
    if (CTS_LIKELY(has_instruction()))
        return ~crc_by_instruction(~0u, bytes, count);
    return ~crc_by_table(~0u, bytes, count);
}

uint32_t crc32c_by_table(const void *bytes, size_t count)
{
    return ~crc_by_table(~0u, bytes, count);
}
