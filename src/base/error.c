#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool first_failure(struct sac_error *err, int code)
{
    if (!err || err->code != 0)
        return false;
    err->code = code;
    return true;
}

/* A sentence is one line of text, whatever the names in it were. */
static void make_one_line(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 127)
            *text = '?';
    }
}

int sac_fail(struct sac_error *err, int code, const char *format, ...)
{
    if (first_failure(err, code)) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        make_one_line(err->text);
    }
    return code;
}

static int code_of_errno(int number)
{
    if (number == ENOENT || number == ENOTDIR)
        return SAC_ENOENT;
    return number == ENOMEM ? SAC_ENOMEM : SAC_EIO;
}

int sac_fail_errno(struct sac_error *err, int number, const char *format, ...)
{
    int code = code_of_errno(number);

    if (first_failure(err, code)) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(number));
        make_one_line(err->text);
    }
    return code;
}

void sac_error_prefix(struct sac_error *err, const char *format, ...)
{
    if (!err || err->code == 0)
        return;

    char prefix[SAC_ERROR_TEXT / 2];
    char sentence[SAC_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    memcpy(sentence, err->text, sizeof sentence);
    size_t used = (size_t)snprintf(err->text, sizeof err->text, "%s: ", prefix);
    snprintf(err->text + used, sizeof err->text - used, "%s", sentence);
    make_one_line(err->text);
}
