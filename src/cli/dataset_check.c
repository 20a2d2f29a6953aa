/* saccade dataset check */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/dataset.h"
#include "dataset/check.h"

static const char help[] =
    "Usage: saccade dataset check [options] SET [SET …]\n\n"
    "Reads every picture and names what is wrong: damaged files, copies, near copies (in\n"
    "another size or compression), tiny and oddly shaped pictures and, with a model, those\n"
    "that look like another class. Several SETs are parts of one (train.txt val.txt): a\n"
    "near copy then counts only between parts or classes.\n\n"
    "  --model DIR       a model directory: one that knows these classes is asked, any other\n"
    "                    serves as an eye\n"
    "  --device auto|cpu|cuda   where the model runs (auto)\n"
    "  --tiny N          the smaller side has fewer pixels (32)\n"
    "  --aspect R        one side is longer than R times the other (3)\n"
    "  --all-pairs       near copies within a class of a part count as well\n"
    "  --labels F        names of classes, one a line\n"
    "  --root DIR        what a list's paths are under\n"
    "  --threads N       (one a core)\n"
    "  --json            all of it as JSON\n\n"
    "The exit status is 0 when nothing was found, 3 when something was.\n\n"
    "Example: saccade dataset check --model squeezenet parts/train.txt parts/val.txt\n";

enum { FLAG_TINY = SAC_DATASET_OWN, FLAG_ASPECT, FLAG_ALL_PAIRS, PARTS_MAX = 16, EXIT_FOUND = 3 };

static const struct option long_options[] = {
    {"model", required_argument, NULL, SAC_FLAG_MODEL},
    {"device", required_argument, NULL, SAC_FLAG_DEVICE},
    {"tiny", required_argument, NULL, FLAG_TINY},
    {"aspect", required_argument, NULL, FLAG_ASPECT},
    {"all-pairs", no_argument, NULL, FLAG_ALL_PAIRS},
    {"labels", required_argument, NULL, SAC_DATASET_LABELS},
    {"root", required_argument, NULL, SAC_DATASET_ROOT},
    {"threads", required_argument, NULL, SAC_DATASET_THREADS},
    {"json", no_argument, NULL, SAC_DATASET_JSON},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

struct check_command {
    struct sac_dataset_flags flags;
    struct sac_check_options options;
    struct sac_source *parts[PARTS_MAX];
    int part_count;
};

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct check_command *command = user;

    int rc;

    switch (option) {
    case SAC_FLAG_MODEL:
        command->options.model = value;
        return 1;
    case SAC_FLAG_DEVICE:
        command->options.device = value;
        return 1;
    case FLAG_TINY:
        rc = sac_flag_int("--tiny", value, 1, 16384, &command->options.tiny, err);
        return rc ? rc : 1;
    case FLAG_ASPECT:
        rc = sac_flag_number("--aspect", value, 1, 1e6, &command->options.aspect, err);
        return rc ? rc : 1;
    case FLAG_ALL_PAIRS:
        command->options.all_pairs = true;
        return 1;
    default:
        return sac_dataset_flags_take(&command->flags, option, value, err);
    }
}

static int parse(struct check_command *command, int argc, char **argv, bool *ret_help,
                 struct sac_error *err)
{
    int rc =
        sac_flags_options(argc, argv, SAC_FLAGS_SHORT, long_options, take, command, ret_help, err);

    if (rc < 0 || *ret_help)
        return rc;
    if (optind == argc || argc - optind > PARTS_MAX)
        return sac_fail(err, SAC_EINVAL, "expected 1 to %d data sets", PARTS_MAX);
    command->options.threads = command->flags.threads;
    return 0;
}

static void on_progress(void *user, int64_t done, int64_t total, int64_t faults)
{
    (void)user;
    fprintf(stderr, "\r\033[K%" PRId64 " of %" PRId64 " pictures, %" PRId64 " faults%s", done,
            total, faults, done == total ? "\n" : "");
}

/* A file's path where there is one. */
static const char *name_of(const struct check_command *command, int part, int64_t index,
                           char text[4096])
{
    const struct sac_source *source = command->parts[part];

    if (!sac_source_item_path(source, index, text, 4096))
        sac_source_item_name(source, index, text, 4096);
    return text;
}

static void put_name(struct sac_buf *out, const char *key, const char *name)
{
    sac_buf_printf(out, "\"%s\":", key);
    sac_buf_put_json(out, name, strlen(name));
}

static const char *class_name(const struct check_command *command, int label, char text[24])
{
    if (label < command->parts[0]->labels.count)
        return command->parts[0]->labels.text[label];
    snprintf(text, 24, "class %d", label);
    return text;
}

static int64_t class_total(const struct check_command *command, const struct sac_check *check,
                           int label)
{
    int64_t total = 0;

    for (int part = 0; part < command->part_count; part++)
        total += check->class_counts[(int64_t)part * check->classes + label];
    return total;
}

static void put_finding(struct sac_buf *out, const struct check_command *command,
                        const struct sac_finding *finding)
{
    char text[4096];

    sac_buf_puts(out, "{");
    put_name(out, "fault", sac_fault_names[finding->fault]);
    sac_buf_puts(out, ",");
    put_name(out, "file", name_of(command, finding->part, finding->index, text));
    sac_buf_puts(out, ",");
    put_name(out, "set", command->parts[finding->part]->path);
    if (finding->other_part >= 0) {
        sac_buf_puts(out, ",");
        put_name(out, "other", name_of(command, finding->other_part, finding->other_index, text));
        sac_buf_puts(out, ",");
        put_name(out, "other_set", command->parts[finding->other_part]->path);
    }
    sac_buf_puts(out, ",");
    put_name(out, "why", finding->why);
    sac_buf_puts(out, "}");
}

static void print_json(const struct check_command *command, const struct sac_check *check)
{
    struct sac_buf out = {0};
    char text[24];

    sac_buf_printf(&out, "{\"pictures\":%" PRId64 ",\"counts\":{", check->items);
    for (int i = 0; i < SAC_FAULTS; i++)
        sac_buf_printf(&out, "%s\"%s\":%" PRId64, i ? "," : "", sac_fault_names[i],
                       check->counts[i]);
    sac_buf_puts(&out, "},\"classes\":[");
    for (int i = 0; i < check->classes; i++) {
        sac_buf_puts(&out, i ? ",{" : "{");
        put_name(&out, "name", class_name(command, i, text));
        sac_buf_puts(&out, ",\"pictures\":[");
        for (int part = 0; part < command->part_count; part++)
            sac_buf_printf(&out, "%s%" PRId64, part ? "," : "",
                           check->class_counts[(int64_t)part * check->classes + i]);
        sac_buf_puts(&out, "]}");
    }
    sac_buf_puts(&out, "],\"findings\":[");
    for (int64_t i = 0; i < check->finding_count; i++) {
        sac_buf_puts(&out, i ? ",\n" : "\n");
        put_finding(&out, command, &check->findings[i]);
    }
    sac_buf_puts(&out, "]}\n");
    if (!out.failed)
        fwrite(out.data, 1, out.len, stdout);
    sac_buf_done(&out);
}

/* Classes of under a quarter of the largest: a net that never names them does well. */
static void print_balance(const struct check_command *command, const struct sac_check *check)
{
    int64_t most = 0, least = INT64_MAX;
    char text[24];

    for (int i = 0; i < check->classes; i++) {
        int64_t total = class_total(command, check, i);
        most = total > most ? total : most;
        least = total < least ? total : least;
    }
    printf("%d classes of %" PRId64 " to %" PRId64 " pictures\n", check->classes, least, most);
    for (int i = 0; i < check->classes; i++) {
        int64_t total = class_total(command, check, i);
        if (total * 4 < most)
            printf("  few: %s has %" PRId64 "\n", class_name(command, i, text), total);
    }
}

static void print_text(const struct check_command *command, const struct sac_check *check)
{
    char name[4096], other[4096];

    for (int64_t i = 0; i < check->finding_count; i++) {
        const struct sac_finding *finding = &check->findings[i];
        bool two = finding->other_part >= 0;
        printf("%s: %s: %s%s%s\n", sac_fault_names[finding->fault],
               name_of(command, finding->part, finding->index, name), finding->why, two ? ": " : "",
               two ? name_of(command, finding->other_part, finding->other_index, other) : "");
    }
    printf("%" PRId64 " pictures", check->items);
    for (int i = 0; i < SAC_FAULTS; i++)
        printf(", %" PRId64 " %s", check->counts[i], sac_fault_names[i]);
    printf("\n");
    print_balance(command, check);
}

static int run(struct check_command *command, char **argv, int argc, bool *ret_found,
               struct sac_error *err)
{
    struct sac_check check = {0};
    int rc = 0;

    for (; rc == 0 && optind < argc; optind++) {
        rc = sac_dataset_open(&command->parts[command->part_count], &command->flags, argv + optind,
                              1, err);
        command->part_count += rc == 0;
    }
    if (isatty(STDERR_FILENO))
        command->options.on_progress = on_progress;
    if (rc == 0)
        rc = sac_check_of(&check, (const struct sac_source *const *)command->parts,
                          command->part_count, &command->options, err);
    if (rc == 0 && command->flags.json)
        print_json(command, &check);
    else if (rc == 0)
        print_text(command, &check);
    *ret_found = check.finding_count > 0;
    sac_check_done(&check);
    while (command->part_count > 0)
        sac_source_free(command->parts[--command->part_count]);
    return rc;
}

int sac_dataset_check(int argc, char **argv)
{
    struct check_command command = {0};
    struct sac_error err = {0};
    bool wants_help, found = false;

    if (parse(&command, argc, argv, &wants_help, &err) < 0)
        return sac_usage_error("dataset check", "%s", err.text);
    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    if (run(&command, argv, argc, &found, &err) < 0)
        return sac_command_failed(&err);
    return found ? EXIT_FOUND : 0;
}
