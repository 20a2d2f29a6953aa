#include "data/model_get.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/durable.h"
#include "base/file.h"
#include "data/claim.h"
#include "data/unpack.h"

enum { LABELS_BYTES_MAX = 1 << 20, MEAN_BYTES_MAX = 1 << 24 };
#define ARCHIVE_BYTES_MAX ((int64_t)2 << 30) /* packed, and unpacked */

/* What is in a folder without it is not this command's to remove. */
#define MARK ".saccade-model-get"

struct job {
    const struct sac_known_model *model; /* NULL: an archive */
    const struct sac_model_get_options *options;
    struct sac_fetcher *fetcher;
    struct sac_model_get_result result;
    char *part; /* OUT.part */
    int mark;   /* the claim on it, or -1 */
};

static char *path_in(const char *folder, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static int no_memory(struct sac_error *err)
{
    return sac_fail(err, SAC_ENOMEM, "out of memory");
}

/* ---- Files ----------------------------------------------------------------- */

static int write_file(const struct job *job, const char *name, const void *bytes, size_t size,
                      struct sac_error *err)
{
    struct sac_durable *file = NULL;
    char *path = path_in(job->part, name);
    int rc = path ? sac_durable_open(&file, path, err) : no_memory(err);

    if (rc == 0)
        rc = sac_durable_put(file, bytes, size, err);
    if (rc == 0)
        rc = sac_durable_sync(file, err);
    if (rc == 0)
        rc = sac_durable_commit(file, err);
    sac_durable_free(file);
    free(path);
    return rc;
}

static int copy_text(const struct job *job, const char *from, const char *name, size_t bytes_max,
                     struct sac_error *err)
{
    uint8_t *bytes = NULL;
    size_t size;
    int rc = sac_file_read(from, bytes_max, &bytes, &size, err);

    if (rc == 0)
        rc = write_file(job, name, bytes, size, err);
    free(bytes);
    return rc;
}

static int compare(const char *from, const char *kind, const char *found, const char *expected,
                   struct sac_error *err)
{
    if (!expected || strncasecmp(found, expected, strlen(expected)) == 0)
        return 0;
    return sac_fail(err, SAC_EFORMAT, "%s: its %s is %s and not %s; nothing was kept", from, kind,
                    found, expected);
}

/* From where it stands to the end, into the folder. */
static int copy_fd(const struct job *job, int fd, const char *to, struct sac_error *err)
{
    static const size_t piece = 1 << 18;
    struct sac_durable *file = NULL;
    uint8_t *buffer = malloc(piece);
    ssize_t got = 0;
    int rc = buffer ? sac_durable_open(&file, to, err) : no_memory(err);

    while (rc == 0 && (got = read(fd, buffer, piece)) != 0) {
        if (got < 0 && errno != EINTR)
            rc = sac_fail_errno(err, errno, "%s", job->options->from);
        else if (got > 0)
            rc = sac_durable_put(file, buffer, (size_t)got, err);
    }
    if (rc == 0)
        rc = sac_durable_sync(file, err);
    if (rc == 0)
        rc = sac_durable_commit(file, err);
    sac_durable_free(file);
    free(buffer);
    return rc;
}

/* ---- Weights --------------------------------------------------------------- */

static struct sac_fetch_options limits_of(const struct job *job)
{
    const struct sac_model_get_options *options = job->options;
    struct sac_fetch_options fetch = options->fetch;

    fetch.bytes_max = ARCHIVE_BYTES_MAX;
    fetch.sha256 = options->sha256;
    fetch.sha1 = NULL;
    if (job->model)
        fetch.bytes_max = job->model->weights * 8 + (1 << 20); /* twice what they should be */
    if (job->model && !options->sha256) {
        fetch.sha256 = job->model->sha256;
        fetch.sha1 = job->model->sha1;
    }
    return fetch;
}

static int copy_weights(struct job *job, const char *to, struct sac_error *err)
{
    struct sac_fetch_options fetch = limits_of(job);
    const char *from = job->options->from;
    char sha1[SAC_SHA_HEX];
    struct stat info;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 || fstat(fd, &info) < 0 ? sac_fail_errno(err, errno, "%s", from) : 0;

    if (rc == 0 && (!S_ISREG(info.st_mode) || info.st_size > fetch.bytes_max))
        rc = sac_fail(err, SAC_ELIMIT, "%s: expected a file of at most %" PRId64 " bytes", from,
                      fetch.bytes_max);
    if (rc == 0)
        rc = sac_sha_of_fd(fd, SAC_SHA256, job->result.sha256, err);
    if (rc == 0)
        rc = compare(from, "SHA-256", job->result.sha256, fetch.sha256, err);
    if (rc == 0 && fetch.sha1 && lseek(fd, 0, SEEK_SET) == 0) {
        rc = sac_sha_of_fd(fd, SAC_SHA1, sha1, err);
        if (rc == 0)
            rc = compare(from, "SHA-1", sha1, fetch.sha1, err);
    }
    if (rc == 0 && lseek(fd, 0, SEEK_SET) < 0)
        rc = sac_fail_errno(err, errno, "%s", from);
    if (rc == 0)
        rc = copy_fd(job, fd, to, err);
    if (rc == 0)
        job->result.bytes = info.st_size;
    if (fd >= 0)
        close(fd);
    return rc;
}

static bool is_address(const char *from)
{
    return strncasecmp(from, "http://", 7) == 0 || strncasecmp(from, "https://", 8) == 0;
}

static const char *weights_from(const struct job *job)
{
    return job->options->from || !job->model ? job->options->from : job->model->url;
}

/* What is fetched is called so in the folder. Nothing in an archive can have a name
 * with a dot in front. */
static const char *file_of(const struct job *job)
{
    return job->model ? job->model->file : ".archive";
}

static void tell(const struct job *job, const char *file, const char *from)
{
    if (job->options->begins)
        job->options->begins(job->options->context, file, from);
}

/* The weights, or the archive, into the folder as `file`. */
static int get_file(struct job *job, struct sac_error *err)
{
    const char *file = file_of(job);
    struct sac_fetch_options fetch = limits_of(job);
    struct sac_fetch_result result = {0};
    const char *from = weights_from(job);
    char *to = path_in(job->part, file);
    int rc = to ? 0 : no_memory(err);

    tell(job, file, from);
    if (rc == 0 && !is_address(from)) {
        rc = copy_weights(job, to, err);
    } else if (rc == 0) {
        rc = sac_fetch_file(job->fetcher, from, to, &fetch, &result, err);
        job->result.bytes = result.bytes;
        job->result.resumes = result.resumes;
        memcpy(job->result.sha256, result.sha256, sizeof result.sha256);
    }
    free(to);
    return rc;
}

/* ---- What goes with them --------------------------------------------------- */

static int fetch_labels(const struct job *job, struct sac_error *err)
{
    struct sac_fetch_options fetch = job->options->fetch;
    char *to = path_in(job->part, "synset_words.txt");
    struct sac_error failed = {0};
    int rc = to ? SAC_ENOENT : no_memory(err);

    fetch.bytes_max = LABELS_BYTES_MAX;
    fetch.sha256 = sac_imagenet_labels_sha256;
    for (int i = 0; to && rc != 0 && rc != SAC_ECANCELED && sac_imagenet_labels_urls[i]; i++) {
        failed = (struct sac_error){0};
        tell(job, "synset_words.txt", sac_imagenet_labels_urls[i]);
        rc = sac_fetch_file(job->fetcher, sac_imagenet_labels_urls[i], to, &fetch, NULL, &failed);
    }
    free(to);
    return rc == 0 ? 0 : sac_fail(err, rc, "the labels: %s", failed.text);
}

static int get_labels(const struct job *job, struct sac_error *err)
{
    if (job->options->labels)
        return copy_text(job, job->options->labels, "labels.txt", LABELS_BYTES_MAX, err);
    return fetch_labels(job, err);
}

static int get_mean(const struct job *job, struct sac_error *err)
{
    struct sac_fetch_options fetch = job->options->fetch;
    char *to;

    if (!job->model->mean_url)
        return 0;
    to = path_in(job->part, "mean.binaryproto");
    if (!to)
        return no_memory(err);
    fetch.bytes_max = MEAN_BYTES_MAX;
    fetch.sha256 = fetch.sha1 = NULL;
    tell(job, "mean.binaryproto", job->model->mean_url);
    int rc = sac_fetch_file(job->fetcher, job->model->mean_url, to, &fetch, NULL, err);
    free(to);
    return rc;
}

static int write_source(const struct job *job, struct sac_error *err)
{
    const struct sac_known_model *model = job->model;
    struct sac_buf text = {0};
    int rc;

    if (model)
        sac_buf_printf(&text, "%s\npublished: %s\nlicence: %s\n", model->title, model->page,
                       model->license);
    sac_buf_printf(&text, "%s: %s\nSHA-256: %s\n", model ? "weights" : "archive", weights_from(job),
                   job->result.sha256);
    rc = text.failed ? no_memory(err) : write_file(job, "SOURCE.txt", text.data, text.len, err);
    sac_buf_done(&text);
    return rc;
}

static int write_definition(const struct job *job, struct sac_error *err)
{
    const struct sac_model_definition *own = sac_model_definition_of(job->model->name);
    int rc =
        own ? 0 : sac_fail(err, SAC_ENOENT, "there is no definition of \"%s\"", job->model->name);

    if (rc == 0)
        rc = write_file(job, "deploy.prototxt", own->deploy, strlen(own->deploy), err);
    if (rc == 0)
        rc = write_file(job, "model.json", own->settings, strlen(own->settings), err);
    return rc;
}

/* ---- The folder ------------------------------------------------------------ */

static int check_out(const struct job *job, struct sac_error *err)
{
    struct stat info;

    if (!weights_from(job))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "%s has no address that a program can fetch: get %s by hand from %s, then "
                        "say --from FILE",
                        job->model->title, job->model->file, job->model->page);
    if (lstat(job->options->out, &info) == 0)
        return sac_fail(err, SAC_EINVAL, "%s is there already; --out names another folder",
                        job->options->out);
    return 0;
}

/* Whether a later run can go on with what is in the folder. */
static bool can_go_on(const struct job *job)
{
    char *path;
    bool there = false;

    if (asprintf(&path, "%s/%s.part", job->part, file_of(job)) >= 0) {
        there = sac_file_exists(path);
        free(path);
    }
    return there;
}

static void remove_part(const struct job *job)
{
    DIR *folder = opendir(job->part);

    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, MARK) != 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    if (folder) {
        unlinkat(dirfd(folder), MARK, 0); /* last: what a kill leaves is still ours */
        closedir(folder);
    }
    rmdir(job->part);
}

static void remove_mark(const char *folder)
{
    char *path = path_in(folder, MARK);

    if (path)
        unlink(path);
    free(path);
}

static int finish(const struct job *job, struct sac_error *err)
{
    int rc = 0;

    if (job->options->check)
        rc = job->options->check(job->options->context, job->part, err);
    if (rc == 0)
        rc = write_source(job, err);
    if (rc == 0 && rename(job->part, job->options->out) < 0)
        rc = sac_fail_errno(err, errno, "%s cannot be made", job->options->out);
    if (rc < 0)
        return rc;
    remove_mark(job->options->out);
    return sac_durable_sync_folder(job->options->out, err);
}

static bool needs_network(const struct job *job)
{
    return is_address(weights_from(job)) ||
           (job->model && (!job->options->labels || job->model->mean_url));
}

static int get_known(struct job *job, struct sac_error *err)
{
    int rc = write_definition(job, err);

    if (rc == 0)
        rc = get_labels(job, err);
    if (rc == 0)
        rc = get_mean(job, err);
    return rc == 0 ? get_file(job, err) : rc;
}

static int get_packed(struct job *job, struct sac_error *err)
{
    int rc = get_file(job, err);
    char *path = path_in(job->part, file_of(job));

    if (rc == 0 && !path)
        rc = no_memory(err);
    if (rc == 0) {
        rc = sac_unpack(path, job->options->from, job->part, ARCHIVE_BYTES_MAX, err);
        unlink(path);
    }
    if (rc == 0 && job->options->labels)
        rc = copy_text(job, job->options->labels, "labels.txt", LABELS_BYTES_MAX, err);
    free(path);
    return rc;
}

static int get_all(struct job *job, struct sac_error *err)
{
    int rc = needs_network(job) ? sac_fetcher_new(&job->fetcher, err) : 0;

    if (rc == 0)
        rc = job->model ? get_known(job, err) : get_packed(job, err);
    if (rc == 0)
        rc = finish(job, err);
    sac_fetcher_free(job->fetcher);
    return rc;
}

int sac_model_get(const struct sac_known_model *model, const struct sac_model_get_options *options,
                  struct sac_model_get_result *ret, struct sac_error *err)
{
    struct job job = {.model = model, .options = options, .mark = -1};

    if (asprintf(&job.part, "%s.part", options->out) < 0)
        return no_memory(err);
    int rc = check_out(&job, err);
    if (rc == 0)
        rc = sac_claim(&job.mark, job.part, MARK, err);
    if (rc == 0) {
        rc = get_all(&job, err);
        if (rc < 0 && !can_go_on(&job))
            remove_part(&job);
    }
    if (rc == 0 && ret)
        *ret = job.result;
    if (job.mark >= 0)
        close(job.mark);
    free(job.part);
    return rc;
}

int sac_model_get_archive(const struct sac_model_get_options *options,
                          struct sac_model_get_result *ret, struct sac_error *err)
{
    return sac_model_get(NULL, options, ret, err);
}
