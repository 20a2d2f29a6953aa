#include "cli/pictures.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { LIST_BYTES_MAX = 1 << 30, DEPTH_MAX = 32 };

static int add_path(struct sac_pictures *pictures, char *path, struct sac_error *err)
{
    if (path && pictures->count == pictures->cap) {
        size_t cap = pictures->cap ? pictures->cap * 2 : 64;
        char **paths = realloc(pictures->paths, cap * sizeof *paths);
        if (paths) {
            pictures->paths = paths;
            pictures->cap = cap;
        }
    }
    if (!path || pictures->count == pictures->cap) {
        free(path);
        return sac_fail(err, SAC_ENOMEM, "out of memory for the list of pictures");
    }
    pictures->paths[pictures->count++] = path;
    return 0;
}

enum content { CONTENT_PICTURE, CONTENT_TEXT, CONTENT_OTHER };

/* By the first bytes: JPEG's and PNG's signatures, or printable text. */
static enum content sniff(const char *path)
{
    unsigned char head[512];
    FILE *file = fopen(path, "rbe");
    size_t size = file ? fread(head, 1, sizeof head, file) : 0;

    if (file)
        fclose(file);
    if (size >= 3 && memcmp(head, "\xff\xd8\xff", 3) == 0)
        return CONTENT_PICTURE;
    if (size >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0)
        return CONTENT_PICTURE;
    for (size_t i = 0; i < size; i++)
        if (head[i] < 0x20 && !strchr("\t\r\n", head[i]))
            return CONTENT_OTHER;
    return size ? CONTENT_TEXT : CONTENT_OTHER;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int add_folder(struct sac_pictures *pictures, const char *folder, int depth,
                      struct sac_error *err)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, visible, alphasort), rc = 0;

    if (count < 0)
        return sac_fail_errno(err, errno, "%s", folder);
    for (int i = 0; i < count; i++) {
        char *path = NULL;
        if (rc == 0 && asprintf(&path, "%s/%s", folder, entries[i]->d_name) < 0)
            rc = sac_fail(err, SAC_ENOMEM, "%s: out of memory", folder);
        free(entries[i]);
        if (rc == 0 && sac_file_is_folder(path)) {
            rc = depth < DEPTH_MAX
                     ? add_folder(pictures, path, depth + 1, err)
                     : sac_fail(err, SAC_ELIMIT, "%s: over %d folders deep", path, DEPTH_MAX);
        } else if (rc == 0 && sniff(path) == CONTENT_PICTURE) {
            rc = add_path(pictures, path, err);
            path = NULL;
        }
        free(path);
    }
    free(entries);
    return rc;
}

/* The file from the working folder, else from the list's; NULL: neither is there. */
static char *find_listed(const char *name, const char *list)
{
    const char *slash = strrchr(list, '/');
    char *beside = NULL;

    if (sac_file_exists(name))
        return strdup(name);
    if (slash && name[0] != '/' &&
        asprintf(&beside, "%.*s/%s", (int)(slash - list), list, name) > 0 &&
        sac_file_exists(beside))
        return beside;
    free(beside);
    return NULL;
}

/* The line as it stands where such a file is, else without the label, which is a
 * number behind the last space. */
static char *resolve(char *line, const char *list)
{
    char *found = find_listed(line, list), *space = strrchr(line, ' ');

    if (!found && space && space[1] && !space[1 + strspn(space + 1, "-0123456789")]) {
        *space = 0;
        found = find_listed(line, list);
    }
    return found ? found : strdup(line);
}

static int add_list(struct sac_pictures *pictures, const char *list, struct sac_error *err)
{
    uint8_t *text;
    size_t size;
    char *rest, *line;
    int rc = sac_file_read(list, LIST_BYTES_MAX, &text, &size, err);

    if (rc)
        return rc;
    for (line = strtok_r((char *)text, "\r\n", &rest); rc == 0 && line;
         line = strtok_r(NULL, "\r\n", &rest))
        rc = add_path(pictures, resolve(line, list), err);
    free(text);
    return rc;
}

int sac_pictures_add(struct sac_pictures *pictures, const char *word, struct sac_error *err)
{
    if (!sac_file_exists(word))
        return sac_fail(err, SAC_ENOENT, "%s: no such file or folder", word);
    if (sac_file_is_folder(word)) {
        size_t before = pictures->count;
        int rc = add_folder(pictures, word, 0, err);
        if (rc == 0 && pictures->count == before)
            rc = sac_fail(err, SAC_ENOENT, "%s: no JPEG or PNG in this folder", word);
        return rc;
    }
    if (sniff(word) == CONTENT_TEXT)
        return add_list(pictures, word, err);
    return add_path(pictures, strdup(word), err);
}

void sac_pictures_done(struct sac_pictures *pictures)
{
    for (size_t i = 0; i < pictures->count; i++)
        free(pictures->paths[i]);
    free(pictures->paths);
    *pictures = (struct sac_pictures){0};
}
