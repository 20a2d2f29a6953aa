/* saccade devices */
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "cli/command.h"
#include "cli/flags.h"

static const char help[] = "Usage: saccade devices [--json]\n\n"
                           "What there is to run on, and what each device can do.\n\n"
                           "Example: saccade devices\n";

static const enum sac_precision precisions[] = {SAC_PRECISION_F32, SAC_PRECISION_TF32,
                                                SAC_PRECISION_F16, SAC_PRECISION_BF16,
                                                SAC_PRECISION_INT8};
enum { PRECISIONS = sizeof precisions / sizeof precisions[0] };

static void put_precisions(struct sac_buf *out, unsigned mask, const char *quote,
                           const char *between)
{
    const char *comma = "";

    for (int i = 0; i < PRECISIONS; i++) {
        if (!(mask & (1u << precisions[i])))
            continue;
        sac_buf_printf(out, "%s%s%s%s", comma, quote, sac_precision_name(precisions[i]), quote);
        comma = between;
    }
}

/* What GPUs that train together talk through. */
static void put_comm(struct sac_buf *out, const struct sac_device *device, bool json)
{
    struct sac_error why = {0};
    char library[64];

    if (!device->table->comm_library)
        return;
    int rc = device->table->comm_library(library, sizeof library, &why);
    const char *text = rc == 0 ? library : why.text;
    if (json) {
        sac_buf_printf(out, ",\"%s\":", rc == 0 ? "ranks" : "no_ranks");
        sac_buf_put_json(out, text, strlen(text));
    } else
        sac_buf_printf(out, "; %s", text);
}

static void put_device(struct sac_buf *out, const struct sac_device *device, bool json)
{
    const struct sac_device_info *info = &device->info;

    if (json) {
        sac_buf_puts(out, "{\"name\":");
        sac_buf_put_json(out, info->name, strlen(info->name));
        sac_buf_puts(out, ",\"description\":");
        sac_buf_put_json(out, info->description, strlen(info->description));
        sac_buf_printf(out, ",\"streams\":%d,\"precisions\":[", info->streams);
        put_precisions(out, info->precisions, "\"", ",");
        sac_buf_puts(out, "]");
        put_comm(out, device, json);
        sac_buf_puts(out, "}");
    } else {
        sac_buf_printf(out, "%-8s %s; %d streams; ", info->name, info->description, info->streams);
        put_precisions(out, info->precisions, "", ", ");
        put_comm(out, device, json);
        sac_buf_puts(out, "\n");
    }
}

/* A device that cannot be used is listed with the reason. */
static void put_missing(struct sac_buf *out, const char *name, const struct sac_error *why,
                        bool json)
{
    if (json) {
        sac_buf_puts(out, "{\"name\":");
        sac_buf_put_json(out, name, strlen(name));
        sac_buf_puts(out, ",\"missing\":");
        sac_buf_put_json(out, why->text, strlen(why->text));
        sac_buf_puts(out, "}");
    } else {
        sac_buf_printf(out, "%-8s none: %s\n", name, why->text);
    }
}

static void put_named(struct sac_buf *out, const char *name, bool json)
{
    struct sac_error why = {0};
    struct sac_device *device;

    if (sac_device_open(&device, name, &why) != 0) {
        put_missing(out, name, &why, json);
        return;
    }
    put_device(out, device, json);
    sac_device_close(device);
}

static void put_cuda(struct sac_buf *out, bool json)
{
    struct sac_error why = {0};
    char name[32];
    int count;

    if (sac_device_cuda_count(&count, &why) != 0) {
        sac_buf_puts(out, json ? "," : "");
        put_missing(out, "cuda", &why, json);
        return;
    }
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "cuda:%d", i);
        sac_buf_puts(out, json ? "," : "");
        put_named(out, name, json);
    }
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    (void)option; /* there is one */
    (void)value;
    (void)err;
    *(bool *)user = true;
    return 0;
}

int sac_command_devices(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, SAC_FLAG_OWN}, {"help", no_argument, NULL, SAC_FLAG_HELP}, {0}};
    struct sac_buf out = {0};
    struct sac_error err = {0};
    bool json = false, wants_help;

    if (sac_flags_parse(argc, argv, options, take, &json, &wants_help, &err) < 0)
        return sac_usage_error("devices", "%s", err.text);
    if (wants_help) {
        fputs(help, stdout);
        return 0;
    }
    sac_buf_puts(&out, json ? "[" : "");
    put_named(&out, "cpu", json);
    put_cuda(&out, json);
    sac_buf_puts(&out, json ? "]\n" : "");
    fwrite(out.data, 1, out.len, stdout);
    sac_buf_done(&out);
    return 0;
}
