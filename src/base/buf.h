/*
 * A growing byte buffer. A failed allocation is remembered in `failed` and
 * later puts do nothing, so that a writer checks once, at the end. One thread
 * at a time.
 */
#ifndef SAC_BASE_BUF_H
#define SAC_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Start it as `= {0}`. Owns `data`; `len` bytes are valid. */
struct sac_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    bool failed;
};

void sac_buf_done(struct sac_buf *buf);
/* Keeps the memory, forgets the bytes and the failure. */
void sac_buf_clear(struct sac_buf *buf);
/* Makes room for `more` bytes past len; false (and `failed`) when it cannot. */
bool sac_buf_reserve(struct sac_buf *buf, size_t more);
void sac_buf_put(struct sac_buf *buf, const void *bytes, size_t size);
void sac_buf_puts(struct sac_buf *buf, const char *text);
void sac_buf_printf(struct sac_buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Writes `text` (size bytes) as a JSON string, quotes included: escapes quotes,
 * backslashes, control characters, and `<`, `>`, `&` (so that an answer pasted
 * into a page stays inert); bytes that are not valid UTF-8 become U+FFFD. */
void sac_buf_put_json(struct sac_buf *buf, const char *text, size_t size);
/* Writes `text` for HTML, in elements and quoted attributes: `<`, `>`, `&` and `"` escaped. */
void sac_buf_put_html(struct sac_buf *buf, const char *text);

#endif
