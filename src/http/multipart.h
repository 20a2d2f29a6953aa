/*
 * multipart/form-data (RFC 7578), over a whole body in memory; nothing is
 * copied. Any thread.
 */
#ifndef SAC_HTTP_MULTIPART_H
#define SAC_HTTP_MULTIPART_H

#include "http/server.h"

struct sac_multipart {
    struct sac_http_text body;
    char boundary[72]; /* RFC 2046: 70 characters at most */
    size_t at;
    int parts;
    int parts_max;
};

struct sac_multipart_part {
    struct sac_http_text name;         /* the form field */
    struct sac_http_text filename;     /* {NULL, 0} when it is not a file */
    struct sac_http_text content_type; /* likewise */
    struct sac_http_text bytes;        /* borrowed from the body */
};

/* Reads the boundary from the Content-Type header. SAC_EUNSUPPORTED when it is
 * not multipart/form-data at all (so the caller may take the body raw),
 * SAC_EFORMAT when it is and its boundary is missing or malformed. */
int sac_multipart_init(struct sac_multipart *multipart, struct sac_http_text content_type,
                       struct sac_http_text body, int parts_max, struct sac_error *err);
/* 1 and the next part, 0 at the end, or an error (SAC_EFORMAT, SAC_ELIMIT). */
int sac_multipart_next(struct sac_multipart *multipart, struct sac_multipart_part *ret,
                       struct sac_error *err);

#endif
