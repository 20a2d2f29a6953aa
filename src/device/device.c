#include "device/device.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "device/cpu/cpu.h"
#include "device/module.h"

/* "0" of "cuda:0"; "cuda" alone is the first. */
static int parse_index(const char *name, int *ret, struct sac_error *err)
{
    const char *text = strchr(name, ':');
    char *end = NULL;

    *ret = 0;
    if (!text)
        return 0;
    text++;
    if (strchr(text, ','))
        return sac_fail(err, SAC_EINVAL,
                        "device %s: several devices where one is opened; expected cpu, auto, cuda "
                        "or cuda:0",
                        name);
    errno = 0;
    long index = strtol(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || index > INT_MAX)
        return sac_fail(err, SAC_EINVAL, "device %s: expected cpu, auto, cuda or cuda:0", name);
    *ret = (int)index;
    return 0;
}

static int cuda_open(struct sac_device **ret, const char *name, struct sac_error *err)
{
    const struct sac_module *module;
    struct sac_error why = {0};
    int index, count = 0;
    int rc = parse_index(name, &index, err);

    if (rc != 0)
        return rc;
    rc = sac_module_cuda(&module, &why);
    if (rc == 0)
        rc = module->count(&count, &why);
    if (rc == 0 && index >= count)
        rc = sac_fail(&why, SAC_ENOENT, "there %s %d of them", count == 1 ? "is" : "are", count);
    if (rc == 0)
        rc = module->open(ret, index, &why);
    return rc == 0 ? 0 : sac_fail(err, rc, "device %s: %s; expected cpu or auto", name, why.text);
}

/* Every kind of device there is; "auto" takes the first that opens. */
static const struct {
    const char *kind;
    int (*open)(struct sac_device **ret, const char *name, struct sac_error *err);
} kinds[] = {
    {"cuda", cuda_open},
    {"cpu", sac_cpu_device_open},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

/* "cuda" and "cuda:0,2" are of kind "cuda". */
static bool is_of_kind(const char *name, const char *kind)
{
    size_t len = strlen(kind);

    return strncmp(name, kind, len) == 0 && (name[len] == 0 || name[len] == ':');
}

static int open_best(struct sac_device **ret, struct sac_error *err)
{
    struct sac_error why = {0};

    for (int i = 0; i < KINDS; i++) {
        why = (struct sac_error){0};
        if (kinds[i].open(ret, kinds[i].kind, &why) == 0)
            return 0;
    }
    return sac_fail(err, SAC_EDEVICE, "device auto: no device could be opened; the last said: %s",
                    why.text);
}

int sac_device_open(struct sac_device **ret, const char *name, struct sac_error *err)
{
    if (strcmp(name, "auto") == 0)
        return open_best(ret, err);
    for (int i = 0; i < KINDS; i++)
        if (is_of_kind(name, kinds[i].kind))
            return kinds[i].open(ret, name, err);
    return sac_fail(err, SAC_EINVAL, "device \"%s\" is not known; expected cpu, cuda or auto",
                    name);
}

int sac_device_cuda_count(int *ret, struct sac_error *err)
{
    const struct sac_module *module;
    int rc = sac_module_cuda(&module, err);

    return rc ? rc : module->count(ret, err);
}

void sac_device_close(struct sac_device *device)
{
    if (device)
        device->table->free(device);
}
