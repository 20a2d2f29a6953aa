#include "dataset/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/durable.h"
#include "base/file.h"
#include "base/log.h"
#include "data/claim.h"
#include "data/fetch.h"
#include "data/source.h"
#include "dataset/links.h"
#include "dataset/pipeline.h"

enum { DEPTH_MAX = 16, TRIES = 3, THREADS = 4, PATH_BYTES_MAX = 4096, ENDING = 16 };
#define PAGE_BYTES_MAX ((int64_t)64 << 20)
#define PICTURE_BYTES_MAX ((int64_t)64 << 20)
#define FILES_MAX ((int64_t)20 << 20)
#define MARK ".saccade-fetched-from" /* holds the address */

struct file {
    char *url, *path;
};

struct tree {
    const struct sac_fetch_tree_options *options;
    struct sac_fetcher *fetcher; /* of the pages */
    char *folder;                /* OUT.download */
    struct file *files;          /* each once, in the order of the paths' parts */
    int64_t count, cap, missing, unread;
};

static int no_memory(const char *what, struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "%.200s: out of memory", what);
}

static void tell(const struct tree *tree, int64_t done, int64_t total)
{
    if (tree->options->on_progress)
        tree->options->on_progress(tree->options->user, done, total);
}

static int get(struct sac_fetcher *fetcher, const char *url, int64_t bytes_max, struct sac_buf *ret,
               struct sac_error *err)
{
    struct sac_fetch_options options = {.bytes_max = bytes_max, .tries = TRIES};

    sac_buf_clear(ret);
    return sac_fetch_page(fetcher, url, &options, ret, err);
}

/* ---- A page's entries ------------------------------------------------------- */

struct entry {
    char *name, *url;
    bool folder;
};

struct page {
    struct entry *entries;
    size_t count, cap;
    int64_t unread; /* pictures of kinds that are not read */
    char base[PATH_BYTES_MAX];
};

static void page_done(struct page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        free(page->entries[i].name);
        free(page->entries[i].url);
    }
    free(page->entries);
}

static int add_entry(struct page *page, const char *link, struct sac_error *err)
{
    char name[256], url[PATH_BYTES_MAX];
    struct entry entry = {0};

    if (!sac_link_name(page->base, link, name, sizeof name, &entry.folder))
        return 0;
    if (!entry.folder && !sac_source_is_read_kind(name)) {
        page->unread += sac_source_is_unread_kind(name);
        return 0;
    }
    if (!sac_link_url(page->base, link, url, sizeof url))
        return sac_fail(err, SAC_ELIMIT, "%.200s…: the address is too long", page->base);
    if (page->count == page->cap) {
        size_t cap = page->cap ? page->cap * 2 : 64;
        struct entry *entries = reallocarray(page->entries, cap, sizeof *entries);
        if (!entries)
            return no_memory(url, err);
        page->entries = entries;
        page->cap = cap;
    }
    entry.name = strdup(name);
    entry.url = strdup(url);
    page->entries[page->count++] = entry;
    return entry.name && entry.url ? 0 : no_memory(url, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* Right below `above`, where it is said: a redirect to a page further up would go round
 * in circles. */
static int settle_base(struct page *page, const char *above, const char *url, struct sac_error *err)
{
    if (!sac_link_base(url, page->base, sizeof page->base))
        return sac_fail(err, SAC_ELIMIT, "%.200s…: the address is too long", url);
    if (above &&
        (strncmp(page->base, above, strlen(above)) != 0 || strlen(page->base) == strlen(above)))
        return sac_fail(err, SAC_ENOENT, "%.200s: leads elsewhere, to %.200s", above, page->base);
    return 0;
}

/* What a page lists, sorted; a name that it lists twice is there twice. */
static int read_page(struct sac_fetcher *fetcher, const char *above, const char *url,
                     struct page *page, struct sac_error *err)
{
    struct sac_buf text = {0};
    int rc = get(fetcher, url, PAGE_BYTES_MAX, &text, err);

    if (rc == 0)
        rc = settle_base(page, above, sac_fetcher_url(fetcher), err);
    if (rc == 0) {
        sac_buf_put(&text, "", 1);
        rc = text.failed ? no_memory(url, err) : 0;
    }
    char *at = (char *)text.data;
    for (char *link; rc == 0 && (link = sac_link_next(&at)) != NULL;)
        rc = add_entry(page, link, err);
    if (rc == 0 && page->count > 0)
        qsort(page->entries, page->count, sizeof *page->entries, by_name);
    sac_buf_done(&text);
    return rc;
}

/* ---- The tree --------------------------------------------------------------- */

static void tree_done(struct tree *tree)
{
    for (int64_t i = 0; i < tree->count; i++) {
        free(tree->files[i].url);
        free(tree->files[i].path);
    }
    free(tree->files);
    free(tree->folder);
    sac_fetcher_free(tree->fetcher);
}

static int add_file(struct tree *tree, const char *url, const char *path, struct sac_error *err)
{
    if (tree->count == FILES_MAX)
        return sac_fail(err, SAC_ELIMIT, "%s: more than %lld pictures", url, (long long)FILES_MAX);
    if (tree->count == tree->cap) {
        int64_t cap = tree->cap ? tree->cap * 2 : 256;
        struct file *files = reallocarray(tree->files, (size_t)cap, sizeof *files);
        if (!files)
            return no_memory(url, err);
        tree->files = files;
        tree->cap = cap;
    }
    struct file file = {strdup(url), strdup(path)};
    tree->files[tree->count++] = file;
    return file.url && file.path ? 0 : no_memory(url, err);
}

static int make_folder(const char *path, struct sac_error *err)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return 0;
    return sac_fail_errno(err, errno, "the folder %s cannot be made", path);
}

static int walk(struct tree *tree, const char *above, const char *url, const char *folder,
                int depth, struct sac_error *err);

/* A folder that the server does not give is left out. */
static int walk_below(struct tree *tree, const char *above, const char *url, const char *folder,
                      int depth, struct sac_error *err)
{
    struct sac_error failed = {0};
    int rc = walk(tree, above, url, folder, depth, &failed);

    if (rc == SAC_ENOENT) {
        sac_log(SAC_LOG_WARNING, "%s; left out", failed.text);
        return 0;
    }
    return rc < 0 ? sac_fail(err, rc, "%s", failed.text) : 0;
}

static int visit(struct tree *tree, const struct page *page, const struct entry *entry,
                 const char *folder, int depth, struct sac_error *err)
{
    char path[PATH_BYTES_MAX];

    if (!entry->folder && depth == 0)
        return 0; /* of no class */
    if (snprintf(path, sizeof path, "%s/%s", folder, entry->name) >= (int)sizeof path)
        return sac_fail(err, SAC_ELIMIT, "%.200s…: the path is too long", folder);
    return entry->folder ? walk_below(tree, page->base, entry->url, path, depth + 1, err)
                         : add_file(tree, entry->url, path, err);
}

static int walk(struct tree *tree, const char *above, const char *url, const char *folder,
                int depth, struct sac_error *err)
{
    struct page *page = calloc(1, sizeof *page);
    int rc = page ? 0 : no_memory(url, err);

    if (rc == 0 && depth > DEPTH_MAX)
        rc = sac_fail(err, SAC_ELIMIT, "%s: folders more than %d deep", url, DEPTH_MAX);
    if (rc == 0)
        rc = read_page(tree->fetcher, above, url, page, err);
    if (rc == 0)
        rc = make_folder(folder, err);
    for (size_t i = 0; rc == 0 && i < page->count; i++) {
        if (i == 0 || strcmp(page->entries[i].name, page->entries[i - 1].name) != 0)
            rc = visit(tree, page, &page->entries[i], folder, depth, err);
    }
    tell(tree, tree->count, -1);
    if (page) {
        tree->unread += page->unread;
        page_done(page);
    }
    free(page);
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

/* Whether a file's last bytes are a JPEG's or a PNG's end: a server that says no length
 * does not say either when a picture was cut short. */
static bool has_end(const uint8_t *bytes, size_t size)
{
    for (size_t i = size < ENDING ? 0 : size - ENDING; i + 1 < size; i++) {
        bool png = i + 3 < size && memcmp(bytes + i, "IEND", 4) == 0;
        if (png || (bytes[i] == 0xff && bytes[i + 1] == 0xd9))
            return true;
    }
    return false;
}

static bool is_there_whole(const char *path)
{
    uint8_t tail[ENDING];
    FILE *file = fopen(path, "rbe");
    size_t size = 0;

    if (file && fseek(file, -ENDING, SEEK_END) == 0)
        size = fread(tail, 1, sizeof tail, file);
    if (file)
        fclose(file);
    return has_end(tail, size);
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

/* One that has no end is asked for once more; if it has none then either, that is how the
 * server has it, but the next run asks again. */
static int get_picture(struct worker *worker, const char *url, struct sac_error *err)
{
    int rc = get(worker->fetcher, url, PICTURE_BYTES_MAX, &worker->bytes, err);

    if (rc < 0 || has_end(worker->bytes.data, worker->bytes.len))
        return rc;
    rc = get(worker->fetcher, url, PICTURE_BYTES_MAX, &worker->bytes, err);
    if (rc == 0 && !has_end(worker->bytes.data, worker->bytes.len))
        sac_log(SAC_LOG_WARNING, "%s: is cut short, or neither JPEG nor PNG", url);
    return rc;
}

static int work(void *user, void *memory, int64_t index, void *slot, struct sac_error *err)
{
    const struct file *file = &((struct tree *)user)->files[index];
    struct worker *worker = memory;
    struct sac_error failed = {0};
    bool *missing = slot;

    *missing = false;
    if (is_there_whole(file->path))
        return 0;
    int rc = get_picture(worker, file->url, &failed);
    if (rc == SAC_ENOENT || rc == SAC_ELIMIT) {
        sac_log(SAC_LOG_WARNING, "%s; left out", failed.text);
        *missing = true;
        return 0;
    }
    return rc < 0 ? sac_fail(err, rc, "%s", failed.text)
                  : write_file(file->path, &worker->bytes, err);
}

static int take(void *user, int64_t index, void *slot, struct sac_error *err)
{
    struct tree *tree = user;

    (void)err;
    tree->missing += *(bool *)slot;
    tell(tree, index + 1, tree->count);
    return 0;
}

static int fetch_files(struct tree *tree, struct sac_error *err)
{
    const char *url = tree->options->url;
    int threads = tree->options->threads;
    struct sac_pipeline pipeline = {.end = tree->count,
                                    .threads = threads > 0 ? threads : THREADS,
                                    .slot_size = sizeof(bool),
                                    .worker_new = worker_new,
                                    .worker_free = worker_free,
                                    .work = work,
                                    .take = take};

    if (tree->unread > 0)
        sac_log(SAC_LOG_WARNING,
                "%s: %lld pictures are left out, of kinds that are not read (HEIC, TIFF, WebP …)",
                url, (long long)tree->unread);
    if (tree->count == 0)
        return sac_fail(err, SAC_EFORMAT,
                        "%s: lists no pictures; expected a folder a class with JPEG or PNG files",
                        url);
    int rc = sac_pipeline_run(&pipeline, tree, err);
    if (rc == 0 && tree->missing == tree->count)
        rc = sac_fail(err, SAC_EIO, "%s: none of its %lld pictures could be fetched", url,
                      (long long)tree->count);
    return rc;
}

/* ---- The folder ------------------------------------------------------------- */

/* What an earlier run fetched was of this address. The claim on the folder is `*ret`. */
static int take_folder(const struct tree *tree, int *ret, struct sac_error *err)
{
    const char *url = tree->options->url;
    char found[PATH_BYTES_MAX];
    size_t size = strlen(url);
    int rc = sac_claim(ret, tree->folder, MARK, err);

    if (rc < 0)
        return rc;
    ssize_t got = pread(*ret, found, sizeof found - 1, 0);
    if (got < 0 || (got == 0 && pwrite(*ret, url, size, 0) != (ssize_t)size))
        return sac_fail_errno(err, errno, "%s cannot be written", tree->folder);
    if (got == 0 || ((size_t)got == size && memcmp(found, url, size) == 0))
        return 0;
    found[got] = 0;
    return sac_fail(err, SAC_EINVAL,
                    "%s has what was fetched from %.300s; remove it, or name another place to "
                    "write to",
                    tree->folder, found);
}

static int write_beside(const struct tree *tree, const char *name, const struct sac_buf *text,
                        char **ret_path, struct sac_error *err)
{
    char *path = NULL;
    int rc = text->failed || asprintf(&path, "%s/%s", tree->folder, name) < 0
                 ? no_memory(tree->folder, err)
                 : sac_durable_write(path, text->data, text->len, err);

    if (rc == 0 && ret_path)
        *ret_path = path;
    else
        free(path);
    return rc;
}

/* The pictures that are there, with whole paths; the first part of each is its class. */
static int write_list(const struct tree *tree, char **ret_path, struct sac_error *err)
{
    struct sac_buf list = {0}, labels = {0};
    char *whole = realpath(tree->folder, NULL);
    const char *last = "";
    size_t last_size = 0;
    int label = -1, rc = whole ? 0 : sac_fail_errno(err, errno, "%s", tree->folder);

    for (int64_t i = 0; rc == 0 && i < tree->count; i++) {
        const char *name = tree->files[i].path + strlen(tree->folder) + 1;
        size_t size = strcspn(name, "/");
        if (!sac_file_exists(tree->files[i].path))
            continue;
        if (size != last_size || memcmp(name, last, size) != 0) {
            last = name;
            last_size = size;
            label++;
            sac_buf_printf(&labels, "%.*s\n", (int)size, name);
        }
        sac_buf_printf(&list, "%s/%s %d\n", whole, name, label);
    }
    if (rc == 0)
        rc = write_beside(tree, "labels.txt", &labels, NULL, err);
    if (rc == 0)
        rc = write_beside(tree, "list.txt", &list, ret_path, err);
    sac_buf_done(&list);
    sac_buf_done(&labels);
    free(whole);
    return rc;
}

/* "http://host/set" is a folder, as people type it; "http://host/set.html" and
 * "http://host/list?of=roses" are pages. */
static char *page_of(const char *url)
{
    const char *host = strstr(url, "://") + 3, *last = strrchr(host, '/');
    bool folder = !strpbrk(host, "?#") && (!last || (last[1] && !strchr(last, '.')));
    char *page;

    return asprintf(&page, "%s%s", url, folder ? "/" : "") < 0 ? NULL : page;
}

static int fetch(struct tree *tree, char **ret_list, struct sac_error *err)
{
    char *page = page_of(tree->options->url);
    int claim = -1, rc = page ? take_folder(tree, &claim, err) : no_memory(tree->folder, err);

    if (rc == 0)
        rc = sac_fetcher_new(&tree->fetcher, err);
    if (rc == 0)
        rc = walk(tree, NULL, page, tree->folder, 0, err);
    if (rc == 0)
        rc = fetch_files(tree, err);
    if (rc == 0)
        rc = write_list(tree, ret_list, err);
    if (claim >= 0)
        close(claim);
    free(page);
    return rc;
}

int sac_fetch_tree(const struct sac_fetch_tree_options *options, char **ret_list,
                   struct sac_error *err)
{
    struct tree tree = {.options = options};
    const char *url = options->url;

    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return sac_fail(err, SAC_EINVAL, "--url: expected http:// or https://, found \"%.200s\"",
                        url);
    if (strlen(url) >= PATH_BYTES_MAX - 1)
        return sac_fail(err, SAC_ELIMIT, "--url: %.100s…: the address is too long", url);
    if (asprintf(&tree.folder, "%s.download", options->out) < 0)
        return no_memory(url, err);
    int rc = fetch(&tree, ret_list, err);
    tree_done(&tree);
    return rc;
}
