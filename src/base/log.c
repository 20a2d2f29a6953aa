#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static sac_log_sink *log_sink;
static enum sac_log_level log_most;

void sac_log_set_sink(sac_log_sink *sink, enum sac_log_level most)
{
    log_sink = sink;
    log_most = most;
}

void sac_log(enum sac_log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (!log_sink || level > log_most)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    log_sink(level, line);
}

void sac_log_to_stderr(enum sac_log_level level, const char *line)
{
    static const char *const names[] = {"ERROR", "WARNING", "INFO", "DEBUG"};
    char text[1200];
    struct timespec now;
    struct tm utc;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(text + used, sizeof text - used, ".%03ldZ %s %s\n", now.tv_nsec / 1000000,
                        names[level], line);
    used += (size_t)more < sizeof text - used ? (size_t)more : sizeof text - used - 1;
    /* One write keeps lines of several threads whole. A log that cannot be
     * written has nowhere to say so. */
    if (write(STDERR_FILENO, text, used) < 0)
        return;
}
