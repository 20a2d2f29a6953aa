#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_regular(int fd, const char *path, size_t bytes_max, size_t *ret_size,
                         struct sac_error *err)
{
    struct stat info;

    if (fstat(fd, &info) < 0)
        return sac_fail_errno(err, errno, "%s", path);
    if (!S_ISREG(info.st_mode))
        return sac_fail(err, SAC_EFORMAT, "%s: expected a file, found a %s", path,
                        S_ISDIR(info.st_mode) ? "folder" : "special file");
    if ((uint64_t)info.st_size > bytes_max)
        return sac_fail(err, SAC_ELIMIT, "%s: %lld bytes, over the limit of %zu", path,
                        (long long)info.st_size, bytes_max);
    *ret_size = (size_t)info.st_size;
    return 0;
}

static int read_all(int fd, const char *path, uint8_t *data, size_t size, struct sac_error *err)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, data + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sac_fail_errno(err, errno, "%s", path);
        if (n == 0)
            return sac_fail(err, SAC_EIO, "%s: shrank from %zu bytes to %zu while it was read",
                            path, size, got);
        got += (size_t)n;
    }
    return 0;
}

int sac_file_read(const char *path, size_t bytes_max, uint8_t **ret, size_t *ret_size,
                  struct sac_error *err)
{
    uint8_t *data = NULL;
    size_t size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return sac_fail_errno(err, errno, "%s", path);
    int rc = check_regular(fd, path, bytes_max, &size, err);
    if (rc == 0 && !(data = malloc(size + 1)))
        rc = sac_fail(err, SAC_ENOMEM, "%s: no memory for %zu bytes", path, size);
    if (rc == 0)
        rc = read_all(fd, path, data, size, err);
    if (rc == 0) {
        data[size] = 0;
        *ret = data;
        *ret_size = size;
        data = NULL;
    }
    free(data);
    close(fd);
    return rc;
}

bool sac_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool sac_file_is_folder(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool sac_file_folder_is_empty(const char *path, const char *but)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    bool empty = folder != NULL;

    while (empty && (entry = readdir(folder)))
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                (but && strcmp(entry->d_name, but) == 0);
    if (folder)
        closedir(folder);
    return empty;
}
