/* Messages as protobuf's text format, the inverse of prototxt.c. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "formats/caffe.h"
#include "formats/message.h"

/* The shortest decimal that reads back as the same number. */
static void print_real(struct sac_buf *out, double value, bool is_float)
{
    char text[40];

    if (isnan(value) || isinf(value)) {
        sac_buf_puts(out, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    for (int digits = is_float ? 6 : 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        double back = strtod(text, NULL);
        if (is_float ? (float)back == (float)value : back == value)
            break;
    }
    sac_buf_puts(out, text);
}

static void print_quoted(struct sac_buf *out, const uint8_t *bytes, size_t size)
{
    static const char escapes[] = "\nn\rr\tt\"\"\\\\";

    sac_buf_puts(out, "\"");
    for (size_t i = 0; i < size; i++) {
        const char *escape = bytes[i] ? strchr(escapes, bytes[i]) : NULL;
        if (escape && (escape - escapes) % 2 == 0)
            sac_buf_printf(out, "\\%c", escape[1]);
        else if (bytes[i] < ' ' || bytes[i] >= 127)
            sac_buf_printf(out, "\\%03o", bytes[i]);
        else
            sac_buf_put(out, &bytes[i], 1);
    }
    sac_buf_puts(out, "\"");
}

static void print_enum(struct sac_buf *out, const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(descriptor, value);

    if (known)
        sac_buf_puts(out, known->name);
    else
        sac_buf_printf(out, "%d", value);
}

static void print_integer(struct sac_buf *out, ProtobufCType type, const void *value)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        sac_buf_printf(out, "%u", *(const uint32_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        sac_buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)value);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        sac_buf_printf(out, "%lld", (long long)*(const int64_t *)value);
        break;
    default:
        sac_buf_printf(out, "%d", *(const int32_t *)value);
    }
}

static void print_scalar(struct sac_buf *out, const ProtobufCFieldDescriptor *field,
                         const void *value)
{
    const ProtobufCBinaryData *bytes = value;
    const char *string;

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        string = *(const char *const *)value;
        print_quoted(out, (const uint8_t *)string, strlen(string));
        break;
    case PROTOBUF_C_TYPE_BYTES:
        print_quoted(out, bytes->data, bytes->len);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        sac_buf_puts(out, *(const protobuf_c_boolean *)value ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        print_enum(out, field->descriptor, *(const int *)value);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        print_real(out, *(const float *)value, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        print_real(out, *(const double *)value, false);
        break;
    default:
        print_integer(out, field->type, value);
    }
}

static void print_message(struct sac_buf *out, const ProtobufCMessage *message, int indent);

static void print_value(struct sac_buf *out, const ProtobufCFieldDescriptor *field,
                        const void *value, int indent)
{
    size_t size = strlen(field->name);

    if (size > 0 && field->name[size - 1] == '_')
        size--; /* protobuf-c's reserved names, see caffe.proto */
    sac_buf_printf(out, "%*s%.*s", indent, "", (int)size, field->name);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        sac_buf_puts(out, " {\n");
        print_message(out, *(ProtobufCMessage *const *)value, indent + 2);
        sac_buf_printf(out, "%*s}\n", indent, "");
    } else {
        sac_buf_puts(out, ": ");
        print_scalar(out, field, value);
        sac_buf_puts(out, "\n");
    }
}

static void print_message(struct sac_buf *out, const ProtobufCMessage *message, int indent)
{
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        size_t count = sac_message_count(message, field);
        for (size_t j = 0; j < count && !out->failed; j++)
            print_value(out, field, sac_message_value(message, field, j), indent);
    }
}

int sac_prototxt_print(struct sac_buf *out, const ProtobufCMessage *message)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

    if (!c)
        return SAC_ENOMEM;
    locale_t before = uselocale(c);
    print_message(out, message, 0);
    uselocale(before);
    freelocale(c);
    return out->failed ? SAC_ENOMEM : 0;
}
