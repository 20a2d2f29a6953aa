#include "image/exif.h"

#include <string.h>

#define MARK_BYTES 6 /* "Exif", two zeros; TIFF offsets count from behind them */
#define HEADER_BYTES 8
#define ENTRY_BYTES 12
#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT 3

struct tiff {
    const uint8_t *at;
    size_t size;
    bool big_endian;
};

/* The caller has checked that two (four) bytes are there. */
static unsigned read16(const struct tiff *tiff, size_t offset)
{
    const uint8_t *p = tiff->at + offset;

    return tiff->big_endian ? p[0] * 256u + p[1] : p[1] * 256u + p[0];
}

static uint32_t read32(const struct tiff *tiff, size_t offset)
{
    uint32_t first = read16(tiff, offset), second = read16(tiff, offset + 2);

    return tiff->big_endian ? first << 16 | second : second << 16 | first;
}

bool sac_exif_is(const uint8_t *app1, size_t size)
{
    return size >= MARK_BYTES && memcmp(app1, "Exif\0", MARK_BYTES) == 0;
}

static bool open_tiff(struct tiff *tiff, const uint8_t *app1, size_t size)
{
    if (!sac_exif_is(app1, size) || size < MARK_BYTES + HEADER_BYTES)
        return false;
    tiff->at = app1 + MARK_BYTES;
    tiff->size = size - MARK_BYTES;
    tiff->big_endian = tiff->at[0] == 'M';
    return (memcmp(tiff->at, "MM", 2) == 0 || memcmp(tiff->at, "II", 2) == 0) &&
           read16(tiff, 2) == 42;
}

static int orientation_of_entry(const struct tiff *tiff, size_t entry)
{
    unsigned value = read16(tiff, entry + 8);
    bool one_short = read16(tiff, entry + 2) == TYPE_SHORT && read32(tiff, entry + 4) == 1;

    return one_short && value >= 1 && value <= 8 ? (int)value : 1;
}

int sac_exif_orientation(const uint8_t *app1, size_t size)
{
    struct tiff tiff;

    if (!open_tiff(&tiff, app1, size))
        return 1;
    uint32_t directory = read32(&tiff, 4);
    if (directory > tiff.size - 2)
        return 1;
    size_t entries = read16(&tiff, directory);
    size_t room = (tiff.size - 2 - directory) / ENTRY_BYTES;
    for (size_t i = 0; i < entries && i < room; i++) {
        size_t entry = directory + 2 + i * ENTRY_BYTES;
        if (read16(&tiff, entry) == TAG_ORIENTATION)
            return orientation_of_entry(&tiff, entry);
    }
    return 1;
}
