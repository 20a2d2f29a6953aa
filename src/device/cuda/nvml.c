/* The gauges of a card, through NVML: a part of the driver, found at run time. Its
 * few prototypes stand here, as CUDA's toolkit may come without its header. */
#include "device/cuda/cuda.h"

#include <dlfcn.h>

struct nvml_utilization {
    unsigned gpu, memory; /* per cent */
};
struct nvml_memory {
    unsigned long long total, free, used;
};

enum { NVML_SUCCESS = 0, NVML_TEMPERATURE_GPU = 0 };

static struct {
    int (*init)(void);
    int (*by_bus_id)(const char *bus_id, void **ret);
    int (*utilization)(void *card, struct nvml_utilization *ret);
    int (*memory)(void *card, struct nvml_memory *ret);
    int (*temperature)(void *card, int sensor, unsigned *ret);
    int (*power)(void *card, unsigned *ret_milliwatts);
} nvml;

static bool nvml_works;

static bool find(void *library, const char *name, void *ret)
{
    void *at = dlsym(library, name);

    *(void **)ret = at;
    return at != NULL;
}

/* It stays loaded: the driver's threads may be in it at any time. */
static void load(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);

    nvml_works = library && find(library, "nvmlInit_v2", &nvml.init) &&
                 find(library, "nvmlDeviceGetHandleByPciBusId_v2", &nvml.by_bus_id) &&
                 find(library, "nvmlDeviceGetUtilizationRates", &nvml.utilization) &&
                 find(library, "nvmlDeviceGetMemoryInfo", &nvml.memory) &&
                 find(library, "nvmlDeviceGetTemperature", &nvml.temperature) &&
                 find(library, "nvmlDeviceGetPowerUsage", &nvml.power) &&
                 nvml.init() == NVML_SUCCESS;
}

static void ask(void *card, struct sac_device_gauges *ret)
{
    struct nvml_utilization utilization;
    struct nvml_memory memory;
    unsigned number;

    if (nvml.utilization(card, &utilization) == NVML_SUCCESS)
        ret->utilization = utilization.gpu / 100.0;
    if (nvml.memory(card, &memory) == NVML_SUCCESS) {
        ret->memory_used_bytes = (double)memory.used;
        ret->memory_total_bytes = (double)memory.total;
    }
    if (nvml.temperature(card, NVML_TEMPERATURE_GPU, &number) == NVML_SUCCESS)
        ret->temperature_celsius = number;
    if (nvml.power(card, &number) == NVML_SUCCESS)
        ret->power_watts = number / 1000.0;
}

void sac_cuda_gauges(struct sac_device *base, struct sac_device_gauges *ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct sac_cuda_device *device = (const struct sac_cuda_device *)base;
    void *card;

    *ret = (struct sac_device_gauges){-1, -1, -1, -1, -1};
    pthread_once(&once, load);
    if (nvml_works && nvml.by_bus_id(device->bus_id, &card) == NVML_SUCCESS)
        ask(card, ret);
}
