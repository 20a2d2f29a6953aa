/* The program: finds the subcommand and runs it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/log.h"
#include "base/team.h"
#include "cli/command.h"
#include "cli/flags.h"

static const struct sac_command commands[] = {
    {"serve", "answer over HTTP: pictures in, labels out", sac_command_serve},
    {"classify", "name what is in pictures, folders or lists of them", sac_command_classify},
    {"train", "train a net as a solver.prototxt says", sac_command_train},
    {"test", "say how well a net does on labelled pictures", sac_command_test},
    {"quantize", "measure what int8 and bf16 cost a model, and make it ready for int8",
     sac_command_quantize},
    {"time", "time a net, operation by operation and whole", sac_command_time},
    {"model", "fetch a public model, or list those that are known", sac_command_model},
    {"bench", "load a server, open loop, with honest percentiles", sac_command_bench},
    {"dataset", "make, split, check and convert sets of pictures", sac_command_dataset},
    {"devices", "what there is to run on, and what each can do", sac_command_devices},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    fprintf(out,
            "saccade %s: learns to name what is in a picture, and serves that over HTTP\n\n"
            "Usage: saccade COMMAND …\n\n",
            SACCADE_VERSION);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(out, "\nExample: saccade serve --model models/squeezenet\n"
                 "\"saccade COMMAND --help\" tells more; so does man saccade.\n");
}

static int find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return i;
    return -1;
}

/* Where cores join on one picture nobody else wants them, and an operation's threads end
 * within microseconds of each other: sleeping between operations costs a third of the gain. */
enum { SERVE_SPINS = 2000 };

/* Threads that wait for each other by spinning take the cores from those that decode
 * (peers measured 1.4 ms become 14 to 300). OpenMP reads how to wait only when a program
 * starts: so it is started again. */
static void start_again_patiently(char **argv, int spins)
{
    char path[4096];

    if (sac_team_is_patient())
        return;
    sac_team_be_patient(spins);
    /* By its path, for its name in lists of processes. Without /proc it goes on as it is. */
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    if (size > 0) {
        path[size] = '\0';
        execv(path, argv);
    }
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    sac_log_set_sink(sac_log_to_stderr, SAC_LOG_INFO);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("saccade %s\n", SACCADE_VERSION);
        return 0;
    }
    int command = find_command(argv[1]);
    if (command < 0) {
        fprintf(stderr, "saccade: no command \"%s\"\nTry \"saccade --help\".\n", argv[1]);
        return EXIT_USAGE;
    }
    if (commands[command].run == sac_command_train)
        start_again_patiently(argv, 0);
    if (commands[command].run == sac_command_serve && sac_cpu_count() > 1)
        start_again_patiently(argv, SERVE_SPINS);
    return commands[command].run(argc - 1, argv + 1);
}
