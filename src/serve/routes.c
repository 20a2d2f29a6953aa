/* The table of routes, and those that say how the service is. */
#include <string.h>

#include "serve/service.h"
#include "serve/ui.h"

static void reply_static(struct sac_http_request *request, int status, const char *type,
                         const void *body, size_t size, const char *headers)
{
    const struct sac_http_response response = {.status = status,
                                               .content_type = type,
                                               .body = body,
                                               .body_size = size,
                                               .body_static = true,
                                               .headers = headers};

    sac_http_reply(request, &response);
}

static void null_route(struct sac_http_request *request, void *user)
{
    (void)user;
    reply_static(request, 200, "application/json", "{}", 2, NULL);
}

static void health(struct sac_http_request *request, void *user)
{
    static const char ok[] = "{\"status\":\"ok\"}\n";

    /* CUDA says of most errors that the process has to be started anew. */
    if (sac_service_is_hopeless(user))
        sac_http_reply_error(request, 503,
                             "no device is left and none comes back: restart this process");
    else
        reply_static(request, 200, "application/json", ok, sizeof ok - 1,
                     "Cache-Control: no-store\r\n");
}

static void ready(struct sac_http_request *request, void *user)
{
    static const char yes[] = "{\"status\":\"ready\"}\n";
    struct sac_service *service = user;

    if (atomic_load(&service->draining))
        sac_http_reply_error(request, 503, "the server is stopping");
    else if (sac_batcher_lanes_up(service->batcher) == 0)
        sac_http_reply_error(request, 503, "no device is left to run on");
    else
        reply_static(request, 200, "application/json", yes, sizeof yes - 1,
                     "Cache-Control: no-store\r\n");
}

/* The page and its two files come from here and may talk to here only. */
static const char page_headers[] =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cache-Control: no-cache\r\n";

static void page(struct sac_http_request *request, void *user)
{
    (void)user;
    reply_static(request, 200, "text/html; charset=utf-8", sac_ui_index_html,
                 sac_ui_index_html_size, page_headers);
}

static void page_script(struct sac_http_request *request, void *user)
{
    (void)user;
    reply_static(request, 200, "text/javascript; charset=utf-8", sac_ui_app_js, sac_ui_app_js_size,
                 page_headers);
}

static void page_style(struct sac_http_request *request, void *user)
{
    (void)user;
    reply_static(request, 200, "text/css; charset=utf-8", sac_ui_app_css, sac_ui_app_css_size,
                 page_headers);
}

static void no_icon(struct sac_http_request *request, void *user)
{
    (void)user;
    reply_static(request, 204, NULL, NULL, 0, "Cache-Control: max-age=86400\r\n");
}

const struct sac_http_route sac_service_routes[] = {
    {"GET", "/api/null", null_route},
    {"POST", "/api/classify", sac_route_classify},
    {"POST", "/api/models/*", sac_route_classify_model},
    {"POST", "/api", sac_route_singa},
    {"GET", "/api/models", sac_route_models},
    {"GET", "/metrics", sac_route_metrics},
    {"GET", "/healthz", health},
    {"GET", "/readyz", ready},
    {"GET", "/", page},
    {"GET", "/app.js", page_script},
    {"GET", "/app.css", page_style},
    {"GET", "/favicon.ico", no_icon},
};
const int sac_service_route_count = sizeof sac_service_routes / sizeof *sac_service_routes;
