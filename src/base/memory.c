#include "base/memory.h"

#include <stdio.h>
#include <unistd.h>

uint64_t sac_memory_available(void)
{
    unsigned long long kib = 0, limit;
    uint64_t bytes;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");

    while (file && kib == 0 && fgets(line, sizeof line, file))
        sscanf(line, "MemAvailable: %llu", &kib);
    if (file)
        fclose(file);
    bytes = kib ? (uint64_t)kib << 10
                : (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    file = fopen("/sys/fs/cgroup/memory.max", "re");
    if (file && fscanf(file, "%llu", &limit) == 1 && limit < bytes)
        bytes = limit;
    if (file)
        fclose(file);
    return bytes;
}
