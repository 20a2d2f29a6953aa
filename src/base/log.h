/*
 * The log: one line an event, given to a sink that the program sets. The
 * library itself prints nothing: without a sink, lines are dropped. Any thread;
 * the sink is set once, before threads start.
 */
#ifndef SAC_BASE_LOG_H
#define SAC_BASE_LOG_H

enum sac_log_level { SAC_LOG_ERROR, SAC_LOG_WARNING, SAC_LOG_INFO, SAC_LOG_DEBUG };

/* `line` has no newline and is valid only during the call. Called on the
 * thread that logs; must not block for long and must be thread-safe. */
typedef void sac_log_sink(enum sac_log_level level, const char *line);

void sac_log_set_sink(sac_log_sink *sink, enum sac_log_level most);

void sac_log(enum sac_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A ready sink: "2026-11-20T18:00:00.123Z INFO text" to standard error, one
 * write a line. */
void sac_log_to_stderr(enum sac_log_level level, const char *line);

#endif
