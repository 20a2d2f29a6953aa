#include "image/jpeg_memory.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>

#include "image/decoder.h"

/* libjpeg-turbo's vector code takes rows that begin at a multiple of 32, and are as
 * long as one of 64. */
enum { ALIGNMENT = 64, BLOCK_BYTES_MIN = 64 << 10 };

struct sac_jpeg_block {
    struct sac_jpeg_block *next;
    size_t used, size;
    alignas(ALIGNMENT) uint8_t bytes[];
};

/* Coefficients of a whole component: all in memory, never in a file. */
struct jvirt_barray_control {
    jvirt_barray_ptr next;
    JBLOCKARRAY rows; /* NULL: not realized yet */
    JDIMENSION width, height;
    boolean zeroed;
};

static struct sac_jpeg_memory *memory_of(j_common_ptr info)
{
    return (struct sac_jpeg_memory *)info->mem;
}

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct sac_jpeg_block *add_block(struct sac_jpeg_memory *memory, size_t bytes)
{
    size_t size = bytes > BLOCK_BYTES_MIN ? bytes : BLOCK_BYTES_MIN;
    struct sac_jpeg_block *block = aligned_alloc(ALIGNMENT, sizeof *block + size);

    if (block) {
        *block = (struct sac_jpeg_block){.next = memory->blocks, .size = size};
        memory->blocks = block;
        memory->bytes += size;
    }
    return block;
}

static void free_blocks(struct sac_jpeg_memory *memory)
{
    while (memory->blocks) {
        struct sac_jpeg_block *next = memory->blocks->next;
        free(memory->blocks);
        memory->blocks = next;
    }
    memory->bytes = 0;
}

static void *take(j_common_ptr info, int pool, size_t bytes)
{
    struct sac_jpeg_memory *memory = memory_of(info);
    struct sac_jpeg_block *block = memory->blocks;

    (void)pool; /* all ends with the picture */
    if (bytes > SIZE_MAX / 4)
        ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
    bytes = round_up(bytes);
    if (!block || bytes > block->size - block->used)
        block = add_block(memory, bytes);
    if (!block)
        ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
    void *out = block->bytes + block->used;
    block->used += bytes;
    return out;
}

/* Rows, and pointers to them. */
static void **take_rows(j_common_ptr info, int pool, size_t row_bytes, JDIMENSION count)
{
    void **rows = take(info, pool, count * sizeof *rows);
    size_t pitch = round_up(row_bytes), bytes;

    if (__builtin_mul_overflow(pitch, count, &bytes))
        ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
    uint8_t *at = take(info, pool, bytes);
    for (JDIMENSION y = 0; y < count; y++)
        rows[y] = at + y * pitch;
    return rows;
}

static JSAMPARRAY take_samples(j_common_ptr info, int pool, JDIMENSION width, JDIMENSION height)
{
    return (JSAMPARRAY)take_rows(info, pool, width * sizeof(JSAMPLE), height);
}

static JBLOCKARRAY take_coefficients(j_common_ptr info, int pool, JDIMENSION width,
                                     JDIMENSION height)
{
    return (JBLOCKARRAY)take_rows(info, pool, width * sizeof(JBLOCK), height);
}

static jvirt_barray_ptr request_whole(j_common_ptr info, int pool, boolean zeroed, JDIMENSION width,
                                      JDIMENSION height, JDIMENSION at_once)
{
    struct sac_jpeg_memory *memory = memory_of(info);
    jvirt_barray_ptr whole = take(info, pool, sizeof *whole);

    (void)at_once;
    *whole = (struct jvirt_barray_control){
        .next = memory->whole, .width = width, .height = height, .zeroed = zeroed};
    memory->whole = whole;
    return whole;
}

static void count_whole(j_common_ptr info, jvirt_barray_ptr whole)
{
    struct sac_jpeg_memory *memory = memory_of(info);
    size_t bytes = (size_t)whole->width * whole->height * sizeof(JBLOCK); /* sides: 16 bits */

    if (sac_image_memory_take(bytes, "coefficients", &memory->refused) < 0)
        ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
    memory->counted += bytes;
}

static void realize_wholes(j_common_ptr info)
{
    for (jvirt_barray_ptr whole = memory_of(info)->whole; whole; whole = whole->next) {
        if (whole->rows)
            continue;
        count_whole(info, whole);
        whole->rows = take_coefficients(info, JPOOL_IMAGE, whole->width, whole->height);
        for (JDIMENSION y = 0; whole->zeroed && y < whole->height; y++)
            memset(whole->rows[y], 0, whole->width * sizeof(JBLOCK));
    }
}

static JBLOCKARRAY access_whole(j_common_ptr info, jvirt_barray_ptr whole, JDIMENSION first,
                                JDIMENSION count, boolean writable)
{
    (void)writable;
    if (!whole->rows || first > whole->height || count > whole->height - first)
        ERREXIT(info, JERR_BAD_VIRTUAL_ACCESS);
    return whole->rows + first;
}

/* Whole pictures of samples are kept to choose a palette, which nobody asks for. */
static jvirt_sarray_ptr refuse_samples(j_common_ptr info, int pool, boolean zeroed,
                                       JDIMENSION width, JDIMENSION height, JDIMENSION at_once)
{
    (void)pool, (void)zeroed, (void)width, (void)height, (void)at_once;
    ERREXIT(info, JERR_NOT_COMPILED);
    return NULL;
}

static JSAMPARRAY refuse_access(j_common_ptr info, jvirt_sarray_ptr whole, JDIMENSION first,
                                JDIMENSION count, boolean writable)
{
    (void)whole, (void)first, (void)count, (void)writable;
    ERREXIT(info, JERR_NOT_COMPILED);
    return NULL;
}

static void keep_pool(j_common_ptr info, int pool)
{
    (void)info, (void)pool; /* sac_jpeg_memory_reset does it */
}

static void forget_wholes(struct sac_jpeg_memory *memory)
{
    sac_image_memory_give(memory->counted);
    memory->counted = 0;
    memory->whole = NULL;
    memory->refused.code = 0;
}

static void self_destruct(j_common_ptr info)
{
    struct sac_jpeg_memory *memory = memory_of(info);

    forget_wholes(memory);
    free_blocks(memory);
    info->mem = memory->library;
    memory->library->self_destruct(info);
}

void sac_jpeg_memory_take(struct sac_jpeg_memory *memory, j_decompress_ptr info)
{
    *memory = (struct sac_jpeg_memory){
        .library = info->mem,
        .manager = {.alloc_small = take,
                    .alloc_large = take,
                    .alloc_sarray = take_samples,
                    .alloc_barray = take_coefficients,
                    .request_virt_sarray = refuse_samples,
                    .request_virt_barray = request_whole,
                    .realize_virt_arrays = realize_wholes,
                    .access_virt_sarray = refuse_access,
                    .access_virt_barray = access_whole,
                    .free_pool = keep_pool,
                    .self_destruct = self_destruct,
                    .max_memory_to_use = info->mem->max_memory_to_use,
                    .max_alloc_chunk = info->mem->max_alloc_chunk},
    };
    info->mem = &memory->manager;
}

void sac_jpeg_memory_reset(struct sac_jpeg_memory *memory, size_t bytes_max)
{
    size_t bytes = memory->bytes;

    forget_wholes(memory);
    if (bytes > bytes_max) {
        free_blocks(memory);
    } else if (memory->blocks && memory->blocks->next) {
        free_blocks(memory);
        add_block(memory, bytes); /* without it, the next picture takes its own */
    }
    if (memory->blocks)
        memory->blocks->used = 0;
}
