#include "base/crc32.h"

#include <pthread.h>
#include <string.h>

/* table[k][b]: byte b with k zero bytes behind it, so that eight bytes go in one step. */
static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = table[k - 1][byte];
            table[k][byte] = before >> 8 ^ table[0][before & 255];
        }
    }
}

static uint32_t eight_bytes(uint32_t crc, const uint8_t *at)
{
    uint32_t a = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
                        (uint32_t)at[3] << 24);

    return table[7][a & 255] ^ table[6][a >> 8 & 255] ^ table[5][a >> 16 & 255] ^
           table[4][a >> 24] ^ table[3][at[4]] ^ table[2][at[5]] ^ table[1][at[6]] ^
           table[0][at[7]];
}

uint32_t sac_crc32(uint32_t crc, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    pthread_once(&table_once, fill_table);
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8)
        crc = eight_bytes(crc, at);
    for (; size > 0; size--, at++)
        crc = crc >> 8 ^ table[0][(crc ^ *at) & 255];
    return ~crc;
}
