/*
 * Devices that live in a module loaded at run time, so that the program starts
 * without their libraries: saccade_cuda.so brings the CUDA device. Looked for in
 * $SACCADE_MODULE_DIR (and, when that is set, only there), beside the program,
 * in the folder beneath it where it is built, and where it is installed.
 * Any thread; a module that was loaded stays.
 */
#ifndef SAC_DEVICE_MODULE_H
#define SAC_DEVICE_MODULE_H

#include "device/device.h"

/* Changes with this struct, the device table, and the structs that its functions take. */
enum { SAC_MODULE_VERSION = 6 };

/* What a module exports, by the name sac_cuda_module. */
struct sac_module {
    int version; /* the first member, for ever */
    /* How many devices there are; SAC_EDEVICE says why none can be asked for. */
    int (*count)(int *ret, struct sac_error *err);
    int (*open)(struct sac_device **ret, int index, struct sac_error *err);
};

/* Loads FILE and finds `symbol`, which begins with an int that has to be `version`. It is
 * looked for as above, in a build folder in `beneath`. SAC_EDEVICE, without loading it,
 * where the library `driver` is not there (NULL: none is needed; a folder that was given may
 * be of modules that need none). */
int sac_module_load(const char *file, const char *symbol, int version, const char *beneath,
                    const char *driver, const void **ret, struct sac_error *err);

/* The CUDA module; SAC_ENOENT where there is none, SAC_EDEVICE where there is no driver or
 * it cannot be loaded, with what the loader said. */
int sac_module_cuda(const struct sac_module **ret, struct sac_error *err);

#endif
