#include "formats/stranger.h"

#include <stdbool.h>
#include <string.h>

static bool begins(const uint8_t *bytes, size_t size, const char *with)
{
    size_t length = strlen(with);

    return size >= length && memcmp(bytes, with, length) == 0;
}

int sac_stranger_refuse(const char *name, const uint8_t *bytes, size_t size, const char *expected,
                        struct sac_error *err)
{
    if (size == 0)
        return sac_fail(err, SAC_EFORMAT, "%s: the file is empty; expected %s", name, expected);
    if (begins(bytes, size, "version https://git-lfs"))
        return sac_fail(err, SAC_EFORMAT,
                        "%s: a Git LFS pointer, not the file itself (git lfs pull fetches it)",
                        name);
    if (begins(bytes, size, "<!DOCTYPE") || begins(bytes, size, "<!doctype") ||
        begins(bytes, size, "<html"))
        return sac_fail(err, SAC_EFORMAT, "%s: a web page; expected %s", name, expected);
    if (begins(bytes, size, "\x89HDF\r\n"))
        return sac_fail(err, SAC_EUNSUPPORTED, "%s: an HDF5 file; expected %s", name, expected);
    if (begins(bytes, size, "\x1f\x8b") || begins(bytes, size, "PK\x03\x04"))
        return sac_fail(err, SAC_EFORMAT, "%s: a compressed archive; unpack it first", name);
    if (begins(bytes, size, "\xff\xfe") || begins(bytes, size, "\xfe\xff"))
        return sac_fail(err, SAC_EFORMAT, "%s: UTF-16 text; save it as UTF-8", name);
    return 0;
}
