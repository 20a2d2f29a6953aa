#include "cli/env_file.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"

enum { FILE_BYTES_MAX = 1 << 20 };

static const char *const variables[] = {"DEPLOY_PROTEXT", "CAFFE_MODEL", "MEAN", "SYNSET_WORDS"};
enum { VARIABLES = sizeof variables / sizeof variables[0] };

static char **slot(struct sac_env *env, int variable)
{
    char **const slots[VARIABLES] = {&env->deploy, &env->weights, &env->mean, &env->labels};

    return slots[variable];
}

static int find_variable(const char *name, size_t size)
{
    for (int i = 0; i < VARIABLES; i++)
        if (strlen(variables[i]) == size && memcmp(variables[i], name, size) == 0)
            return i;
    return -1;
}

/* The last assignment holds; other variables are not ours. */
static int set(struct sac_env *env, const char *name, size_t name_size, const char *value,
               size_t value_size, struct sac_error *err)
{
    int variable = find_variable(name, name_size);

    if (variable < 0)
        return 0;
    char *copy = strndup(value, value_size);
    if (!copy)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    free(*slot(env, variable));
    *slot(env, variable) = copy;
    return 0;
}

struct reader {
    const char *name; /* of the file */
    const char *at;
    int line;
};

static int fail_at(const struct reader *reader, struct sac_error *err, const char *sentence)
{
    return sac_fail(err, SAC_EFORMAT, "%s: line %d: %s", reader->name, reader->line, sentence);
}

/* Blanks, ended lines, continued lines and comments between words. */
static void skip_space(struct reader *reader)
{
    for (;; reader->at++) {
        if (*reader->at == '#')
            reader->at += strcspn(reader->at, "\n");
        if (reader->at[0] == '\\' && reader->at[1] == '\n')
            reader->at++;
        if (!*reader->at || !isspace((unsigned char)*reader->at))
            return;
        reader->line += *reader->at == '\n';
    }
}

/* What the shell would expand, we would get wrong: better said. */
static bool expands(char c)
{
    return c == '$' || c == '`';
}

static int read_quoted(struct reader *reader, char quote, struct sac_buf *value,
                       struct sac_error *err)
{
    int opened = reader->line;

    for (reader->at++; *reader->at != quote; reader->at++) {
        const char *at = reader->at;
        if (!*at) {
            reader->line = opened;
            return fail_at(reader, err, "a quote that is opened here is not closed");
        }
        if (quote == '"' && expands(*at))
            return fail_at(reader, err, "$ and ` are not expanded here: write the value out");
        if (quote == '"' && *at == '\\' && at[1] && strchr("\"\\$`\n", at[1])) {
            reader->at++;
            reader->line += at[1] == '\n';
            if (at[1] != '\n')
                sac_buf_put(value, at + 1, 1);
            continue;
        }
        reader->line += *at == '\n';
        sac_buf_put(value, at, 1);
    }
    reader->at++;
    return 0;
}

/* One word's value: bare, quoted and escaped pieces side by side. */
static int read_value(struct reader *reader, struct sac_buf *value, struct sac_error *err)
{
    int rc = 0;

    while (rc == 0 && *reader->at && !isspace((unsigned char)*reader->at) && *reader->at != ';') {
        char c = *reader->at;
        if (c == '"' || c == '\'') {
            rc = read_quoted(reader, c, value, err);
        } else if (c == '\\') {
            if (reader->at[1] == '\n')
                reader->line++;
            else if (reader->at[1])
                sac_buf_put(value, reader->at + 1, 1);
            reader->at += reader->at[1] ? 2 : 1;
        } else if (expands(c)) {
            rc = fail_at(reader, err, "$ and ` are not expanded here: write the value out");
        } else {
            sac_buf_put(value, reader->at++, 1);
        }
    }
    if (rc == 0 && *reader->at == ';')
        reader->at++;
    return rc;
}

static int read_assignment(struct reader *reader, struct sac_env *env, struct sac_buf *value,
                           struct sac_error *err)
{
    const char *name = reader->at;
    size_t size = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");

    if (size == 6 && memcmp(name, "export", 6) == 0 && isblank((unsigned char)name[6])) {
        reader->at += size;
        return 0;
    }
    if (size == 0 || isdigit((unsigned char)name[0]) || name[size] != '=')
        return fail_at(reader, err, "expected NAME=value");
    reader->at += size + 1;
    sac_buf_clear(value);
    int rc = read_value(reader, value, err);
    if (rc == 0 && value->failed)
        rc = sac_fail(err, SAC_ENOMEM, "out of memory");
    return rc ? rc : set(env, name, size, (const char *)value->data, value->len, err);
}

int sac_env_parse(struct sac_env *ret, const char *name, const char *text, struct sac_error *err)
{
    struct reader reader = {.name = name, .at = text, .line = 1};
    struct sac_env env = {0};
    struct sac_buf value = {0};
    int rc = sac_buf_reserve(&value, 1) ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    skip_space(&reader);
    while (rc == 0 && *reader.at) {
        rc = read_assignment(&reader, &env, &value, err);
        skip_space(&reader);
    }
    sac_buf_done(&value);
    if (rc == 0)
        *ret = env;
    else
        sac_env_done(&env);
    return rc;
}

int sac_env_load(struct sac_env *ret, const char *path, struct sac_error *err)
{
    uint8_t *text;
    size_t size;
    int rc = sac_file_read(path, FILE_BYTES_MAX, &text, &size, err);

    if (rc)
        return rc;
    rc = sac_env_parse(ret, path, (const char *)text, err);
    free(text);
    return rc;
}

/* Where a folded-in `NAME="` of one of the four starts; NULL when there is none. */
static const char *find_folded(const char *value)
{
    const char *first = NULL;

    for (int i = 0; i < VARIABLES; i++) {
        const char *at = value;
        size_t size = strlen(variables[i]);
        while ((at = strstr(at, variables[i])) && !(at[size] == '=' && at[size + 1] == '"'))
            at += size;
        if (at && (!first || at < first))
            first = at;
    }
    return first;
}

int sac_env_unfold(struct sac_env *env, const char *variable, const char *value,
                   struct sac_error *err)
{
    const char *folded = find_folded(value);
    size_t size = folded ? (size_t)(folded - value) : strlen(value);

    while (size > 0 && isspace((unsigned char)value[size - 1]))
        size--;
    int rc = set(env, variable, strlen(variable), value, size, err);
    if (rc || !folded)
        return rc;

    struct sac_env rest = {0};
    rc = sac_env_parse(&rest, variable, folded, err);
    for (int i = 0; rc == 0 && i < VARIABLES; i++)
        if (*slot(&rest, i))
            rc = set(env, variables[i], strlen(variables[i]), *slot(&rest, i),
                     strlen(*slot(&rest, i)), err);
    sac_env_done(&rest);
    return rc;
}

int sac_env_from_environment(struct sac_env *ret, struct sac_error *err)
{
    struct sac_env env = {0};
    int rc = 0;

    for (int i = 0; rc == 0 && i < VARIABLES; i++) {
        const char *value = getenv(variables[i]);
        if (value)
            rc = sac_env_unfold(&env, variables[i], value, err);
    }
    if (rc == 0)
        *ret = env;
    else
        sac_env_done(&env);
    return rc;
}

void sac_env_done(struct sac_env *env)
{
    for (int i = 0; i < VARIABLES; i++)
        free(*slot(env, i));
    *env = (struct sac_env){0};
}
