#include "dataset/fetch.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "data/fetch.h"
#include "dataset/pipeline.h"

/* ---- Links ------------------------------------------------------------------ */

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 32) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* Percent escapes and the entity that listings use for "&", decoded. */
static bool decode(const char *from, size_t size, char *to, size_t room)
{
    size_t used = 0;

    for (size_t i = 0; i < size; i++) {
        char c = from[i];
        if (c == '%' && i + 2 < size && hex(from[i + 1]) >= 0 && hex(from[i + 2]) >= 0) {
            c = (char)(hex(from[i + 1]) * 16 + hex(from[i + 2]));
            i += 2;
        } else if (strncmp(from + i, "&amp;", 5) == 0) {
            i += 4;
        }
        if (used + 1 >= room)
            return false;
        to[used++] = c;
    }
    to[used] = 0;
    return strlen(to) == used;
}

/* "http://host/a/b/" → "/a/b/" */
static const char *path_of_url(const char *url)
{
    const char *host = strstr(url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;

    return path ? path : "/";
}

bool sac_fetch_name(const char *base, const char *link, char *name, size_t size, bool *ret_folder)
{
    const char *path = path_of_url(base);

    if (strncmp(link, base, strlen(base)) == 0)
        link += strlen(base);
    else if (link[0] == '/' && strncmp(link, path, strlen(path)) == 0)
        link += strlen(path);
    if (strncmp(link, "./", 2) == 0)
        link += 2;
    size_t length = strlen(link);
    *ret_folder = length > 0 && link[length - 1] == '/';
    length -= *ret_folder;
    if (length == 0 || strpbrk(link, "?#:") || memchr(link, '/', length) ||
        !decode(link, length, name, size))
        return false;
    for (const char *at = name; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 127 || *at == '/')
            return false;
    }
    return name[0] != '.' && strlen(name) < 240;
}

enum { DEPTH_MAX = 16, TRIES = 3, THREADS = 4, PATH_BYTES_MAX = 4096 };
#define PAGE_BYTES_MAX ((int64_t)64 << 20)
#define PICTURE_BYTES_MAX ((int64_t)64 << 20)
#define FILES_MAX ((int64_t)20 << 20)

struct file {
    char *url, *path;
};

struct tree {
    struct file *files;
    int64_t count, cap, missing;
};

static int get(struct sac_fetcher *fetcher, const char *url, int64_t bytes_max, struct sac_buf *ret,
               struct sac_error *err)
{
    struct sac_fetch_options options = {.bytes_max = bytes_max, .tries = TRIES};

    sac_buf_clear(ret);
    return sac_fetch_page(fetcher, url, &options, ret, err);
}

/* ---- The tree --------------------------------------------------------------- */

static bool is_picture(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot && (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 ||
                   strcasecmp(dot, ".png") == 0);
}

static void tree_done(struct tree *tree)
{
    for (int64_t i = 0; i < tree->count; i++) {
        free(tree->files[i].url);
        free(tree->files[i].path);
    }
    free(tree->files);
}

static int add_file(struct tree *tree, const char *url, const char *path, struct sac_error *err)
{
    if (tree->count == FILES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: more than %lld pictures", url, (long long)FILES_MAX);
    if (tree->count == tree->cap) {
        int64_t cap = tree->cap ? tree->cap * 2 : 256;
        struct file *files = reallocarray(tree->files, (size_t)cap, sizeof *files);
        if (!files)
            return sac_fail(err, SAC_ENOMEM, "%s: out of memory", url);
        tree->files = files;
        tree->cap = cap;
    }
    struct file file = {strdup(url), strdup(path)};
    tree->files[tree->count++] = file;
    return file.url && file.path ? 0 : sac_fail(err, SAC_ENOMEM, "%s: out of memory", url);
}

static int make_folder(const char *path, struct sac_error *err)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return 0;
    return sac_fail_errno(err, errno, "the folder %s cannot be made", path);
}

static int walk(struct sac_fetcher *fetcher, struct tree *tree, const char *url, const char *folder,
                int depth, struct sac_error *err);

static int visit(struct sac_fetcher *fetcher, struct tree *tree, const char *url, const char *link,
                 const char *folder, int depth, struct sac_error *err)
{
    char name[256], below[PATH_BYTES_MAX], path[PATH_BYTES_MAX];
    bool is_folder;

    if (!sac_fetch_name(url, link, name, sizeof name, &is_folder) ||
        (!is_folder && (depth == 0 || !is_picture(name))))
        return 0;
    const char *last = link + strlen(link) - is_folder;
    while (last > link && last[-1] != '/')
        last--;
    if (snprintf(below, sizeof below, "%s%s", url, last) >= (int)sizeof below ||
        snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return sac_fail(err, SAC_ELIMIT, "%.200s…: the address is too long", url);
    return is_folder ? walk(fetcher, tree, below, path, depth + 1, err)
                     : add_file(tree, below, path, err);
}

/* Each href of a page, in place. */
static int visit_links(struct sac_fetcher *fetcher, struct tree *tree, char *page, const char *url,
                       const char *folder, int depth, struct sac_error *err)
{
    int rc = 0;

    for (char *at = page; rc == 0 && (at = strcasestr(at, "href=")) != NULL;) {
        char quote = at[5], *link = at + 6, *end;
        at += 5;
        if ((quote != '"' && quote != '\'') || !(end = strchr(link, quote)))
            continue;
        *end = 0;
        rc = visit(fetcher, tree, url, link, folder, depth, err);
        at = end + 1;
    }
    return rc;
}

static int walk(struct sac_fetcher *fetcher, struct tree *tree, const char *url, const char *folder,
                int depth, struct sac_error *err)
{
    struct sac_buf page = {0};
    int rc = 0;

    if (depth > DEPTH_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: folders more than %d deep", url, DEPTH_MAX);
    rc = make_folder(folder, err);
    if (rc == 0)
        rc = get(fetcher, url, PAGE_BYTES_MAX, &page, err);
    if (rc == 0) {
        sac_buf_put(&page, "", 1);
        rc = page.failed ? sac_fail(err, SAC_ENOMEM, "%s: out of memory", url)
                         : visit_links(fetcher, tree, (char *)page.data, url, folder, depth, err);
    }
    sac_buf_done(&page);
    return rc;
}

/* ---- The pictures ----------------------------------------------------------- */

struct worker {
    struct sac_fetcher *fetcher;
    struct sac_buf bytes;
};

static int worker_new(void *user, void **ret, struct sac_error *err)
{
    struct worker *worker = calloc(1, sizeof *worker);
    int rc = worker ? sac_fetcher_new(&worker->fetcher, err)
                    : sac_fail(err, SAC_ENOMEM, "out of memory");

    (void)user;
    if (rc == 0)
        *ret = worker;
    else
        free(worker);
    return rc;
}

static void worker_free(void *memory)
{
    struct worker *worker = memory;

    sac_fetcher_free(worker->fetcher);
    sac_buf_done(&worker->bytes);
    free(worker);
}

/* There under its name only when it is whole. */
static int write_file(const char *path, const struct sac_buf *bytes, struct sac_error *err)
{
    char temporary[PATH_BYTES_MAX + 8];

    snprintf(temporary, sizeof temporary, "%s.part", path);
    FILE *file = fopen(temporary, "wbe");
    bool done = file && fwrite(bytes->data, 1, bytes->len, file) == bytes->len;
    if (file && fclose(file) != 0)
        done = false;
    if (!done || rename(temporary, path) < 0)
        return sac_fail_errno(err, errno, "%s cannot be written", path);
    return 0;
}

static int work(void *user, void *memory, int64_t index, void *slot, struct sac_error *err)
{
    const struct file *file = &((struct tree *)user)->files[index];
    struct worker *worker = memory;
    bool *missing = slot;

    *missing = false;
    if (sac_file_exists(file->path))
        return 0;
    int rc = get(worker->fetcher, file->url, PICTURE_BYTES_MAX, &worker->bytes, err);
    if (rc == SAC_ENOENT || rc == SAC_ELIMIT) {
        sac_log(SAC_LOG_WARNING, "%s", err->text);
        *missing = true;
        return 0;
    }
    return rc ? rc : write_file(file->path, &worker->bytes, err);
}

static int take(void *user, int64_t index, void *slot, struct sac_error *err)
{
    struct tree *tree = user;

    (void)err;
    tree->missing += *(bool *)slot;
    if ((index + 1) % 1000 == 0)
        sac_log(SAC_LOG_INFO, "fetched %lld of %lld pictures", (long long)index + 1,
                (long long)tree->count);
    return 0;
}

static int fetch_files(struct tree *tree, const char *url, int threads, struct sac_error *err)
{
    struct sac_pipeline pipeline = {.end = tree->count,
                                    .threads = threads > 0 ? threads : THREADS,
                                    .slot_size = sizeof(bool),
                                    .worker_new = worker_new,
                                    .worker_free = worker_free,
                                    .work = work,
                                    .take = take};

    if (tree->count == 0)
        return sac_fail(err, SAC_EFORMAT,
                        "%s: lists no pictures; expected a folder a class with JPEG or PNG files",
                        url);
    sac_log(SAC_LOG_INFO, "%s lists %lld pictures", url, (long long)tree->count);
    int rc = sac_pipeline_run(&pipeline, tree, err);
    if (rc == 0 && tree->missing == tree->count)
        rc = sac_fail(err, SAC_EIO, "%s: none of its %lld pictures could be fetched", url,
                      (long long)tree->count);
    return rc;
}

int sac_fetch_tree(const char *url, const char *out, int threads, char **ret_folder,
                   struct sac_error *err)
{
    struct tree tree = {0};
    struct sac_fetcher *fetcher = NULL;
    char *folder = NULL, *whole = NULL;
    int rc = 0;

    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return sac_fail(err, SAC_EINVAL, "--url: expected http:// or https://, found \"%.200s\"",
                        url);
    if (asprintf(&folder, "%s.download", out) < 0 ||
        asprintf(&whole, "%s%s", url, url[strlen(url) - 1] == '/' ? "" : "/") < 0)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", url);
    rc = sac_fetcher_new(&fetcher, err);
    if (rc == 0)
        rc = walk(fetcher, &tree, whole, folder, 0, err);
    sac_fetcher_free(fetcher);
    if (rc == 0)
        rc = fetch_files(&tree, url, threads, err);
    tree_done(&tree);
    free(whole);
    if (rc == 0)
        *ret_folder = folder;
    else
        free(folder);
    return rc;
}
