#define JPEG_INTERNALS /* libjpeg's own interfaces: of its entropy decoder and marker reader */
#include "image/jpeg_huffman.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>

enum {
    LOOK_BITS = 11, /* what a look-up sees: two AC tables' pairs are 32 KB */
    LOOK_SIZE = 1 << LOOK_BITS,
    LOOK_ENDS_BLOCK = 64,
    BITS_OF_A_SYMBOL = 32, /* at least: codes of 16, values of 15 */
};

/*
 * values[next LOOK_BITS bits]: a symbol that ends within them is whole:
 *   bits 0–7 of code and value together; bits 8–15: zeros before it (64: the block
 *   ends); bits 16–31: the value.
 * Else bits 0–7 are 0, and where the code at least ends within them, bits 8–15 are
 * its length and 16–23 the symbol.
 * skips[]: of as many whole symbols as there are, bits 0–7: their bits; 8–15: how
 * far all but the last advance; 16–31: how far all do. 0: not one is whole.
 * pairs[]: of two whole symbols, or one and nothing, bits 0–7: their bits; 8–15 and
 * 16–23: the zeros before each value; 24–31: how far the second advances; 32–47 and 48–63: the
 * values. 0: not one is whole.
 */
struct table {
    uint8_t counts[17], symbols[256]; /* what it was made of; counts[0] is 1 once it was */
    bool has_skips, has_pairs;
    uint32_t values[LOOK_SIZE], skips[LOOK_SIZE];
    uint64_t pairs[LOOK_SIZE];
    int32_t last_code[18]; /* of each length, −1: there is none */
    int32_t to_symbol[17]; /* code + this is its place in symbols */
};

/* Bits not yet used, the next on top. Behind the last byte stand zeros, `padded` of them so far. */
struct bits {
    uint64_t top;
    uint32_t count, padded;
    const uint8_t *next, *end; /* never past a marker */
    bool bad;                  /* a code that does not exist */
};

struct sac_jpeg_huffman {
    struct jpeg_entropy_decoder library; /* first: what libjpeg sees */
    struct bits in;
    int16_t unused[64]; /* coefficients of rows that are passed over */
    struct {
        const struct table *dc, *ac;
        int component;
        bool dc_only; /* nobody looks at the others */
    } blocks[D_MAX_BLOCKS_IN_MCU];
    uint32_t last_dc[MAX_COMPS_IN_SCAN];
    unsigned restarts_left; /* MCUs before the next restart marker */
    struct table dc[NUM_HUFF_TBLS], ac[NUM_HUFF_TBLS];
};

/* From the zigzag order to that of rows. Runs that pass the end of a block land on its last place:
 * 16 of a run, and 64 that mean that it ends. */
static const uint8_t natural_order[64 + 64 + 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34,
    27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
};

/* ---- Tables ---- */

/* ITU-T T.81, figure F.12. */
static inline int32_t extend(uint32_t bits, unsigned size)
{
    int32_t low = size ? (int32_t)(1u << size >> 1) : 0;

    return (int32_t)bits < low ? (int32_t)bits - (int32_t)(1u << size) + 1 : (int32_t)bits;
}

/* What follows from a symbol: how many bits its value has, and how many zeros precede it. */
static inline unsigned run_of(bool is_dc, unsigned symbol)
{
    if (is_dc)
        return 0;
    return symbol == 0 ? LOOK_ENDS_BLOCK : symbol >> 4;
}

static void enter(struct table *t, bool is_dc, uint32_t code, unsigned length, unsigned symbol)
{
    unsigned size = symbol & 15, whole = length + size;
    uint32_t *at = t->values + (code << (LOOK_BITS - length));

    if (whole > LOOK_BITS) {
        for (uint32_t i = 0; i < 1u << (LOOK_BITS - length); i++)
            at[i] = length << 8 | symbol << 16;
        return;
    }
    unsigned rest = LOOK_BITS - whole;
    for (uint32_t i = 0; i < 1u << (LOOK_BITS - length); i++)
        at[i] = whole | run_of(is_dc, symbol) << 8 | (uint32_t)extend(i >> rest, size) << 16;
}

/* ITU-T T.81, annex C. libjpeg has made a table of the same and refused what is none. */
static void make_values(struct table *t, bool is_dc, const JHUFF_TBL *from)
{
    uint32_t code = 0;
    int32_t at = 0;

    memset(t->values, 0, sizeof t->values);
    memcpy(t->counts, from->bits, sizeof t->counts);
    memcpy(t->symbols, from->huffval, sizeof t->symbols);
    t->counts[0] = 1;
    for (unsigned length = 1; length <= 16; length++, code <<= 1) {
        t->to_symbol[length] = at - (int32_t)code;
        for (int i = 0; i < from->bits[length]; i++, at++, code++)
            if (length <= LOOK_BITS)
                enter(t, is_dc, code, length, from->huffval[at]);
        t->last_code[length] = from->bits[length] ? (int32_t)code - 1 : -1;
    }
    t->last_code[17] = INT32_MAX;
    t->has_skips = t->has_pairs = false;
}

static uint32_t skip_of(const struct table *t, uint32_t bits)
{
    unsigned used = 0, before = 0, all = 0;

    while (used < LOOK_BITS) {
        uint32_t value = t->values[bits << used & (LOOK_SIZE - 1)];
        unsigned length = value & 255, run = value >> 8 & 255;
        if (length == 0 || length > LOOK_BITS - used)
            break;
        before = all;
        all += run + 1;
        used += length;
        if (run == LOOK_ENDS_BLOCK)
            break;
    }
    return used | before << 8 | all << 16;
}

static void make_skips(struct table *t)
{
    for (uint32_t bits = 0; bits < LOOK_SIZE; bits++)
        t->skips[bits] = skip_of(t, bits);
    t->has_skips = true;
}

/* A second symbol that is not there is a 0 at the next place. */
static uint64_t pair_of(const struct table *t, uint32_t bits)
{
    uint64_t first = t->values[bits];
    unsigned used = first & 255;

    if (used == 0)
        return 0;
    uint64_t out = used | (first >> 8 & 255) << 8 | first >> 16 << 32;
    uint64_t second = t->values[bits << used & (LOOK_SIZE - 1)];
    unsigned length = second & 255;
    if ((first >> 8 & 255) == LOOK_ENDS_BLOCK || length == 0 || length > LOOK_BITS - used)
        return out;
    uint64_t run = second >> 8 & 255;
    return out + length + (run << 16) + ((run + 1) << 24) + (second >> 16 << 48);
}

static void make_pairs(struct table *t)
{
    for (uint32_t bits = 0; bits < LOOK_SIZE; bits++)
        t->pairs[bits] = pair_of(t, bits);
    t->has_pairs = true;
}

static const struct table *table_of(struct table *t, bool is_dc, const JHUFF_TBL *from)
{
    if (t->counts[0] == 0 || memcmp(t->counts + 1, from->bits + 1, sizeof t->counts - 1) != 0 ||
        memcmp(t->symbols, from->huffval, sizeof t->symbols) != 0)
        make_values(t, is_dc, from);
    return t;
}

/* ---- Bits ---- */

/* Byte by byte: near the end, and where a byte is 0xff. */
static void refill_slowly(struct bits *in)
{
    while (in->count <= 56) {
        const uint8_t *at = in->next;
        uint64_t byte = at < in->end ? *at++ : 0xff;
        if (byte == 0xff) {
            while (at < in->end && *at == 0xff)
                at++;
            if (at >= in->end || *at++ != 0) { /* a marker, or nothing more */
                in->padded += 64 - in->count;
                in->count = 64;
                return;
            }
        }
        in->top |= byte << (56 - in->count);
        in->count += 8;
        in->next = at;
    }
}

static inline void refill(struct bits *in)
{
    uint64_t word;

    if (in->count >= BITS_OF_A_SYMBOL)
        return;
    if (in->end - in->next < 8) {
        refill_slowly(in);
        return;
    }
    memcpy(&word, in->next, sizeof word);
    if ((~word - 0x0101010101010101u) & word & 0x8080808080808080u) { /* some byte is 0xff */
        refill_slowly(in);
        return;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    /* Below `count` then stand the first bits of the next byte, which the next
     * refill puts there once more. */
    in->top |= word >> in->count;
    in->next += (63 - in->count) / 8;
    in->count |= 56;
}

static inline uint32_t look(const struct bits *in)
{
    return (uint32_t)(in->top >> (64 - LOOK_BITS));
}

static inline void use(struct bits *in, unsigned count)
{
    in->top <<= count;
    in->count -= count;
}

/* A code that no look-up knows, or whose value passes its end: its symbol, once it is used. */
static unsigned long_symbol(struct bits *in, const struct table *t, uint32_t value)
{
    unsigned length = value >> 8 & 255, symbol = value >> 16;

    if (length == 0) {
        for (length = LOOK_BITS + 1; (int32_t)(in->top >> (64 - length)) > t->last_code[length];)
            length++;
        if (length > 16) {
            in->bad = true;
            return 0;
        }
        symbol = t->symbols[(int32_t)(in->top >> (64 - length)) + t->to_symbol[length]];
    }
    use(in, length);
    return symbol;
}

static __attribute__((noinline)) uint32_t long_value(struct bits *in, const struct table *t,
                                                     bool is_dc, uint32_t value)
{
    unsigned symbol = long_symbol(in, t, value), size = symbol & 15;
    uint32_t bits = size ? (uint32_t)(in->top >> (64 - size)) : 0;

    use(in, size);
    return run_of(is_dc, symbol) << 8 | (uint32_t)extend(bits, size) << 16;
}

/* The next symbol, as `values` has it. */
static inline uint32_t next_value(struct bits *in, const struct table *t, bool is_dc)
{
    refill(in);
    uint32_t value = t->values[look(in)];
    if ((value & 255) == 0)
        return long_value(in, t, is_dc, value);
    use(in, value & 255);
    return value;
}

/* ---- Blocks ---- */

/* Two at a time, unless the first is, or may be, the block's last. Zeros are written
 * only where nothing was: those that mean that the block ends to its last place. */
static inline void read_ac(struct bits *in, const struct table *t, int16_t *block)
{
    for (unsigned k = 1; k < 64;) {
        refill(in);
        uint64_t pair = t->pairs[look(in)];
        unsigned first = k + (pair >> 8 & 255);
        if (first < 63 && pair) {
            use(in, pair & 255);
            block[natural_order[first]] = (int16_t)(pair >> 32);
            block[natural_order[first + 1 + (pair >> 16 & 255)]] = (int16_t)(pair >> 48);
            k = first + 1 + (pair >> 24 & 255);
        } else {
            uint32_t value = next_value(in, t, false);
            k += value >> 8 & 255;
            block[natural_order[k++]] = (int16_t)(value >> 16);
        }
    }
}

static inline void skip_ac(struct bits *in, const struct table *t)
{
    for (unsigned k = 1; k < 64;) {
        refill(in);
        uint32_t skip = t->skips[look(in)];
        if (skip && k + (skip >> 8 & 255) < 64) {
            use(in, skip & 255);
            k += skip >> 16;
        } else {
            k += (next_value(in, t, false) >> 8 & 255) + 1;
        }
    }
}

static void read_block(struct sac_jpeg_huffman *h, struct bits *in, int index, int16_t *block)
{
    uint32_t *dc = &h->last_dc[h->blocks[index].component];

    *dc += (uint32_t)(int32_t)(int16_t)(next_value(in, h->blocks[index].dc, true) >> 16);
    if (block)
        block[0] = (int16_t)*dc;
    if (h->blocks[index].dc_only)
        skip_ac(in, h->blocks[index].ac);
    else
        read_ac(in, h->blocks[index].ac, block ? block : h->unused);
}

static void restart(struct sac_jpeg_huffman *h, j_decompress_ptr info)
{
    info->marker->read_restart_marker(info);
    h->in = (struct bits){.next = info->src->next_input_byte,
                          .end = info->src->next_input_byte + info->src->bytes_in_buffer};
    memset(h->last_dc, 0, sizeof h->last_dc);
    h->restarts_left = info->restart_interval;
}

/* libjpeg's sentences. */
static void complain(const struct bits *in, j_decompress_ptr info)
{
    if (in->bad)
        WARNMS(info, JWRN_HUFF_BAD_CODE);
    else if (in->next >= in->end)
        WARNMS(info, JWRN_JPEG_EOF);
    else
        WARNMS(info, JWRN_HIT_MARKER);
}

/* blocks: all zeros, or NULL where they are to be passed over. */
static boolean decode_mcu(j_decompress_ptr info, JBLOCKROW *blocks)
{
    struct sac_jpeg_huffman *h = (struct sac_jpeg_huffman *)info->entropy;

    if (info->restart_interval && h->restarts_left == 0)
        restart(h, info);
    struct bits in = h->in;
    for (int i = 0; i < info->blocks_in_MCU; i++)
        read_block(h, &in, i, blocks ? blocks[i][0] : NULL);
    h->in = in;
    h->restarts_left--;
    info->src->next_input_byte = in.next;
    info->src->bytes_in_buffer = (size_t)(in.end - in.next);
    if (in.bad || in.padded > in.count)
        complain(&in, info);
    return TRUE;
}

static void start_pass(j_decompress_ptr info)
{
    (void)info; /* one scan: sac_jpeg_huffman_take has begun it */
}

static void set_block(struct sac_jpeg_huffman *h, j_decompress_ptr info, int index)
{
    int at = info->MCU_membership[index];
    const jpeg_component_info *component = info->cur_comp_info[at];
    int dc = component->dc_tbl_no, ac = component->ac_tbl_no;

    h->blocks[index].component = at;
    h->blocks[index].dc = table_of(&h->dc[dc], true, info->dc_huff_tbl_ptrs[dc]);
    h->blocks[index].ac = table_of(&h->ac[ac], false, info->ac_huff_tbl_ptrs[ac]);
    h->blocks[index].dc_only = !component->component_needed || component->DCT_scaled_size <= 1;
    if (h->blocks[index].dc_only && !h->ac[ac].has_skips)
        make_skips(&h->ac[ac]);
    if (!h->blocks[index].dc_only && !h->ac[ac].has_pairs)
        make_pairs(&h->ac[ac]);
}

bool sac_jpeg_huffman_take(struct sac_jpeg_huffman *h, j_decompress_ptr info)
{
    if (info->progressive_mode || info->arith_code || info->buffered_image ||
        jpeg_has_multiple_scans(info))
        return false;
    for (int i = 0; i < info->blocks_in_MCU; i++)
        set_block(h, info, i);
    h->library = (struct jpeg_entropy_decoder){.start_pass = start_pass, .decode_mcu = decode_mcu};
    h->in = (struct bits){.next = info->src->next_input_byte,
                          .end = info->src->next_input_byte + info->src->bytes_in_buffer};
    memset(h->last_dc, 0, sizeof h->last_dc);
    h->restarts_left = info->restart_interval;
    info->entropy = &h->library;
    return true;
}

struct sac_jpeg_huffman *sac_jpeg_huffman_new(void)
{
    return calloc(1, sizeof(struct sac_jpeg_huffman));
}

void sac_jpeg_huffman_free(struct sac_jpeg_huffman *h)
{
    free(h);
}
