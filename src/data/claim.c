#include "data/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

/* Makes the mark where the folder is new, or empty since a run was killed at its very
 * beginning. */
static int open_mark(const char *folder, const char *path, struct sac_error *err)
{
    int made = sac_file_folder_is_empty(folder, NULL) ? O_CREAT : 0;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | made, 0666);

    if (fd >= 0 || made)
        return fd >= 0 ? fd : sac_fail_errno(err, errno, "%s cannot be written", path);
    return sac_fail(err, SAC_EINVAL,
                    "%s is there already and was not begun by this command; move it away, or name "
                    "another place",
                    folder);
}

/* Between the opening and the lock, whoever had it may have removed it. */
static bool is_still_there(int fd, const char *path)
{
    struct stat mine, there;

    return fstat(fd, &mine) == 0 && lstat(path, &there) == 0 && mine.st_dev == there.st_dev &&
           mine.st_ino == there.st_ino;
}

int sac_claim(int *ret, const char *folder, const char *mark, struct sac_error *err)
{
    char *path;

    if (mkdir(folder, 0777) < 0 && errno != EEXIST)
        return sac_fail_errno(err, errno, "%s cannot be made", folder);
    if (asprintf(&path, "%s/%s", folder, mark) < 0)
        return sac_fail(err, SAC_ENOMEM, "%s: out of memory", folder);
    int fd = open_mark(folder, path, err), rc = fd < 0 ? fd : 0;
    if (rc == 0 && (flock(fd, LOCK_EX | LOCK_NB) < 0 || !is_still_there(fd, path)))
        rc = sac_fail(err, SAC_EBUSY, "another process works in %s", folder);
    free(path);
    if (rc == 0)
        *ret = fd;
    else if (fd >= 0)
        close(fd);
    return rc;
}
