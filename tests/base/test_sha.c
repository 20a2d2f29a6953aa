/* Against the examples of FIPS 180-4 as NIST publishes them (abc, 448 bits, a
 * million times "a"), and sums of other lengths by coreutils' sha1sum and sha256sum. */
#include <stdlib.h>
#include <string.h>

#include "base/sha.h"
#include "support/support.h"

struct example {
    const char *text, *sha1, *sha256;
};

static const struct example examples[] = {
    {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d",
     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void check(const void *bytes, size_t size, size_t piece, enum sac_sha_kind kind,
                  const char *expected)
{
    struct sac_sha sha;
    char hex[SAC_SHA_HEX];

    sac_sha_init(&sha, kind);
    for (size_t at = 0; at < size; at += piece)
        sac_sha_put(&sha, (const char *)bytes + at, size - at < piece ? size - at : piece);
    sac_sha_hex(&sha, hex);
    assert_string_equal(hex, expected);
}

static void nists_examples_have_their_sums(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const struct example *e = &examples[i];
        check(e->text, strlen(e->text), 1000, SAC_SHA1, e->sha1);
        check(e->text, strlen(e->text), 1000, SAC_SHA256, e->sha256);
    }
}

static void a_million_letters_have_their_sum_however_they_are_cut(void **state)
{
    static const size_t pieces[] = {1000000, 63, 64, 65, 4097};
    char *text = malloc(1000000);

    (void)state;
    memset(text, 'a', 1000000);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        check(text, 1000000, pieces[i], SAC_SHA1, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
        check(text, 1000000, pieces[i], SAC_SHA256,
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    free(text);
}

/* 55, 56 and 64 bytes: where the padding takes another block. sha256sum's. */
static void padding_takes_another_block_where_it_must(void **state)
{
    char text[64];

    (void)state;
    memset(text, 'a', sizeof text);
    check(text, 55, 64, SAC_SHA256,
          "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    check(text, 56, 64, SAC_SHA256,
          "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
    check(text, 64, 64, SAC_SHA256,
          "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nists_examples_have_their_sums),
        cmocka_unit_test(a_million_letters_have_their_sum_however_they_are_cut),
        cmocka_unit_test(padding_takes_another_block_where_it_must),
    };

    return cmocka_run_group_tests_name("base/sha", tests, NULL, NULL);
}
