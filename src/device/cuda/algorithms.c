#include "device/cuda/algorithms.h"

#include <ctype.h>
#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/durable.h"
#include "base/file.h"

enum { QUESTION_SIZE = 192, ENTRIES_MAX = 65536, PATH_SIZE = 1024 };
static const size_t file_bytes_max = 16 << 20;
static const char head[] = "saccade algorithms 1\n";

struct entry {
    char question[QUESTION_SIZE];
    int algorithm, math;
};

struct sac_algorithms {
    char folder[PATH_SIZE / 2], path[PATH_SIZE]; /* path "": nowhere to write */
    struct entry *entries;
    int count, cap;
};

void sac_algorithms_path(char *path, size_t size, const char *folder, const char *card,
                         size_t version)
{
    char name[96];
    size_t len = 0;

    for (const char *c = card; *c && len + 1 < sizeof name; c++)
        name[len++] = (char)(isalnum((unsigned char)*c) ? *c : '-');
    name[len] = 0;
    snprintf(path, size, "%s/cudnn-%zu-%s.txt", folder, version, name);
}

/* False where there is no home for it. */
static bool find_folder(char *folder, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int len = -1;

    if (cache && *cache == '/')
        len = snprintf(folder, size, "%s/saccade", cache);
    else if (home && *home == '/')
        len = snprintf(folder, size, "%s/.cache/saccade", home);
    return len > 0 && (size_t)len < size;
}

static struct entry *find(const struct sac_algorithms *a, const char *question)
{
    for (int i = 0; i < a->count; i++)
        if (strcmp(a->entries[i].question, question) == 0)
            return &a->entries[i];
    return NULL;
}

static bool put(struct sac_algorithms *a, const char *question, int algorithm, int math)
{
    struct entry *entry = find(a, question);

    if (!entry && a->count == a->cap) {
        int cap = a->cap ? a->cap * 2 : 64;
        void *grown =
            cap <= ENTRIES_MAX ? reallocarray(a->entries, (size_t)cap, sizeof *entry) : NULL;
        if (!grown)
            return false;
        a->entries = grown;
        a->cap = cap;
    }
    if (!entry)
        entry = &a->entries[a->count++];
    if (entry->question != question)
        snprintf(entry->question, sizeof entry->question, "%s", question);
    entry->algorithm = algorithm;
    entry->math = math;
    return true;
}

/* "3 1 conv f16 8x3x224x224 …": what is not so, is passed over. */
static void read_line(struct sac_algorithms *a, const char *line)
{
    int algorithm, math, at = 0;

    if (sscanf(line, "%9d %9d %n", &algorithm, &math, &at) == 2 && at > 0 && algorithm >= 0 &&
        math >= 0 && line[at] && strlen(line + at) < QUESTION_SIZE)
        put(a, line + at, algorithm, math);
}

static void read_cache(struct sac_algorithms *a)
{
    uint8_t *bytes = NULL;
    size_t size;

    if (!a->path[0] || sac_file_read(a->path, file_bytes_max, &bytes, &size, NULL) != 0)
        return;
    char *text = (char *)bytes, *rest = NULL;
    if (strncmp(text, head, sizeof head - 1) == 0 && strlen(text) == size)
        for (char *line = strtok_r(text + sizeof head - 1, "\n", &rest); line;
             line = strtok_r(NULL, "\n", &rest))
            read_line(a, line);
    free(bytes);
}

int sac_algorithms_new(struct sac_algorithms **ret, const char *card, struct sac_error *err)
{
    struct sac_algorithms *a = calloc(1, sizeof *a);

    if (!a)
        return sac_fail(err, SAC_ENOMEM, "cuDNN's algorithms: out of memory");
    if (find_folder(a->folder, sizeof a->folder))
        sac_algorithms_path(a->path, sizeof a->path, a->folder, card, cudnnGetVersion());
    read_cache(a);
    *ret = a;
    return 0;
}

void sac_algorithms_free(struct sac_algorithms *a)
{
    if (!a)
        return;
    free(a->entries);
    free(a);
}

bool sac_algorithms_find(const struct sac_algorithms *a, const char *question, int *ret_algorithm,
                         int *ret_math)
{
    const struct entry *entry = find(a, question);

    if (!entry)
        return false;
    *ret_algorithm = entry->algorithm;
    *ret_math = entry->math;
    return true;
}

static void make_folder(const char *folder)
{
    char parent[PATH_SIZE];

    snprintf(parent, sizeof parent, "%s", folder);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent) {
        *slash = 0;
        mkdir(parent, 0700);
    }
    mkdir(folder, 0700);
}

/* Whole or not at all. */
static void write_cache(const struct sac_algorithms *a)
{
    struct sac_durable *file = NULL;
    struct sac_buf text = {0};

    sac_buf_puts(&text, head);
    for (int i = 0; i < a->count; i++)
        sac_buf_printf(&text, "%d %d %s\n", a->entries[i].algorithm, a->entries[i].math,
                       a->entries[i].question);
    make_folder(a->folder);
    if (!text.failed && sac_durable_open(&file, a->path, NULL) == 0 &&
        sac_durable_put(file, text.data, text.len, NULL) == 0 && sac_durable_sync(file, NULL) == 0)
        sac_durable_commit(file, NULL);
    sac_durable_free(file);
    sac_buf_done(&text);
}

void sac_algorithms_add(struct sac_algorithms *a, const char *question, int algorithm, int math)
{
    if (strlen(question) < QUESTION_SIZE && put(a, question, algorithm, math) && a->path[0])
        write_cache(a);
}
