/*
 * A stand-in for NVML: card d of the simulator (bus 00000000:00:0d.0) is d + 40 °C
 * warm, draws 70 + 1.5 d W, is busy for 10 + d % and has d + 1 MiB of 8 GiB in use.
 */
#include <stdint.h>
#include <stdio.h>

enum { SUCCESS = 0, NOT_FOUND = 6 };

int nvmlInit_v2(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret);
int nvmlDeviceGetUtilizationRates(void *card, unsigned ret[2]);
int nvmlDeviceGetMemoryInfo(void *card, unsigned long long ret[3]);
int nvmlDeviceGetTemperature(void *card, int sensor, unsigned *ret);
int nvmlDeviceGetPowerUsage(void *card, unsigned *ret);

int nvmlInit_v2(void)
{
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret)
{
    unsigned domain, bus, card;

    if (sscanf(bus_id, "%8x:%2x:%2x.0", &domain, &bus, &card) != 3 || domain || bus || card > 15)
        return NOT_FOUND;
    *ret = (void *)(uintptr_t)(card + 1);
    return SUCCESS;
}

static unsigned number_of(void *card)
{
    return (unsigned)(uintptr_t)card - 1;
}

int nvmlDeviceGetUtilizationRates(void *card, unsigned ret[2])
{
    ret[0] = 10 + number_of(card);
    ret[1] = 0;
    return SUCCESS;
}

/* total, free, used */
int nvmlDeviceGetMemoryInfo(void *card, unsigned long long ret[3])
{
    ret[0] = 8ull << 30;
    ret[2] = (number_of(card) + 1ull) << 20;
    ret[1] = ret[0] - ret[2];
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *card, int sensor, unsigned *ret)
{
    *ret = 40 + number_of(card);
    return sensor == 0 ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetPowerUsage(void *card, unsigned *ret)
{
    *ret = 70000 + 1500 * number_of(card);
    return SUCCESS;
}
