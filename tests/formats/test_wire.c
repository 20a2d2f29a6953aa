/* Binary messages that were made to hurt. The bytes are written out by the
 * encoding's rules: a tag is number << 3 | wire type. */
#include "support/support.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "every.pb-c.h"
#include "formats/caffe.h"
#include "formats/wire.h"

static int unpack_in(size_t budget, const void *bytes, size_t size, struct sac_error *err)
{
    struct sac_arena *arena = sac_arena_new(budget);
    uint8_t *exact = malloc(size ? size : 1); /* so that a sanitizer sees an overrun */
    ProtobufCMessage *message = NULL;

    assert_non_null(arena);
    if (size)
        memcpy(exact, bytes, size);
    int rc = sac_wire_unpack(&message, &every__every__descriptor, exact, size, arena, err);
    assert_int_equal(rc, err->code);
    assert_true((rc == 0) == (message != NULL));
    assert_true(sac_arena_used(arena) <= budget);
    free(exact);
    sac_arena_free(arena);
    return rc;
}

static void bad(const void *bytes, size_t size, int code, const char *sentence)
{
    struct sac_error err = {0};

    assert_int_equal(unpack_in(1 << 20, bytes, size, &err), code);
    assert_string_equal(err.text, sentence);
}

static void what_is_packed_unpacks(void **state)
{
    (void)state;
    struct sac_arena *arena = sac_arena_new(1 << 16);
    struct sac_error err = {0};
    ProtobufCMessage *message;
    /* int32 = 150; text = "hi"; numbers = [1, 300] packed; child { flag: true } */
    static const uint8_t bytes[] = {0x08, 0x96, 0x01, 0x7a, 2,    'h',  'i', 0x9a, 0x01,
                                    3,    0x01, 0xac, 0x02, 0x8a, 0x01, 2,   0x68, 1};

    assert_ok(
        sac_wire_unpack(&message, &every__every__descriptor, bytes, sizeof bytes, arena, &err),
        err);
    Every__Every *every = (Every__Every *)message;
    assert_int_equal(every->int32, 150);
    assert_string_equal(every->text, "hi");
    assert_int_equal(every->n_numbers, 2);
    assert_int_equal(every->numbers[1], 300);
    assert_true(every->child->flag);
    sac_arena_free(arena);
}

static void an_unknown_field_is_passed_over(void **state)
{
    (void)state;
    struct sac_error err = {0};
    /* Fields 100 to 103, one of each wire type, then int32 = 1. */
    static const uint8_t bytes[] = {0xa0, 0x06, 5, 0xa9, 0x06, 1,    2, 3, 4, 5, 6, 7, 8,
                                    0xb2, 0x06, 1, 9,    0xbd, 0x06, 1, 2, 3, 4, 8, 1};

    assert_ok(unpack_in(1 << 16, bytes, sizeof bytes, &err), err);
}

static void broken_bytes_are_told_with_their_place(void **state)
{
    (void)state;
    bad("\x08", 1, SAC_EFORMAT, "byte 1, in Every.int32: the file ends inside a number");
    bad("\x08\x96", 2, SAC_EFORMAT, "byte 2, in Every.int32: the file ends inside a number");
    bad("\x5d\x01\x02", 3, SAC_EFORMAT, "byte 1, in Every.real: the file ends inside a number");
    bad("\x7a\x05hi", 4, SAC_EFORMAT,
        "byte 1, in Every.text: a length of 5 bytes where 2 are left; is the file cut short?");
    bad("\x8a\x01\x03\x7a\x02h", 6, SAC_EFORMAT,
        "byte 4, in Every.child.text: a length of 2 bytes where 1 are left");
    bad("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, SAC_EFORMAT,
        "byte 1, in Every.text: a length of 18446744073709551615 bytes where 0 are left; is the "
        "file cut short?");
    bad("\x00\x01", 2, SAC_EFORMAT, "byte 0, in Every: expected a field, found something else");
    bad("\x0a\x01\x01", 3, SAC_EFORMAT,
        "byte 0, in Every.int32: expected a number, found a length");
    bad("\x0b\x0c", 2, SAC_EFORMAT, "byte 0, in Every.int32: expected a number, found a group");
    bad("\xa3\x06\xa4\x06", 4, SAC_EFORMAT,
        "byte 2, in Every.(unknown): found a group, which no such file has");
    bad("\xa2\x01\x03\x01\x02\x03", 6, SAC_EFORMAT,
        "byte 3, in Every.reals: 3 bytes are no whole number of values");
    bad("\x9a\x01\x02\x01\xff", 5, SAC_EFORMAT, "byte 5, in Every.numbers: a number does not end");
    bad("\x92\x01\x02\x08\x01", 5, SAC_EFORMAT, "not a valid Every: a required field is missing");
}

/* `depth` messages, each inside the one before. Lengths are made inside out. */
static size_t nest(uint8_t *buffer, size_t room, int depth)
{
    size_t start = room;

    for (int i = 1; i < depth; i++) {
        size_t size = room - start;
        uint8_t header[12] = {0x8a, 0x01};
        size_t used = 2;
        do {
            header[used++] = (uint8_t)((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
            size >>= 7;
        } while (size);
        start -= used;
        memcpy(buffer + start, header, used);
    }
    memmove(buffer, buffer + start, room - start);
    return room - start;
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    struct sac_error err = {0};
    size_t room = 1 << 20;
    uint8_t *bytes = malloc(room);

    size_t size = nest(bytes, room, SAC_WIRE_DEPTH_MAX);
    assert_ok(unpack_in(1 << 20, bytes, size, &err), err);
    size = nest(bytes, room, SAC_WIRE_DEPTH_MAX + 1);
    assert_int_equal(unpack_in(1 << 20, bytes, size, &err), SAC_ELIMIT);
    assert_says(err, "in Every.child.child.child.child");
    assert_says(err, "nested more than 64 deep");
    struct sac_error far = {0};
    size = nest(bytes, room, 100000);
    assert_int_equal(unpack_in(1 << 20, bytes, size, &far), SAC_ELIMIT);
    free(bytes);
}

/* Three bytes a message that takes hundreds. */
static void empty_messages_cannot_claim_memory(void **state)
{
    (void)state;
    struct sac_error err = {0};
    size_t count = 1 << 20;
    uint8_t *bytes = malloc(3 * count);

    for (size_t i = 0; i < count; i++)
        memcpy(bytes + 3 * i, "\xb2\x01\x00", 3);
    assert_int_equal(unpack_in(2 * 3 * count, bytes, 3 * count, &err), SAC_ELIMIT);
    assert_says(err, "needs more memory than a Every of 3145728 bytes may take");
    free(bytes);
}

/* The same, as a whole net: a 3 MB file stays below 2 × 3 MB + 16 MiB. */
static void a_net_of_empty_layers_is_refused(void **state)
{
    (void)state;
    struct sac_error err = {0};
    struct sac_caffe_net net;
    size_t count = 1 << 20;
    uint8_t *bytes = malloc(3 * count);

    for (size_t i = 0; i < count; i++)
        memcpy(bytes + 3 * i, "\xa2\x06\x00", 3);
    assert_int_equal(sac_caffe_net_parse(&net, "bomb", bytes, 3 * count, &err), SAC_ELIMIT);
    assert_says(err, "bomb: needs more memory than a NetParameter of 3145728 bytes may take");
    struct sac_error many = {0};
    assert_int_equal(sac_caffe_net_parse(&net, "bomb", bytes, 3 * 16385, &many), SAC_ELIMIT);
    assert_says(many, "bomb: 16385 layers, over the limit of 16384");
    free(bytes);
}

/* Each byte of a message set to each of some values: never more than a refusal. */
static void no_single_byte_does_harm(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x08, 0x96, 0x01, 0x7a, 2,    'h',  'i',  0x9a, 0x01, 3,
                                    0x01, 0xac, 0x02, 0x8a, 0x01, 2,    0x68, 1,    0xa2, 0x01,
                                    4,    0,    0,    0x80, 0x3f, 0x92, 0x01, 5,    8,    1,
                                    0x12, 1,    'b',  0xc2, 0x01, 1,    7};
    struct sac_error err = {0};

    assert_ok(unpack_in(1 << 16, bytes, sizeof bytes, &err), err);
    for (size_t i = 0; i < sizeof bytes; i++) {
        for (int value = 0; value < 256; value++) {
            struct sac_error why = {0};
            uint8_t copy[sizeof bytes];
            memcpy(copy, bytes, sizeof bytes);
            copy[i] = (uint8_t)value;
            unpack_in(1 << 16, copy, sizeof copy, &why);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_unpacks),
        cmocka_unit_test(an_unknown_field_is_passed_over),
        cmocka_unit_test(broken_bytes_are_told_with_their_place),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(empty_messages_cannot_claim_memory),
        cmocka_unit_test(a_net_of_empty_layers_is_refused),
        cmocka_unit_test(no_single_byte_does_harm),
    };

    return cmocka_run_group_tests_name("formats/wire", tests, NULL, NULL);
}
