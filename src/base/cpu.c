#include "base/cpu.h"

#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* cgroup v2's cpu.max is "QUOTA PERIOD" in microseconds, or "max PERIOD". */
static int quota_cores(void)
{
    long quota, period;
    int cores = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");

    if (!file)
        return 0;
    if (fscanf(file, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0)
        cores = (int)((quota + period - 1) / period);
    fclose(file);
    return cores;
}

static cpu_set_t allowed_at_start;
static pthread_once_t mask_once = PTHREAD_ONCE_INIT;

static void read_mask(void)
{
    if (sched_getaffinity(getpid(), sizeof allowed_at_start, &allowed_at_start) != 0)
        CPU_ZERO(&allowed_at_start);
}

/* The mask of the main thread, which is never pinned; the calling thread may be. */
static cpu_set_t process_mask(void)
{
    pthread_once(&mask_once, read_mask);
    return allowed_at_start;
}

int sac_cpu_count(void)
{
    cpu_set_t set = process_mask();
    int count = CPU_COUNT(&set);
    int quota = quota_cores();

    if (quota > 0 && quota < count)
        count = quota;
    return count > 0 ? count : 1;
}

bool sac_cpu_is_pinning_wise(int workers)
{
    cpu_set_t set = process_mask();

    return workers >= CPU_COUNT(&set);
}

void sac_cpu_pin(int index)
{
    cpu_set_t allowed = process_mask(), one;
    int count = CPU_COUNT(&allowed);

    if (count == 0)
        return;
    index %= count;
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (!CPU_ISSET(core, &allowed) || index-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        return;
    }
}

/* What the calls sched_getattr and sched_setattr exchange (sched_setattr(2)), which the C
 * library does not wrap. */
struct scheduling {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice_ns; /* sched_runtime; of an ordinary thread 0 before Linux 6.12 */
    uint64_t deadline, period;
};

void sac_cpu_be_prompt(void)
{
    struct scheduling own = {0};

    if (syscall(SYS_sched_getattr, 0, &own, sizeof own, 0) != 0 || own.policy != SCHED_OTHER ||
        own.slice_ns == 0)
        return;
    own.size = sizeof own;
    own.slice_ns = 100000; /* the least that there is */
    syscall(SYS_sched_setattr, 0, &own, 0);
}

struct sac_cpu_features sac_cpu_features(void)
{
    struct sac_cpu_features out = {0};
    unsigned a, b, c, d;

    __builtin_cpu_init();
    out.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    out.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        out.amx_bf16 = out.avx512 && (d & (1u << 22)) && (d & (1u << 24));
        out.amx_int8 = out.avx512 && (d & (1u << 24)) && (d & (1u << 25));
        out.avx512_vnni = out.avx512 && (c & (1u << 11));
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        out.avx512_bf16 = out.avx512 && (a & (1u << 5));
    return out;
}
