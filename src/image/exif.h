/* The one field of EXIF that pixels need. Any thread. */
#ifndef SAC_IMAGE_EXIF_H
#define SAC_IMAGE_EXIF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether an APP1 segment's payload (after its length) is EXIF and not, say, XMP. */
bool sac_exif_is(const uint8_t *app1, size_t size);

/* The Orientation (tag 0x0112) of the first directory, 1 to 8; 1 when there is
 * none, or when what is there makes no sense: a picture with a damaged label is
 * still a picture. Reads nothing past `size`. */
int sac_exif_orientation(const uint8_t *app1, size_t size);

#endif
