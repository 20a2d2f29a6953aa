#include "fetch_rig.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

static struct {
    pid_t pid;
    int stdin_fd, port;
} server;

static void become_server(const int to[2], const int from[2])
{
    dup2(to[0], 0);
    dup2(from[1], 1);
    close(to[1]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("python3", "python3", sac_test_source("tests/data/fetch_server.py"), "/tmp",
           (char *)NULL);
    _exit(127);
}

int server_start(void **state)
{
    int to[2], from[2];
    char text[16] = "";

    (void)state;
    if (pipe(to) < 0 || pipe(from) < 0)
        return -1;
    server.pid = fork();
    if (server.pid == 0)
        become_server(to, from);
    close(to[0]);
    close(from[1]);
    server.stdin_fd = to[1];
    for (size_t at = 0; at < sizeof text - 1 && read(from[0], text + at, 1) == 1; at++)
        if (text[at] == '\n')
            break;
    close(from[0]);
    server.port = atoi(text);
    return server.port > 0 ? 0 : -1;
}

int server_stop(void **state)
{
    (void)state;
    close(server.stdin_fd);
    waitpid(server.pid, NULL, 0);
    return 0;
}

const char *server_url(const char *path)
{
    static char url[200];

    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", server.port, path);
    return url;
}

const char *path_in_tmp(const char *name)
{
    static char path[400];

    snprintf(path, sizeof path, "%s/%s", sac_test_tmpdir(), name);
    return path;
}

int files_in_tmp(const char *name)
{
    DIR *folder = opendir(path_in_tmp(name));
    int count = 0;

    if (!folder)
        return -1;
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

struct sac_fetch_options impatient(void)
{
    return (struct sac_fetch_options){.wait_ms = 1, .tries = 3, .stall_s = 1};
}
