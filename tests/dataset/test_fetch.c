#include "support/support.h"

#include <stdbool.h>
#include <string.h>

#include "dataset/fetch.h"

/* Links as Apache's, nginx's and Python's listings have them, and others. */
static void links_become_names_or_are_left_alone(void **state)
{
    static const struct {
        const char *link, *name; /* NULL: left alone */
        bool folder;
    } cases[] = {
        {"rose.jpg", "rose.jpg", false},
        {"roses/", "roses", true},
        {"./roses/", "roses", true},
        {"a%20b%2Bc.png", "a b+c.png", false},
        {"cats%20%26%20dogs/", "cats & dogs", true},
        {"x&amp;y.png", "x&y.png", false},
        {"/set/rose.jpg", "rose.jpg", false},
        {"http://host:80/set/rose.jpg", "rose.jpg", false},
        {"100%.png", "100%.png", false},
        {"../", NULL, false},
        {"/", NULL, false},
        {"/other/x.jpg", NULL, false},
        {"http://elsewhere/set/x.jpg", NULL, false},
        {"?C=N;O=D", NULL, false},
        {"a/b.jpg", NULL, false},
        {"%2e%2e/", NULL, false},
        {"a%2Fb.jpg", NULL, false},
        {"..%2f..%2fetc/", NULL, false},
        {"x%00.jpg", NULL, false},
        {"x%0a.jpg", NULL, false},
        {"javascript:x", NULL, false},
        {".hidden/", NULL, false},
        {"#top", NULL, false},
        {"", NULL, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[256];
        bool folder;
        bool took =
            sac_fetch_name("http://host:80/set/", cases[i].link, name, sizeof name, &folder);
        assert_int_equal(took, cases[i].name != NULL);
        if (took) {
            assert_string_equal(name, cases[i].name);
            assert_int_equal(folder, cases[i].folder);
        }
    }
}

static void a_name_that_does_not_fit_is_left_alone(void **state)
{
    char link[400], name[256];
    bool folder;

    (void)state;
    for (int size = 1; size < 399; size++) {
        memset(link, 'x', sizeof link);
        link[size] = 0;
        assert_int_equal(sac_fetch_name("http://h/", link, name, sizeof name, &folder), size < 240);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_become_names_or_are_left_alone),
        cmocka_unit_test(a_name_that_does_not_fit_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
