#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, CHUNK_BYTES = 64 * 1024 };

struct chunk {
    struct chunk *next;
    size_t used;
    size_t cap;
    alignas(ALIGNMENT) uint8_t bytes[];
};

struct sac_arena {
    struct chunk *chunks;
    size_t used;
    size_t bytes_max;
};

struct sac_arena *sac_arena_new(size_t bytes_max)
{
    struct sac_arena *arena = calloc(1, sizeof *arena);

    if (arena)
        arena->bytes_max = bytes_max ? bytes_max : SIZE_MAX;
    return arena;
}

void sac_arena_free(struct sac_arena *arena)
{
    if (!arena)
        return;
    while (arena->chunks) {
        struct chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    free(arena);
}

/* A large allocation gets a chunk of its own behind the current one, which
 * goes on being filled. */
static struct chunk *chunk_with_room(struct sac_arena *arena, size_t bytes)
{
    struct chunk *current = arena->chunks;

    if (current && bytes <= current->cap - current->used)
        return current;
    size_t cap = bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES;
    struct chunk *chunk = malloc(sizeof *chunk + cap);
    if (!chunk)
        return NULL;
    chunk->used = 0;
    chunk->cap = cap;
    if (current && cap == bytes) {
        chunk->next = current->next;
        current->next = chunk;
    } else {
        chunk->next = current;
        arena->chunks = chunk;
    }
    return chunk;
}

void *sac_arena_alloc(struct sac_arena *arena, size_t bytes)
{
    if (bytes > arena->bytes_max - arena->used || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    struct chunk *chunk = chunk_with_room(arena, bytes);
    if (!chunk)
        return NULL;
    void *out = chunk->bytes + chunk->used;
    chunk->used += bytes;
    arena->used = bytes > arena->bytes_max - arena->used ? arena->bytes_max : arena->used + bytes;
    return out;
}

void *sac_arena_zalloc(struct sac_arena *arena, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *out = sac_arena_alloc(arena, bytes);
    return out ? memset(out, 0, bytes) : NULL;
}

char *sac_arena_strdup(struct sac_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *out = sac_arena_alloc(arena, size);

    return out ? memcpy(out, text, size) : NULL;
}

size_t sac_arena_used(const struct sac_arena *arena)
{
    return arena->used;
}
