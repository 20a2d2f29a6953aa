#include "http/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <arpa/inet.h>

int sac_routes_make(struct sac_http_server *server, struct sac_error *err)
{
    int count = server->options.route_count;

    server->routes = calloc((size_t)count + 1, sizeof *server->routes);
    if (!server->routes)
        return sac_fail(err, SAC_ENOMEM, "the HTTP server: out of memory");
    for (int i = 0; i < count; i++) {
        const struct sac_http_route *route = &server->options.routes[i];
        size_t size = strlen(route->path);
        bool is_prefix = size >= 2 && strcmp(route->path + size - 2, "/*") == 0;
        server->routes[i] = (struct sac_route){route, size - is_prefix, is_prefix};
    }
    return 0;
}

/* How long a path the route matched; 0: not at all. Exact beats any prefix. */
static size_t match(const struct sac_route *route, const char *path, size_t path_size)
{
    bool fits = route->is_prefix ? route->size <= path_size : route->size == path_size;

    if (!fits || memcmp(route->route->path, path, route->size) != 0)
        return 0;
    return route->is_prefix ? route->size : SIZE_MAX;
}

static bool takes(const struct sac_http_route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

enum sac_route_result sac_route_find(const struct sac_http_server *server, const char *method,
                                     const char *path, const struct sac_http_route **ret)
{
    size_t path_size = strlen(path), best = 0;
    bool known = false;

    for (int i = 0; i < server->options.route_count && best < SIZE_MAX; i++) {
        const struct sac_http_route *route = server->routes[i].route;
        size_t length = match(&server->routes[i], path, path_size);
        known |= length > 0;
        if (length > best && takes(route, method)) {
            best = length;
            *ret = route;
        }
    }
    return best > 0 ? SAC_ROUTE_FOUND : known ? SAC_ROUTE_NO_METHOD : SAC_ROUTE_NO_PATH;
}

static void append_method(char *out, size_t size, const char *method)
{
    size_t used = strlen(out);

    if (!strstr(out, method))
        snprintf(out + used, size - used, "%s, ", method);
}

void sac_route_allow(const struct sac_http_server *server, const char *path, char *out, size_t size)
{
    snprintf(out, size, "Allow: ");
    for (int i = 0; i < server->options.route_count; i++) {
        const struct sac_http_route *route = server->routes[i].route;
        if (path && match(&server->routes[i], path, strlen(path)) == 0)
            continue;
        append_method(out, size - 16, route->method);
        if (strcmp(route->method, "GET") == 0)
            append_method(out, size - 16, "HEAD");
    }
    size_t used = strlen(out);
    snprintf(out + used, size - used, "OPTIONS\r\n");
}

static bool is_host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
}

/* The name, without brackets' port: "localhost" of "localhost:8000". */
static struct sac_http_text host_name(struct sac_http_text host, struct sac_http_text *ret_port)
{
    const char *end = host.at + host.size, *from = host.at;

    if (host.size > 0 && *host.at == '[') {
        from = memchr(host.at, ']', host.size);
        if (!from)
            from = end;
    }
    const char *colon = memchr(from, ':', (size_t)(end - from));
    const char *stop = colon ? colon : end;
    *ret_port = (struct sac_http_text){stop, (size_t)(end - stop)};
    return (struct sac_http_text){host.at, (size_t)(stop - host.at)};
}

bool sac_host_is_valid(struct sac_http_text host)
{
    struct sac_http_text port, name = host_name(host, &port);

    for (size_t i = 1; i < port.size; i++)
        if (port.at[i] < '0' || port.at[i] > '9')
            return false;
    if (name.size == 0 || port.size > 6)
        return false;
    if (*name.at == '[') {
        if (name.size < 4 || name.at[name.size - 1] != ']')
            return false;
        for (size_t i = 1; i < name.size - 1; i++)
            if (!memchr("0123456789abcdefABCDEF:.", name.at[i], 24))
                return false;
        return true;
    }
    for (size_t i = 0; i < name.size; i++)
        if (!is_host_char(name.at[i]))
            return false;
    return true;
}

static bool text_is(struct sac_http_text text, const char *other)
{
    return text.size == strlen(other) && strncasecmp(text.at, other, text.size) == 0;
}

/* 127.0.0.0/8, written as four numbers. */
static bool is_loopback_v4(struct sac_http_text name)
{
    char copy[16];
    struct in_addr address;

    if (name.size >= sizeof copy)
        return false;
    memcpy(copy, name.at, name.size);
    copy[name.size] = '\0';
    return inet_pton(AF_INET, copy, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

bool sac_host_is_allowed(const struct sac_http_server *server, struct sac_http_text host)
{
    struct sac_http_text port, name = host_name(host, &port);

    if (!server->loopback || text_is(name, "localhost") || text_is(name, "[::1]") ||
        is_loopback_v4(name))
        return true;
    for (int i = 0; i < server->options.hosts_allowed_count; i++)
        if (text_is(name, server->options.hosts_allowed[i]) ||
            text_is(host, server->options.hosts_allowed[i]))
            return true;
    return false;
}
