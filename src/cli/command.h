/*
 * The subcommands, one file each. main.c holds the table and finds the one that
 * was asked for; a command prints, reads its own flags and returns the exit
 * status: 0 when it did what was asked, 1 when it failed, 2 when it was not
 * asked in a way that it understands. Main thread.
 */
#ifndef SAC_CLI_COMMAND_H
#define SAC_CLI_COMMAND_H

struct sac_command {
    const char *name;
    const char *summary;               /* half a line, for `saccade --help` */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};

int sac_command_serve(int argc, char **argv);
int sac_command_classify(int argc, char **argv);
int sac_command_dataset(int argc, char **argv);
int sac_command_devices(int argc, char **argv);
int sac_command_train(int argc, char **argv);
int sac_command_finetune(int argc, char **argv); /* train, with --finetune */
int sac_command_test(int argc, char **argv);
int sac_command_quantize(int argc, char **argv);
int sac_command_model(int argc, char **argv);
int sac_command_time(int argc, char **argv);
int sac_command_bench(int argc, char **argv);

#endif
