#include "formats/prototxt.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "formats/message.h"

enum { NAME_MAX_BYTES = 128, NUMBER_MAX_BYTES = 64, FIELDS_MAX = 256 };

struct text {
    const char *file;
    const char *at;
    const char *end;
    const char *line_start;
    int line;
    int depth;
    struct sac_arena *arena;
    struct sac_buf scratch; /* the string being read */
    locale_t locale;        /* "C": the decimal point is a point */
    struct sac_error *err;
};

/* Where a token began. */
struct place {
    int line;
    int column;
};

static struct place here(const struct text *text)
{
    return (struct place){text->line, (int)(text->at - text->line_start) + 1};
}

__attribute__((format(printf, 4, 5))) static int fail_at(struct text *text, struct place place,
                                                         int code, const char *format, ...)
{
    char what[SAC_ERROR_TEXT];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return sac_fail(text->err, code, "%s:%d:%d: %s", text->file, place.line, place.column, what);
}

static int fail_memory(struct text *text)
{
    return fail_at(text, here(text), SAC_ELIMIT,
                   "the text needs more memory than a file of its size may take");
}

/* ---- Characters ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void skip_blanks(struct text *text)
{
    for (; text->at < text->end; text->at++) {
        char c = *text->at;
        if (c == '#')
            while (text->at + 1 < text->end && text->at[1] != '\n')
                text->at++;
        else if (c == '\n') {
            text->line++;
            text->line_start = text->at + 1;
        } else if (c != ' ' && (c < '\t' || c > '\r'))
            return;
    }
}

/* The next character that is not blank; 0 at the end. */
static char peek(struct text *text)
{
    skip_blanks(text);
    return text->at < text->end ? *text->at : 0;
}

static bool take(struct text *text, char c)
{
    if (text->at >= text->end || peek(text) != c || text->at >= text->end)
        return false;
    text->at++;
    return true;
}

/* What stands at the cursor, for a sentence: "'}'", "\"0x1G\"", "the end of the file". */
static const char *describe(struct text *text, char out[48])
{
    const char *at = text->at;

    if (peek(text) == 0 && text->at >= text->end)
        return "the end of the file";
    at = text->at;
    while (at < text->end && at - text->at < 32 &&
           (is_letter(*at) || is_digit(*at) || *at == '.' || *at == '-' || *at == '+'))
        at++;
    if (at > text->at)
        snprintf(out, 48, "\"%.*s\"", (int)(at - text->at), text->at);
    else if (*at > ' ' && *at < 127)
        snprintf(out, 48, "'%c'", *at);
    else
        snprintf(out, 48, "byte 0x%02X", (unsigned char)*at);
    return out;
}

/* Letters, digits and `_` into `name`; empty when there is no name here. */
static int read_name(struct text *text, char name[NAME_MAX_BYTES])
{
    struct place place = (skip_blanks(text), here(text));
    size_t size = 0;

    while (text->at < text->end && (is_letter(*text->at) || (size > 0 && is_digit(*text->at)))) {
        if (size == NAME_MAX_BYTES - 1)
            return fail_at(text, place, SAC_ELIMIT, "a name of %d characters or more",
                           NAME_MAX_BYTES);
        name[size++] = *text->at++;
    }
    name[size] = 0;
    return 0;
}

/* ---- Suggestions ---- */

static int least(int a, int b, int c)
{
    int ab = a < b ? a : b;

    return ab < c ? ab : c;
}

/* Levenshtein's distance; both shorter than NAME_MAX_BYTES. */
static int distance(const char *a, const char *b)
{
    int row[NAME_MAX_BYTES];
    int width = (int)strlen(b);

    for (int j = 0; j <= width; j++)
        row[j] = j;
    for (int i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 0; j < width; j++) {
            int above = row[j + 1];
            row[j + 1] = least(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[width];
}

/* The better of two names for what was meant; NULL when none is near. */
static const char *nearer(const char *meant, const char *best, const char *name, int *best_distance)
{
    if (strlen(name) >= NAME_MAX_BYTES)
        return best;
    int d = distance(meant, name);
    if (d >= *best_distance)
        return best;
    *best_distance = d;
    return name;
}

static int fail_unknown_field(struct text *text, struct place place,
                              const ProtobufCMessageDescriptor *descriptor, const char *name)
{
    const char *best = NULL;
    int best_distance = 2 + (int)strlen(name) / 4;

    for (unsigned i = 0; i < descriptor->n_fields; i++)
        best = nearer(name, best, descriptor->fields[i].name, &best_distance);
    if (best)
        return fail_at(text, place, SAC_EFORMAT, "%s has no field \"%s\"; did you mean \"%s\"?",
                       descriptor->short_name, name, best);
    return fail_at(text, place, SAC_EFORMAT, "%s has no field \"%s\"", descriptor->short_name,
                   name);
}

/* "MAX, AVE or STOCHASTIC", as many as fit. */
static int fail_unknown_enum(struct text *text, struct place place,
                             const ProtobufCFieldDescriptor *field, const char *found)
{
    const ProtobufCEnumDescriptor *descriptor = field->descriptor;
    char names[320];
    size_t used = 0;

    names[0] = 0;
    for (unsigned i = 0; i < descriptor->n_values && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 descriptor->values[i].name);
    return fail_at(text, place, SAC_EFORMAT, "%s is no value of \"%s\"; expected one of %s", found,
                   field->name, names);
}

/* ---- Numbers ---- */

/* Copies a sign and what follows of letters, digits, points and exponents. */
static bool read_number_token(struct text *text, char token[NUMBER_MAX_BYTES])
{
    const char *at;
    size_t size = 0;

    skip_blanks(text);
    if (text->at < text->end && *text->at == '-') {
        token[size++] = *text->at++;
        skip_blanks(text);
    }
    at = text->at;
    while (at < text->end && size < NUMBER_MAX_BYTES - 1) {
        bool exponent_sign = (*at == '-' || *at == '+') && at > text->at && (at[-1] | 32) == 'e';
        if (!is_letter(*at) && !is_digit(*at) && *at != '.' && !exponent_sign)
            break;
        token[size++] = *at++;
    }
    token[size] = 0;
    bool whole = at > text->at && size < NUMBER_MAX_BYTES - 1;
    text->at = at;
    return whole;
}

struct range {
    int64_t least;
    uint64_t most;
};

static struct range range_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return (struct range){0, UINT32_MAX};
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return (struct range){0, UINT64_MAX};
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return (struct range){INT64_MIN, INT64_MAX};
    default:
        return (struct range){INT32_MIN, INT32_MAX};
    }
}

/* Decimal, 0x… or 0…; two's complement in *ret. */
static bool parse_integer(const char *token, struct range range, uint64_t *ret)
{
    bool negative = token[0] == '-';
    const char *digits = token + negative;
    char *end;

    if (!is_digit(digits[0]))
        return false;
    errno = 0;
    uint64_t value = strtoull(digits, &end, 0);
    if (*end || errno)
        return false;
    if (!negative) {
        *ret = value;
        return value <= range.most;
    }
    *ret = 0 - value;
    return value <= 0 - (uint64_t)range.least && range.least < 0;
}

static int read_integer(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    struct range range = range_of(field->type);
    struct place place = (skip_blanks(text), here(text));
    char token[NUMBER_MAX_BYTES], seen[48];
    const char *found = describe(text, seen);
    uint64_t number;

    if (!read_number_token(text, token) || !parse_integer(token, range, &number))
        return fail_at(text, place, SAC_EFORMAT,
                       "expected a whole number from %lld to %llu for \"%s\", found %s",
                       (long long)range.least, (unsigned long long)range.most, field->name, found);
    if (sac_message_value_size(field) == 4)
        *(uint32_t *)value = (uint32_t)number;
    else
        *(uint64_t *)value = number;
    return 0;
}

/* Decimal, with an `f` behind it if need be; inf, infinity, nan. */
static bool parse_real(const char *token, locale_t locale, double *ret)
{
    const char *digits = token + (token[0] == '-');
    char *end;

    if (digits[0] == '0' && is_digit(digits[1]) && !strpbrk(digits, ".eE"))
        return false; /* octal: another number than it looks */
    if (strpbrk(digits, "xXpP"))
        return false;
    if (!is_digit(digits[0]) && digits[0] != '.' && strcasecmp(digits, "inf") != 0 &&
        strcasecmp(digits, "infinity") != 0 && strcasecmp(digits, "nan") != 0)
        return false;
    *ret = strtod_l(token, &end, locale);
    if ((*end == 'f' || *end == 'F') && end > digits)
        end++;
    return end > digits && *end == 0;
}

static int read_real(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    struct place place = (skip_blanks(text), here(text));
    char token[NUMBER_MAX_BYTES], seen[48];
    const char *found = describe(text, seen);
    double number;

    if (!read_number_token(text, token) || !parse_real(token, text->locale, &number))
        return fail_at(text, place, SAC_EFORMAT, "expected a number for \"%s\", found %s",
                       field->name, found);
    if (field->type == PROTOBUF_C_TYPE_FLOAT)
        *(float *)value = (float)number;
    else
        *(double *)value = number;
    return 0;
}

static int read_bool(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    static const char *const yes[] = {"true", "True", "t", "1"};
    static const char *const no[] = {"false", "False", "f", "0"};
    struct place place = (skip_blanks(text), here(text));
    char token[NUMBER_MAX_BYTES], seen[48];
    const char *found = describe(text, seen);

    read_number_token(text, token);
    for (int i = 0; i < 4; i++) {
        if (strcmp(token, yes[i]) == 0 || strcmp(token, no[i]) == 0) {
            *(protobuf_c_boolean *)value = strcmp(token, yes[i]) == 0;
            return 0;
        }
    }
    return fail_at(text, place, SAC_EFORMAT, "expected true or false for \"%s\", found %s",
                   field->name, found);
}

static int read_enum(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    struct place place = (skip_blanks(text), here(text));
    char token[NUMBER_MAX_BYTES], seen[48];
    const char *found = describe(text, seen);
    const ProtobufCEnumValue *known = NULL;
    uint64_t number;

    if (!read_number_token(text, token))
        return fail_unknown_enum(text, place, field, found);
    if (parse_integer(token, range_of(PROTOBUF_C_TYPE_INT32), &number))
        known = protobuf_c_enum_descriptor_get_value(field->descriptor, (int)number);
    else
        known = protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, token);
    if (!known)
        return fail_unknown_enum(text, place, field, found);
    *(int *)value = known->value;
    return 0;
}

/* ---- Strings ---- */

static int digit_of(char c, int base)
{
    int digit = is_digit(c)                          ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : 99;

    return digit < base ? digit : -1;
}

/* Up to `most` digits at the cursor; the number of them to *ret_count. */
static uint32_t read_digits(struct text *text, int base, int most, int *ret_count)
{
    uint32_t value = 0;

    *ret_count = 0;
    while (*ret_count < most && text->at < text->end && digit_of(*text->at, base) >= 0) {
        value = value * (uint32_t)base + (uint32_t)digit_of(*text->at++, base);
        (*ret_count)++;
    }
    return value;
}

static void put_utf8(struct sac_buf *out, uint32_t c)
{
    uint8_t bytes[4];
    size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    for (size_t i = size; i-- > 1; c >>= 6)
        bytes[i] = (uint8_t)(0x80 | (c & 0x3f));
    bytes[0] = (uint8_t)(size == 1 ? c : ((0xf00u >> size) & 0xff) | c);
    sac_buf_put(out, bytes, size);
}

/* Behind the backslash. */
static bool read_escape(struct text *text)
{
    static const char plain[] = "n\nr\rt\ta\ab\bf\fv\v\\\\''\"\"??";
    char c = text->at < text->end ? *text->at : 0;
    uint8_t byte;
    int count, wanted;

    for (const char *pair = plain; *pair; pair += 2) {
        if (c == *pair) {
            text->at++;
            sac_buf_put(&text->scratch, pair + 1, 1);
            return true;
        }
    }
    if (digit_of(c, 8) >= 0) {
        uint32_t value = read_digits(text, 8, 3, &count);
        byte = (uint8_t)value;
        sac_buf_put(&text->scratch, &byte, 1);
        return value < 256;
    }
    if (c != 'x' && c != 'X' && c != 'u' && c != 'U')
        return false;
    text->at++;
    wanted = c == 'u' ? 4 : c == 'U' ? 8 : 2;
    uint32_t value = read_digits(text, 16, wanted, &count);
    if (wanted == 2) {
        byte = (uint8_t)value;
        sac_buf_put(&text->scratch, &byte, 1);
        return count > 0;
    }
    put_utf8(&text->scratch, value & 0x1fffff);
    return count == wanted && value < 0x110000;
}

/* One quoted piece, behind its first quote. */
static int read_quoted(struct text *text, struct place place, char quote)
{
    while (text->at < text->end && *text->at != '\n') {
        const char *run = text->at;
        while (text->at < text->end && *text->at != quote && *text->at != '\\' && *text->at != '\n')
            text->at++;
        sac_buf_put(&text->scratch, run, (size_t)(text->at - run));
        if (text->at >= text->end || *text->at == '\n')
            break;
        if (*text->at++ == quote)
            return 0;
        if (!read_escape(text))
            return fail_at(text, here(text), SAC_EFORMAT, "a backslash that begins no escape");
    }
    return fail_at(text, place, SAC_EFORMAT, "a string that does not end on its line");
}

/* Adjacent pieces are one string; it stays in text->scratch. */
static int read_pieces(struct text *text, const ProtobufCFieldDescriptor *field)
{
    struct place place = (skip_blanks(text), here(text));
    char c = peek(text), seen[48];
    int rc = 0;

    sac_buf_clear(&text->scratch);
    if (c != '"' && c != '\'')
        return fail_at(text, place, SAC_EFORMAT, "expected a string in quotes for \"%s\", found %s",
                       field->name, describe(text, seen));
    while (rc == 0 && (c == '"' || c == '\'')) {
        place = here(text);
        text->at++;
        rc = read_quoted(text, place, c);
        c = peek(text);
    }
    return rc == 0 && text->scratch.failed ? fail_memory(text) : rc;
}

static int read_string(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    struct place place = (skip_blanks(text), here(text));
    int rc = read_pieces(text, field);
    size_t size = text->scratch.len;

    if (rc < 0)
        return rc;
    char *copy = sac_arena_alloc(text->arena, size + 1);
    if (!copy)
        return fail_memory(text);
    if (size)
        memcpy(copy, text->scratch.data, size);
    copy[size] = 0;
    if (field->type == PROTOBUF_C_TYPE_BYTES) {
        *(ProtobufCBinaryData *)value = (ProtobufCBinaryData){size, (uint8_t *)copy};
        return 0;
    }
    if (memchr(copy, 0, size))
        return fail_at(text, place, SAC_EFORMAT, "a string with a zero byte for \"%s\"",
                       field->name);
    *(char **)value = copy;
    return 0;
}

/* ---- Fields and messages ---- */

static int read_fields(struct text *text, ProtobufCMessage *message, char close,
                       struct place opened);

static int read_submessage(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    struct place place = (skip_blanks(text), here(text));
    char open = peek(text), seen[48];

    if (open != '{' && open != '<')
        return fail_at(text, place, SAC_EFORMAT, "expected '{' after \"%s\", found %s", field->name,
                       describe(text, seen));
    if (text->depth == SAC_PROTOTXT_DEPTH_MAX)
        return fail_at(text, place, SAC_ELIMIT, "nested more than %d deep", SAC_PROTOTXT_DEPTH_MAX);
    ProtobufCMessage *message = sac_message_new(text->arena, field->descriptor);
    if (!message)
        return fail_memory(text);
    text->at++;
    text->depth++;
    int rc = read_fields(text, message, open == '{' ? '}' : '>', place);
    text->depth--;
    *(ProtobufCMessage **)value = message;
    return rc;
}

static int read_value(struct text *text, const ProtobufCFieldDescriptor *field, void *value)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_submessage(text, field, value);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
        return read_string(text, field, value);
    case PROTOBUF_C_TYPE_BOOL:
        return read_bool(text, field, value);
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(text, field, value);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_real(text, field, value);
    default:
        return read_integer(text, field, value);
    }
}

/* The value is read before it is added, so that a failure leaves no half-made
 * element behind. */
static int add_value(struct text *text, ProtobufCMessage *message,
                     const ProtobufCFieldDescriptor *field)
{
    union {
        uint64_t number;
        void *pointer;
        ProtobufCBinaryData bytes;
    } value = {0};
    int rc = read_value(text, field, &value);

    if (rc < 0)
        return rc;
    void *slot = sac_message_add(text->arena, message, field);
    if (!slot)
        return fail_memory(text);
    memcpy(slot, &value, sac_message_value_size(field));
    return 0;
}

/* Behind '['. */
static int read_list(struct text *text, ProtobufCMessage *message,
                     const ProtobufCFieldDescriptor *field)
{
    char seen[48];
    int rc = 0;

    if (take(text, ']'))
        return 0;
    do
        rc = add_value(text, message, field);
    while (rc == 0 && take(text, ','));
    if (rc == 0 && !take(text, ']')) {
        const char *found = describe(text, seen);
        rc = fail_at(text, here(text), SAC_EFORMAT,
                     "expected ',' or ']' in the list of \"%s\", found %s", field->name, found);
    }
    return rc;
}

/* Which fields of a message have been seen, by their index. */
struct seen {
    uint64_t bits[FIELDS_MAX / 64];
};

static bool see(struct seen *seen, unsigned index)
{
    uint64_t bit = UINT64_C(1) << (index % 64);
    bool before = seen->bits[index / 64] & bit;

    seen->bits[index / 64] |= bit;
    return before;
}

static int read_field(struct text *text, ProtobufCMessage *message, struct seen *seen)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    struct place place = (skip_blanks(text), here(text));
    char name[NAME_MAX_BYTES], found[48];
    int rc = read_name(text, name);

    if (rc < 0)
        return rc;
    if (!name[0])
        return fail_at(text, place, SAC_EFORMAT, "expected the name of a field of %s, found %s",
                       descriptor->short_name, describe(text, found));
    const ProtobufCFieldDescriptor *field = sac_message_field(descriptor, name);
    if (!field)
        return fail_unknown_field(text, place, descriptor, name);
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    if (see(seen, (unsigned)(field - descriptor->fields)) && !repeated)
        return fail_at(text, place, SAC_EFORMAT, "\"%s\" is given twice in one %s", name,
                       descriptor->short_name);
    if (!take(text, ':') && field->type != PROTOBUF_C_TYPE_MESSAGE) {
        const char *what = describe(text, found);
        return fail_at(text, here(text), SAC_EFORMAT, "expected ':' after \"%s\", found %s", name,
                       what);
    }
    return repeated && take(text, '[') ? read_list(text, message, field)
                                       : add_value(text, message, field);
}

static int check_required(struct text *text, const ProtobufCMessageDescriptor *descriptor,
                          struct seen *seen, struct place opened)
{
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        if (descriptor->fields[i].label == PROTOBUF_C_LABEL_REQUIRED && !see(seen, i))
            return fail_at(text, opened, SAC_EFORMAT, "%s needs a field \"%s\"",
                           descriptor->short_name, descriptor->fields[i].name);
    }
    return 0;
}

/* Up to `close`, or to the end of the text where that is 0. */
static int read_fields(struct text *text, ProtobufCMessage *message, char close,
                       struct place opened)
{
    struct seen seen = {{0}};
    int rc = 0;

    if (message->descriptor->n_fields > FIELDS_MAX)
        return fail_at(text, opened, SAC_ELIMIT, "%s has over %d fields",
                       message->descriptor->short_name, FIELDS_MAX);
    while (rc == 0) {
        skip_blanks(text);
        if (text->at >= text->end && close)
            return fail_at(text, here(text), SAC_EFORMAT,
                           "expected '%c' for the %s that begins at line %d, found the end of "
                           "the file",
                           close, message->descriptor->short_name, opened.line);
        if (text->at >= text->end || (close && take(text, close)))
            break;
        rc = read_field(text, message, &seen);
        if (rc == 0 && !take(text, ','))
            take(text, ';');
    }
    return rc == 0 ? check_required(text, message->descriptor, &seen, opened) : rc;
}

int sac_prototxt_parse(ProtobufCMessage **ret, const ProtobufCMessageDescriptor *descriptor,
                       const char *name, const char *bytes, size_t size, struct sac_arena *arena,
                       struct sac_error *err)
{
    if (size == 0)
        bytes = ""; /* it may be NULL */
    struct text text = {.file = name,
                        .at = bytes,
                        .end = bytes + size,
                        .line_start = bytes,
                        .line = 1,
                        .depth = 1,
                        .arena = arena,
                        .err = err};
    int rc = 0;

    if (size >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0)
        text.line_start = text.at += 3; /* a byte order mark */
    text.locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    ProtobufCMessage *message = sac_message_new(arena, descriptor);
    if (!text.locale || !message)
        rc = fail_memory(&text);
    if (rc == 0)
        rc = read_fields(&text, message, 0, here(&text));
    if (rc == 0)
        *ret = message;
    if (text.locale)
        freelocale(text.locale);
    sac_buf_done(&text.scratch);
    return rc;
}
