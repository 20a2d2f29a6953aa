#include "support/support.h"

#include <string.h>

#include "base/buf.h"

static void put_json(struct sac_buf *buf, const char *text, size_t size, const char *expected)
{
    sac_buf_clear(buf);
    sac_buf_put_json(buf, text, size);
    assert_false(buf->failed);
    assert_int_equal(buf->len, strlen(expected));
    assert_memory_equal(buf->data, expected, buf->len);
}

static void grows_as_bytes_are_put(void **state)
{
    struct sac_buf buf = {0};
    char expected[3000];

    (void)state;
    memset(expected, 'x', sizeof expected);
    for (int i = 0; i < 3000; i++)
        sac_buf_put(&buf, "x", 1);
    assert_int_equal(buf.len, 3000);
    assert_memory_equal(buf.data, expected, 3000);
    sac_buf_done(&buf);
}

static void remembers_that_memory_ran_out(void **state)
{
    struct sac_buf buf = {0};

    (void)state;
    sac_buf_puts(&buf, "kept");
    assert_false(sac_buf_reserve(&buf, SIZE_MAX - 2));
    assert_true(buf.failed);
    sac_buf_puts(&buf, " lost");
    assert_int_equal(buf.len, 4);
    sac_buf_done(&buf);
}

/* RFC 8259, section 7; the HTML characters by our own rule. */
static void json_strings_are_escaped(void **state)
{
    struct sac_buf buf = {0};

    (void)state;
    put_json(&buf, "tabby, \"cat\"\\\n\x01", 15, "\"tabby, \\\"cat\\\"\\\\\\u000a\\u0001\"");
    put_json(&buf, "<img onerror>&", 14, "\"\\u003cimg onerror\\u003e\\u0026\"");
    put_json(&buf, "h\xc3\xa9 \xf0\x9f\x90\x88", 8, "\"h\xc3\xa9 \xf0\x9f\x90\x88\"");
    sac_buf_done(&buf);
}

/* RFC 3629: overlong forms, surrogates and cut sequences are not UTF-8. */
static void bytes_that_are_not_utf8_become_replacement_characters(void **state)
{
    struct sac_buf buf = {0};

    (void)state;
    put_json(&buf, "\xff", 1, "\"\xef\xbf\xbd\"");
    put_json(&buf, "\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    put_json(&buf, "a\xe2\x82", 3, "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
    put_json(&buf, "\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    sac_buf_done(&buf);
}

/* HTML 5, section 13.3, as an attribute's value needs it. */
static void html_cannot_leave_its_element_or_attribute(void **state)
{
    static const char expected[] = "tom &amp; &lt;b&gt;jerry&lt;/b&gt; &quot;é'&quot;";
    struct sac_buf buf = {0};

    (void)state;
    sac_buf_put_html(&buf, "tom & <b>jerry</b> \"é'\"");
    assert_int_equal(buf.len, sizeof expected - 1);
    assert_memory_equal(buf.data, expected, buf.len);
    sac_buf_done(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_as_bytes_are_put),
        cmocka_unit_test(remembers_that_memory_ran_out),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(html_cannot_leave_its_element_or_attribute),
        cmocka_unit_test(bytes_that_are_not_utf8_become_replacement_characters),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
