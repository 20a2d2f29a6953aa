/* What decoding takes of the heap, counted by standing before malloc. */
#include "pictures.h"

#include <stdatomic.h>

static atomic_int taken;

#if !SANITIZED
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    taken++;
    return __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size)
{
    taken++;
    return __libc_calloc(count, size);
}

__attribute__((visibility("default"))) void *realloc(void *memory, size_t size)
{
    taken++;
    return __libc_realloc(memory, size);
}

__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t size)
{
    taken++;
    return __libc_memalign(alignment, size);
}
#endif

/* The first is the largest, as after a while of serving. */
static int make_pictures(struct bytes files[4])
{
    uint8_t *grey = make_pixels(300, 200, 1);

    files[0] = make_rgb_jpeg(400, 300, true);
    files[1] = make_rgb_jpeg(400, 300, false);
    files[2] = make_jpeg(&(struct jpeg_recipe){.width = 300,
                                               .height = 200,
                                               .components = 1,
                                               .in = JCS_GRAYSCALE,
                                               .stored = JCS_GRAYSCALE,
                                               .optimize = true},
                         grey);
    files[3] = make_rgb_jpeg(31, 77, false);
    free(grey);
    return 4;
}

static int preprocess(struct sac_decoder *decoder, struct bytes file, enum sac_resize resize)
{
    static uint8_t pixels[3 * 29 * 29];
    struct sac_preprocess how = sac_preprocess_default(3, 29, 29);

    how.resize = resize;
    return sac_preprocess_pixels(&how, decoder, file.data, file.size, NULL, pixels, NULL);
}

static void the_next_jpegs_take_no_memory_at_all(void **state)
{
    struct bytes files[4];
    struct sac_decoder *decoder;

    (void)state;
    if (SANITIZED) {
        print_message("# skipped: a sanitizer has a malloc of its own\n");
        skip();
    }
    int count = make_pictures(files);
    assert_int_equal(sac_decoder_new(&decoder, NULL), 0);
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < count; i++)
            for (int resize = SAC_RESIZE_SQUASH; resize <= SAC_RESIZE_NONE; resize++) {
                int before = taken;
                assert_int_equal(preprocess(decoder, files[i], (enum sac_resize)resize), 0);
                if (round >= 2)
                    assert_int_equal(taken, before);
            }
    assert_true(taken > 0); /* the count counts */
    sac_decoder_free(decoder);
    for (int i = 0; i < count; i++)
        free(files[i].data);
}

/* Damaged ones in between, which leave libjpeg half way. */
static void damaged_jpegs_take_none_either(void **state)
{
    struct bytes files[4];
    struct sac_decoder *decoder;

    (void)state;
    if (SANITIZED) {
        print_message("# skipped: a sanitizer has a malloc of its own\n");
        skip();
    }
    int count = make_pictures(files);
    assert_int_equal(sac_decoder_new(&decoder, NULL), 0);
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < count; i++) {
            int before = taken;
            struct bytes cut = {files[i].data, files[i].size - 30};
            assert_true(preprocess(decoder, cut, SAC_RESIZE_SQUASH) < 0);
            assert_int_equal(preprocess(decoder, files[i], SAC_RESIZE_SQUASH), 0);
            if (round >= 2)
                assert_int_equal(taken, before);
        }
    sac_decoder_free(decoder);
    for (int i = 0; i < count; i++)
        free(files[i].data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_jpegs_take_no_memory_at_all),
        cmocka_unit_test(damaged_jpegs_take_none_either),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
