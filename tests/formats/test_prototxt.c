/* The text format, by what protobuf's own text format takes and refuses. */
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "every.pb-c.h"
#include "formats/caffe.h"
#include "formats/prototxt.h"

static struct sac_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = sac_arena_new(1 << 20);
    return arena ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    sac_arena_free(arena);
    return 0;
}

static int parse(Every__Every **ret, const char *text, size_t size, struct sac_error *err)
{
    char *exact = malloc(size ? size : 1); /* so that a sanitizer sees an overrun */
    ProtobufCMessage *message = NULL;

    memcpy(exact, text, size);
    int rc =
        sac_prototxt_parse(&message, &every__every__descriptor, "net", exact, size, arena, err);
    *ret = (Every__Every *)message;
    free(exact);
    return rc;
}

static Every__Every *good(const char *text)
{
    struct sac_error err = {0};
    Every__Every *every;

    assert_ok(parse(&every, text, strlen(text), &err), err);
    return every;
}

static void bad(const char *text, int code, const char *sentence)
{
    struct sac_error err = {0};
    Every__Every *every;

    assert_int_equal(parse(&every, text, strlen(text), &err), code);
    assert_int_equal(err.code, code);
    assert_string_equal(err.text, sentence);
}

static void an_empty_text_gives_the_defaults(void **state)
{
    (void)state;
    Every__Every *every = good(" \n# only a comment");

    assert_false(every->has_int32);
    assert_int_equal(every->int32, 5);
    assert_true(every->real == 1.5f);
    assert_string_equal(every->text, "none");
    assert_null(every->child);
    assert_int_equal(every->n_numbers, 0);
}

static void integers_are_decimal_hexadecimal_or_octal(void **state)
{
    (void)state;
    Every__Every *every = good("int32: -2147483648 int64: 0x7fffffffffffffff uint32: 4294967295 "
                               "uint64: 18446744073709551615 sint32: -017 sint64: - 3 "
                               "fixed32: 0XFf fixed64: 010 sfixed32: -1 sfixed64: 0");

    assert_int_equal(every->int32, INT32_MIN);
    assert_true(every->int64 == INT64_MAX);
    assert_true(every->uint32 == UINT32_MAX && every->uint64 == UINT64_MAX);
    assert_int_equal(every->sint32, -15);
    assert_int_equal(every->sint64, -3);
    assert_int_equal(every->fixed32, 255);
    assert_int_equal(every->fixed64, 8);
    assert_int_equal(every->sfixed32, -1);
    assert_true(every->has_sfixed64 && every->sfixed64 == 0);
}

static void integers_out_of_range_are_refused(void **state)
{
    (void)state;
    bad("int32: 2147483648", SAC_EFORMAT,
        "net:1:8: expected a whole number from -2147483648 to 2147483647 for \"int32\", found "
        "\"2147483648\"");
    bad("\n uint32: -1", SAC_EFORMAT,
        "net:2:10: expected a whole number from 0 to 4294967295 for \"uint32\", found \"-1\"");
    bad("int64: 9223372036854775808", SAC_EFORMAT,
        "net:1:8: expected a whole number from -9223372036854775808 to 9223372036854775807 for "
        "\"int64\", found \"9223372036854775808\"");
    bad("uint64: 18446744073709551616", SAC_EFORMAT,
        "net:1:9: expected a whole number from 0 to 18446744073709551615 for \"uint64\", found "
        "\"18446744073709551616\"");
    bad("int32: 1.5", SAC_EFORMAT,
        "net:1:8: expected a whole number from -2147483648 to 2147483647 for \"int32\", found "
        "\"1.5\"");
    bad("int32: 089", SAC_EFORMAT,
        "net:1:8: expected a whole number from -2147483648 to 2147483647 for \"int32\", found "
        "\"089\"");
    bad("int32: \"3\"", SAC_EFORMAT,
        "net:1:8: expected a whole number from -2147483648 to 2147483647 for \"int32\", found "
        "'\"'");
    bad("int32:", SAC_EFORMAT,
        "net:1:7: expected a whole number from -2147483648 to 2147483647 for \"int32\", found the "
        "end of the file");
}

static void real_numbers_take_the_forms_that_files_have(void **state)
{
    (void)state;
    Every__Every *every = good("reals: 1 reals: -2.5 reals: .5 reals: 1. reals: 1e-3 reals: 2.5E+2 "
                               "reals: 1.0f reals: 3F reals: inf reals: -inf reals: nan "
                               "reals: Infinity reals: 0 reals: 0.25 wide: 0.1");
    const float expected[] = {1, -2.5f, .5f, 1, 1e-3f, 250, 1, 3};

    assert_int_equal(every->n_reals, 14);
    assert_memory_equal(every->reals, expected, sizeof expected);
    assert_true(isinf(every->reals[8]) && every->reals[8] > 0);
    assert_true(isinf(every->reals[9]) && every->reals[9] < 0);
    assert_true(isnan(every->reals[10]) && isinf(every->reals[11]));
    assert_true(every->reals[12] == 0 && every->reals[13] == .25f);
    assert_true(every->wide == 0.1);
    bad("real: 0x10", SAC_EFORMAT, "net:1:7: expected a number for \"real\", found \"0x10\"");
    bad("real: 010", SAC_EFORMAT, "net:1:7: expected a number for \"real\", found \"010\"");
    bad("real: 1,5", SAC_EFORMAT, "net:1:9: expected the name of a field of Every, found \"5\"");
    bad("real: fast", SAC_EFORMAT, "net:1:7: expected a number for \"real\", found \"fast\"");
    bad("real: 1.2.3", SAC_EFORMAT, "net:1:7: expected a number for \"real\", found \"1.2.3\"");
}

static void truth_has_four_spellings(void **state)
{
    (void)state;
    const char *yes[] = {"flag: true", "flag: True", "flag: t", "flag: 1"};
    const char *no[] = {"flag: false", "flag: False", "flag: f", "flag: 0"};

    for (int i = 0; i < 4; i++) {
        Every__Every *every = good(yes[i]);
        assert_true(every->has_flag && every->flag == 1);
        every = good(no[i]);
        assert_true(every->has_flag && every->flag == 0);
    }
    bad("flag: yes", SAC_EFORMAT, "net:1:7: expected true or false for \"flag\", found \"yes\"");
    bad("flag: 2", SAC_EFORMAT, "net:1:7: expected true or false for \"flag\", found \"2\"");
}

static void enums_go_by_name_or_number(void **state)
{
    (void)state;
    Every__Every *every = good("colour: BLUE colours: 1 colours: RED");

    assert_int_equal(every->colour, EVERY__COLOUR__BLUE);
    assert_int_equal(every->n_colours, 2);
    assert_int_equal(every->colours[0], EVERY__COLOUR__GREEN);
    assert_int_equal(every->colours[1], EVERY__COLOUR__RED);
    bad("colour: blue", SAC_EFORMAT,
        "net:1:9: \"blue\" is no value of \"colour\"; expected one of RED, GREEN, BLUE");
    bad("colour: 2", SAC_EFORMAT,
        "net:1:9: \"2\" is no value of \"colour\"; expected one of RED, GREEN, BLUE");
}

/* Escapes: C's, octal, hexadecimal; U+20AC is E2 82 AC in UTF-8. */
static void strings_have_escapes_and_join(void **state)
{
    (void)state;
    Every__Every *every =
        good("texts: 'it\"s' texts: \"a\\n\\t\\\\\\\"\\'\" texts: \"\\101\\x42\\u20ac\" "
             "texts: 'one' \"two\"\n  # between\n 'three' texts: '' raw: '\\000\\377'");

    assert_int_equal(every->n_texts, 5);
    assert_string_equal(every->texts[0], "it\"s");
    assert_string_equal(every->texts[1], "a\n\t\\\"'");
    assert_string_equal(every->texts[2], "AB\xE2\x82\xAC");
    assert_string_equal(every->texts[3], "onetwothree");
    assert_string_equal(every->texts[4], "");
    assert_int_equal(every->raw.len, 2);
    assert_memory_equal(every->raw.data, "\0\xff", 2);
}

static void broken_strings_are_told(void **state)
{
    (void)state;
    bad("int32: 1\ntext: \"abc\nint64: 2", SAC_EFORMAT,
        "net:2:7: a string that does not end on its line");
    bad("text: 'abc", SAC_EFORMAT, "net:1:7: a string that does not end on its line");
    bad("text: 'a\\q'", SAC_EFORMAT, "net:1:10: a backslash that begins no escape");
    bad("text: 'a\\", SAC_EFORMAT, "net:1:10: a backslash that begins no escape");
    bad("raw: '\\777'", SAC_EFORMAT, "net:1:11: a backslash that begins no escape");
    bad("text: 'a\\000b'", SAC_EFORMAT, "net:1:7: a string with a zero byte for \"text\"");
    bad("text: abc", SAC_EFORMAT,
        "net:1:7: expected a string in quotes for \"text\", found \"abc\"");
}

static void messages_have_braces_or_angles_and_an_optional_colon(void **state)
{
    (void)state;
    Every__Every *every = good("child { int32: 1 } children: { int32: 2 }, children < int32: 3 >; "
                               "children: <> children {child{child{int32:4}}}");

    assert_int_equal(every->child->int32, 1);
    assert_int_equal(every->n_children, 4);
    assert_int_equal(every->children[0]->int32, 2);
    assert_int_equal(every->children[1]->int32, 3);
    assert_false(every->children[2]->has_int32);
    assert_int_equal(every->children[3]->child->child->int32, 4);
    bad("child { int32: 1 >", SAC_EFORMAT,
        "net:1:18: expected the name of a field of Every, found '>'");
    bad("int32: 1 }", SAC_EFORMAT, "net:1:10: expected the name of a field of Every, found '}'");
    bad("int32: 1\nchild {\n  int32: 2\n", SAC_EFORMAT,
        "net:4:1: expected '}' for the Every that begins at line 2, found the end of the file");
    bad("child: 3", SAC_EFORMAT, "net:1:8: expected '{' after \"child\", found \"3\"");
    bad("child", SAC_EFORMAT, "net:1:6: expected '{' after \"child\", found the end of the file");
}

static void lists_hold_values_of_any_type(void **state)
{
    (void)state;
    Every__Every *every = good("numbers: [1, 2,3] numbers: [] numbers: 4 reals: [ .5 ] "
                               "texts: ['a' 'b', \"c\"] children: [{int32: 7}, <>] colours: [RED]");
    const int32_t expected[] = {1, 2, 3, 4};

    assert_int_equal(every->n_numbers, 4);
    assert_memory_equal(every->numbers, expected, sizeof expected);
    assert_int_equal(every->n_texts, 2);
    assert_string_equal(every->texts[0], "ab");
    assert_int_equal(every->n_children, 2);
    assert_int_equal(every->children[0]->int32, 7);
    bad("numbers: [1 2]", SAC_EFORMAT,
        "net:1:13: expected ',' or ']' in the list of \"numbers\", found \"2\"");
    bad("numbers: [1,", SAC_EFORMAT,
        "net:1:13: expected a whole number from -2147483648 to 2147483647 for \"numbers\", found "
        "the end of the file");
    bad("int32: [1]", SAC_EFORMAT,
        "net:1:8: expected a whole number from -2147483648 to 2147483647 for \"int32\", found '['");
}

static void an_unknown_field_suggests_the_nearest(void **state)
{
    (void)state;
    bad("# a net\n  nubmers: 3", SAC_EFORMAT,
        "net:2:3: Every has no field \"nubmers\"; did you mean \"numbers\"?");
    bad("entirely_different { }", SAC_EFORMAT,
        "net:1:1: Every has no field \"entirely_different\"");
    bad("int32 3", SAC_EFORMAT, "net:1:7: expected ':' after \"int32\", found \"3\"");
    bad("[ext.name]: 3", SAC_EFORMAT, "net:1:1: expected the name of a field of Every, found '['");
    bad("\x01", SAC_EFORMAT, "net:1:1: expected the name of a field of Every, found byte 0x01");
}

static void a_single_field_given_twice_is_refused(void **state)
{
    (void)state;
    bad("int32: 1 int32: 2", SAC_EFORMAT, "net:1:10: \"int32\" is given twice in one Every");
    bad("child {} child {}", SAC_EFORMAT, "net:1:10: \"child\" is given twice in one Every");
    bad("text: 'a' text: 'a'", SAC_EFORMAT, "net:1:11: \"text\" is given twice in one Every");
}

static void required_fields_are_required(void **state)
{
    (void)state;
    Every__Every *every = good("pair { a: 0 b: '' }");

    assert_int_equal(every->pair->a, 0);
    bad("pair {\n a: 1 }", SAC_EFORMAT, "net:1:6: Pair needs a field \"b\"");
    bad("pair { b: 'x' }", SAC_EFORMAT, "net:1:6: Pair needs a field \"a\"");
}

static void a_name_reserved_in_c_is_plain_in_text(void **state)
{
    (void)state;
    struct sac_buf out = {0};
    Every__Every *every = good("base: 3");

    assert_int_equal(every->base_, 3);
    assert_int_equal(sac_prototxt_print(&out, &every->base), 0);
    assert_int_equal(out.len, strlen("base: 3\n"));
    assert_memory_equal(out.data, "base: 3\n", out.len);
    sac_buf_done(&out);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    static char text[7 * 100000 + 1];
    char *at = text;

    for (int i = 0; i < SAC_PROTOTXT_DEPTH_MAX - 1; i++)
        at = stpcpy(at, "child{");
    for (int i = 0; i < SAC_PROTOTXT_DEPTH_MAX - 1; i++)
        at = stpcpy(at, "}");
    good(text);
    at = text;
    for (int i = 0; i < 100000; i++)
        at = stpcpy(at, "child{");
    bad(text, SAC_ELIMIT, "net:1:384: nested more than 64 deep");
}

/* 10 bytes of text make a message of hundreds: the budget says stop. */
static void memory_is_bounded_by_the_arena(void **state)
{
    (void)state;
    struct sac_error err = {0};
    Every__Every *every;
    size_t count = 100000;
    char *text = malloc(count * 10 + 1), *at = text;

    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, "children{}");
    assert_int_equal(parse(&every, text, strlen(text), &err), SAC_ELIMIT);
    assert_says(err, "the text needs more memory than a file of its size may take");
    assert_true(sac_arena_used(arena) <= 1 << 20);
    free(text);
}

static void a_byte_order_mark_and_windows_lines_are_passed_over(void **state)
{
    (void)state;
    Every__Every *every = good("\xEF\xBB\xBFint32: 3\r\n\r\ntext: 'a'\r\n");

    assert_int_equal(every->int32, 3);
    bad("\xEF\xBB\xBFint3: 3", SAC_EFORMAT,
        "net:1:1: Every has no field \"int3\"; did you mean \"int32\"?");
}

static void every_prefix_of_a_text_ends_well(void **state)
{
    (void)state;
    const char *text = "int32: -0x1f text: 'a\\n\\101\\x4\\u20ac' 'b' child { numbers: [1, 2] "
                       "pair < a: 1, b: \"c\"; > } reals: 1e-3f colour: BLUE # end\n flag: True";

    for (size_t size = 0; size <= strlen(text); size++) {
        struct sac_error err = {0};
        Every__Every *every;
        int rc = parse(&every, text, size, &err);
        assert_int_equal(rc, err.code);
        assert_true(rc == 0 || strncmp(err.text, "net:", 4) == 0);
    }
}

static void printing_gives_schema_order_and_reads_back(void **state)
{
    (void)state;
    struct sac_buf out = {0};
    Every__Every *every =
        good("reals: [0.1, 1e-30, 3, 16777217, inf, -inf, nan] wide: 0.1 int32: 5 flag: False "
             "text: 'a\\n\"\\\\\\303\\244n' child { colour: GREEN uint64: 18446744073709551615 } "
             "raw: 'n\\000' numbers: [-1, 2] int64: -9");
    static const char printed[] =
        "int32: 5\nint64: -9\nwide: 0.1\nflag: false\ntext: \"a\\n\\\"\\\\\\303\\244n\"\n"
        "raw: \"n\\000\"\nchild {\n  uint64: 18446744073709551615\n  colour: GREEN\n}\n"
        "numbers: -1\nnumbers: 2\nreals: 0.1\nreals: 1e-30\nreals: 3\nreals: 16777216\n"
        "reals: inf\nreals: -inf\nreals: nan\n";

    assert_int_equal(sac_prototxt_print(&out, &every->base), 0);
    sac_buf_put(&out, "", 1);
    assert_string_equal((char *)out.data, printed);
    struct sac_buf again = {0};
    assert_int_equal(sac_prototxt_print(&again, &good((char *)out.data)->base), 0);
    sac_buf_put(&again, "", 1);
    assert_string_equal((char *)again.data, printed);
    sac_buf_done(&out);
    sac_buf_done(&again);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_empty_text_gives_the_defaults),
        CASE(integers_are_decimal_hexadecimal_or_octal),
        CASE(integers_out_of_range_are_refused),
        CASE(real_numbers_take_the_forms_that_files_have),
        CASE(truth_has_four_spellings),
        CASE(enums_go_by_name_or_number),
        CASE(strings_have_escapes_and_join),
        CASE(broken_strings_are_told),
        CASE(messages_have_braces_or_angles_and_an_optional_colon),
        CASE(lists_hold_values_of_any_type),
        CASE(an_unknown_field_suggests_the_nearest),
        CASE(a_single_field_given_twice_is_refused),
        CASE(required_fields_are_required),
        CASE(a_name_reserved_in_c_is_plain_in_text),
        CASE(nesting_is_bounded),
        CASE(memory_is_bounded_by_the_arena),
        CASE(a_byte_order_mark_and_windows_lines_are_passed_over),
        CASE(every_prefix_of_a_text_ends_well),
        CASE(printing_gives_schema_order_and_reads_back),
    };

    return cmocka_run_group_tests_name("formats/prototxt", tests, NULL, NULL);
}
