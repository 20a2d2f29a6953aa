/* Blobs: shapes old and new, values in each form that files have. */
#include "support/support.h"

#include <math.h>
#include <string.h>

#include "formats/caffe.h"

/* A blob of a 2 × 3 shape without values, for a case to complete. */
static Caffe__BlobProto blob_of_six(void)
{
    static int64_t dim[2] = {2, 3};
    static Caffe__BlobShape shape;
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT;

    shape = (Caffe__BlobShape)CAFFE__BLOB_SHAPE__INIT;
    shape.n_dim = 2;
    shape.dim = dim;
    blob.shape = &shape;
    return blob;
}

static void expect(const Caffe__BlobProto *blob, int rank, const float *values, size_t count)
{
    struct sac_error err = {0};
    struct sac_caffe_blob out;

    assert_ok(sac_caffe_blob_read(&out, blob, &err), err);
    assert_int_equal(out.rank, rank);
    assert_int_equal(out.count, count);
    for (size_t i = 0; i < count; i++)
        assert_true(out.data[i] == values[i]);
    sac_caffe_blob_done(&out);
}

static void refuse(const Caffe__BlobProto *blob, int code, const char *sentence)
{
    struct sac_error err = {0};
    struct sac_caffe_blob out = {.rank = -7};

    assert_int_equal(sac_caffe_blob_read(&out, blob, &err), code);
    assert_string_equal(err.text, sentence);
    assert_int_equal(out.rank, -7); /* untouched */
}

static const float six[6] = {0, 1, -2, 3.5f, 4, 5};

static void floats_and_doubles_are_read(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    float floats[6];
    double doubles[6] = {0, 1, -2, 3.5, 4, 5};

    memcpy(floats, six, sizeof six);
    blob.data = floats;
    blob.n_data = 6;
    expect(&blob, 2, six, 6);
    blob = blob_of_six();
    blob.double_data = doubles;
    blob.n_double_data = 6;
    expect(&blob, 2, six, 6);
}

/* Half precision by IEEE 754: 0x3c00 is 1, 0xc000 is -2, 0x4300 is 3.5, 0x4400
 * is 4, 0x4500 is 5. */
static void raw_values_are_read(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    uint16_t halves[6] = {0, 0x3c00, 0xc000, 0x4300, 0x4400, 0x4500};
    double doubles[6] = {0, 1, -2, 3.5, 4, 5};
    float floats[6];

    memcpy(floats, six, sizeof six);
    blob.has_raw_data = blob.has_raw_data_type = 1;
    blob.raw_data_type = CAFFE__TYPE__FLOAT16;
    blob.raw_data = (ProtobufCBinaryData){sizeof halves, (uint8_t *)halves};
    expect(&blob, 2, six, 6);
    blob.raw_data_type = CAFFE__TYPE__FLOAT;
    blob.raw_data = (ProtobufCBinaryData){sizeof floats, (uint8_t *)floats};
    expect(&blob, 2, six, 6);
    blob.raw_data_type = CAFFE__TYPE__DOUBLE;
    blob.raw_data = (ProtobufCBinaryData){sizeof doubles, (uint8_t *)doubles};
    expect(&blob, 2, six, 6);
}

/* The least and largest subnormal, the least normal and the largest number:
 * 2^-24, 1023 × 2^-24, 2^-14, 65504; then infinity and -0. */
static void half_precision_has_its_edges(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    uint16_t halves[6] = {1, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x8001};
    const float expected[6] = {0x1p-24f, 1023 * 0x1p-24f, 0x1p-14f, 65504, INFINITY, -0x1p-24f};

    blob.has_raw_data = blob.has_raw_data_type = 1;
    blob.raw_data_type = CAFFE__TYPE__FLOAT16;
    blob.raw_data = (ProtobufCBinaryData){sizeof halves, (uint8_t *)halves};
    expect(&blob, 2, expected, 6);
}

static void a_blob_without_shape_has_the_old_four_or_is_one_number(void **state)
{
    (void)state;
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT;
    float floats[6];

    memcpy(floats, six, sizeof six);
    blob.data = floats;
    blob.n_data = 1;
    expect(&blob, 0, six, 1);
    blob.has_num = blob.has_channels = blob.has_height = blob.has_width = 1;
    blob.num = blob.channels = 1;
    blob.height = 2;
    blob.width = 3;
    blob.n_data = 6;
    expect(&blob, 4, six, 6);
    /* Blob::FromProto looks at the old ones first. */
    Caffe__BlobShape shape = CAFFE__BLOB_SHAPE__INIT;
    int64_t other[1] = {5};
    shape.dim = other;
    shape.n_dim = 1;
    blob.shape = &shape;
    expect(&blob, 4, six, 6);
}

static void an_empty_blob_is_empty(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    int64_t none[2] = {0, 3};

    blob.shape->dim = none;
    expect(&blob, 2, NULL, 0);
}

static void counts_must_agree(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    float floats[7] = {0};

    blob.data = floats;
    blob.n_data = 5;
    refuse(&blob, SAC_EFORMAT, "a blob with 5 values for a shape of 6");
    blob.n_data = 7;
    refuse(&blob, SAC_EFORMAT, "a blob with 7 values for a shape of 6");
    blob.n_data = 0;
    refuse(&blob, SAC_EFORMAT, "a blob with 0 values for a shape of 6");
}

static void shapes_that_cannot_be_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    int64_t dim[9] = {3, INT64_MAX, 1, 1, 1, 1, 1, 1, 1};

    blob.shape->dim = dim;
    refuse(&blob, SAC_EFORMAT, "a blob's dimension 1 of 9223372036854775807 cannot be");
    dim[1] = -1;
    refuse(&blob, SAC_EFORMAT, "a blob's dimension 1 of -1 cannot be");
    dim[0] = 65536;
    dim[1] = 65536;
    refuse(&blob, SAC_EFORMAT, "a blob's dimension 1 of 65536 cannot be");
    blob.shape->n_dim = 9;
    refuse(&blob, SAC_ELIMIT, "a blob of 9 dimensions, over the limit of 8");
}

static void values_that_are_somewhere_else_are_told(void **state)
{
    (void)state;
    Caffe__BlobProto blob = blob_of_six();
    ProtobufCMessageUnknownField unknown = {.tag = 23, .len = 0};

    blob.base.n_unknown_fields = 1;
    blob.base.unknown_fields = &unknown;
    refuse(&blob, SAC_EUNSUPPORTED,
           "a blob with its values in field 23, which Caffe does not have; expected them as float "
           "or double");
    blob = blob_of_six();
    uint8_t bytes[7] = {0};
    blob.has_raw_data = 1;
    blob.raw_data = (ProtobufCBinaryData){7, bytes};
    refuse(&blob, SAC_EUNSUPPORTED,
           "a blob with raw values of no stated type; expected DOUBLE, FLOAT or FLOAT16");
    blob.has_raw_data_type = 1;
    blob.raw_data_type = CAFFE__TYPE__INT;
    refuse(&blob, SAC_EUNSUPPORTED,
           "a blob with raw values of type 3; expected DOUBLE, FLOAT or FLOAT16");
    blob.raw_data_type = CAFFE__TYPE__FLOAT16;
    refuse(&blob, SAC_EFORMAT, "a blob with 7 raw bytes, no multiple of 2");
}

static void a_file_that_is_no_blob_is_named(void **state)
{
    (void)state;
    struct sac_caffe_blob blob;
    struct sac_error empty = {0}, text = {0};

    assert_int_equal(sac_caffe_blob_load(&blob, sac_test_write("e.binaryproto", "", 0), &empty),
                     SAC_EFORMAT);
    assert_says(empty, "e.binaryproto: the file is empty; expected a binaryproto");
    assert_true(sac_caffe_blob_load(&blob, sac_test_write("t.binaryproto", "name: 'x'", 9), &text) <
                0);
    assert_says(text, "t.binaryproto: byte ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_and_doubles_are_read),
        cmocka_unit_test(raw_values_are_read),
        cmocka_unit_test(half_precision_has_its_edges),
        cmocka_unit_test(a_blob_without_shape_has_the_old_four_or_is_one_number),
        cmocka_unit_test(an_empty_blob_is_empty),
        cmocka_unit_test(counts_must_agree),
        cmocka_unit_test(shapes_that_cannot_be_are_refused_before_memory_is_taken),
        cmocka_unit_test(values_that_are_somewhere_else_are_told),
        cmocka_unit_test(a_file_that_is_no_blob_is_named),
    };

    return cmocka_run_group_tests_name("formats/blob", tests, NULL, NULL);
}
