/* Finding snapshots on the disk, telling whether they are whole, removing old ones. */
#include "train/snapshot_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/file.h"
#include "base/log.h"

enum { FOUND_MAX = 1000000 };

/* ---- One snapshot ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);

    return a >= b && strcmp(text + a - b, end) == 0;
}

/* "x.solverstate" and "x.solverstate.h5" → "x" and `extension`. */
static char *sibling(const char *state, const char *extension)
{
    size_t length = strlen(state);
    char *path = NULL;

    if (ends_with(state, ".h5"))
        length -= strlen(".h5");
    if (length >= strlen(".solverstate") &&
        strncmp(state + length - strlen(".solverstate"), ".solverstate", 12) == 0)
        length -= strlen(".solverstate");
    if (asprintf(&path, "%.*s%s", (int)length, state, extension) < 0)
        return NULL;
    return path;
}

static int read_print(const char *path, int fd, struct sac_file_print *ret, struct sac_error *err)
{
    enum { PIECE = 1 << 18 };
    uint8_t *piece = malloc(PIECE);
    ssize_t got = 1;
    int rc = piece ? 0 : sac_fail(err, SAC_ENOMEM, "out of memory");

    while (rc == 0 && got > 0) {
        got = read(fd, piece, PIECE);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got < 0)
            rc = sac_fail_errno(err, errno, "%s", path);
        else
            ret->crc = sac_crc32(ret->crc, piece, (size_t)got), ret->bytes += (uint64_t)got;
    }
    free(piece);
    return rc;
}

/* The file is what was saved, by size and CRC. */
static int check_print(const char *path, const struct sac_file_print *expected,
                       struct sac_error *err)
{
    struct sac_file_print found = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return sac_fail_errno(err, errno, "%s", path);
    int rc = read_print(path, fd, &found, err);
    close(fd);
    if (rc == 0 && found.bytes != expected->bytes)
        rc = sac_fail(err, SAC_EFORMAT, "%s: %llu bytes, and %llu were saved", path,
                      (unsigned long long)found.bytes, (unsigned long long)expected->bytes);
    if (rc == 0 && found.crc != expected->crc)
        rc = sac_fail(err, SAC_EFORMAT,
                      "%s: not the bytes that were saved (CRC %08x, expected %08x)", path,
                      found.crc, expected->crc);
    return rc;
}

/* With a sidecar: both files are those that it tells of. */
static int open_own(struct sac_snapshot_files *files, const struct sac_sidecar *sidecar,
                    struct sac_error *err)
{
    files->iteration = sidecar->iteration;
    files->weights = sac_path_beside(files->state, sidecar->weights.name);
    if (!files->weights)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    int rc = check_print(files->state, &sidecar->state, err);
    return rc == 0 ? check_print(files->weights, &sidecar->weights, err) : rc;
}

/* The first of the places where a published state's weights may be; NULL: none. */
static char *find_weights(const char *state, const char *learned_net)
{
    char *places[] = {
        strdup(learned_net),
        sac_path_beside(state, sac_path_name(learned_net)),
        sibling(state, ".caffemodel"),
        sibling(state, ".caffemodel.h5"),
    };
    char *found = NULL;

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        bool good = places[i] && sac_file_exists(places[i]) && !sac_file_is_folder(places[i]);
        if (!found && good)
            found = places[i];
        else
            free(places[i]);
    }
    return found;
}

/* Without a sidecar: whole if both files can be read. */
static int open_foreign(struct sac_snapshot_files *files, struct sac_error *err)
{
    struct sac_solver_state state = {0};
    int rc = sac_solver_state_load(&state, files->state, err);

    if (rc < 0)
        return rc;
    files->iteration = state.iteration;
    files->weights = find_weights(files->state, state.learned_net);
    if (!files->weights)
        rc = sac_fail(err, SAC_ENOENT,
                      "%s: its weights, %s, are neither there nor beside it under that name or its "
                      "own",
                      files->state, state.learned_net[0] ? state.learned_net : "(not named)");
    sac_solver_state_done(&state);
    return rc == 0 ? sac_weights_check(files->weights, err) : rc;
}

/* 1: there is one, for this state; 0: none. */
static int load_sidecar(struct sac_sidecar *ret, const char *path, const char *state,
                        struct sac_error *err)
{
    if (!sac_file_exists(path))
        return 0;
    int rc = sac_sidecar_load(ret, path, err);
    if (rc < 0)
        return rc;
    if (strcmp(ret->state.name, sac_path_name(state)) == 0)
        return 1;
    sac_sidecar_done(ret); /* the other format's snapshot of the same iteration */
    return 0;
}

int sac_snapshot_open(struct sac_snapshot_files *ret, const char *state, struct sac_error *err)
{
    struct sac_snapshot_files files = {.state = strdup(state)};
    struct sac_sidecar sidecar = {0};
    char *path = sibling(state, ".saccade");
    int rc = files.state && path ? load_sidecar(&sidecar, path, state, err)
                                 : sac_fail(err, SAC_ENOMEM, "out of memory");

    if (rc == 1) {
        files.sidecar = path;
        path = NULL;
        rc = open_own(&files, &sidecar, err);
    } else if (rc == 0) {
        rc = open_foreign(&files, err);
    }
    if (rc == 0) {
        *ret = files;
        files = (struct sac_snapshot_files){0};
    }
    sac_snapshot_files_done(&files);
    sac_sidecar_done(&sidecar);
    free(path);
    return rc;
}

int sac_snapshot_values(const struct sac_snapshot_files *files, json_t **ret, struct sac_error *err)
{
    struct sac_sidecar sidecar = {0};

    if (!files->sidecar) {
        *ret = NULL;
        return 0;
    }
    int rc = sac_sidecar_load(&sidecar, files->sidecar, err);
    if (rc < 0)
        return rc;
    json_t *values = json_object_get(sidecar.root, "values");
    if (json_is_object(values))
        *ret = json_incref(values);
    else
        rc = sac_fail(err, SAC_EFORMAT, "%s: expected \"values\" to be an object", files->sidecar);
    sac_sidecar_done(&sidecar);
    return rc;
}

/* ---- All of a prefix ---- */

struct found {
    int64_t iteration;
    char *path;
};

struct found_list {
    struct found *at;
    size_t count;
    size_t capacity;
};

static void found_done(struct found_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->at[i].path);
    free(list->at);
}

/* NAME_iter_N.EXTENSION → N and where the extension begins; -1: another file. */
static int64_t parse_name(const char *file, const char *name, const char **ret_extension)
{
    size_t length = strlen(name);
    char *end;

    if (strncmp(file, name, length) != 0 || strncmp(file + length, "_iter_", 6) != 0)
        return -1;
    const char *digits = file + length + 6;
    size_t count = strspn(digits, "0123456789");
    if (count == 0 || count > 10 || digits[count] != '.')
        return -1;
    *ret_extension = digits + count + 1;
    return strtoll(digits, &end, 10);
}

static int add_found(struct found_list *list, int64_t iteration, const char *prefix,
                     const char *file, struct sac_error *err)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        struct found *at =
            capacity > FOUND_MAX ? NULL : realloc(list->at, capacity * sizeof *list->at);
        if (!at)
            return sac_fail(err, SAC_ENOMEM, "%s: too many snapshots", prefix);
        list->at = at;
        list->capacity = capacity;
    }
    char *path = sac_path_beside(prefix, file);
    if (!path)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    list->at[list->count++] = (struct found){iteration, path};
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct found *left = a, *right = b;

    if (left->iteration != right->iteration)
        return left->iteration < right->iteration ? 1 : -1;
    return strcmp(left->path, right->path);
}

/* All NAME_iter_N.* that `wanted` says yes to, the newest first. */
static int scan(struct found_list *list, const char *prefix, bool (*wanted)(const char *extension),
                struct sac_error *err)
{
    char *folder = sac_path_beside(prefix, ".");
    DIR *dir = folder ? opendir(folder) : NULL;
    int rc = dir ? 0 : sac_fail_errno(err, folder ? errno : ENOMEM, "the folder of %s", prefix);

    while (rc == 0) {
        const char *extension;
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            rc = errno ? sac_fail_errno(err, errno, "%s", folder) : 0;
            break;
        }
        int64_t iteration = parse_name(entry->d_name, sac_path_name(prefix), &extension);
        if (iteration >= 0 && wanted(extension))
            rc = add_found(list, iteration, prefix, entry->d_name, err);
    }
    if (list->count > 0)
        qsort(list->at, list->count, sizeof *list->at, newest_first);
    if (dir)
        closedir(dir);
    free(folder);
    return rc;
}

static bool is_state(const char *extension)
{
    return strcmp(extension, "solverstate") == 0 || strcmp(extension, "solverstate.h5") == 0;
}

static bool is_sidecar(const char *extension)
{
    return strcmp(extension, "saccade") == 0;
}

static bool is_temporary(const char *extension)
{
    return strcmp(extension, "saccade" SAC_DURABLE_SUFFIX) == 0 ||
           strcmp(extension, "solverstate" SAC_DURABLE_SUFFIX) == 0 ||
           strcmp(extension, "solverstate.h5" SAC_DURABLE_SUFFIX) == 0 ||
           strcmp(extension, "caffemodel" SAC_DURABLE_SUFFIX) == 0 ||
           strcmp(extension, "caffemodel.h5" SAC_DURABLE_SUFFIX) == 0;
}

/* The first that is whole; the sentence of the newest if none is. */
static int first_whole(struct sac_snapshot_files *ret, const struct found_list *list,
                       const char *prefix, struct sac_error *err)
{
    struct sac_error newest = {0};

    for (size_t i = 0; i < list->count; i++) {
        struct sac_error why = {0};
        if (sac_snapshot_open(ret, list->at[i].path, &why) == 0)
            return 0;
        sac_log(SAC_LOG_WARNING, "not a whole snapshot, passed over: %s", why.text);
        if (i == 0)
            newest = why;
    }
    if (list->count == 0)
        return sac_fail(err, SAC_ENOENT, "%s: there is no %s_iter_N.solverstate", prefix,
                        sac_path_name(prefix));
    return sac_fail(err, SAC_ENOENT, "%s: none of %zu snapshots is whole; the newest: %s", prefix,
                    list->count, newest.text);
}

int sac_snapshot_find_auto(struct sac_snapshot_files *ret, const char *prefix,
                           struct sac_error *err)
{
    struct found_list list = {0};
    int rc = scan(&list, prefix, is_state, err);

    if (rc == 0)
        rc = first_whole(ret, &list, prefix, err);
    found_done(&list);
    return rc;
}

/* ---- Removing ---- */

static int remove_file(const char *path, struct sac_error *err)
{
    if (unlink(path) < 0 && errno != ENOENT)
        return sac_fail_errno(err, errno, "%s cannot be removed", path);
    return 0;
}

static int remove_beside(const char *beside, const char *name, struct sac_error *err)
{
    char *path = sac_path_beside(beside, name);
    int rc = path ? remove_file(path, err) : sac_fail(err, SAC_ENOMEM, "out of memory");

    free(path);
    return rc;
}

/* The state first, and for good, so that it never outlives its weights; the
 * sidecar last, so that an interrupted removal is taken up again. */
static int remove_snapshot(const char *path, const struct sac_sidecar *sidecar,
                           struct sac_error *err)
{
    int rc = remove_beside(path, sidecar->state.name, err);

    if (rc == 0)
        rc = sac_durable_sync_folder(path, err);
    if (rc == 0)
        rc = remove_beside(path, sidecar->weights.name, err);
    return rc == 0 ? remove_file(path, err) : rc;
}

int sac_snapshot_remove(const char *prefix, int64_t iteration, struct sac_error *err)
{
    struct sac_sidecar sidecar = {0};
    char *path = NULL;
    int rc = 0;

    if (asprintf(&path, "%s_iter_%lld.saccade", prefix, (long long)iteration) < 0)
        return sac_fail(err, SAC_ENOMEM, "out of memory");
    if (sac_file_exists(path))
        rc = sac_sidecar_load(&sidecar, path, err);
    if (rc == 0 && sidecar.root)
        rc = remove_snapshot(path, &sidecar, err);
    sac_sidecar_done(&sidecar);
    free(path);
    return rc;
}

static bool has_state(const char *path, const struct sac_sidecar *sidecar)
{
    char *state = sac_path_beside(path, sidecar->state.name);
    bool there = !state || sac_file_exists(state);

    free(state);
    return there;
}

static bool is_listed(int64_t iteration, const int64_t *keep, int keep_count)
{
    for (int i = 0; i < keep_count; i++) {
        if (keep[i] == iteration)
            return true;
    }
    return false;
}

/* Removes the snapshot of one sidecar, unless it is one of the `*left` newest, which
 * it then uses up, or `listed`. Without its state it is of no use to anybody. */
static int prune_one(const char *path, bool listed, int *left, struct sac_error *err)
{
    struct sac_sidecar sidecar = {0};
    struct sac_error why = {0};
    int rc = 0;

    if (sac_sidecar_load(&sidecar, path, &why) < 0) {
        sac_log(SAC_LOG_WARNING, "left where it is: %s", why.text);
        return 0; /* what it belongs to is not known */
    }
    if (!has_state(path, &sidecar))
        rc = remove_snapshot(path, &sidecar, err);
    else if (*left > 0)
        (*left)--;
    else if (!listed)
        rc = remove_snapshot(path, &sidecar, err);
    sac_sidecar_done(&sidecar);
    return rc;
}

int sac_snapshot_prune(const char *prefix, int64_t now, int keep_last, const int64_t *keep,
                       int keep_count, struct sac_error *err)
{
    struct found_list own = {0}, unfinished = {0};
    int rc = scan(&own, prefix, is_sidecar, err);

    for (size_t i = 0; rc == 0 && i < own.count; i++) {
        bool listed = is_listed(own.at[i].iteration, keep, keep_count);
        if (own.at[i].iteration <= now)
            rc = prune_one(own.at[i].path, listed, &keep_last, err);
    }
    if (rc == 0)
        rc = scan(&unfinished, prefix, is_temporary, err);
    for (size_t i = 0; rc == 0 && i < unfinished.count; i++)
        rc = remove_file(unfinished.at[i].path, err);
    found_done(&own);
    found_done(&unfinished);
    return rc;
}
