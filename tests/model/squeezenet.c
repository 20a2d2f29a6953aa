#include "model/squeezenet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/support.h"

static void link_into(const char *dir, const char *name, const char *data)
{
    char path[600], *real = realpath(sac_test_data(data), NULL);

    assert_non_null(real);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(symlink(real, path), 0);
    free(real);
}

const char *sac_test_squeezenet(const char *model_json)
{
    static char dirs[16][512];
    static int made;
    char name[64];

    assert_true(made < 16);
    char *dir = dirs[made];
    snprintf(dir, sizeof dirs[0], "%s/squeezenet%d", sac_test_tmpdir(), made);
    assert_int_equal(mkdir(dir, 0700), 0);
    link_into(dir, "deploy.prototxt", "squeezenet_v1.1/deploy.prototxt");
    link_into(dir, "squeezenet.caffemodel", "squeezenet_v1.1/squeezenet_v1.1.caffemodel");
    link_into(dir, "synset_words.txt", "ilsvrc12/synset_words.txt");
    snprintf(name, sizeof name, "squeezenet%d/model.json", made++);
    sac_test_write(name, model_json, strlen(model_json));
    return dir;
}
