/* Filling a struct sac_error. Any thread. */
#ifndef SAC_BASE_ERROR_H
#define SAC_BASE_ERROR_H

#include "saccade/error.h"

/*
 * Writes the sentence and returns `code`, so that a failing function can
 * `return sac_fail(err, SAC_EFORMAT, …)`. The first failure is kept: if `err`
 * already holds one, only the code is returned. `err` may be NULL. Control
 * characters become `?`: the sentence is one line, whatever it names.
 */
int sac_fail(struct sac_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As sac_fail, with ": " and the text of the errno value `number` appended; the
 * code follows from the number (ENOENT, ENOMEM, else SAC_EIO). */
int sac_fail_errno(struct sac_error *err, int number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts `format` and ": " before the sentence in `err`, for a caller that knows
 * the file or layer that a callee does not. Nothing happens without a failure. */
void sac_error_prefix(struct sac_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
