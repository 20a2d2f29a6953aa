#include "makers.h"

#include "data/datum.h"

static void planes_of_bytes_are_found_in_place(void **state)
{
    struct bytes record = make_datum(3, 5, 4, 3, 7, false);
    struct sac_datum datum;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_datum_read(&datum, record.data, record.size, &err), err);
    assert_int_equal(datum.channels, 3);
    assert_int_equal(datum.height, 4);
    assert_int_equal(datum.width, 5);
    assert_int_equal(datum.label, 7);
    assert_false(datum.encoded);
    assert_int_equal(datum.size, 60);
    assert_int_equal(datum.bytes[20 + 2 * 5 + 3], made_value(3, 1, 2, 3));
    free(record.data);
}

static void floats_are_read_one_by_one_and_packed(void **state)
{
    struct bytes record = make_datum(3, 2, 1, 1, -1, true);
    /* channels 1, height 1, width 2, packed float_data {1.5, −2} */
    static const uint8_t packed[] = {0x08, 1, 0x10, 1,    0x18, 2, 0x32, 8,
                                     0,    0, 0xc0, 0x3f, 0,    0, 0,    0xc0};
    struct sac_datum datum;
    struct sac_error err = {0};
    float got[2];

    (void)state;
    assert_ok(sac_datum_read(&datum, record.data, record.size, &err), err);
    assert_int_equal(datum.label, -1);
    assert_int_equal(datum.floats, 2);
    sac_datum_floats(record.data, record.size, got);
    assert_true(got[0] == made_value(3, 0, 0, 0) + .5f && got[1] == made_value(3, 0, 0, 1) + .5f);
    assert_ok(sac_datum_read(&datum, packed, sizeof packed, &err), err);
    sac_datum_floats(packed, sizeof packed, got);
    assert_true(got[0] == 1.5f && got[1] == -2.f);
    free(record.data);
}

static void a_record_cut_short_is_refused_at_each_length(void **state)
{
    struct bytes record = make_datum(3, 5, 4, 3, 300, false);
    struct sac_datum datum;

    (void)state;
    for (size_t size = 0; size < record.size; size++) {
        struct bytes cut = picture_copy(record.data, size);
        struct sac_error err = {0};
        int rc = sac_datum_read(&datum, cut.data, size, &err);
        /* the label stands behind the data: cut before it, the rest is whole */
        if (rc == 0)
            assert_true(size == record.size - 3 && datum.label == 0);
        else
            assert_int_equal(rc, SAC_EFORMAT);
        free(cut.data);
    }
    free(record.data);
}

static void a_shape_that_the_values_do_not_fill_is_refused(void **state)
{
    struct bytes record = make_datum(3, 5, 4, 3, 0, false);
    struct sac_datum datum;
    struct sac_error err = {0};

    (void)state;
    assert_int_equal(record.data[0], 0x08); /* channels */
    record.data[1] = 2;
    assert_int_equal(sac_datum_read(&datum, record.data, record.size, &err), SAC_EFORMAT);
    assert_says(err, "2 × 4 × 5 that holds 60 values");
    free(record.data);
}

/* A sanitizer watches: what is read lies in the record, and as many floats are
 * written as were announced. */
static void damaged_records_are_read_within_their_bounds(void **state)
{
    struct bytes records[2] = {make_datum(3, 5, 4, 3, 300, false), make_datum(4, 3, 2, 2, 1, true)};
    int taken = 0;

    (void)state;
    for (uint64_t n = 0; n < 40000; n++) {
        const struct bytes *whole = &records[n % 2];
        struct sac_random random = sac_random_stream(1, SAC_RANDOM_ITEM, 0, n);
        struct bytes copy = picture_copy(whole->data, whole->size);
        struct sac_datum datum;
        for (uint32_t i = 0; i < 1 + n % 4; i++)
            copy.data[sac_random_below(&random, (uint32_t)copy.size)] =
                (uint8_t)sac_random_u32(&random);
        if (sac_datum_read(&datum, copy.data, copy.size, NULL) == 0) {
            float *floats = malloc(datum.floats * sizeof *floats + 1);
            assert_non_null(floats);
            sac_datum_floats(copy.data, copy.size, floats);
            if (datum.size)
                assert_true(datum.bytes >= copy.data &&
                            datum.bytes + datum.size <= copy.data + copy.size);
            free(floats);
            taken++;
        }
        free(copy.data);
    }
    assert_true(taken > 1000); /* damaged pixels are pixels still */
    free(records[0].data);
    free(records[1].data);
}

static void an_encoded_picture_needs_no_shape(void **state)
{
    static uint8_t text[] = "a picture";
    struct bytes record = make_encoded_datum((struct bytes){text, 9}, 4);
    struct sac_datum datum;
    struct sac_error err = {0};

    (void)state;
    assert_ok(sac_datum_read(&datum, record.data, record.size, &err), err);
    assert_true(datum.encoded && datum.size == 9 && memcmp(datum.bytes, text, 9) == 0);
    free(record.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planes_of_bytes_are_found_in_place),
        cmocka_unit_test(floats_are_read_one_by_one_and_packed),
        cmocka_unit_test(a_record_cut_short_is_refused_at_each_length),
        cmocka_unit_test(a_shape_that_the_values_do_not_fill_is_refused),
        cmocka_unit_test(damaged_records_are_read_within_their_bounds),
        cmocka_unit_test(an_encoded_picture_needs_no_shape),
    };

    return cmocka_run_group_tests_name("data/datum", tests, NULL, NULL);
}
