/* saccade dataset create and convert */
#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/dataset.h"
#include "dataset/build.h"
#include "dataset/fetch.h"
#include "dataset/split.h"

static const char create_help[] =
    "Usage: saccade dataset create [options] SOURCE OUT\n"
    "       saccade dataset create [options] --url URL OUT\n\n"
    "Brings pictures to one size and writes them in an order that a seed decides, with\n"
    "labels.txt, mean.binaryproto and a line a damaged picture in skipped.txt. Killed, it\n"
    "goes on where it was when it is run again.\n\n"
    "SOURCE: a folder with a folder a class, a list file, CIFAR-10's .bin files, an LMDB\n"
    "or a .h5 file; or a folder with train, val and test inside, whose parts OUT gets too.\n\n"
    "  --to list|folder|lmdb   what OUT becomes (lmdb)\n"
    "  --size WIDTHxHEIGHT     (256x256)\n"
    "  --resize squash|crop|fill|half_crop   where the aspect differs: ignore it; cut off;\n"
    "                          fill up with noise; half of either (squash)\n"
    "  --encoding png|jpg|none (png; none: plain bytes, of an LMDB)\n"
    "  --channels bgr|rgb      the order of plain planes in an LMDB (the source's; of\n"
    "                          pictures bgr, as Caffe decodes them)\n"
    "  --quality Q             of JPEGs (90)\n"
    "  --grey | --color        one channel, or three (three)\n"
    "  --decode fast|exact     fast scales a JPEG by a power of two while decoding (fast)\n"
    "  --seed N                decides the order, the parts and the noise (1)\n"
    "  --keep-order            as the source has them\n"
    "  --val PART --test PART  OUT/train, OUT/val and OUT/test: so much of each class, as\n"
    "                          25% or 0.25\n"
    "  --min N --max N         leave out smaller classes (2 with parts); so many of larger ones\n"
    "  --labels F              names of classes, one a line\n"
    "  --root DIR              what a list's paths are under\n"
    "  --url URL               pictures from a web server's index page, a folder a class,\n"
    "                          fetched to OUT.download\n"
    "  --threads N             (one a core)\n"
    "  --json                  what was made, as JSON\n\n"
    "Example: saccade dataset create --size 227x227 --resize crop --val 25% photographs out\n";

static const char convert_help[] =
    "Usage: saccade dataset convert --to list|folder|lmdb|hdf5|cifar [options] SOURCE OUT\n\n"
    "Writes the same items, in the same order, in another form. Encoded pictures stay as\n"
    "they are unless an option says otherwise; plain ones become PNGs in lists and folders.\n"
    "Planes keep their order (CIFAR-10's are R, G, B) in LMDBs and HDF5 files; pictures are\n"
    "decoded to B, G, R by all who read them, Caffe included.\n\n"
    "  --encoding keep|none|png|jpg   of LMDBs, lists and folders (keep)\n"
    "  --channels bgr|rgb      the order of plain planes in an LMDB or .h5 (the source's; of\n"
    "                          pictures bgr, as Caffe decodes them)\n"
    "  --quality Q             of JPEGs (90)\n"
    "  --size WIDTHxHEIGHT     bring them to a size as well\n"
    "  --resize squash|crop|fill|half_crop   how (squash)\n"
    "  --grey | --color        one channel, or three\n"
    "  --decode fast|exact     (exact)\n"
    "  --labels F              names of classes, one a line\n"
    "  --root DIR              what a list's paths are under\n"
    "  --threads N             (one a core)\n"
    "  --json                  what was made, as JSON\n\n"
    "HDF5 and CIFAR files appear when they are whole; the others can be gone on with.\n\n"
    "Example: saccade dataset convert --to hdf5 --size 28x28 --grey digits digits.h5\n";

enum { FLAG_ORDER = SAC_DATASET_OWN, FLAG_URL };

static const struct option create_options[] = {
    {"to", required_argument, NULL, SAC_DATASET_TO},
    {"size", required_argument, NULL, SAC_DATASET_SIZE},
    {"resize", required_argument, NULL, SAC_DATASET_RESIZE},
    {"encoding", required_argument, NULL, SAC_DATASET_ENCODING},
    {"channels", required_argument, NULL, SAC_DATASET_CHANNELS},
    {"quality", required_argument, NULL, SAC_DATASET_QUALITY},
    {"grey", no_argument, NULL, SAC_DATASET_GREY},
    {"color", no_argument, NULL, SAC_DATASET_COLOR},
    {"decode", required_argument, NULL, SAC_DATASET_DECODE},
    {"seed", required_argument, NULL, SAC_DATASET_SEED},
    {"keep-order", no_argument, NULL, FLAG_ORDER},
    {"val", required_argument, NULL, SAC_DATASET_VAL},
    {"test", required_argument, NULL, SAC_DATASET_TEST},
    {"min", required_argument, NULL, SAC_DATASET_MIN},
    {"max", required_argument, NULL, SAC_DATASET_MAX},
    {"labels", required_argument, NULL, SAC_DATASET_LABELS},
    {"root", required_argument, NULL, SAC_DATASET_ROOT},
    {"url", required_argument, NULL, FLAG_URL},
    {"threads", required_argument, NULL, SAC_DATASET_THREADS},
    {"json", no_argument, NULL, SAC_DATASET_JSON},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

static const struct option convert_options[] = {
    {"to", required_argument, NULL, SAC_DATASET_TO},
    {"size", required_argument, NULL, SAC_DATASET_SIZE},
    {"resize", required_argument, NULL, SAC_DATASET_RESIZE},
    {"encoding", required_argument, NULL, SAC_DATASET_ENCODING},
    {"channels", required_argument, NULL, SAC_DATASET_CHANNELS},
    {"quality", required_argument, NULL, SAC_DATASET_QUALITY},
    {"grey", no_argument, NULL, SAC_DATASET_GREY},
    {"color", no_argument, NULL, SAC_DATASET_COLOR},
    {"decode", required_argument, NULL, SAC_DATASET_DECODE},
    {"labels", required_argument, NULL, SAC_DATASET_LABELS},
    {"root", required_argument, NULL, SAC_DATASET_ROOT},
    {"threads", required_argument, NULL, SAC_DATASET_THREADS},
    {"json", no_argument, NULL, SAC_DATASET_JSON},
    {"help", no_argument, NULL, SAC_FLAG_HELP},
    {0}};

struct create {
    const char *command; /* "dataset create" */
    struct sac_dataset_flags flags;
    struct sac_split_options split;
    bool parts;      /* --val or --test */
    bool keep_order; /* or convert */
    const char *url, *out;
    bool is_mean_wanted;
    /* of what is being made */
    const char *part;
    uint64_t began, told;
    int64_t first, named;
    bool terminal;
};

/* ---- Telling ---------------------------------------------------------------- */

enum { NAMED_MAX = 20 };

static void on_skip(void *user, const char *sentence)
{
    struct create *create = user;

    if (create->named < NAMED_MAX)
        fprintf(stderr, "%ssaccade: skipped: %s\n", create->terminal ? "\r\033[K" : "", sentence);
    else if (create->named == NAMED_MAX)
        fprintf(stderr, "saccade: more are skipped; skipped.txt names them\n");
    create->named++;
}

/* On a terminal a line that is written over, ten times a second; else a line each ten
 * seconds. */
static bool is_time_to_tell(struct create *create, uint64_t now, bool last)
{
    uint64_t step = create->terminal ? 100000000u : 10000000000u;

    if (now - create->told < step && !(last && create->terminal))
        return false;
    create->told = now;
    return true;
}

static void print_progress(struct create *create, uint64_t now, int64_t done, int64_t total)
{
    double seconds = (double)(now - create->began) * 1e-9;
    double rate = seconds > 0 ? (double)(done - create->first) / seconds : 0;
    int left = rate > 0 ? (int)((double)(total - done) / rate) : 0;

    fprintf(stderr, "%s%s%" PRId64 " of %" PRId64 " pictures, %.0f a second, %d:%02d left",
            create->terminal ? "\r\033[K" : "", create->part, done, total, rate, left / 60,
            left % 60);
}

static void begin_progress(struct create *create)
{
    create->began = create->told = sac_clock_ns();
    create->first = -1;
}

static void on_progress(void *user, int64_t done, int64_t total, int64_t skipped)
{
    struct create *create = user;
    uint64_t now = sac_clock_ns();

    if (create->first < 0)
        create->first = done;
    if (!is_time_to_tell(create, now, done == total))
        return;
    print_progress(create, now, done, total);
    fprintf(stderr, ", %" PRId64 " skipped%s", skipped,
            create->terminal && done < total ? "" : "\n");
}

/* Of fetching: first pages are read, then pictures. */
static void on_fetch(void *user, int64_t done, int64_t total)
{
    struct create *create = user;
    uint64_t now = sac_clock_ns();
    bool last = done == total;

    if (total >= 0 && create->first < 0) {
        create->began = now;
        create->first = done - 1;
    }
    if (!is_time_to_tell(create, now, last))
        return;
    if (total >= 0)
        print_progress(create, now, done, total);
    else
        fprintf(stderr, "%s%s%" PRId64 " pictures are listed so far",
                create->terminal ? "\r\033[K" : "", create->part, done);
    fputs(create->terminal && !last ? "" : "\n", stderr);
}

static void print_json(const char *out, const struct sac_build_report *report)
{
    struct sac_buf text = {0};

    sac_buf_puts(&text, "{\"out\":");
    sac_buf_put_json(&text, out, strlen(out));
    sac_buf_printf(&text,
                   ",\"pictures\":%" PRId64 ",\"skipped\":%" PRId64 ",\"classes\":%d,"
                   "\"items\":%" PRId64 ",\"resumed\":%" PRId64 "}\n",
                   report->written, report->skipped, report->classes, report->items,
                   report->resumed);
    if (!text.failed)
        fwrite(text.data, 1, text.len, stdout);
    sac_buf_done(&text);
}

static void print_report(const struct create *create, const char *out,
                         const struct sac_build_report *report)
{
    double seconds = (double)(sac_clock_ns() - create->began) * 1e-9;

    if (create->flags.json) {
        print_json(out, report);
        return;
    }
    if (report->complete_before) {
        printf("%s: complete already: %" PRId64 " pictures\n", out, report->written);
        return;
    }
    printf("%s: %" PRId64 " pictures of %d classes", out, report->written, report->classes);
    if (report->skipped)
        printf(", %" PRId64 " skipped", report->skipped);
    if (report->resumed)
        printf(", of which %" PRId64 " were done before", report->resumed);
    printf(", in %.1f s\n", seconds);
}

/* ---- Making ----------------------------------------------------------------- */

static int build(struct create *create, const struct sac_source *source, const char *out, bool mean,
                 struct sac_error *err)
{
    struct sac_build_options options = {.recipe = create->flags.recipe,
                                        .out = out,
                                        .shuffle = !create->keep_order,
                                        .mean = mean,
                                        .threads = create->flags.threads,
                                        .on_progress = on_progress,
                                        .on_skip = on_skip,
                                        .user = create};
    struct sac_build_report report;

    begin_progress(create);
    if (sac_recipe_turns(&create->flags.recipe, source))
        fprintf(stderr,
                "saccade: the planes of %s are R, G, B; as pictures in %s they will be read as "
                "B, G, R (--to lmdb --encoding none keeps R, G, B)\n",
                source->path, out);
    int rc = sac_build(source, &options, &report, err);
    if (rc == 0)
        print_report(create, out, &report);
    return rc;
}

/* A folder's sub-folders are classes: the next run would take what this one makes for
 * one. */
static int refuse_inside(const struct create *create, const struct sac_source *source,
                         struct sac_error *err)
{
    bool folders = strcmp(source->type->kind, "folder") == 0 && sac_sink_resumes(create->flags.to);
    char *folder = folders ? realpath(source->path, NULL) : NULL;
    char *copy = strdup(create->out), *above = copy ? realpath(dirname(copy), NULL) : NULL;
    size_t size = folder ? strlen(folder) : 0;
    bool inside = folder && above && strncmp(above, folder, size) == 0 &&
                  (above[size] == 0 || above[size] == '/' || size == 1);

    free(copy);
    free(above);
    free(folder);
    if (!inside)
        return 0;
    return sac_fail(err, SAC_EINVAL,
                    "%s is inside the source %s, where it would be a class; name a place outside",
                    create->out, source->path);
}

static int build_part(struct create *create, const struct sac_source *source, int part,
                      struct sac_error *err)
{
    char out[4096], name[16];

    if (snprintf(out, sizeof out, "%s/%s", create->out, sac_split_names[part]) >= (int)sizeof out)
        return sac_fail(err, SAC_EINVAL, "%.200s…: the path is too long", create->out);
    snprintf(name, sizeof name, "%s: ", sac_split_names[part]);
    create->part = name;
    int rc = build(create, source, out, create->is_mean_wanted && part == 0, err);
    create->part = "";
    return rc;
}

static int build_split(struct create *create, const struct sac_source *source,
                       const struct sac_split *split, int part, struct sac_error *err)
{
    struct sac_source *view = NULL;

    if (split->counts[part] == 0)
        return 0;
    int rc = sac_split_open(&view, split, source, part, err);
    if (rc == 0)
        rc = build_part(create, view, part, err);
    sac_source_free(view);
    return rc;
}

static int make_out(const struct create *create, struct sac_error *err)
{
    if (mkdir(create->out, 0777) < 0 && errno != EEXIST)
        return sac_fail_errno(err, errno, "the folder %s cannot be made", create->out);
    return 0;
}

static int build_parts(struct create *create, const struct sac_source *source,
                       struct sac_error *err)
{
    struct sac_split split = {0};
    int rc = sac_split_plan(&split, source, &create->split, err);

    if (rc == 0)
        rc = make_out(create, err);
    if (rc == 0 && split.classes < split.classes_before)
        fprintf(stderr, "saccade: %d of %d classes are left out: fewer than %" PRId64 " pictures\n",
                split.classes_before - split.classes, split.classes_before, create->split.min);
    for (int part = 0; rc == 0 && part < SAC_SPLIT_PARTS; part++)
        rc = build_split(create, source, &split, part, err);
    sac_split_done(&split);
    return rc;
}

/* As the source is divided. */
static int build_divided(struct create *create, const struct sac_divided *divided,
                         struct sac_error *err)
{
    int rc = 0;

    if (create->parts || create->split.min > 0 || create->split.max > 0)
        return sac_fail(err, SAC_EINVAL,
                        "--val, --test, --min and --max go with one set; the source is divided "
                        "already, or name one of its parts");
    rc = make_out(create, err);
    for (int part = 0; rc == 0 && part < SAC_DATA_PARTS; part++) {
        if (divided->part[part])
            rc = build_part(create, divided->part[part], part, err);
    }
    return rc;
}

/* A part of everything: classes that are too small go, large ones lose some. */
static int build_limited(struct create *create, const struct sac_source *source,
                         struct sac_error *err)
{
    struct sac_split_options options = create->split;
    struct sac_source *view = NULL;
    struct sac_split split = {0};

    options.share[0] = 1;
    int rc = sac_split_plan(&split, source, &options, err);
    if (rc == 0)
        rc = sac_split_open(&view, &split, source, 0, err);
    if (rc == 0)
        rc = build(create, view, create->out, create->is_mean_wanted, err);
    sac_source_free(view);
    sac_split_done(&split);
    return rc;
}

static int make(struct create *create, const struct sac_source *source, struct sac_error *err)
{
    int rc = refuse_inside(create, source, err);

    if (rc < 0)
        return rc;
    if (create->parts)
        return build_parts(create, source, err);
    if (create->split.min > 0 || create->split.max > 0)
        return build_limited(create, source, err);
    return build(create, source, create->out, create->is_mean_wanted, err);
}

/* ---- The command lines ------------------------------------------------------ */

static int take_part(struct create *create, int option, const char *value, struct sac_error *err)
{
    int part = option == SAC_DATASET_VAL ? 1 : 2;
    int rc = sac_dataset_part(part == 1 ? "--val" : "--test", value, &create->split.share[part],
                              &create->split.count[part], err);

    create->parts = true;
    return rc ? rc : 1;
}

static int take_limit(struct create *create, int option, const char *value, struct sac_error *err)
{
    int number = 0;
    int rc = sac_flag_int(option == SAC_DATASET_MIN ? "--min" : "--max", value, 1, INT32_MAX,
                          &number, err);

    *(option == SAC_DATASET_MIN ? &create->split.min : &create->split.max) = number;
    return rc ? rc : 1;
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct create *create = user;

    switch (option) {
    case FLAG_ORDER:
        create->keep_order = true;
        return 1;
    case FLAG_URL:
        create->url = value;
        return 1;
    case SAC_DATASET_VAL:
    case SAC_DATASET_TEST:
        return take_part(create, option, value, err);
    case SAC_DATASET_MIN:
    case SAC_DATASET_MAX:
        return take_limit(create, option, value, err);
    default:
        return sac_dataset_flags_take(&create->flags, option, value, err);
    }
}

static int parse(struct create *create, const struct option *options, int argc, char **argv,
                 bool *ret_help, struct sac_error *err)
{
    int rc = sac_flags_options(argc, argv, SAC_FLAGS_SHORT, options, take, create, ret_help, err);

    if (rc < 0 || *ret_help)
        return rc;
    int words = argc - optind, least = create->url ? 1 : 2;
    if (words < least || (create->url && words > 1))
        return sac_fail(err, SAC_EINVAL,
                        create->url ? "expected --url URL and one place to write to"
                                    : "expected a source and a place to write to");
    create->out = argv[argc - 1];
    return 0;
}

/* Training takes what the others leave; as counts, all of it. */
static int settle_parts(struct create *create, struct sac_error *err)
{
    struct sac_split_options *split = &create->split;
    bool counts = split->count[1] || split->count[2];

    split->seed = create->flags.recipe.seed;
    if (!create->parts)
        return 0;
    if (counts && (split->share[1] > 0 || split->share[2] > 0))
        return sac_fail(err, SAC_EINVAL, "--val and --test are both parts or both numbers");
    if (counts)
        return sac_fail(err, SAC_EINVAL,
                        "--val and --test take parts such as 25%%; for numbers of pictures a "
                        "class see saccade dataset split");
    if (split->share[1] + split->share[2] > 1)
        return sac_fail(err, SAC_EINVAL,
                        "--val and --test are %g %% together; expected at most 100",
                        100 * (split->share[1] + split->share[2]));
    split->share[0] = 1 - split->share[1] - split->share[2];
    if (split->min == 0)
        split->min = 2;
    return 0;
}

/* The list of what is fetched. */
static int fetch(struct create *create, char **ret_list, struct sac_error *err)
{
    struct sac_fetch_tree_options options = {.url = create->url,
                                             .out = create->out,
                                             .threads = create->flags.threads,
                                             .on_progress = on_fetch,
                                             .user = create};

    create->part = "fetched: ";
    begin_progress(create);
    int rc = sac_fetch_tree(&options, ret_list, err);
    create->part = "";
    return rc;
}

static int make_of(struct create *create, char *const *paths, int count, struct sac_error *err)
{
    struct sac_divided divided = {0};
    struct sac_source *source = NULL;
    bool in_folders = count == 1 && sac_sink_resumes(create->flags.to);
    int rc = in_folders ? sac_dataset_open_divided(&divided, &create->flags, paths[0], err) : 0;

    if (rc == 1) {
        rc = build_divided(create, &divided, err);
        sac_divided_done(&divided);
        return rc;
    }
    if (rc == 0)
        rc = sac_dataset_open(&source, &create->flags, paths, count, err);
    if (rc == 0)
        rc = make(create, source, err);
    sac_source_free(source);
    return rc;
}

static int run(struct create *create, char **argv, int argc, struct sac_error *err)
{
    char *paths[64], *fetched = NULL;
    int count = argc - optind - 1, rc = 0;

    create->terminal = isatty(STDERR_FILENO);
    if (create->url) {
        rc = fetch(create, &fetched, err);
        paths[0] = fetched;
        count = 1;
    } else if (count > 64) {
        rc = sac_fail(err, SAC_ELIMIT, "at most 64 files of CIFAR records, not %d", count);
    } else {
        memcpy(paths, argv + optind, (size_t)count * sizeof *paths);
    }
    if (rc == 0)
        rc = make_of(create, paths, count, err);
    free(fetched);
    return rc;
}

static int go(struct create *create, const struct option *options, const char *help, int argc,
              char **argv, int (*settle)(struct create *create, struct sac_error *err))
{
    struct sac_error err = {0};
    bool wants_help;

    create->part = "";
    if (parse(create, options, argc, argv, &wants_help, &err) < 0 ||
        (!wants_help && settle(create, &err) < 0))
        return sac_usage_error(create->command, "%s", err.text);
    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    return run(create, argv, argc, &err) < 0 ? sac_command_failed(&err) : 0;
}

static int settle_create(struct create *create, struct sac_error *err)
{
    struct sac_recipe *recipe = &create->flags.recipe;

    if (create->flags.to == 0)
        create->flags.to = SAC_SINK_LMDB;
    if (!sac_sink_resumes(create->flags.to))
        return sac_fail(err, SAC_EINVAL,
                        "--to: expected list, folder or lmdb; convert writes HDF5 and CIFAR files");
    if (recipe->encoding == SAC_ENCODING_KEEP)
        recipe->encoding = SAC_ENCODING_PNG;
    recipe->to = create->flags.to;
    return settle_parts(create, err);
}

int sac_dataset_create(int argc, char **argv)
{
    struct create create = {
        .command = "dataset create",
        .flags.recipe = {.fit = {.width = 256, .height = 256, .channels = 3}, .seed = 1},
        .is_mean_wanted = true};

    return go(&create, create_options, create_help, argc, argv, settle_create);
}

static int settle_convert(struct create *create, struct sac_error *err)
{
    struct sac_recipe *recipe = &create->flags.recipe;

    if (create->flags.to == 0)
        return sac_fail(err, SAC_EINVAL, "expected --to list, folder, lmdb, hdf5 or cifar");
    if (recipe->fit.width > 0 && recipe->fit.channels == 0)
        recipe->fit.channels = 3;
    recipe->to = create->flags.to;
    if (recipe->to == SAC_SINK_CIFAR && recipe->fit.channels == 0)
        recipe->fit.channels = 3;
    return 0;
}

int sac_dataset_convert(int argc, char **argv)
{
    struct create convert = {.command = "dataset convert",
                             .flags.recipe = {.fit = {.decode = SAC_DECODE_EXACT}},
                             .keep_order = true};

    return go(&convert, convert_options, convert_help, argc, argv, settle_convert);
}
