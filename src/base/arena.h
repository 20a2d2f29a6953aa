/*
 * An arena: many small allocations that are freed together, within a budget.
 * Parsers of untrusted files allocate from one, so that a small file cannot
 * claim much memory. One thread at a time.
 */
#ifndef SAC_BASE_ARENA_H
#define SAC_BASE_ARENA_H

#include <stddef.h>

struct sac_arena;

/* bytes_max: what all allocations together may take; 0 for no bound. NULL when
 * memory is out. */
struct sac_arena *sac_arena_new(size_t bytes_max);
void sac_arena_free(struct sac_arena *arena);
/* Aligned to 16 bytes, not zeroed; NULL when the budget or memory is out.
 * Lives until the arena does. */
void *sac_arena_alloc(struct sac_arena *arena, size_t bytes);
void *sac_arena_zalloc(struct sac_arena *arena, size_t count, size_t size);
char *sac_arena_strdup(struct sac_arena *arena, const char *text);
/* What has been given out so far, in bytes. */
size_t sac_arena_used(const struct sac_arena *arena);

#endif
