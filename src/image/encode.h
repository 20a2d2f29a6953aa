/*
 * 8-bit pixels to a JPEG or PNG in memory. Any thread.
 */
#ifndef SAC_IMAGE_ENCODE_H
#define SAC_IMAGE_ENCODE_H

#include "base/buf.h"
#include "image/image.h"

/* Zero means the default, which stands behind each. */
struct sac_encode_options {
    enum sac_image_kind kind; /* no default */
    int quality;              /* of a JPEG, 1 to 100: 90. Colour is stored 4:2:0 */
    int level;                /* of a PNG, zlib's 1 to 9: 3 */
};

/* Appends the file to `out`. The picture has 1 channel or 3 (R, G, B). SAC_EINVAL:
 * sides that the format cannot hold, or options out of range; SAC_ENOMEM. After a
 * failure `out` has what it had. The same pixels and options give the same bytes. */
int sac_image_encode(const struct sac_image *image, const struct sac_encode_options *options,
                     struct sac_buf *out, struct sac_error *err);

#endif
