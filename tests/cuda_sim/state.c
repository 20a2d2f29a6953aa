#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t sim_done = PTHREAD_COND_INITIALIZER;
struct sim_device sim_device[SIM_DEVICES_MAX];
int sim_devices = 1, sim_arch = 90;
bool sim_pageable;
struct sim_live sim_counts;

static bool ready;
static enum sim_checks checks_mode;
static int checks_failed;
static char checks_last[512];
static uint64_t random_state;  /* 0: no delays */
static const char *fault_file; /* NULL: none */

static __thread int current_device;
static __thread cudaError_t last_error;
static __thread char checks_copy[sizeof checks_last];

static void clear_faults(void)
{
    for (int i = 0; i < SIM_DEVICES_MAX; i++) {
        sim_device[i].lost_at = sim_device[i].oom_at = -1;
        sim_device[i].cut_at = sim_device[i].mute_at = sim_device[i].kill_at = -1;
        sim_device[i].slow_ms = sim_device[i].cold_ms = sim_device[i].room_kib = 0;
        if (!sim_device[i].lost)
            sim_device[i].lost_as = cudaErrorLaunchFailure;
        sim_device[i].gone = false;
        sim_device[i].calls = sim_device[i].allocations = sim_device[i].collectives = 0;
    }
}

/* Where the fault's K goes; NULL: it has none, or there is no such fault. */
static long *count_of(struct sim_device *device, const char *kind)
{
    if (strcmp(kind, "lost") == 0 || strcmp(kind, "gone") == 0)
        return &device->lost_at;
    if (strcmp(kind, "oom") == 0)
        return &device->oom_at;
    if (strcmp(kind, "cut") == 0)
        return &device->cut_at;
    if (strcmp(kind, "mute") == 0)
        return &device->mute_at;
    return strcmp(kind, "kill") == 0 ? &device->kill_at : NULL;
}

/* Where the fault's number goes that counts nothing; NULL likewise. */
static double *number_at(struct sim_device *device, const char *kind)
{
    return strcmp(kind, "slow") == 0   ? &device->slow_ms
           : strcmp(kind, "cold") == 0 ? &device->cold_ms
           : strcmp(kind, "room") == 0 ? &device->room_kib
                                       : NULL;
}

static bool read_fault(const char *text, size_t length, bool apply)
{
    char word[64], kind[8];
    int device, used = 0;
    double value;

    if (length >= sizeof word)
        return false;
    memcpy(word, text, length);
    word[length] = '\0';
    if (sscanf(word, "%7[a-z]:%d:%lf%n", kind, &device, &value, &used) != 3 || word[used] != '\0' ||
        device < 0 || device >= sim_devices || value < 0)
        return false;
    struct sim_device *d = &sim_device[device];
    long *count = count_of(d, kind);
    double *number = number_at(d, kind);
    bool code = strcmp(kind, "code") == 0;
    if (!count && !number && !code)
        return false;
    if (apply && number)
        *number = value;
    if (apply && code)
        d->lost_as = (cudaError_t)value;
    if (apply && count) {
        *count = (long)value;
        d->gone = d->gone || strcmp(kind, "gone") == 0;
    }
    return true;
}

static bool read_faults(const char *text, bool apply)
{
    while (text && *text) {
        size_t length = strcspn(text, ",");

        if (!read_fault(text, length, apply))
            return false;
        text += length + (text[length] == ',');
    }
    return true;
}

static long long number_of(const char *name, long long otherwise, long long least, long long most)
{
    const char *text = getenv(name);
    char *end;
    long long value;

    if (!text || !*text)
        return otherwise;
    value = strtoll(text, &end, 10);
    if (*end || value < least || value > most) {
        fprintf(stderr, "cuda_sim: %s=%s: expected %lld to %lld\n", name, text, least, most);
        abort();
    }
    return value;
}

static void read_environment(void)
{
    const char *checks = getenv("SACCADE_SIM_CHECKS"), *faults = getenv("SACCADE_SIM_FAULT");
    size_t memory = (size_t)number_of("SACCADE_SIM_MEMORY", 8LL << 30, 1, 1LL << 40);

    sim_devices = (int)number_of("SACCADE_SIM_DEVICES", 1, 0, SIM_DEVICES_MAX);
    sim_arch = (int)number_of("SACCADE_SIM_ARCH", 90, 60, 120);
    random_state = (uint64_t)number_of("SACCADE_SIM_SEED", 0, 0, INT64_MAX);
    sim_pageable = number_of("SACCADE_SIM_PAGEABLE", 0, 0, 1) == 1;
    if (checks && strcmp(checks, "record") == 0)
        checks_mode = SIM_CHECKS_RECORD;
    else if (checks && strcmp(checks, "off") == 0)
        checks_mode = SIM_CHECKS_OFF;
    for (int i = 0; i < SIM_DEVICES_MAX; i++)
        sim_device[i].memory_bytes = memory;
    fault_file = getenv("SACCADE_SIM_FAULT_FILE");
    clear_faults();
    if (!read_faults(faults, false)) {
        fprintf(stderr, "cuda_sim: SACCADE_SIM_FAULT=%s cannot be read\n", faults);
        abort();
    }
    read_faults(faults, true);
}

/* The file is renamed into place, so it is whole. */
static void read_fault_file(void)
{
    char words[256] = "";
    FILE *file = access(fault_file, F_OK) == 0 ? fopen(fault_file, "r") : NULL;

    if (!file)
        return;
    size_t length = fread(words, 1, sizeof words - 1, file);
    fclose(file);
    unlink(fault_file);
    words[length] = '\0';
    if (!read_faults(words, false)) {
        fprintf(stderr, "cuda_sim: %s: \"%s\" cannot be read\n", fault_file, words);
        abort();
    }
    clear_faults();
    read_faults(words, true);
}

void sim_enter(void)
{
    pthread_mutex_lock(&sim_lock);
    if (!ready) {
        ready = true;
        read_environment();
    }
    if (fault_file)
        read_fault_file();
}

void sim_leave(void)
{
    pthread_mutex_unlock(&sim_lock);
}

void sim_report(const char *call, const char *format, ...)
{
    va_list args;
    int length;

    if (checks_mode == SIM_CHECKS_OFF)
        return;
    checks_failed++;
    length = snprintf(checks_last, sizeof checks_last, "%s: ", call);
    va_start(args, format);
    vsnprintf(checks_last + length, sizeof checks_last - (size_t)length, format, args);
    va_end(args);
    if (checks_mode == SIM_CHECKS_ABORT) {
        fprintf(stderr, "cuda_sim: %s\n", checks_last);
        abort();
    }
}

cudaError_t sim_error(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

cudaError_t sim_call(int device)
{
    struct sim_device *d = &sim_device[device];

    if (!d->lost && d->lost_at >= 0 && d->calls == (unsigned long)d->lost_at) {
        d->lost = true;
        pthread_cond_broadcast(&sim_done);
    }
    d->calls++;
    return sim_lost(device);
}

cudaError_t sim_lost(int device)
{
    return sim_device[device].lost ? sim_device[device].lost_as : cudaSuccess;
}

int sim_current(void)
{
    return current_device;
}

/* Steele, Lea and Flood's splitmix64. */
static uint64_t draw(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Half of the operations start at once; the others up to 0.4 ms late. */
uint64_t sim_delay_us(void)
{
    uint64_t z;

    if (random_state == 0)
        return 0;
    z = draw();
    return z & 1 ? 0 : (z >> 8) % 400;
}

void sim_checks_set(enum sim_checks checks)
{
    sim_enter();
    checks_mode = checks;
    sim_leave();
}

int sim_checks_failed(void)
{
    int failed;

    sim_enter();
    failed = checks_failed;
    sim_leave();
    return failed;
}

const char *sim_checks_last(void)
{
    sim_enter();
    memcpy(checks_copy, checks_last, sizeof checks_copy);
    sim_leave();
    return checks_copy;
}

void sim_checks_clear(void)
{
    sim_enter();
    checks_failed = 0;
    checks_last[0] = '\0';
    sim_leave();
}

void sim_pageable_allow(bool allow)
{
    sim_enter();
    sim_pageable = allow;
    sim_leave();
}

void sim_seed_set(uint64_t seed)
{
    sim_enter();
    random_state = seed;
    sim_leave();
}

bool sim_fault_set(const char *faults)
{
    bool readable;

    sim_enter();
    readable = read_faults(faults, false);
    if (readable) {
        clear_faults();
        read_faults(faults, true);
    }
    sim_leave();
    return readable;
}

void sim_device_restore(int device)
{
    sim_enter();
    if (device >= 0 && device < sim_devices) {
        sim_device[device].lost = sim_device[device].gone = false;
        sim_device[device].lost_at = -1;
    }
    sim_leave();
}

struct sim_live sim_live(void)
{
    struct sim_live live;

    sim_enter();
    live = sim_counts;
    sim_leave();
    return live;
}

unsigned long sim_device_calls(int device)
{
    unsigned long calls;

    sim_enter();
    calls = sim_device[device].calls;
    sim_leave();
    return calls;
}

unsigned long sim_device_operations(int device)
{
    unsigned long operations;

    sim_enter();
    operations = sim_device[device].operations;
    sim_leave();
    return operations;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    sim_enter();
    *count = sim_devices;
    sim_leave();
    return sim_error(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

/* Only remembers the device, as the runtime did before CUDA 12; a lost one
 * answers with its error from the next call on. */
cudaError_t cudaSetDevice(int device)
{
    bool known;

    sim_enter();
    known = device >= 0 && device < sim_devices;
    sim_leave();
    if (!known)
        return sim_error(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

/* A lost device's error does not go away by being asked for. */
static cudaError_t sticky(void)
{
    cudaError_t error;

    sim_enter();
    error = sim_lost(current_device);
    sim_leave();
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    cudaError_t error = sticky();

    return error != cudaSuccess ? error : last_error;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = cudaPeekAtLastError();

    last_error = cudaSuccess;
    return error;
}
