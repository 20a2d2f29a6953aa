#include "cuda_sim/probe.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_sim/number.h"

enum { SHOWN = 48 };

void probe_need(int status, const char *call)
{
    if (status == 0)
        return;
    fprintf(stderr, "probe: %s: %d\n", call, status);
    exit(1);
}

static void put(const char *kind, const char *call, const char *status, const char *format,
                va_list args)
{
    printf("%s %s ", kind, call);
    vprintf(format, args);
    printf(": %s\n", status);
}

void probe_must(const char *call, const char *status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put("must", call, status, format, args);
    va_end(args);
}

void probe_note(const char *call, const char *status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put("note", call, status, format, args);
    va_end(args);
}

const char *probe_type_name(enum probe_type type)
{
    static const char *const names[] = {"f32", "f16", "bf16"};

    return names[type];
}

size_t probe_type_bytes(enum probe_type type)
{
    return type == PROBE_F32 ? 4 : 2;
}

float probe_value(unsigned seed, unsigned i)
{
    return (float)((int)((i + 977 * seed + 1) * 2654435761u >> 29) - 4) / 4;
}

static void *upload(const void *from, size_t bytes)
{
    void *to = NULL;

    PROBE_NEED(cudaMalloc(&to, bytes));
    PROBE_NEED(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
    return to;
}

void *probe_numbers(enum probe_type type, unsigned seed, size_t count)
{
    size_t bytes = probe_type_bytes(type);
    char *host = malloc(count * bytes);

    for (size_t i = 0; host && i < count; i++) {
        float value = probe_value(seed, (unsigned)i);
        uint16_t half = type == PROBE_F16 ? sim_to_f16(value) : sim_to_bf16(value);
        memcpy(host + i * bytes, type == PROBE_F32 ? (void *)&value : (void *)&half, bytes);
    }
    void *to = host ? upload(host, count * bytes) : NULL;
    free(host);
    return to;
}

void *probe_bytes(size_t count)
{
    void *to = NULL;

    PROBE_NEED(cudaMalloc(&to, count ? count : 1));
    PROBE_NEED(cudaMemsetAsync(to, 0x3f, count ? count : 1, NULL));
    PROBE_NEED(cudaDeviceSynchronize());
    return to;
}

static double number_at(const char *host, enum probe_type type, size_t i)
{
    float value;
    uint16_t half;

    if (type == PROBE_F32) {
        memcpy(&value, host + 4 * i, 4);
        return value;
    }
    memcpy(&half, host + 2 * i, 2);
    return type == PROBE_F16 ? sim_from_f16(half) : sim_from_bf16(half);
}

void probe_result(const char *call, const char *name, const char *status, const void *data,
                  enum probe_type type, size_t count, double tolerance)
{
    size_t bytes = count * probe_type_bytes(type);
    char *host = malloc(bytes);
    double sum = 0;

    if (strcmp(status, "success") != 0 || !host) {
        probe_must(call, status, "%s", name);
        free(host);
        return;
    }
    PROBE_NEED(cudaDeviceSynchronize());
    PROBE_NEED(cudaMemcpy(host, data, bytes, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < count; i++)
        sum += fabs(number_at(host, type, i));
    printf("must %s %s: success ~%g %.9g", call, name, tolerance, sum / (double)count);
    for (size_t i = 0; i < count && i < SHOWN; i++)
        printf(" %.9g", number_at(host, type, i));
    printf("\n");
    free(host);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* what ends it keeps what was said */
    probe_runtime();
    probe_cublas();
    probe_cudnn();
    probe_nccl();
    probe_must("cudaDeviceReset", cudaDeviceReset() == cudaSuccess ? "success" : "refused", "last");
    return 0;
}
