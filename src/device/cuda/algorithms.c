#include "device/cuda/algorithms.h"

#include <ctype.h>
#include <cublasLt.h>
#include <cudnn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/durable.h"
#include "base/file.h"

enum { QUESTION_SIZE = 192, ENTRIES_MAX = 65536, PATH_SIZE = 1024 };
enum { LOCK_TRIES = 20, LOCK_WAIT_US = 10000 };
static const size_t file_bytes_max = 16 << 20;
static const char head[] = "saccade algorithms 1\n";

/* Where an answer comes from: a guess is this process's alone. */
enum origin { FROM_DISK, MEASURED, GUESSED };

struct entry {
    char question[QUESTION_SIZE];
    struct sac_algorithm answer;
    enum origin origin;
};

struct table {
    struct entry *entries;
    int count, cap;
};

struct sac_algorithms {
    struct sac_algorithms *next;
    int users;                                   /* devices */
    char folder[PATH_SIZE / 2], path[PATH_SIZE]; /* path "": nowhere to write */
    pthread_mutex_t lock;                        /* guards what follows */
    struct table table;
    bool changed; /* since it was written */
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all, and users */
static struct sac_algorithms *all;

void sac_algorithms_path(char *path, size_t size, const char *folder, const char *card,
                         size_t cudnn, size_t cublas)
{
    char name[96];
    size_t len = 0;

    for (const char *c = card; *c && len + 1 < sizeof name; c++)
        name[len++] = (char)(isalnum((unsigned char)*c) ? *c : '-');
    name[len] = 0;
    snprintf(path, size, "%s/cudnn-%zu-cublas-%zu-%s.txt", folder, cudnn, cublas, name);
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

/* ---- A table ---------------------------------------------------------------- */

static struct entry *find(const struct table *t, const char *question)
{
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->entries[i].question, question) == 0)
            return &t->entries[i];
    return NULL;
}

static bool put(struct table *t, const char *question, struct sac_algorithm answer,
                enum origin origin)
{
    struct entry *entry = find(t, question);

    if (!entry && t->count == t->cap) {
        int cap = t->cap ? t->cap * 2 : 64;
        void *grown =
            cap <= ENTRIES_MAX ? reallocarray(t->entries, (size_t)cap, sizeof *entry) : NULL;
        if (!grown)
            return false;
        t->entries = grown;
        t->cap = cap;
    }
    if (!entry) {
        entry = &t->entries[t->count++];
        snprintf(entry->question, sizeof entry->question, "%s", question);
    }
    entry->answer = answer;
    entry->origin = origin;
    return true;
}

/* ---- The file ----------------------------------------------------------------- */

/* "3 1 conv f16 8x3x224x224 …": what is not so, is passed over. */
static void read_line(struct table *t, const char *line)
{
    struct sac_algorithm answer;
    int at = 0;

    if (sscanf(line, "%9d %9d %n", &answer.algorithm, &answer.math, &at) == 2 && at > 0 &&
        answer.algorithm >= 0 && answer.math >= 0 && line[at] && strlen(line + at) < QUESTION_SIZE)
        put(t, line + at, answer, FROM_DISK);
}

static void read_cache(const char *path, struct table *t)
{
    uint8_t *bytes = NULL;
    size_t size;

    if (!path[0] || sac_file_read(path, file_bytes_max, &bytes, &size, NULL) != 0)
        return;
    char *text = (char *)bytes, *rest = NULL;
    if (strncmp(text, head, sizeof head - 1) == 0 && strlen(text) == size)
        for (char *line = strtok_r(text + sizeof head - 1, "\n", &rest); line;
             line = strtok_r(NULL, "\n", &rest))
            read_line(t, line);
    free(bytes);
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
static bool write_cache(const char *path, const struct table *t)
{
    struct sac_durable *file = NULL;
    struct sac_buf text = {0};

    sac_buf_puts(&text, head);
    for (int i = 0; i < t->count; i++)
        sac_buf_printf(&text, "%d %d %s\n", t->entries[i].answer.algorithm,
                       t->entries[i].answer.math, t->entries[i].question);
    bool good = !text.failed && sac_durable_open(&file, path, NULL) == 0 &&
                sac_durable_put(file, text.data, text.len, NULL) == 0 &&
                sac_durable_sync(file, NULL) == 0 && sac_durable_commit(file, NULL) == 0;
    sac_durable_free(file);
    sac_buf_done(&text);
    return good;
}

/* One process writes at a time; −1: another one does, or there is no such folder. */
static int lock_folder(const char *folder)
{
    char path[PATH_SIZE];

    make_folder(folder);
    snprintf(path, sizeof path, "%s/.lock", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    for (int i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        usleep(LOCK_WAIT_US);
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Under the table's lock. What others wrote stays, unless it was measured here. */
static void merge_and_write(struct sac_algorithms *a)
{
    struct table disk = {0};
    int fd = lock_folder(a->folder);
    bool whole = true;

    if (fd < 0)
        return;
    read_cache(a->path, &disk);
    for (int i = 0; i < a->table.count && whole; i++)
        if (a->table.entries[i].origin == MEASURED)
            whole = put(&disk, a->table.entries[i].question, a->table.entries[i].answer, MEASURED);
    a->changed = !write_cache(a->path, &disk);
    free(disk.entries);
    close(fd);
}

void sac_algorithms_save(struct sac_algorithms *a)
{
    pthread_mutex_lock(&a->lock);
    if (a->changed && a->path[0])
        merge_and_write(a);
    pthread_mutex_unlock(&a->lock);
}

/* ---- The process's -------------------------------------------------------------- */

/* Under the lock of all. */
static struct sac_algorithms *table_at(const char *path)
{
    for (struct sac_algorithms *a = all; a; a = a->next)
        if (strcmp(a->path, path) == 0)
            return a;
    return NULL;
}

static struct sac_algorithms *table_new(const struct sac_algorithms *like)
{
    struct sac_algorithms *a = malloc(sizeof *a);

    if (!a)
        return NULL;
    *a = *like;
    a->next = all;
    all = a;
    pthread_mutex_init(&a->lock, NULL);
    read_cache(a->path, &a->table);
    return a;
}

int sac_algorithms_new(struct sac_algorithms **ret, const char *card, struct sac_error *err)
{
    struct sac_algorithms like = {0};

    if (find_folder(like.folder, sizeof like.folder))
        sac_algorithms_path(like.path, sizeof like.path, like.folder, card, cudnnGetVersion(),
                            cublasLtGetVersion());
    pthread_mutex_lock(&all_lock);
    struct sac_algorithms *a = table_at(like.path);
    if (!a)
        a = table_new(&like);
    if (a)
        a->users++;
    pthread_mutex_unlock(&all_lock);
    if (!a)
        return sac_fail(err, SAC_ENOMEM, "cuDNN's algorithms: out of memory");
    *ret = a;
    return 0;
}

void sac_algorithms_free(struct sac_algorithms *a)
{
    if (!a)
        return;
    sac_algorithms_save(a);
    pthread_mutex_lock(&all_lock);
    bool last = --a->users == 0;
    for (struct sac_algorithms **at = &all; last && *at; at = &(*at)->next)
        if (*at == a) {
            *at = a->next;
            break;
        }
    pthread_mutex_unlock(&all_lock);
    if (!last)
        return;
    pthread_mutex_destroy(&a->lock);
    free(a->table.entries);
    free(a);
}

bool sac_algorithms_find(struct sac_algorithms *a, const char *question, struct sac_algorithm *ret)
{
    pthread_mutex_lock(&a->lock);
    const struct entry *entry = find(&a->table, question);
    if (entry)
        *ret = entry->answer;
    pthread_mutex_unlock(&a->lock);
    return entry != NULL;
}

void sac_algorithms_add(struct sac_algorithms *a, const char *question, bool measured,
                        struct sac_algorithm *answer)
{
    if (strlen(question) >= QUESTION_SIZE)
        return;
    pthread_mutex_lock(&a->lock);
    const struct entry *entry = find(&a->table, question);
    if (entry && entry->origin != FROM_DISK)
        *answer = entry->answer;
    else if (put(&a->table, question, *answer, measured ? MEASURED : GUESSED))
        a->changed |= measured;
    pthread_mutex_unlock(&a->lock);
}
