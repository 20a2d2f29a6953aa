#include "cli/signals.h"

#include <signal.h>

static volatile sig_atomic_t had_sigint, had_sighup;
static enum sac_train_request sigint_effect, sighup_effect;

static void on_signal(int number)
{
    if (number == SIGINT)
        had_sigint = 1;
    else
        had_sighup = 1;
}

enum sac_train_request sac_signals_asked(void *user)
{
    enum sac_train_request out = SAC_TRAIN_GO_ON;

    (void)user;
    if (had_sighup)
        out = sighup_effect;
    if (had_sigint && sigint_effect > out)
        out = sigint_effect;
    had_sigint = had_sighup = 0;
    return out;
}

void sac_signals_catch(enum sac_train_request on_sigint, enum sac_train_request on_sighup)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    sigint_effect = on_sigint;
    sighup_effect = on_sighup;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}
