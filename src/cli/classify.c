/* saccade classify */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "cli/pictures.h"
#include "cli/pool.h"
#include "cli/resume.h"
#include "model/answer.h"

static const char help[] = "Usage: saccade classify --model DIR [options] IMAGE|FOLDER|LIST …\n\n"
                           "Prints the likeliest labels of each picture, in the order given.\n\n"
                           "  --json            one JSON object a line\n"
                           "  --csv             one row a picture\n"
                           "  -o, --output F    write there; what F already has is not done again\n"
                           "  --workers N       threads (one a core)\n\n";

enum { FLAG_JSON = SAC_FLAG_OWN, FLAG_CSV, FLAG_WORKERS };

static const struct option long_options[] = {{"json", no_argument, NULL, FLAG_JSON},
                                             {"csv", no_argument, NULL, FLAG_CSV},
                                             {"output", required_argument, NULL, 'o'},
                                             {"workers", required_argument, NULL, FLAG_WORKERS},
                                             SAC_MODEL_FLAGS,
                                             {0}};

enum style { STYLE_TEXT, STYLE_JSON, STYLE_CSV };

struct classify {
    struct sac_model_flags flags;
    enum style style;
    const char *output;
    int workers;
    FILE *out;
    bool many;     /* more than one picture: text output names each */
    bool progress; /* standard error is a terminal and the answers go elsewhere */
    struct sac_engine *engine;
    struct sac_buf line;
    size_t given, failed, total;
    int write_error; /* errno of the first failed write */
};

/* Output, a picture at a time. */

static void put_text(struct classify *c, const struct sac_pool_picture *picture)
{
    const struct sac_model *model = sac_engine_model(c->engine);

    if (c->many)
        sac_buf_printf(&c->line, "%s\n", picture->path);
    for (int i = 0; i < sac_engine_topk(c->engine); i++)
        sac_buf_printf(&c->line, "%.4f %s\n", (double)picture->pairs[i].value,
                       sac_model_label(model, picture->pairs[i].index));
    if (c->many)
        sac_buf_puts(&c->line, "\n");
}

static void put_json(struct classify *c, const struct sac_pool_picture *picture)
{
    sac_buf_puts(&c->line, "{\"file\":");
    sac_buf_put_json(&c->line, picture->path, strlen(picture->path));
    if (picture->err.code) {
        sac_buf_puts(&c->line, ",\"error\":");
        sac_buf_put_json(&c->line, picture->err.text, strlen(picture->err.text));
    } else {
        sac_buf_puts(&c->line, ",\"predictions\":");
        sac_answer_put_json(&c->line, sac_engine_model(c->engine), picture->pairs,
                            sac_engine_topk(c->engine));
    }
    sac_buf_puts(&c->line, "}\n");
}

static void put_csv(struct classify *c, const struct sac_pool_picture *picture)
{
    const struct sac_model *model = sac_engine_model(c->engine);
    bool failed = picture->err.code != 0;

    sac_csv_put(&c->line, picture->path);
    sac_buf_puts(&c->line, ",");
    if (failed)
        sac_csv_put(&c->line, picture->err.text);
    for (int i = 0; i < sac_engine_topk(c->engine); i++) {
        sac_buf_puts(&c->line, ",");
        if (!failed)
            sac_csv_put(&c->line, sac_model_label(model, picture->pairs[i].index));
        sac_buf_puts(&c->line, ",");
        if (!failed)
            sac_buf_printf(&c->line, "%.4f", (double)picture->pairs[i].value);
    }
    sac_buf_puts(&c->line, "\n");
}

static void put_csv_head(const struct classify *c, struct sac_buf *out)
{
    sac_buf_puts(out, "file,error");
    for (int i = 1; i <= sac_engine_topk(c->engine); i++)
        sac_buf_printf(out, ",label_%d,confidence_%d", i, i);
    sac_buf_put(out, "\n", 2); /* a text, NUL and all */
    out->len--;
}

static void flush_line(struct classify *c)
{
    if (fwrite(c->line.data, 1, c->line.len, c->out) != c->line.len && !c->write_error)
        c->write_error = errno ? errno : EIO;
    sac_buf_clear(&c->line);
}

static void on_result(const struct sac_pool_picture *picture, void *user)
{
    struct classify *c = user;

    c->given++;
    c->failed += picture->err.code != 0;
    if (picture->err.code && c->style == STYLE_TEXT)
        fprintf(stderr, "saccade: %s\n", picture->err.text);
    else if (c->style == STYLE_TEXT)
        put_text(c, picture);
    else if (c->style == STYLE_JSON)
        put_json(c, picture);
    else
        put_csv(c, picture);
    flush_line(c);
    if (c->progress && (c->given % 16 == 0 || c->given == c->total))
        fprintf(stderr, "\r%zu of %zu pictures%s", c->given, c->total,
                c->given == c->total ? "\n" : "");
}

static int open_output(struct classify *c, struct sac_pictures *pictures, struct sac_error *err)
{
    struct sac_buf head = {0};

    c->out = stdout;
    if (!c->output)
        return 0;
    if (c->style == STYLE_CSV)
        put_csv_head(c, &head);
    int rc = head.failed ? sac_fail(err, SAC_ENOMEM, "out of memory") : 0;
    if (rc == 0)
        rc = sac_resume_open(&c->out, c->output, (const char *)head.data, pictures, err);
    sac_buf_done(&head);
    return rc;
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct classify *c = user;

    switch (option) {
    case FLAG_JSON:
        c->style = STYLE_JSON;
        return 0;
    case FLAG_CSV:
        c->style = STYLE_CSV;
        return 0;
    case 'o':
        c->output = value;
        return 0;
    case FLAG_WORKERS:
        return sac_flag_int("--workers", value, 1, 64, &c->workers, err);
    default:
        return sac_model_flags_take(&c->flags, option, value, err);
    }
}

static int parse(struct classify *c, int argc, char **argv, bool *ret_help, struct sac_error *err)
{
    int rc =
        sac_flags_options(argc, argv, SAC_FLAGS_SHORT "o:", long_options, take, c, ret_help, err);

    if (rc < 0 || *ret_help)
        return rc;
    if (optind == argc)
        return sac_fail(err, SAC_EINVAL, "expected pictures, folders or lists");
    if (c->flags.dir_count > 1)
        return sac_fail(err, SAC_EINVAL, "expected one model");
    if (c->output && c->style == STYLE_TEXT)
        return sac_fail(err, SAC_EINVAL, "--output goes with --json or --csv");
    return 0;
}

static int classify_all(struct classify *c, struct sac_pictures *pictures, struct sac_error *err)
{
    c->total = pictures->count;
    c->many = pictures->count > 1;
    c->progress = isatty(STDERR_FILENO) && !isatty(fileno(c->out)) && c->many;
    if (c->style == STYLE_CSV && !c->output)
        put_csv_head(c, &c->line);
    int rc = sac_pool_classify(c->engine, c->workers, pictures->paths, pictures->count, on_result,
                               c, err);
    if (fflush(c->out) != 0 && !c->write_error)
        c->write_error = errno;
    if (rc == 0 && c->write_error)
        rc = sac_fail_errno(err, c->write_error, "%s", c->output ? c->output : "standard output");
    return rc;
}

static int run(struct classify *c, int argc, char **argv, struct sac_error *err)
{
    struct sac_pictures pictures = {0};
    struct sac_model *model[64] = {0};
    struct sac_device *device = NULL;
    int rc = 0;

    for (int i = optind; rc == 0 && i < argc; i++)
        rc = sac_pictures_add(&pictures, argv[i], err);
    if (rc == 0)
        rc = sac_device_open(&device, c->flags.device, err);
    if (rc == 0)
        rc = sac_model_flags_open(&c->flags, model, err);
    if (rc >= 0)
        rc = sac_engine_new(&c->engine, model[0], device, 0, 0, err);
    if (rc == 0)
        rc = open_output(c, &pictures, err);
    if (rc == 0)
        rc = classify_all(c, &pictures, err);
    if (c->out && c->out != stdout)
        fclose(c->out);
    sac_buf_done(&c->line);
    sac_engine_free(c->engine);
    sac_model_unref(model[0]);
    sac_device_close(device);
    sac_pictures_done(&pictures);
    return rc;
}

int sac_command_classify(int argc, char **argv)
{
    struct classify c = {.flags = sac_model_flags_none(), .workers = sac_cpu_count()};
    struct sac_error err = {0};
    bool wants_help = false;
    int rc = parse(&c, argc, argv, &wants_help, &err);

    if (wants_help) {
        printf("%s%s\nExample: saccade classify --model models/squeezenet --json photos/ > "
               "answers.jsonl\n",
               help, sac_model_flags_help);
        return 0;
    }
    if (rc)
        return sac_usage_error("classify", "%s", err.text);
    rc = run(&c, argc, argv, &err);
    if (rc)
        return sac_command_failed(&err);
    return c.failed ? 1 : 0;
}
