#include "cli/supervise.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

enum { PAUSE_S = 1 };

static sigset_t watched(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    return set;
}

/* The child, which dies with its parent. */
static pid_t start(const sigset_t *before)
{
    pid_t parent = getpid(), child = fork();

    if (child != 0)
        return child;
    sigprocmask(SIG_SETMASK, before, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        raise(SIGKILL);
    return 0;
}

/* A terminal's signals reach the child by themselves. */
static void pass_on(pid_t child, const siginfo_t *info, bool *asked)
{
    *asked |= info->si_signo != SIGHUP;
    if (info->si_code != SI_KERNEL)
        kill(child, info->si_signo);
}

/* The child's status, as waitpid has it. */
static int wait_for(pid_t child, bool *asked)
{
    sigset_t set = watched();
    siginfo_t info;
    int status = 0;

    for (;;) {
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        if (sigwaitinfo(&set, &info) < 0)
            continue;
        if (info.si_signo != SIGCHLD)
            pass_on(child, &info, asked);
    }
}

static bool was_lost(int status)
{
    return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == SAC_EXIT_LOST);
}

static void tell(int status, int left)
{
    if (WIFSIGNALED(status))
        sac_log(SAC_LOG_WARNING, "training was ended by signal %d (%s); %d restarts are left",
                WTERMSIG(status), strsignal(WTERMSIG(status)), left);
    else
        sac_log(SAC_LOG_WARNING, "training lost a device or a process; %d restarts are left", left);
}

bool sac_supervise(int restarts, int *ret_status)
{
    sigset_t set = watched(), before;
    bool asked = false;
    int status = 0;

    sigprocmask(SIG_BLOCK, &set, &before);
    for (int left = restarts; left >= 0; left--) {
        pid_t child = start(&before);
        if (child == 0)
            return false;
        if (child < 0) {
            sac_log(SAC_LOG_ERROR, "no process: %s", strerror(errno));
            *ret_status = 1;
            return true;
        }
        status = wait_for(child, &asked);
        if (!was_lost(status) || asked)
            break;
        tell(status, left);
        if (left > 0)
            sleep(PAUSE_S);
    }
    *ret_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}
