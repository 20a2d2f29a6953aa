#include "device/device.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
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

/* ---- Several -------------------------------------------------------------- */

struct opened {
    struct sac_device **devices;
    int count, most;
};

static int open_cuda(struct opened *to, int index, struct sac_error *err)
{
    char name[32];

    snprintf(name, sizeof name, "cuda:%d", index);
    if (to->count == to->most)
        return sac_fail(err, SAC_ELIMIT, "device %s: at most %d devices can be used at once", name,
                        to->most);
    for (int i = 0; i < to->count; i++)
        if (strcmp(to->devices[i]->info.name, name) == 0)
            return sac_fail(err, SAC_EINVAL, "device %s: named twice", name);
    int rc = cuda_open(&to->devices[to->count], name, err);
    to->count += rc == 0;
    return rc;
}

/* "0,2" of "cuda:0,2". */
static int open_listed(struct opened *to, const char *names, struct sac_error *err)
{
    const char *at = strchr(names, ':');
    int rc = 0;

    while (rc == 0 && at) {
        char *end;
        errno = 0;
        long index = strtol(++at, &end, 10);
        if (*at < '0' || *at > '9' || (*end && *end != ',') || errno || index > INT_MAX)
            return sac_fail(err, SAC_EINVAL, "device %s: expected cpu, auto, cuda or cuda:0,2",
                            names);
        rc = open_cuda(to, (int)index, err);
        at = *end ? end : NULL;
    }
    return rc;
}

static int open_all(struct opened *to, bool those_that_work, struct sac_error *err)
{
    struct sac_error why = {0};
    int count = 0, rc = sac_device_cuda_count(&count, &why);

    for (int i = 0; i < count && rc == 0 && to->count < to->most; i++) {
        rc = open_cuda(to, i, &why);
        rc = those_that_work ? 0 : rc;
    }
    if (rc == 0 && to->count == 0)
        rc = sac_fail(&why, SAC_EDEVICE, "none of them works");
    return rc == 0 ? 0 : sac_fail(err, rc, "device cuda: %s; expected cpu or auto", why.text);
}

static int open_names(struct opened *to, const char *names, struct sac_error *err)
{
    if (strcmp(names, "auto") == 0 && open_all(to, true, NULL) == 0)
        return 0;
    if (strcmp(names, "cuda") == 0)
        return open_all(to, false, err);
    if (is_of_kind(names, "cuda"))
        return open_listed(to, names, err);
    int rc = sac_device_open(&to->devices[0], strcmp(names, "auto") == 0 ? "cpu" : names, err);
    to->count = rc == 0;
    return rc;
}

int sac_devices_open(struct sac_device **ret, int most, int *ret_count, const char *names,
                     struct sac_error *err)
{
    struct opened to = {.devices = ret, .most = most};
    int rc = open_names(&to, names, err);

    if (rc == 0)
        *ret_count = to.count;
    while (rc != 0 && to.count > 0)
        sac_device_close(to.devices[--to.count]);
    return rc;
}

void sac_device_close(struct sac_device *device)
{
    if (device)
        device->table->free(device);
}
