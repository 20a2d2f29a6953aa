/* saccade serve */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"
#include "cli/env_file.h"
#include "cli/flags.h"
#include "serve/server.h"

static const char help[] =
    "Usage: saccade serve --model DIR [--model DIR …] [options]\n"
    "       saccade serve DEPLOY MODEL [MEAN] LABELS [options]\n"
    "       saccade serve --env-file FILE [options]\n\n"
    "Answers POST /api/classify (a picture as the body, or multipart) with the likeliest\n"
    "labels. Without models, DEPLOY_PROTEXT, CAFFE_MODEL, MEAN and SYNSET_WORDS are taken from\n"
    "the environment, as GPU REST Engine's service sets them.\n\n"
    "  --listen HOST:PORT    where to listen (127.0.0.1:8000)\n"
    "  --allow-host NAME     one more Host name that a loopback server answers to\n"
    "  --env-file FILE       GPU REST Engine's /etc/default/gpurestengine\n"
    "  --workers N           workers of the CPU device, or decoders for GPUs (one a core)\n"
    "  --together N          cores that join on one picture while none else is there (all)\n"
    "  --queue N             pictures that may wait (a quarter second's worth, at most 512)\n"
    "  --drain-ms N          how long SIGTERM waits for what was accepted (30000)\n"
    "  --body-max BYTES      the largest body (16777216)\n"
    "  --connections N       the most connections (1024)\n"
    "  --connections-per-address N   the most of one client (128)\n"
    "  --decode-memory MB    what pictures may take while they are decoded, all together (512)\n\n";

enum {
    FLAG_LISTEN = SAC_FLAG_OWN,
    FLAG_ALLOW_HOST,
    FLAG_ENV_FILE,
    FLAG_WORKERS,
    FLAG_TOGETHER,
    FLAG_QUEUE,
    FLAG_DRAIN,
    FLAG_BODY_MAX,
    FLAG_CONNECTIONS,
    FLAG_PER_ADDRESS,
    FLAG_DECODE_MEMORY,
};

static const struct option long_options[] = {
    {"listen", required_argument, NULL, FLAG_LISTEN},
    {"allow-host", required_argument, NULL, FLAG_ALLOW_HOST},
    {"env-file", required_argument, NULL, FLAG_ENV_FILE},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"together", required_argument, NULL, FLAG_TOGETHER},
    {"queue", required_argument, NULL, FLAG_QUEUE},
    {"drain-ms", required_argument, NULL, FLAG_DRAIN},
    {"body-max", required_argument, NULL, FLAG_BODY_MAX},
    {"connections", required_argument, NULL, FLAG_CONNECTIONS},
    {"connections-per-address", required_argument, NULL, FLAG_PER_ADDRESS},
    {"decode-memory", required_argument, NULL, FLAG_DECODE_MEMORY},
    SAC_MODEL_FLAGS,
    {0}};

enum { MODELS_MAX = 64, HOSTS_MAX = 16, DEVICES_MAX = 16 };

struct serve {
    struct sac_model_flags flags;
    const char *env_file;
    struct sac_env env;
    char host[256];
    const char *hosts[HOSTS_MAX];
    struct sac_service_options options;
    struct sac_model *models[MODELS_MAX];
    int model_count;
    struct sac_device *devices[DEVICES_MAX];
    int device_count;
    _Atomic(struct sac_service *) service; /* NULL until it can be stopped */
    pthread_t signals;
    bool has_signals;
};

/* "HOST:PORT", "[::1]:8000", ":8000" or "8000". */
static int parse_listen(struct serve *serve, const char *text, struct sac_error *err)
{
    const char *colon = strrchr(text, ':');
    const char *port = colon ? colon + 1 : text;
    size_t size = colon ? (size_t)(colon - text) : 0;

    if (!*port || port[strspn(port, "0123456789")])
        return sac_fail(err, SAC_EINVAL,
                        "--listen: expected HOST:PORT, [IPV6]:PORT or PORT, found \"%s\"", text);
    int rc = sac_flag_int("--listen", port, 0, 65535, &serve->options.http.port, err);
    if (rc)
        return rc;
    if (size > 1 && text[0] == '[' && text[size - 1] == ']') {
        text++;
        size -= 2;
    }
    if (size >= sizeof serve->host)
        return sac_fail(err, SAC_EINVAL, "--listen: the host name is too long");
    if (size > 0)
        snprintf(serve->host, sizeof serve->host, "%.*s", (int)size, text);
    return 0;
}

static int allow_host(struct serve *serve, const char *name, struct sac_error *err)
{
    if (serve->options.http.hosts_allowed_count == HOSTS_MAX)
        return sac_fail(err, SAC_ELIMIT, "--allow-host: at most %d names", HOSTS_MAX);
    serve->hosts[serve->options.http.hosts_allowed_count++] = name;
    return 0;
}

static int take_own(struct serve *serve, int option, const char *value, struct sac_error *err)
{
    struct sac_service_options *to = &serve->options;
    int bytes = 0, megabytes = 0, rc = 0;

    switch (option) {
    case FLAG_LISTEN:
        return parse_listen(serve, value, err);
    case FLAG_ALLOW_HOST:
        return allow_host(serve, value, err);
    case FLAG_ENV_FILE:
        serve->env_file = value;
        return 0;
    case FLAG_WORKERS:
        return sac_flag_int("--workers", value, 1, 64, &to->workers, err);
    case FLAG_TOGETHER:
        return sac_flag_int("--together", value, 1, SAC_TOGETHER_MAX, &to->together, err);
    case FLAG_QUEUE:
        return sac_flag_int("--queue", value, 1, 65536, &to->queue_max, err);
    case FLAG_DRAIN:
        return sac_flag_int("--drain-ms", value, 1, 3600000, &to->drain_ms, err);
    case FLAG_BODY_MAX:
        rc = sac_flag_int("--body-max", value, 1024, 1 << 30, &bytes, err);
        to->http.limits.body_bytes_max = (size_t)bytes;
        return rc;
    case FLAG_PER_ADDRESS:
        return sac_flag_int("--connections-per-address", value, 1, 1000000,
                            &to->http.limits.connections_per_address_max, err);
    case FLAG_DECODE_MEMORY:
        rc = sac_flag_int("--decode-memory", value, 1, 1 << 20, &megabytes, err);
        sac_image_set_memory_max((size_t)megabytes << 20);
        return rc;
    default:
        return sac_flag_int("--connections", value, 1, 1000000, &to->http.limits.connections_max,
                            err);
    }
}

/* DEPLOY MODEL [MEAN] LABELS. */
static int take_positional(struct sac_model_files *files, int count, char **words,
                           struct sac_error *err)
{
    if (count == 0)
        return 0;
    if (count != 3 && count != 4)
        return sac_fail(err, SAC_EINVAL, "expected DEPLOY MODEL [MEAN] LABELS, found %d file%s",
                        count, count == 1 ? "; a model directory goes behind --model" : "s");
    files->deploy = words[0];
    files->weights = words[1];
    files->mean = count == 4 ? words[2] : NULL;
    files->labels = words[count - 1];
    return 0;
}

/* The environment file, or the environment, where nothing else names a model. */
static int take_environment(struct serve *serve, struct sac_error *err)
{
    struct sac_model_files *files = &serve->flags.files;
    int rc = serve->env_file ? sac_env_load(&serve->env, serve->env_file, err)
                             : sac_env_from_environment(&serve->env, err);

    if (rc)
        return rc;
    if (!serve->env_file && !serve->env.deploy)
        return sac_fail(err, SAC_EINVAL,
                        "no model: expected --model DIR, or DEPLOY MODEL [MEAN] "
                        "LABELS, or --env-file FILE");
    if (!serve->env.deploy || !serve->env.weights || !serve->env.labels)
        return sac_fail(err, SAC_EINVAL, "%s: %s is not set",
                        serve->env_file ? serve->env_file : "the environment",
                        !serve->env.deploy    ? "DEPLOY_PROTEXT"
                        : !serve->env.weights ? "CAFFE_MODEL"
                                              : "SYNSET_WORDS");
    *files = (struct sac_model_files){.deploy = serve->env.deploy,
                                      .weights = serve->env.weights,
                                      .mean = serve->env.mean,
                                      .labels = serve->env.labels};
    return 0;
}

static int take(void *user, int option, const char *value, struct sac_error *err)
{
    struct serve *serve = user;
    int rc = sac_model_flags_take(&serve->flags, option, value, err);

    return rc ? rc : take_own(serve, option, value, err);
}

static int parse(struct serve *serve, int argc, char **argv, bool *ret_help, struct sac_error *err)
{
    int rc =
        sac_flags_options(argc, argv, SAC_FLAGS_SHORT, long_options, take, serve, ret_help, err);

    if (rc < 0 || *ret_help)
        return rc;
    rc = take_positional(&serve->flags.files, argc - optind, argv + optind, err);
    bool named = serve->flags.dir_count > 0 || serve->flags.files.deploy;
    if (rc == 0 && (serve->env_file || !named))
        rc = take_environment(serve, err);
    return rc;
}

static sigset_t stop_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

/* While models are loaded nothing has been accepted: the first one ends at once.
 * Then the first is a drain, and a second one ends at once. */
static void on_signal(struct serve *serve, int number, int seen)
{
    struct sac_service *service = atomic_load(&serve->service);

    if (seen > 0)
        _exit(128 + number);
    if (!service) {
        sac_log(SAC_LOG_INFO, "%s: stopped before it served", strsignal(number));
        _exit(0);
    }
    sac_log(SAC_LOG_INFO, "%s: finishing what was accepted", strsignal(number));
    sac_service_stop(service);
}

/* The thread may be cancelled while it waits only, never with the loop half woken. */
static void *wait_for_signals(void *user)
{
    sigset_t set = stop_signals();
    int number, before;

    for (int seen = 0; sigwait(&set, &number) == 0; seen++) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
        on_signal(user, number, seen);
        pthread_setcancelstate(before, NULL);
    }
    return NULL;
}

/* Before other threads start, so that all of them inherit the mask. */
static int start_signals(struct serve *serve, struct sac_error *err)
{
    sigset_t set = stop_signals();
    int number = pthread_sigmask(SIG_BLOCK, &set, NULL);

    if (number == 0)
        number = pthread_create(&serve->signals, NULL, wait_for_signals, serve);
    serve->has_signals = number == 0;
    return number ? sac_fail_errno(err, number, "the thread for signals") : 0;
}

static void end_signals(struct serve *serve)
{
    if (!serve->has_signals)
        return;
    pthread_cancel(serve->signals);
    pthread_join(serve->signals, NULL);
}

/* A shell's usual 1,024 descriptors are fewer than the connections we promise;
 * what the system grants beyond them only has to be asked for. */
static void raise_descriptor_limit(const struct serve *serve)
{
    struct rlimit limit;
    int wanted = serve->options.http.limits.connections_max;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && wanted > 0 && limit.rlim_cur < (rlim_t)wanted + 64)
        sac_log(SAC_LOG_WARNING,
                "--connections %d: the system lets this process open %llu files, some of which "
                "are not connections",
                wanted, (unsigned long long)limit.rlim_cur);
}

static int open_all(struct serve *serve, struct sac_error *err)
{
    int rc = sac_devices_open(serve->devices, DEVICES_MAX, &serve->device_count,
                              serve->flags.device, err);

    for (int i = 0; rc == 0 && i < serve->device_count; i++)
        sac_log(SAC_LOG_INFO, "device %s: %s", serve->devices[i]->info.name,
                serve->devices[i]->info.description);
    if (rc)
        return rc;
    rc = sac_model_flags_open(&serve->flags, serve->models, err);
    if (rc < 0)
        return rc;
    serve->model_count = rc;
    serve->options.models = serve->models;
    serve->options.model_count = serve->model_count;
    serve->options.devices = serve->devices;
    serve->options.device_count = serve->device_count;
    serve->options.http.host = serve->host;
    serve->options.http.hosts_allowed = serve->hosts;
    struct sac_service *service = NULL;
    rc = sac_service_new(&service, &serve->options, err);
    atomic_store(&serve->service, service);
    return rc;
}

static int run(struct serve *serve, struct sac_error *err)
{
    const char *bracket = strchr(serve->host, ':') ? "[" : "";

    for (int i = 0; i < serve->model_count; i++) {
        char why[160];
        enum sac_precision precision =
            sac_model_precision_why(serve->models[i], serve->devices[0], why, sizeof why);
        sac_log(SAC_LOG_INFO, "model %s: %d classes, in %s: %s", sac_model_name(serve->models[i]),
                sac_model_class_count(serve->models[i]), sac_precision_name(precision), why);
    }
    sac_log(SAC_LOG_INFO, "serving on http://%s%s%s:%d", bracket, serve->host, *bracket ? "]" : "",
            sac_service_port(serve->service));
    return sac_service_run(serve->service, err);
}

static void close_all(struct serve *serve)
{
    end_signals(serve);
    sac_service_free(serve->service);
    for (int i = 0; i < serve->model_count; i++)
        sac_model_unref(serve->models[i]);
    for (int i = 0; i < serve->device_count; i++)
        sac_device_close(serve->devices[i]);
    sac_env_done(&serve->env);
}

int sac_command_serve(int argc, char **argv)
{
    struct serve serve = {.flags = sac_model_flags_none(), .host = "127.0.0.1"};
    struct sac_error err = {0};
    bool wants_help = false;

    serve.options.http.port = 8000;
    int rc = parse(&serve, argc, argv, &wants_help, &err);
    if (wants_help) {
        printf("%s%s\nExample: saccade serve --model models/squeezenet --listen 0.0.0.0:8000\n",
               help, sac_model_flags_help);
        return 0;
    }
    if (rc) {
        sac_env_done(&serve.env);
        return sac_usage_error("serve", "%s", err.text);
    }
    raise_descriptor_limit(&serve);
    rc = start_signals(&serve, &err);
    if (rc == 0)
        rc = open_all(&serve, &err);
    if (rc == 0)
        rc = run(&serve, &err);
    close_all(&serve);
    return rc ? sac_command_failed(&err) : 0;
}
