/* What the tests of nets share. */
#ifndef SAC_TESTS_NET_SUPPORT_H
#define SAC_TESTS_NET_SUPPORT_H

#include "support/support.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/net.h"

static inline int parse_net(struct sac_net **ret, const char *text, struct sac_error *err)
{
    return sac_net_parse(ret, "test.prototxt", text, strlen(text),
                         &(struct sac_net_options){.phase = SAC_PHASE_TEST}, err);
}

/* The net of a text that has to be right. */
static inline struct sac_net *net_of(const char *text)
{
    struct sac_net *net = NULL;
    struct sac_error err = {0};

    assert_ok(parse_net(&net, text, &err), err);
    return net;
}

/* The text is refused, with a sentence that has both parts in it. */
static inline void assert_refused(const char *text, int code, const char *part,
                                  const char *other_part)
{
    struct sac_net *net = NULL;
    struct sac_error err = {0};
    int rc = parse_net(&net, text, &err);

    if (rc != code)
        fail_msg("%s\n: %d (\"%s\") instead of %d", text, rc, err.text, code);
    assert_null(net);
    assert_says(err, part);
    assert_says(err, other_part);
}

/* `expected` as "10 × 3 × 227 × 227" is written with x: "10x3x227x227". */
static inline void assert_shape_is(const struct sac_shape *shape, const char *what,
                                   const char *expected)
{
    char text[256] = "";

    for (int i = 0; i < shape->rank; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%lld", i ? "x" : "",
                 (long long)shape->dim[i]);
    if (strcmp(text, expected) != 0)
        fail_msg("%s is \"%s\" and not \"%s\"", what, text, expected);
}

static inline void assert_blob_is(const struct sac_net *net, const char *blob, const char *expected)
{
    struct sac_shape shape;

    if (!sac_net_blob_shape(net, blob, &shape))
        fail_msg("there is no blob \"%s\"", blob);
    assert_shape_is(&shape, blob, expected);
}

#endif
