/* Devices' gauges, looked at on a thread of their own: asking takes milliseconds. */
#include "serve/service.h"

enum { LOOK_MS = 1000 };

static void look(struct sac_service *service)
{
    for (int d = 0; d < service->options.device_count; d++) {
        struct sac_device *device = service->options.devices[d];
        struct sac_device_gauges gauges;
        if (!device->table || !device->table->gauges)
            continue;
        device->table->gauges(device, &gauges);
        pthread_mutex_lock(&service->monitor.lock);
        service->monitor.shown[d] = gauges;
        pthread_mutex_unlock(&service->monitor.lock);
    }
}

static void *run_monitor(void *user)
{
    do
        look(user);
    while (!sac_service_pause(user, LOOK_MS));
    return NULL;
}

static bool has_gauges(const struct sac_service *service)
{
    for (int d = 0; d < service->options.device_count; d++) {
        const struct sac_device *device = service->options.devices[d];
        if (device->table && device->table->gauges)
            return true;
    }
    return false;
}

int sac_monitor_start(struct sac_service *service, struct sac_error *err)
{
    if (!has_gauges(service))
        return 0;
    int number = pthread_create(&service->monitor.thread, NULL, run_monitor, service);
    service->monitor.has_thread = number == 0;
    return number ? sac_fail_errno(err, number, "the thread for gauges") : 0;
}

void sac_monitor_join(struct sac_service *service)
{
    if (service->monitor.has_thread)
        pthread_join(service->monitor.thread, NULL);
    service->monitor.has_thread = false;
}

void sac_monitor_show(struct sac_service *service, int device, struct sac_device_gauges *ret)
{
    pthread_mutex_lock(&service->monitor.lock);
    *ret = service->monitor.shown[device];
    pthread_mutex_unlock(&service->monitor.lock);
}
