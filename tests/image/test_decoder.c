#include "pictures.h"

#include <malloc.h>
#include <signal.h>
#include <sys/time.h>

static struct sac_decoder *decoder;

static int make_decoder(void **state)
{
    (void)state;
    return sac_decoder_new(&decoder, NULL);
}

static int free_decoder(void **state)
{
    (void)state;
    sac_decoder_free(decoder);
    return 0;
}

static int decode(struct bytes file, struct sac_image *ret, struct sac_error *err)
{
    struct sac_decode_options options = {.channels = 3};

    return sac_image_decode(decoder, file.data, file.size, &options, ret, err);
}

/* The four ways in which rows are produced. */
#define KINDS 4
static struct bytes make_kind(int kind, int width, int height)
{
    return kind < 2 ? make_rgb_jpeg(width, height, kind == 1)
                    : make_grey_png(width, height, kind == 3);
}

static void the_kind_is_told_by_content(void **state)
{
    struct sac_image_info info;
    struct sac_error err = {0};

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 45, 31);
        assert_ok(sac_image_probe(decoder, file.data, file.size, NULL, &info, &err), err);
        assert_int_equal(info.kind, kind < 2 ? SAC_IMAGE_JPEG : SAC_IMAGE_PNG);
        assert_int_equal(info.width, 45);
        assert_int_equal(info.height, 31);
        assert_int_equal(info.channels, kind < 2 ? 3 : 1);
        assert_int_equal(info.orientation, 1);
        free(file.data);
    }
}

static void what_is_neither_is_unsupported(void **state)
{
    static const char *const others[] = {"\xff", "\xff\xd8",        "GIF89a", "RIFF....WEBP",
                                         "BM",   "\x89PNG\r\n\x1a", "<svg/>"};
    struct sac_image_info info;
    struct sac_image image;

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct bytes file = picture_copy((const uint8_t *)others[i], strlen(others[i]));
        struct sac_error err = {0};
        assert_int_equal(decode(file, &image, &err), SAC_EUNSUPPORTED);
        assert_says(err, "picture: neither JPEG nor PNG");
        assert_int_equal(sac_image_probe(decoder, file.data, file.size, NULL, &info, NULL),
                         SAC_EUNSUPPORTED);
        free(file.data);
    }
}

static void no_bytes_are_no_picture(void **state)
{
    struct bytes file = picture_copy((const uint8_t *)"", 0);
    struct sac_error err = {0};
    struct sac_image image;

    (void)state;
    assert_int_equal(decode(file, &image, &err), SAC_EFORMAT);
    assert_string_equal(err.text, "picture: there are no bytes");
    free(file.data);
}

static void other_numbers_of_channels_are_refused(void **state)
{
    struct bytes file = make_kind(0, 8, 8);
    struct sac_image image;

    (void)state;
    for (int channels = -1; channels <= 5; channels++) {
        struct sac_decode_options options = {.channels = channels};
        int rc = sac_image_decode(decoder, file.data, file.size, &options, &image, NULL);
        assert_int_equal(rc, channels == 1 || channels == 3 ? 0 : SAC_EINVAL);
    }
    free(file.data);
}

static void limits_can_be_set_and_stand_in_the_sentence(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 45, 31);
        struct sac_image_limits limits = {.side_max = 44};
        struct sac_image_info info;
        struct sac_error err = {0};
        assert_int_equal(sac_image_probe(decoder, file.data, file.size, &limits, &info, &err),
                         SAC_ELIMIT);
        assert_says(err, "45 × 31, a side may have at most 44 pixels");
        limits = (struct sac_image_limits){.pixels_max = 45 * 31 - 1};
        err = (struct sac_error){0};
        assert_int_equal(sac_image_probe(decoder, file.data, file.size, &limits, &info, &err),
                         SAC_ELIMIT);
        assert_says(err, "at most 1394 pixels");
        limits = (struct sac_image_limits){.pixels_max = 45 * 31, .side_max = 45};
        assert_int_equal(sac_image_probe(decoder, file.data, file.size, &limits, &info, NULL), 0);
        free(file.data);
    }
}

/* Each beginning of a file, in memory that ends where it ends. */
static void every_truncation_is_an_error(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 19, 13);
        assert_true(file.size <= 2048);
        for (size_t size = 0; size < file.size; size++) {
            struct bytes cut = picture_copy(file.data, size);
            struct sac_error err = {0};
            struct sac_image image;
            int rc = decode(cut, &image, &err);
            if (rc >= 0)
                fail_msg("kind %d decodes when cut to %zu of %zu bytes", kind, size, file.size);
            assert_int_equal(err.code, rc);
            assert_true(err.text[0] != 0);
            free(cut.data);
        }
        free(file.data);
    }
}

static void a_result_is_untouched_by_failure(void **state)
{
    struct sac_image image = {.width = 4711}, before = image;
    struct sac_image_info info = {.width = 4711};

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 19, 13);
        file.size -= 20;
        assert_true(decode(file, &image, NULL) < 0);
        assert_memory_equal(&image, &before, sizeof image);
        file.size = 24;
        assert_true(sac_image_probe(decoder, file.data, file.size, NULL, &info, NULL) < 0);
        assert_int_equal(info.width, 4711);
        free(file.data);
    }
}

/* Whatever comes of it, it is an error with a sentence or a picture whose pixels can be read. */
static void assert_error_or_picture(struct bytes file)
{
    struct sac_error err = {0};
    struct sac_image image;
    int rc = decode(file, &image, &err);

    assert_int_equal(err.code, rc);
    if (rc < 0)
        assert_true(err.text[0] != 0);
    else
        picture_hash(image.pixels, image.stride * (size_t)image.height);
}

static void every_byte_may_be_wrong(void **state)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 19, 13);
        for (size_t at = 0; at < file.size; at++)
            for (size_t i = 0; i < sizeof changes; i++) {
                struct bytes bad = picture_copy(file.data, file.size);
                bad.data[at] ^= changes[i];
                assert_error_or_picture(bad);
                free(bad.data);
            }
        free(file.data);
    }
}

static void try_hostile(const char *path, void *context)
{
    struct bytes file = picture_read_path(path);
    struct bytes exact = picture_copy(file.data, file.size);

    (void)context;
    assert_error_or_picture(exact);
    free(exact.data);
    free(file.data);
}

static void files_that_broke_other_decoders_give_an_error_or_a_picture(void **state)
{
    (void)state;
    assert_int_equal(picture_each("hostile/jpeg", try_hostile, NULL), 155);
    assert_int_equal(picture_each("hostile/png", try_hostile, NULL), 267);
}

/* Before the first row, or the first row of blocks of a progressive picture. */
static void a_canceled_picture_is_given_up(void **state)
{
    atomic_bool canceled = true;

    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 300, 500);
        struct sac_decode_options options = {.channels = 3, .canceled = &canceled};
        struct sac_error err = {0};
        struct sac_image image;
        atomic_store(&canceled, true);
        assert_int_equal(sac_image_decode(decoder, file.data, file.size, &options, &image, &err),
                         SAC_ECANCELED);
        assert_says(err, "canceled");
        atomic_store(&canceled, false);
        err = (struct sac_error){0};
        assert_ok(sac_image_decode(decoder, file.data, file.size, &options, &image, &err), err);
        free(file.data);
    }
}

static atomic_bool alarmed;

static void on_alarm(int signal)
{
    (void)signal;
    atomic_store(&alarmed, true);
}

/* A millisecond after it began; decoding 6 million pixels takes ten and more. */
static void a_picture_is_given_up_in_its_midst(void **state)
{
    struct sigaction before, catch = {.sa_handler = on_alarm};

    (void)state;
    sigaction(SIGALRM, &catch, &before);
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 3000, 2000);
        struct sac_decode_options options = {.channels = 3, .canceled = &alarmed};
        struct itimerval soon = {.it_value.tv_usec = 1000};
        struct sac_image image;
        atomic_store(&alarmed, false);
        setitimer(ITIMER_REAL, &soon, NULL);
        assert_int_equal(sac_image_decode(decoder, file.data, file.size, &options, &image, NULL),
                         SAC_ECANCELED);
        free(file.data);
    }
    sigaction(SIGALRM, &before, NULL);
}

/* What a fresh decoder makes of a file, by hash. */
static uint32_t hash_by(struct sac_decoder *by, struct bytes file)
{
    struct sac_image image;

    picture_decode(by, file, &(struct sac_decode_options){.channels = 3}, &image);
    return picture_hash(image.pixels, image.stride * (size_t)image.height);
}

static void a_decoder_gives_the_same_whatever_it_did_before(void **state)
{
    struct bytes files[2 * KINDS];
    uint32_t alone[2 * KINDS];

    (void)state;
    for (int i = 0; i < 2 * KINDS; i++) {
        struct sac_decoder *fresh;
        files[i] = make_kind(i % KINDS, 30 + 17 * i, 70 - 5 * i);
        assert_int_equal(sac_decoder_new(&fresh, NULL), 0);
        alone[i] = hash_by(fresh, files[i]);
        sac_decoder_free(fresh);
    }
    for (int i = 0; i < 2 * KINDS; i++)
        for (int j = 0; j < 2 * KINDS; j++) {
            assert_int_equal(hash_by(decoder, files[i]), alone[i]);
            struct bytes broken = {files[i].data, files[i].size / 2};
            assert_true(picture_code(broken, &(struct sac_error){0}) < 0);
            assert_int_equal(hash_by(decoder, files[j]), alone[j]);
        }
    for (int i = 0; i < 2 * KINDS; i++)
        free(files[i].data);
}

static void pixel_memory_is_used_again(void **state)
{
    struct sac_decoder *own;
    struct sac_image image;

    (void)state;
    assert_int_equal(sac_decoder_new(&own, NULL), 0);
    const uint8_t *pixels = NULL;
    for (int side = 200; side > 10; side -= 30)
        for (int kind = 0; kind < KINDS; kind++) {
            struct bytes file = make_kind(kind, side, side);
            picture_decode(own, file, &(struct sac_decode_options){.channels = 3}, &image);
            assert_true(!pixels || image.pixels == pixels);
            pixels = image.pixels;
            free(file.data);
        }
    sac_decoder_free(own);
}

static void decode_good_and_bad(struct bytes files[KINDS])
{
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes cut = {files[kind].data, files[kind].size - 30};
        struct sac_image image;
        assert_int_equal(decode(files[kind], &image, NULL), 0);
        assert_true(decode(cut, &image, NULL) < 0);
    }
}

static void memory_does_not_grow_with_pictures(void **state)
{
    struct bytes files[KINDS];

    (void)state;
    if (SANITIZED) {
        print_message("# skipped: mallinfo2 does not see a sanitizer's memory\n");
        skip();
    }
    for (int kind = 0; kind < KINDS; kind++)
        files[kind] = make_kind(kind, 120, 90);
    decode_good_and_bad(files);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < 100; i++)
        decode_good_and_bad(files);
    assert_int_equal(mallinfo2().uordblks, before);
    for (int kind = 0; kind < KINDS; kind++)
        free(files[kind].data);
}

/* So that the tests of bombs, which rely on the bound, mean something. */
static void a_bound_on_memory_is_felt_and_is_an_error(void **state)
{
    (void)state;
    if (SANITIZED) {
        print_message("# skipped: a sanitizer needs the address space\n");
        skip();
    }
    for (int kind = 0; kind < KINDS; kind++) {
        struct bytes file = make_kind(kind, 3000, 2000); /* 18 MB of pixels */
        assert_int_equal(picture_code_within(file, 8 << 20), SAC_ENOMEM);
        assert_int_equal(picture_code_within(file, 256 << 20), 0);
        free(file.data);
    }
}

/* testorig.jpg is 227 × 149 in three channels, as djpeg writes it: 101,469 bytes. */
static void pictures_decoded_at_one_time_share_one_bound(void **state)
{
    struct bytes file = picture_read("jpeg/testorig.jpg");
    struct sac_decode_options options = {.channels = 3};
    struct sac_error busy = {0}, large = {0}, err = {0};
    struct sac_decoder *first, *second;
    struct sac_image image;

    /* The shared decoder still holds what the tests before needed. */
    free_decoder(state);
    make_decoder(state);
    assert_ok(sac_decoder_new(&first, &err), err);
    assert_ok(sac_decoder_new(&second, &err), err);
    sac_image_set_memory_max(227 * 149 * 3 * 3 / 2);
    assert_ok(sac_image_decode(first, file.data, file.size, &options, &image, &err), err);
    assert_int_equal(sac_image_decode(second, file.data, file.size, &options, &image, &busy),
                     SAC_EBUSY);
    assert_says(busy, "its pixels take 101469 bytes");
    sac_decoder_free(first);
    assert_ok(sac_image_decode(second, file.data, file.size, &options, &image, &err), err);
    sac_decoder_free(second);
    assert_ok(sac_decoder_new(&second, &err), err);
    sac_image_set_memory_max(1000);
    assert_int_equal(sac_image_decode(second, file.data, file.size, &options, &image, &large),
                     SAC_ELIMIT);
    sac_image_set_memory_max(0);
    sac_decoder_free(second);
    free(file.data);
}

/* 600 × 400 with chroma at half: 76 × 50 blocks of 64 coefficients of two bytes, and twice
 * 38 × 25; beside them 720,000 bytes of pixels and 16 rows of four channels. */
static void coefficients_of_a_progressive_picture_count(void **state)
{
    const size_t need = (76 * 50 + 2 * 38 * 25) * 64 * 2 + 720000 + 16 * 600 * 4;
    struct bytes file = make_rgb_jpeg(600, 400, true);
    struct sac_decode_options options = {.channels = 3};
    struct sac_decoder *own;
    struct sac_error busy = {0}, err = {0};
    struct sac_image image;

    free_decoder(state);
    make_decoder(state);
    assert_ok(sac_decoder_new(&own, &err), err);
    sac_image_set_memory_max(need - 1);
    assert_int_equal(sac_image_decode(own, file.data, file.size, &options, &image, &busy),
                     SAC_EBUSY);
    assert_says(busy, "its coefficients take");
    sac_image_set_memory_max(need);
    for (int i = 0; i < 3; i++) /* each gives back what it took */
        assert_ok(sac_image_decode(own, file.data, file.size, &options, &image, &err), err);
    sac_decoder_free(own);
    sac_image_set_memory_max(0);
    free(file.data);
}

/* Ten that have each had a picture of 101,469 bytes, three fitting at once. */
static void decoders_that_rest_leave_room_for_the_next(void **state)
{
    struct bytes file = picture_read("jpeg/testorig.jpg");
    struct sac_preprocess how = sac_preprocess_default(3, 227, 149);
    struct sac_decoder *decoders[10];
    struct sac_error err = {0};
    uint8_t *pixels = malloc(227 * 149 * 3);

    free_decoder(state);
    make_decoder(state);
    sac_image_set_memory_max(227 * 149 * 3 * 3 + 100000);
    for (int i = 0; i < 10; i++) {
        assert_ok(sac_decoder_new(&decoders[i], &err), err);
        assert_ok(
            sac_preprocess_pixels(&how, decoders[i], file.data, file.size, NULL, pixels, &err),
            err);
    }
    for (int i = 0; i < 10; i++)
        sac_decoder_free(decoders[i]);
    sac_image_set_memory_max(0);
    free(pixels);
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kind_is_told_by_content),
        cmocka_unit_test(what_is_neither_is_unsupported),
        cmocka_unit_test(no_bytes_are_no_picture),
        cmocka_unit_test(other_numbers_of_channels_are_refused),
        cmocka_unit_test(limits_can_be_set_and_stand_in_the_sentence),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(a_result_is_untouched_by_failure),
        cmocka_unit_test(every_byte_may_be_wrong),
        cmocka_unit_test(files_that_broke_other_decoders_give_an_error_or_a_picture),
        cmocka_unit_test(a_canceled_picture_is_given_up),
        cmocka_unit_test(a_picture_is_given_up_in_its_midst),
        cmocka_unit_test(a_decoder_gives_the_same_whatever_it_did_before),
        cmocka_unit_test(pixel_memory_is_used_again),
        cmocka_unit_test(pictures_decoded_at_one_time_share_one_bound),
        cmocka_unit_test(coefficients_of_a_progressive_picture_count),
        cmocka_unit_test(decoders_that_rest_leave_room_for_the_next),
        cmocka_unit_test(memory_does_not_grow_with_pictures),
        cmocka_unit_test(a_bound_on_memory_is_felt_and_is_an_error),
    };

    return cmocka_run_group_tests(tests, make_decoder, free_decoder);
}
