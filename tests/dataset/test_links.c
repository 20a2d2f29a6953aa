#include "support/support.h"

#include <stdbool.h>
#include <string.h>

#include "dataset/links.h"

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
        {"x&y.png", "x&y.png", false},
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
        bool took = sac_link_name("http://host:80/set/", cases[i].link, name, sizeof name, &folder);
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
        assert_int_equal(sac_link_name("http://h/", link, name, sizeof name, &folder), size < 240);
    }
}

/* As HTML's attributes may be written. */
static void links_are_found_however_they_are_written(void **state)
{
    char page[] = "<a href=\"a.png\">A</a><A HREF='b c/'>B</A><a href=x/>X</a>\n"
                  "<a class=y href = \"d.png\" id=z>D</a><a href=e.jpg title=E>E</a>"
                  "<p>href is a word</p><a href=\"x&amp;y&#38;z&#x26;&#228;&lt;.png\">F</a>"
                  "<a href=\"&amp;amp;&nosuch;&#0;&#x110000;&#38\">G</a><a href=\"\">H</a>"
                  "<a href=\"never closed>";
    static const char *const links[] = {"a.png",
                                        "b c/",
                                        "x/",
                                        "d.png",
                                        "e.jpg",
                                        "x&y&z&\xc3\xa4<.png",
                                        "&amp;&nosuch;&#0;&#x110000;&#38",
                                        ""};
    char *at = page;

    (void)state;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        const char *link = sac_link_next(&at);
        assert_non_null(link);
        assert_string_equal(link, links[i]);
    }
    assert_null(sac_link_next(&at));
    at = page + strlen(page);
    assert_null(sac_link_next(&at));
}

/* RFC 3986, 5.2.3: up to the last slash of the path; the query is none of it. */
static void links_are_relative_to_the_last_slash(void **state)
{
    static const char *const cases[][2] = {{"http://h/set/", "http://h/set/"},
                                           {"http://h/set/index.html", "http://h/set/"},
                                           {"http://h/set/?C=N;O=D/", "http://h/set/"},
                                           {"http://h/list?of=a/b", "http://h/"},
                                           {"http://h:80", "http://h:80/"},
                                           {"http://h?x", "http://h/"},
                                           {"http://h/a#b/c", "http://h/"}};
    char base[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(sac_link_base(cases[i][0], base, sizeof base));
        assert_string_equal(base, cases[i][1]);
    }
    assert_false(sac_link_base("http://host/set/", base, 16));
    assert_true(sac_link_base("http://host/set/", base, 18));
}

static void addresses_have_what_is_no_letter_escaped(void **state)
{
    char url[64];

    (void)state;
    assert_true(sac_link_url("http://h/s/", "/s/a b%20\xc3\xa4/", url, sizeof url));
    assert_string_equal(url, "http://h/s/a%20b%20%C3%A4/");
    assert_true(sac_link_url("http://h/", "x.png", url, sizeof url));
    assert_string_equal(url, "http://h/x.png");
    assert_false(sac_link_url("http://h/", "x.png", url, 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_become_names_or_are_left_alone),
        cmocka_unit_test(a_name_that_does_not_fit_is_left_alone),
        cmocka_unit_test(links_are_found_however_they_are_written),
        cmocka_unit_test(links_are_relative_to_the_last_slash),
        cmocka_unit_test(addresses_have_what_is_no_letter_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
