/* `saccade bench`: load on a user's own server, and what it answered. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "base/buf.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/flags.h"
#include "cli/load.h"

enum { LIST_MAX = 1024 };
static const size_t body_bytes_max = (size_t)64 << 20;

static const char usage_text[] =
    "Usage: saccade bench [--rate R | --poisson R | --closed] [option …] URL\n"
    "\n"
    "Sends requests to an HTTP server and reports how it answered. Requests begin when\n"
    "they are due, answered or not, and a latency counts from then: a server that stalls\n"
    "is seen by every request that fell due meanwhile.\n"
    "\n"
    "  --rate R           R requests a second, evenly spaced (default: 100)\n"
    "  --poisson R        R a second on average, at random (a Poisson process)\n"
    "  --closed           each connection sends when it has its answer\n"
    "  --connections N    most requests in flight (default: 128; with --closed: 1)\n"
    "  --duration S       seconds (default: 10)\n"
    "  --warmup S         the first S seconds are sent, not counted (default: 0)\n"
    "  --requests N       stop after N requests\n"
    "  --body FILE        the request's body; repeated: in turn\n"
    "  --method M         default: POST with a body, else GET\n"
    "  --header 'N: V'    one more header line; may be repeated\n"
    "  --timeout-ms MS    a request is given up after (default: 10000)\n"
    "  --slo-ms MS        count the 2xx answers within MS: the goodput\n"
    "  --bind ADDRESS     local address; repeated: connections take them in turn\n"
    "  --seed N           of --poisson (default: 1)\n"
    "  --json             one JSON object instead of lines\n"
    "\n"
    "Example: saccade bench --poisson 200 --duration 30 --slo-ms 15 --body cat.jpg \\\n"
    "             http://127.0.0.1:8000/api/classify\n"
    "\n"
    "Exit status: 0, or 1 when no request was answered, or 2 for a wrong command line.\n";

enum option_id {
    OPT_RATE = 1,
    OPT_POISSON,
    OPT_CLOSED,
    OPT_CONNECTIONS,
    OPT_DURATION,
    OPT_WARMUP,
    OPT_REQUESTS,
    OPT_BODY,
    OPT_METHOD,
    OPT_HEADER,
    OPT_TIMEOUT,
    OPT_SLO,
    OPT_BIND,
    OPT_SEED,
    OPT_JSON,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"rate", required_argument, NULL, OPT_RATE},
    {"poisson", required_argument, NULL, OPT_POISSON},
    {"closed", no_argument, NULL, OPT_CLOSED},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"duration", required_argument, NULL, OPT_DURATION},
    {"warmup", required_argument, NULL, OPT_WARMUP},
    {"requests", required_argument, NULL, OPT_REQUESTS},
    {"body", required_argument, NULL, OPT_BODY},
    {"method", required_argument, NULL, OPT_METHOD},
    {"header", required_argument, NULL, OPT_HEADER},
    {"timeout-ms", required_argument, NULL, OPT_TIMEOUT},
    {"slo-ms", required_argument, NULL, OPT_SLO},
    {"bind", required_argument, NULL, OPT_BIND},
    {"seed", required_argument, NULL, OPT_SEED},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

struct bench {
    struct sac_load_options load;
    struct sac_load_result result;
    const char *headers[LIST_MAX];
    const char *sources[LIST_MAX];
    struct sac_load_body bodies[LIST_MAX];
    double connections, requests, seed; /* as given, before they are made integers */
    double duration_s, warmup_s, timeout_ms, slo_ms;
    int paces; /* how many of the three were given */
    bool json, help;
};

static int number(double *ret, const char *text, const char *name, double least, double most,
                  struct sac_error *err)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= least && value <= most))
        return sac_fail(err, SAC_EINVAL, "--%s %s: expected a number from %g to %g", name, text,
                        least, most);
    *ret = value;
    return 0;
}

static int whole_number(double *ret, const char *text, const char *name, double least, double most,
                        struct sac_error *err)
{
    if (text[strspn(text, "0123456789")])
        return sac_fail(err, SAC_EINVAL, "--%s %s: expected a whole number", name, text);
    return number(ret, text, name, least, most, err);
}

static int add_text(const char **list, int *count, const char *text, const char *name,
                    struct sac_error *err)
{
    if (*count == LIST_MAX)
        return sac_fail(err, SAC_ELIMIT, "--%s: more than %d of them", name, LIST_MAX);
    list[(*count)++] = text;
    return 0;
}

static int add_header(struct bench *bench, const char *text, struct sac_error *err)
{
    const char *colon = strchr(text, ':');

    if (!colon || colon == text || strpbrk(text, "\r\n"))
        return sac_fail(err, SAC_EINVAL, "--header %s: expected 'Name: value'", text);
    return add_text(bench->headers, &bench->load.header_count, text, "header", err);
}

static int add_body(struct bench *bench, const char *path, struct sac_error *err)
{
    uint8_t *bytes;
    size_t size;
    int rc;

    if (bench->load.body_count == LIST_MAX)
        return sac_fail(err, SAC_ELIMIT, "--body: more than %d of them", LIST_MAX);
    rc = sac_file_read(path, body_bytes_max, &bytes, &size, err);
    if (rc == 0)
        bench->bodies[bench->load.body_count++] = (struct sac_load_body){bytes, size};
    return rc;
}

static int set_pace(struct bench *bench, enum sac_load_pace pace, const char *rate,
                    const char *name, struct sac_error *err)
{
    if (++bench->paces > 1)
        return sac_fail(err, SAC_EINVAL, "--rate, --poisson and --closed: one of them");
    bench->load.pace = pace;
    return rate ? number(&bench->load.rate, rate, name, 1e-3, 1e7, err) : 0;
}

static int set_method(struct bench *bench, const char *method, struct sac_error *err)
{
    if (!*method || method[strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")])
        return sac_fail(err, SAC_EINVAL, "--method %s: expected a name like GET", method);
    bench->load.method = method;
    return 0;
}

static int set_option(struct bench *bench, int option, const char *name, struct sac_error *err)
{
    switch (option) {
    case OPT_RATE:
        return set_pace(bench, SAC_LOAD_UNIFORM, optarg, name, err);
    case OPT_POISSON:
        return set_pace(bench, SAC_LOAD_POISSON, optarg, name, err);
    case OPT_CLOSED:
        return set_pace(bench, SAC_LOAD_CLOSED, NULL, name, err);
    case OPT_CONNECTIONS:
        return whole_number(&bench->connections, optarg, name, 1, SAC_LOAD_CONNECTIONS_MAX, err);
    case OPT_DURATION:
        return number(&bench->duration_s, optarg, name, 1e-3, 1e6, err);
    case OPT_WARMUP:
        return number(&bench->warmup_s, optarg, name, 0, 1e6, err);
    case OPT_REQUESTS:
        return whole_number(&bench->requests, optarg, name, 1, 1e15, err);
    case OPT_BODY:
        return add_body(bench, optarg, err);
    case OPT_METHOD:
        return set_method(bench, optarg, err);
    case OPT_HEADER:
        return add_header(bench, optarg, err);
    case OPT_TIMEOUT:
        return number(&bench->timeout_ms, optarg, name, 1, 1e9, err);
    case OPT_SLO:
        return number(&bench->slo_ms, optarg, name, 1e-3, 1e9, err);
    case OPT_BIND:
        return add_text(bench->sources, &bench->load.source_count, optarg, name, err);
    case OPT_SEED:
        return whole_number(&bench->seed, optarg, name, 0, 0x1p53, err);
    case OPT_JSON:
        bench->json = true;
        return 0;
    case OPT_HELP:
        bench->help = true;
        return 0;
    }
    return 0;
}

static void settle(struct bench *bench)
{
    struct sac_load_options *load = &bench->load;

    if (bench->connections == 0)
        bench->connections = load->pace == SAC_LOAD_CLOSED ? 1 : 128;
    load->connections = (int)bench->connections;
    load->requests_max = (uint64_t)bench->requests;
    load->seed = (uint64_t)bench->seed;
    load->duration_ns = (uint64_t)llround(bench->duration_s * 1e9);
    load->warmup_ns = (uint64_t)llround(bench->warmup_s * 1e9);
    load->timeout_ns = (uint64_t)llround(bench->timeout_ms * 1e6);
    load->slo_ns = (uint64_t)llround(bench->slo_ms * 1e6);
    load->headers = bench->headers;
    load->bodies = bench->bodies;
    load->sources = bench->sources;
}

static int parse(struct bench *bench, int argc, char **argv, struct sac_error *err)
{
    int option, at = 0, rc = 0;

    bench->load.rate = 100;
    bench->duration_s = 10;
    bench->timeout_ms = 10000;
    bench->seed = 1;
    optind = 0;
    while (rc == 0 &&
           (option = getopt_long(argc, argv, SAC_FLAGS_SHORT "h", long_options, &at)) != -1)
        rc = option == '?' || option == ':'
                 ? sac_flag_refused(option, argv, err)
                 : set_option(bench, option == 'h' ? OPT_HELP : option, long_options[at].name, err);
    if (rc != 0 || bench->help)
        return rc;
    if (argc - optind != 1)
        return sac_fail(err, SAC_EINVAL, "expected one URL, found %d", argc - optind);
    bench->load.url = argv[optind];
    settle(bench);
    return 0;
}

static double per_second(uint64_t count, uint64_t ns)
{
    return ns ? (double)count * 1e9 / (double)ns : 0;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static uint64_t errors_of(const struct sac_load_result *result)
{
    return result->connect_failed + result->broken + result->malformed + result->timed_out;
}

static void print_latency(const char *title, const struct sac_histogram *latency)
{
    if (latency->count == 0)
        return;
    printf("%-10sp50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f ms\n", title,
           ms(sac_histogram_percentile(latency, 0.5)), ms(sac_histogram_percentile(latency, 0.9)),
           ms(sac_histogram_percentile(latency, 0.99)),
           ms(sac_histogram_percentile(latency, 0.999)), ms(latency->max));
}

static void print_pace(const struct sac_load_options *load)
{
    static const char *const words[] = {
        [SAC_LOAD_UNIFORM] = "evenly spaced", [SAC_LOAD_POISSON] = "at random (Poisson)"};

    if (load->pace == SAC_LOAD_CLOSED)
        printf("%s\n%d connections, each sending when it has its answer, %g s\n", load->url,
               load->connections, (double)load->duration_ns / 1e9);
    else
        printf("%s\n%g a second, %s, %g s, at most %d in flight\n", load->url, load->rate,
               words[load->pace], (double)load->duration_ns / 1e9, load->connections);
}

static void print_lines(const struct bench *bench)
{
    const struct sac_load_result *result = &bench->result;

    print_pace(&bench->load);
    printf("answered  %llu of %llu, %.1f a second", (unsigned long long)result->answered,
           (unsigned long long)result->due, per_second(result->answered, result->span_ns));
    if (result->waited)
        printf("; %llu waited for a connection", (unsigned long long)result->waited);
    printf("\nstatus   ");
    for (int i = 0; i < 600; i++)
        if (result->status[i])
            printf(" %d: %llu", i, (unsigned long long)result->status[i]);
    printf("\n");
    print_latency("2xx", &result->latency);
    print_latency("refused", &result->refused_latency);
    if (errors_of(result))
        printf("errors    %llu not connected, %llu broken off, %llu malformed, %llu timed out\n",
               (unsigned long long)result->connect_failed, (unsigned long long)result->broken,
               (unsigned long long)result->malformed, (unsigned long long)result->timed_out);
    if (result->different)
        printf("different %llu answers are not the first one's\n",
               (unsigned long long)result->different);
    if (bench->load.slo_ns)
        printf("goodput   %.1f a second within %g ms: %.2f %% of what was due\n",
               per_second(result->good, result->due_ns), ms(bench->load.slo_ns),
               result->due ? 100.0 * (double)result->good / (double)result->due : 0);
}

static void put_latency(struct sac_buf *out, const char *name, const struct sac_histogram *latency)
{
    sac_buf_printf(
        out,
        ",\"%s\":{\"count\":%llu,\"mean\":%.6f,\"p50\":%.6f,\"p90\":%.6f,"
        "\"p99\":%.6f,\"p99.9\":%.6f,\"min\":%.6f,\"max\":%.6f}",
        name, (unsigned long long)latency->count, sac_histogram_mean(latency) / 1e6,
        ms(sac_histogram_percentile(latency, 0.5)), ms(sac_histogram_percentile(latency, 0.9)),
        ms(sac_histogram_percentile(latency, 0.99)), ms(sac_histogram_percentile(latency, 0.999)),
        ms(latency->min), ms(latency->max));
}

static void put_status(struct sac_buf *out, const struct sac_load_result *result)
{
    const char *comma = "";

    sac_buf_puts(out, ",\"status\":{");
    for (int i = 0; i < 600; i++) {
        if (!result->status[i])
            continue;
        sac_buf_printf(out, "%s\"%d\":%llu", comma, i, (unsigned long long)result->status[i]);
        comma = ",";
    }
    sac_buf_puts(out, "}");
}

static void put_counts(struct sac_buf *out, const struct sac_load_result *result)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"due", result->due},
        {"waited", result->waited},
        {"answered", result->answered},
        {"ok", result->ok},
        {"refused", result->refused},
        {"different", result->different},
        {"connect_failed", result->connect_failed},
        {"broken", result->broken},
        {"malformed", result->malformed},
        {"timed_out", result->timed_out},
        {"bytes_in", result->bytes_in},
    };

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        sac_buf_printf(out, ",\"%s\":%llu", counts[i].name, (unsigned long long)counts[i].value);
}

static int print_json(const struct bench *bench)
{
    static const char *const paces[] = {"uniform", "poisson", "closed"};
    const struct sac_load_result *result = &bench->result;
    struct sac_buf out = {0};
    bool written;

    sac_buf_puts(&out, "{\"url\":");
    sac_buf_put_json(&out, bench->load.url, strlen(bench->load.url));
    sac_buf_printf(&out, ",\"pace\":\"%s\",\"connections\":%d", paces[bench->load.pace],
                   bench->load.connections);
    if (bench->load.pace != SAC_LOAD_CLOSED)
        sac_buf_printf(&out, ",\"rate\":%g", bench->load.rate);
    sac_buf_printf(&out, ",\"seconds\":%.6f,\"answered_per_second\":%.3f",
                   (double)result->span_ns / 1e9, per_second(result->answered, result->span_ns));
    put_counts(&out, result);
    put_status(&out, result);
    put_latency(&out, "latency_ms", &result->latency);
    put_latency(&out, "refused_latency_ms", &result->refused_latency);
    if (bench->load.slo_ns)
        sac_buf_printf(&out, ",\"slo_ms\":%g,\"good\":%llu,\"goodput_per_second\":%.3f",
                       ms(bench->load.slo_ns), (unsigned long long)result->good,
                       per_second(result->good, result->due_ns));
    sac_buf_puts(&out, "}\n");
    written = !out.failed && fwrite(out.data, 1, out.len, stdout) == out.len;
    sac_buf_done(&out);
    return written && fflush(stdout) == 0 ? 0 : 1;
}

/* A connection is a descriptor; the soft limit is often lower than need be. */
static void allow_descriptors(int connections)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)connections + 64;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int measure(struct bench *bench, struct sac_error *err)
{
    int status = 0;

    allow_descriptors(bench->load.connections);
    int rc = sac_load_run(&bench->result, &bench->load, err);
    if (rc != 0)
        return rc == SAC_EINVAL ? EXIT_USAGE : 1;
    if (bench->json)
        status = print_json(bench);
    else
        print_lines(bench);
    return bench->result.answered > 0 ? status : 1;
}

int sac_command_bench(int argc, char **argv)
{
    struct bench *bench = calloc(1, sizeof *bench);
    struct sac_error err = {0};
    int status = EXIT_USAGE;

    if (!bench)
        return 1;
    if (parse(bench, argc, argv, &err) == 0) {
        if (bench->help) {
            fputs(usage_text, stdout);
            status = 0;
        } else {
            status = measure(bench, &err);
        }
    }
    if (err.code)
        status = status == EXIT_USAGE ? sac_usage_error("bench", "%s", err.text)
                                      : sac_command_failed(&err);
    for (int i = 0; i < bench->load.body_count; i++)
        free((void *)bench->bodies[i].bytes);
    free(bench);
    return status;
}
