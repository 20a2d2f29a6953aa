#include "device/module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards `loaded` */
static const struct sac_module *loaded;

enum { PATH_SIZE = 4096 };

static void beside_the_program(char *path, size_t size)
{
    ssize_t len = readlink("/proc/self/exe", path, size - 1);

    path[len > 0 ? len : 0] = 0;
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
}

/* What is looked for. */
struct wanted {
    const char *file, *symbol, *beneath;
    int version;
    const char *driver; /* NULL: none is needed */
};

static int check(void *handle, const char *path, const struct wanted *wanted, const void **ret,
                 struct sac_error *err)
{
    const int *module = dlsym(handle, wanted->symbol);

    if (!module)
        return sac_fail(err, SAC_EFORMAT, "%s: not a module of Saccade's", path);
    if (*module != wanted->version)
        return sac_fail(err, SAC_EFORMAT, "%s: a module of version %d, expected %d", path, *module,
                        wanted->version);
    *ret = module;
    return 0;
}

/* Closed again only when it is refused: what it makes may outlive any caller. */
static int load(const char *folder, const struct wanted *wanted, const void **ret,
                struct sac_error *err)
{
    char path[PATH_SIZE + 128];

    snprintf(path, sizeof path, "%s/%s", folder, wanted->file);
    if (access(path, F_OK) != 0)
        return sac_fail(err, SAC_ENOENT, "there is no %s", wanted->file);
    /* Some libraries take 150 MB to find out that there is nothing for them to drive. */
    if (wanted->driver && !dlopen(wanted->driver, RTLD_LAZY | RTLD_LOCAL))
        return sac_fail(err, SAC_EDEVICE, "there is no driver: %s", dlerror());
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return sac_fail(err, SAC_EDEVICE, "%s", dlerror());
    int rc = check(handle, path, wanted, ret, err);
    if (rc != 0)
        dlclose(handle);
    return rc;
}

/* The first that is there decides: a broken one is not passed over. */
static int search(const struct wanted *wanted, const void **ret, struct sac_error *err)
{
    static const char *const above[] = {"/", "/../", "/../../", "/../../../"};
    const char *given = getenv("SACCADE_MODULE_DIR");
    char program[PATH_SIZE], folder[PATH_SIZE + 64];
    struct sac_error why = {0};
    int rc = SAC_ENOENT;

    if (given && *given) { /* which may be simulated */
        struct wanted as_it_is = *wanted;
        as_it_is.driver = NULL;
        return load(given, &as_it_is, ret, err);
    }
    beside_the_program(program, sizeof program);
    rc = load(program, wanted, ret, &why);
    for (size_t i = 0; i < sizeof above / sizeof *above && rc == SAC_ENOENT; i++) {
        why = (struct sac_error){0};
        snprintf(folder, sizeof folder, "%s%s%s", program, above[i], wanted->beneath);
        rc = load(folder, wanted, ret, &why);
    }
    if (rc == SAC_ENOENT) {
        why = (struct sac_error){0};
        rc = load(SACCADE_MODULE_DIR, wanted, ret, &why);
    }
    return rc == 0 ? 0 : sac_fail(err, rc, "%s", why.text);
}

int sac_module_load(const char *file, const char *symbol, int version, const char *beneath,
                    const char *driver, const void **ret, struct sac_error *err)
{
    const struct wanted wanted = {file, symbol, beneath, version, driver};

    return search(&wanted, ret, err);
}

int sac_module_cuda(const struct sac_module **ret, struct sac_error *err)
{
    const void *found = NULL;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (!loaded)
        rc = sac_module_load("saccade_cuda.so", "sac_cuda_module", SAC_MODULE_VERSION,
                             "src/device/cuda", "libcuda.so.1", &found, err);
    if (found)
        loaded = found;
    if (rc == 0)
        *ret = loaded;
    pthread_mutex_unlock(&lock);
    return rc;
}
