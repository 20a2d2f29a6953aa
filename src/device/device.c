#include "device/device.h"

#include <string.h>

#include "device/cpu/cpu.h"

/* Every kind of device there is; "auto" takes the first that opens. */
static const struct {
    const char *kind;
    int (*open)(struct sac_device **ret, const char *name, struct sac_error *err);
} kinds[] = {
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
    if (is_of_kind(name, "cuda"))
        return sac_fail(err, SAC_EUNSUPPORTED,
                        "device %s: this build has no CUDA; expected cpu or auto", name);
    return sac_fail(err, SAC_EINVAL, "device \"%s\" is not known; expected cpu or auto", name);
}

void sac_device_close(struct sac_device *device)
{
    if (device)
        device->table->free(device);
}

const char *sac_precision_name(enum sac_precision precision)
{
    static const char *const names[] = {
        [SAC_PRECISION_F32] = "f32",
        [SAC_PRECISION_BF16] = "bf16",
        [SAC_PRECISION_F16] = "f16",
        [SAC_PRECISION_TF32] = "tf32",
    };

    return (size_t)precision < sizeof names / sizeof *names ? names[precision] : "unknown";
}
