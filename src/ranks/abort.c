#include "ranks/abort.h"

#include <assert.h>

#include "ranks/thread.h"

struct one {
    struct sac_comm *comm;
    const char *why;
    pthread_t thread;
    bool started;
};

static void *abort_one(void *argument)
{
    const struct one *one = argument;

    sac_comm_abort(one->comm, one->why);
    return NULL;
}

/* The caller does the last; where there is no thread to be had, one after the other. */
void sac_comms_abort(struct sac_comm *const *comms, int count, const char *why)
{
    struct one ones[SAC_ABORT_MOST];
    int used = 0;

    assert(count <= SAC_ABORT_MOST);
    for (int i = 0; i < count; i++)
        if (comms[i])
            ones[used++] = (struct one){.comm = comms[i], .why = why};
    for (int i = 0; i < used; i++) {
        struct sac_error none = {0};
        if (i + 1 < used)
            ones[i].started = sac_thread_start(&ones[i].thread, abort_one, &ones[i], &none) == 0;
        if (!ones[i].started)
            abort_one(&ones[i]);
    }
    for (int i = 0; i < used; i++)
        if (ones[i].started)
            pthread_join(ones[i].thread, NULL);
}
