/* A table from names to numbers, for nets with many layers. One thread. */
#ifndef SAC_NET_NAMES_H
#define SAC_NET_NAMES_H

#include <stdbool.h>

struct sac_names_slot {
    const char *text; /* NULL: free */
    int number;
};

/* Start it as `= {0}`. */
struct sac_names {
    struct sac_names_slot *slots;
    int count, cap;
};

void sac_names_done(struct sac_names *names);
/* The number that was put last for the name; -1 when there is none. */
int sac_names_find(const struct sac_names *names, const char *text);
/* Borrows the text. False when memory is out. */
bool sac_names_put(struct sac_names *names, const char *text, int number);

#endif
