#include "net/names.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void sac_names_done(struct sac_names *names)
{
    free(names->slots);
    *names = (struct sac_names){0};
}

static uint32_t hash(const char *text) /* FNV-1a */
{
    uint32_t value = 2166136261u;

    for (; *text; text++)
        value = (value ^ (uint8_t)*text) * 16777619u;
    return value;
}

/* The slot that holds the name, or the free one where it belongs. */
static struct sac_names_slot *slot_of(const struct sac_names *names, const char *text)
{
    uint32_t mask = (uint32_t)names->cap - 1;
    uint32_t at = hash(text) & mask;

    while (names->slots[at].text && strcmp(names->slots[at].text, text) != 0)
        at = (at + 1) & mask;
    return &names->slots[at];
}

int sac_names_find(const struct sac_names *names, const char *text)
{
    if (names->cap == 0)
        return -1;
    const struct sac_names_slot *slot = slot_of(names, text);
    return slot->text ? slot->number : -1;
}

static bool grow(struct sac_names *names)
{
    struct sac_names bigger = {.cap = names->cap ? names->cap * 2 : 64};

    bigger.slots = calloc((size_t)bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (int i = 0; i < names->cap; i++) {
        if (names->slots[i].text)
            *slot_of(&bigger, names->slots[i].text) = names->slots[i];
    }
    bigger.count = names->count;
    free(names->slots);
    *names = bigger;
    return true;
}

bool sac_names_put(struct sac_names *names, const char *text, int number)
{
    if (names->count >= names->cap / 2 && !grow(names))
        return false;
    struct sac_names_slot *slot = slot_of(names, text);
    if (!slot->text) {
        slot->text = text;
        names->count++;
    }
    slot->number = number;
    return true;
}
