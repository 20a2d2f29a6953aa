/* multipart/form-data as browsers and curl write it, and as attackers do. */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/multipart.h"

#define TYPE "multipart/form-data; boundary=XX"
#define PART(name) "--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n"

/* An exact copy on the heap: a read past the end is the sanitizer's. */
static struct sac_http_text copy_of(const char *bytes, size_t size)
{
    char *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    return (struct sac_http_text){copy, size};
}

static struct sac_http_text text_of(const char *text)
{
    return (struct sac_http_text){text, strlen(text)};
}

static void assert_text(struct sac_http_text text, const char *wanted)
{
    if (text.size != strlen(wanted) || memcmp(text.at, wanted, text.size) != 0)
        fail_msg("expected \"%s\", got \"%.*s\"", wanted, (int)text.size, text.at ? text.at : "");
}

/* All parts; the last rc, and the number of parts that came. */
static int read_all(const char *type, const char *bytes, size_t size, int parts_max, int *ret_parts,
                    struct sac_error *err)
{
    struct sac_http_text body = copy_of(bytes, size);
    struct sac_multipart multipart;
    struct sac_multipart_part part;
    int rc = sac_multipart_init(&multipart, text_of(type), body, parts_max, err);

    *ret_parts = 0;
    while (rc == 0 && (rc = sac_multipart_next(&multipart, &part, err)) == 1) {
        assert_true(part.bytes.at >= body.at);
        assert_true(part.bytes.at + part.bytes.size <= body.at + body.size);
        ++*ret_parts;
        rc = 0;
    }
    free((char *)body.at);
    return rc;
}

/* What curl -F sends, with a preamble and an epilogue, which RFC 2046 allows. */
static void parts_come_with_their_names_types_and_bytes(void **state)
{
    static const char body[] =
        "preamble\r\n"
        "--XX  \r\n"
        "Content-Disposition: form-data; name=\"image\"; filename=\"a \\\"cat\\\"; x.jpg\"\r\n"
        "content-TYPE:  image/jpeg \r\n"
        "X-Other: y\r\n"
        "\r\n"
        "\xff\xd8\r\n--X\r\n--\r\n\0--XX\xff\r\n"
        "--XX\r\n"
        "Content-Disposition:form-data;name=topk\r\n"
        "\r\n"
        "5\r\n"
        "--XX\r\n"
        "Content-Disposition: form-data; filename=\"\"; NAME=\"\"\r\n"
        "\r\n"
        "\r\n"
        "--XX--\r\nepilogue";
    struct sac_multipart multipart;
    struct sac_multipart_part part;
    struct sac_error err = {0};
    struct sac_http_text copy = copy_of(body, sizeof body - 1);

    (void)state;
    assert_ok(sac_multipart_init(&multipart, text_of("Multipart/Form-Data ; a=b; Boundary=\"XX\""),
                                 copy, 3, &err),
              err);
    assert_int_equal(sac_multipart_next(&multipart, &part, &err), 1);
    assert_text(part.name, "image");
    assert_text(part.filename, "a \\\"cat\\\"; x.jpg");
    assert_text(part.content_type, "image/jpeg");
    assert_int_equal(part.bytes.size, 19);
    assert_memory_equal(part.bytes.at, "\xff\xd8\r\n--X\r\n--\r\n\0--XX\xff", 19);
    assert_int_equal(sac_multipart_next(&multipart, &part, &err), 1);
    assert_text(part.name, "topk");
    assert_null(part.filename.at);
    assert_null(part.content_type.at);
    assert_text(part.bytes, "5");
    assert_int_equal(sac_multipart_next(&multipart, &part, &err), 1);
    assert_text(part.name, "");
    assert_non_null(part.filename.at);
    assert_text(part.bytes, "");
    assert_int_equal(sac_multipart_next(&multipart, &part, &err), 0);
    assert_int_equal(sac_multipart_next(&multipart, &part, &err), 0);
    free((char *)copy.at);
}

static void another_type_is_left_to_the_caller(void **state)
{
    static const char *const types[] = {"", "image/jpeg", "multipart/mixed; boundary=XX",
                                        "multipart/form-dataX; boundary=XX", ";"};

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct sac_error err = {0};
        int parts;
        assert_int_equal(read_all(types[i], "", 0, 1, &parts, &err), SAC_EUNSUPPORTED);
    }
    struct sac_multipart multipart;
    struct sac_error err = {0};
    assert_int_equal(sac_multipart_init(&multipart, (struct sac_http_text){0},
                                        (struct sac_http_text){0}, 1, &err),
                     SAC_EUNSUPPORTED);
}

static void a_bad_boundary_is_refused(void **state)
{
    static const char *const types[] = {
        "multipart/form-data",
        "multipart/form-data;",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"XX",
        "multipart/form-data; boundary=\"XX \"",
        "multipart/form-data; boundary=X\x01",
        "multipart/form-data; boundary=X[",
        "multipart/form-data; boundary=XX; boundary=YY",
        "multipart/form-data; boundary="
        "01234567890123456789012345678901234567890123456789012345678901234567890",
    };

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct sac_error err = {0};
        int parts, rc = read_all(types[i], "--XX--", 6, 1, &parts, &err);
        if (rc != SAC_EFORMAT)
            fail_msg("%s: %d", types[i], rc);
    }
}

static void a_boundary_of_seventy_characters_is_taken(void **state)
{
#define SEVENTY "0123456789012345678901234567890123456789012345678901234567890123456789"
    static const char body[] =
        "--" SEVENTY "\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--" SEVENTY "--";
    struct sac_error err = {0};
    int parts;

    (void)state;
    assert_ok(
        read_all("multipart/form-data; boundary=" SEVENTY, body, sizeof body - 1, 1, &parts, &err),
        err);
    assert_int_equal(parts, 1);
}

static void hostile_bodies_are_refused(void **state)
{
    static const struct {
        const char *name, *body;
        int rc, parts;
    } cases[] = {
        {"empty", "", SAC_EFORMAT, 0},
        {"no boundary", "hello", SAC_EFORMAT, 0},
        {"another boundary", "--YY\r\n\r\n--YY--", SAC_EFORMAT, 0},
        {"only the first boundary", "--XX", SAC_EFORMAT, 0},
        {"the first boundary and a line", "--XX\r\n", SAC_EFORMAT, 0},
        {"no parts", "--XX--", 0, 0},
        {"no parts, with its line end", "--XX--\r\n", 0, 0},
        {"no closing boundary", PART("a") "bytes", SAC_EFORMAT, 0},
        {"no closing boundary after the first part", PART("a") "b\r\n" PART("c") "d\r\n",
         SAC_EFORMAT, 1},
        {"a boundary within a line is data", PART("a") "x--XX--\r\n--XX--", 0, 1},
        {"a longer boundary", PART("a") "b\r\n--XXX\r\n--XX--", SAC_EFORMAT, 1},
        {"LF only", "--XX\nContent-Disposition: form-data; name=a\n\nb\n--XX--\n", SAC_EFORMAT, 0},
        {"LF in the part's head", "--XX\r\nContent-Disposition: form-data; name=a\n\nb\r\n--XX--",
         SAC_EFORMAT, 0},
        {"LF before the boundary is data", PART("a") "b\n--XX--", SAC_EFORMAT, 0},
        {"no name", "--XX\r\nContent-Disposition: form-data\r\n\r\nb\r\n--XX--", SAC_EFORMAT, 0},
        {"no head", "--XX\r\n\r\nb\r\n--XX--", SAC_EFORMAT, 0},
        {"another disposition",
         "--XX\r\nContent-Disposition: attachment; name=a\r\n\r\nb\r\n--XX--", SAC_EFORMAT, 0},
        {"an open quote", "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\nb\r\n--XX--",
         SAC_EFORMAT, 0},
        {"a word without a value",
         "--XX\r\nContent-Disposition: form-data; name\r\n\r\nb\r\n--XX--", SAC_EFORMAT, 0},
        {"no colon", "--XX\r\nContent-Disposition\r\n\r\nb\r\n--XX--", SAC_EFORMAT, 0},
        {"the head never ends", "--XX\r\nContent-Disposition: form-data; name=a\r\n", SAC_EFORMAT,
         0},
        {"too many parts",
         PART("a") "b\r\n" PART("c") "d\r\n" PART("e") "f\r\n" PART("g") "\r\n--XX--", SAC_ELIMIT,
         3},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sac_error err = {0};
        int parts, rc = read_all(TYPE, cases[i].body, strlen(cases[i].body), 3, &parts, &err);
        if (rc != cases[i].rc || parts != cases[i].parts)
            fail_msg("%s: %d after %d parts (%s)", cases[i].name, rc, parts, err.text);
    }
}

static void a_large_part_head_is_refused(void **state)
{
    char body[8192] = "--XX\r\nX: ";
    struct sac_error err = {0};
    int parts;

    (void)state;
    memset(body + 9, 'a', 5000);
    strcpy(body + 5009, "\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--XX--");
    assert_int_equal(read_all(TYPE, body, strlen(body), 1, &parts, &err), SAC_ELIMIT);
}

/* Every truncation of a good body ends in a refusal, without a read past it. */
static void every_truncation_is_refused(void **state)
{
    static const char body[] = PART("a") "b\r\n" PART("c") "\r\n--XX--";

    (void)state;
    for (size_t size = 0; size < sizeof body - 1; size++) {
        struct sac_error err = {0};
        int parts;
        assert_int_equal(read_all(TYPE, body, size, 3, &parts, &err), SAC_EFORMAT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_come_with_their_names_types_and_bytes),
        cmocka_unit_test(another_type_is_left_to_the_caller),
        cmocka_unit_test(a_bad_boundary_is_refused),
        cmocka_unit_test(a_boundary_of_seventy_characters_is_taken),
        cmocka_unit_test(hostile_bodies_are_refused),
        cmocka_unit_test(a_large_part_head_is_refused),
        cmocka_unit_test(every_truncation_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
