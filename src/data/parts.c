#include "data/parts.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { NAMES = 3 };
static const char *const part_names[SAC_DATA_PARTS][NAMES] = {
    {"train"}, {"val", "valid", "validation"}, {"test"}};

void sac_data_parts_done(struct sac_data_parts *parts)
{
    for (int part = 0; part < SAC_DATA_PARTS; part++)
        free(parts->path[part]);
    *parts = (struct sac_data_parts){0};
}

static bool inside(char room[4096], const char *folder, const char *name, const char *end)
{
    return snprintf(room, 4096, "%s/%s%s", folder, name, end) < 4096;
}

static bool holds_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    char below[4096];
    bool found = false;

    while (folder && !found && (entry = readdir(folder)))
        found = entry->d_name[0] != '.' && inside(below, path, entry->d_name, "") &&
                sac_file_is_folder(below);
    if (folder)
        closedir(folder);
    return found;
}

/* A set of its own, and not a class: it does not hold pictures alone. */
static bool is_set(const char *path)
{
    char file[4096];

    if (!sac_file_is_folder(path))
        return false;
    if ((inside(file, path, "data.mdb", "") && sac_file_exists(file)) ||
        (inside(file, path, "list.txt", "") && sac_file_exists(file)))
        return true;
    return holds_folder(path);
}

static int keep(struct sac_data_parts *parts, int part, const char *name, const char *path,
                struct sac_error *err)
{
    parts->name[part] = name;
    if ((parts->path[part] = strdup(path)))
        return 0;
    return sac_fail(err, SAC_ENOMEM, "%s: out of memory", path);
}

/* `end`: "" looks for folders, ".txt" for lists. */
static int find(struct sac_data_parts *parts, const char *folder, const char *end,
                struct sac_error *err)
{
    char path[4096];
    int rc = 0;

    for (int part = 0; part < SAC_DATA_PARTS; part++)
        for (int i = 0; rc == 0 && i < NAMES && part_names[part][i] && !parts->path[part]; i++) {
            if (!inside(path, folder, part_names[part][i], end))
                continue;
            if (*end ? sac_file_exists(path) && !sac_file_is_folder(path) : is_set(path))
                rc = keep(parts, part, part_names[part][i], path, err);
        }
    return rc;
}

static bool complete(const struct sac_data_parts *parts)
{
    return parts->path[SAC_DATA_TRAIN] && (parts->path[SAC_DATA_VAL] || parts->path[SAC_DATA_TEST]);
}

static bool is_part(const struct sac_data_parts *parts, const char *name)
{
    for (int part = 0; part < SAC_DATA_PARTS; part++)
        if (parts->name[part] && strcmp(parts->name[part], name) == 0)
            return true;
    return false;
}

static int refuse_others(const struct sac_data_parts *parts, const char *path,
                         struct sac_error *err)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    char below[4096];
    int rc = folder ? 0 : sac_fail_errno(err, errno, "%s", path);

    while (rc == 0 && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.' || is_part(parts, entry->d_name) ||
            !inside(below, path, entry->d_name, "") || !sac_file_is_folder(below))
            continue;
        int second = parts->name[SAC_DATA_VAL] ? SAC_DATA_VAL : SAC_DATA_TEST;
        rc = sac_fail(err, SAC_EINVAL,
                      "%s has parts (train, %s) and the folder %s beside them, which may be a "
                      "class; name one folder of classes, or move it away",
                      path, parts->name[second], entry->d_name);
    }
    if (folder)
        closedir(folder);
    return rc;
}

int sac_data_parts_find(struct sac_data_parts *ret, const char *path, struct sac_error *err)
{
    struct sac_data_parts parts = {0};
    int rc = 0;

    if (!sac_file_is_folder(path))
        return 0;
    rc = find(&parts, path, "", err);
    if (rc == 0 && complete(&parts))
        rc = refuse_others(&parts, path, err);
    else if (rc == 0 && !holds_folder(path)) {
        sac_data_parts_done(&parts);
        rc = find(&parts, path, ".txt", err);
    }
    bool found = rc == 0 && complete(&parts);
    if (found)
        *ret = parts;
    else
        sac_data_parts_done(&parts);
    return rc ? rc : found;
}
