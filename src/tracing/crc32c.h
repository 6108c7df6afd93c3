/* crc32c.h - the way without the processor's instruction, seen only by the test. */
#ifndef TRACING_CRC32C_H
#define TRACING_CRC32C_H

#include "ctserve/slot.h"

uint32_t crc32c_by_table(const void *bytes, size_t count);

#endif
