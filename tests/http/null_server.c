/*
 * The smallest server there is: GET /null answers at once from the loop, POST
 * /null takes a body, GET /later answers from another thread. For measuring
 * what a request costs without a model behind it, and for trying by hand.
 *
 * null_server [port]; prints its port, ends on SIGTERM.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/server.h"

static void answer(struct sac_http_request *request, void *user)
{
    static const char body[] = "{}\n";

    (void)user;
    sac_http_reply(request, &(struct sac_http_response){.status = 200,
                                                        .content_type = "application/json",
                                                        .body = body,
                                                        .body_size = sizeof body - 1,
                                                        .body_static = true});
}

static void *answer_on_thread(void *user)
{
    answer(user, NULL);
    return NULL;
}

static void answer_later(struct sac_http_request *request, void *user)
{
    pthread_t thread;

    (void)user;
    if (pthread_create(&thread, NULL, answer_on_thread, request) == 0)
        pthread_detach(thread);
    else
        sac_http_reply_error(request, 503, "no thread");
}

static void *stop_on_signal(void *user)
{
    sigset_t set;
    int number;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigwait(&set, &number);
    sac_http_server_stop(user, 5000);
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct sac_http_route routes[] = {
        {"GET", "/null", answer, NULL, 0},
        {"POST", "/null", answer, NULL, 0},
        {"GET", "/later", answer_later, NULL, 0},
    };
    struct sac_http_options options = {.host = "127.0.0.1",
                                       .port = argc > 1 ? atoi(argv[1]) : 0,
                                       .routes = routes,
                                       .route_count = 3};
    struct sac_http_server *server = NULL;
    struct sac_error err = {0};
    pthread_t thread;
    sigset_t set;

    options.limits.connections_per_address_max = 1024;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (sac_http_server_new(&server, &options, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("%d\n", sac_http_server_port(server));
    fflush(stdout);
    pthread_create(&thread, NULL, stop_on_signal, server);
    int rc = sac_http_server_run(server, &err);
    pthread_join(thread, NULL);
    sac_http_server_free(server);
    return rc == 0 ? 0 : 1;
}
