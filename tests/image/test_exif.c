#include "pictures.h"

#include "image/exif.h"

/* An EXIF segment of one directory with two entries; the second is the orientation. */
static const uint8_t big_endian[] = {
    'E', 'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 2,
    1,   0,    0,   3,   0, 0, 0,   1,   0, 9,  0, 0, /* ImageWidth */
    1,   0x12, 0,   3,   0, 0, 0,   1,   0, 6,  0, 0, 0, 0, 0, 0,
};
static const uint8_t little_endian[] = {
    'E', 'x', 'i', 'f', 0, 0, 'I',  'I', 42, 0, 8, 0, 0, 0, 2, 0, 0, 1, 3, 0, 1, 0,
    0,   0,   9,   0,   0, 0, 0x12, 1,   3,  0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0,
};

static void both_byte_orders_are_read(void **state)
{
    (void)state;
    assert_int_equal(sac_exif_orientation(big_endian, sizeof big_endian), 6);
    assert_int_equal(sac_exif_orientation(little_endian, sizeof little_endian), 6);
}

static void each_orientation_is_read_and_others_are_upright(void **state)
{
    uint8_t segment[sizeof little_endian];

    (void)state;
    memcpy(segment, little_endian, sizeof segment);
    for (int value = 0; value < 256; value++) {
        segment[36] = (uint8_t)value;
        assert_int_equal(sac_exif_orientation(segment, sizeof segment),
                         value >= 1 && value <= 8 ? value : 1);
    }
}

/* One byte of the segment changed, so that there is no orientation to be had. */
static void assert_upright_with(size_t at, uint8_t value)
{
    uint8_t segment[sizeof big_endian];

    memcpy(segment, big_endian, sizeof segment);
    segment[at] = value;
    assert_int_equal(sac_exif_orientation(segment, sizeof segment), 1);
}

static void a_damaged_segment_is_upright(void **state)
{
    (void)state;
    assert_upright_with(0, 'x');   /* not EXIF */
    assert_upright_with(6, 'I');   /* neither byte order */
    assert_upright_with(9, 43);    /* not TIFF */
    assert_upright_with(10, 0xff); /* the directory lies far outside */
    assert_upright_with(13, 37);   /* and just outside */
    assert_upright_with(15, 1);    /* the directory ends before the entry */
    assert_upright_with(31, 4);    /* of another type */
    assert_upright_with(35, 2);    /* two of them */
    assert_false(sac_exif_is((const uint8_t *)"http://ns.adobe.com/xap/1.0/", 29));
}

static void a_directory_that_claims_more_entries_than_there_are_ends_with_the_segment(void **state)
{
    uint8_t segment[sizeof big_endian];

    (void)state;
    memcpy(segment, big_endian, sizeof segment);
    segment[14] = 0xff;
    assert_int_equal(sac_exif_orientation(segment, sizeof segment), 6);
    segment[29] = 0x13;
    assert_int_equal(sac_exif_orientation(segment, sizeof segment), 1);
}

static void nothing_is_read_behind_a_segment_cut_anywhere(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof big_endian; size++) {
        struct bytes cut = picture_copy(big_endian, size);
        int orientation = sac_exif_orientation(cut.data, cut.size);
        assert_int_equal(orientation, size < 40 ? 1 : 6);
        free(cut.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_byte_orders_are_read),
        cmocka_unit_test(each_orientation_is_read_and_others_are_upright),
        cmocka_unit_test(a_damaged_segment_is_upright),
        cmocka_unit_test(a_directory_that_claims_more_entries_than_there_are_ends_with_the_segment),
        cmocka_unit_test(nothing_is_read_behind_a_segment_cut_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
