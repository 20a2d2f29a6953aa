/* CRC-32 as zlib, PNG and Ethernet have it (polynomial 0xedb88320). Any thread. */
#ifndef SAC_BASE_CRC32_H
#define SAC_BASE_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc`, the result for the bytes before these; 0 at the start. */
uint32_t sac_crc32(uint32_t crc, const void *bytes, size_t size);

#endif
