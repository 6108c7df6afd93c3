/* json.c - a JSON writer that keeps its own commas and never writes invalid UTF-8. */
#include "ctserve/json.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

void cts_json_init(struct cts_json *json, struct cts_buffer *out)
{
    *json = (struct cts_json){.out = out};
}

static void put(struct cts_json *json, const char *bytes, size_t count)
{
    if (!json->failed && cts_buffer_put(json->out, bytes, count) < 0)
        json->failed = true;
}

/* A value follows: write the comma it needs, if any. */
static void begin_value(struct cts_json *json)
{
    if (json->need_comma[json->depth])
        put(json, ",", 1);
    json->need_comma[json->depth] = true;
}

static void open_level(struct cts_json *json, const char *bracket)
{
    begin_value(json);
    put(json, bracket, 1);
    assert(json->depth + 1 < CTS_JSON_DEPTH_MAX);
    json->depth++;
    json->need_comma[json->depth] = false;
}

static void close_level(struct cts_json *json, const char *bracket)
{
    assert(json->depth > 0);
    json->depth--;
    put(json, bracket, 1);
}

void cts_json_object_open(struct cts_json *json)
{
    open_level(json, "{");
}

void cts_json_object_close(struct cts_json *json)
{
    close_level(json, "}");
}

void cts_json_array_open(struct cts_json *json)
{
    open_level(json, "[");
}

void cts_json_array_close(struct cts_json *json)
{
    close_level(json, "]");
}

/* The length of the well-formed UTF-8 sequence at `at` (RFC 3629: shortest form, no surrogates,
 * nothing above U+10FFFF), or 0. */
static size_t utf8_bytes(const unsigned char *at, size_t count)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t need;

    if (at[0] < 0x80)
        return 1;
    if (at[0] >= 0xc2 && at[0] <= 0xdf)
        need = 2;
    else if (at[0] >= 0xe0 && at[0] <= 0xef)
        need = 3;
    else if (at[0] >= 0xf0 && at[0] <= 0xf4)
        need = 4;
    else
        return 0;
    if (at[0] == 0xe0)
        low = 0xa0;
    else if (at[0] == 0xed)
        high = 0x9f;
    else if (at[0] == 0xf0)
        low = 0x90;
    else if (at[0] == 0xf4)
        high = 0x8f;
    if (count < need || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < need; i++) {
        if (at[i] < 0x80 || at[i] > 0xbf)
            return 0;
    }
    return need;
}

static void put_escaped(struct cts_json *json, unsigned char byte)
{
    char text[8];
    const char *brief = NULL;

    switch (byte) {
    case '"':
        brief = "\\\"";
        break;
    case '\\':
        brief = "\\\\";
        break;
    case '\n':
        brief = "\\n";
        break;
    case '\r':
        brief = "\\r";
        break;
    case '\t':
        brief = "\\t";
        break;
    default:
        break;
    }
    if (brief != NULL) {
        put(json, brief, 2);
        return;
    }
    (void)snprintf(text, sizeof(text), "\\u%04x", byte);
    put(json, text, 6);
}

static void put_text(struct cts_json *json, struct cts_bytes text)
{
    const unsigned char *at = (const unsigned char *)text.at;
    size_t plain_start = 0;
    size_t i = 0;

    put(json, "\"", 1);
    while (i < text.count) {
        size_t step = utf8_bytes(at + i, text.count - i);
        bool is_special = at[i] < 0x20 || at[i] == '"' || at[i] == '\\' || at[i] == 0x7f;

        if (step > 0 && !is_special) {
            i += step;
            continue;
        }
        put(json, text.at + plain_start, i - plain_start);
        if (step == 0)
            put(json, "\xef\xbf\xbd", 3);
        else
            put_escaped(json, at[i]);
        i++;
        plain_start = i;
    }
    if (i > plain_start)
        put(json, text.at + plain_start, i - plain_start);
    put(json, "\"", 1);
}

void cts_json_key(struct cts_json *json, const char *key)
{
    begin_value(json);
    put_text(json, cts_bytes_of(key));
    put(json, ":", 1);
    json->need_comma[json->depth] = false; /* the value belongs to this key */
}

void cts_json_text(struct cts_json *json, struct cts_bytes text)
{
    begin_value(json);
    put_text(json, text);
}

static void put_number(struct cts_json *json, const char *text, int count)
{
    begin_value(json);
    put(json, text, (size_t)count);
}

void cts_json_int(struct cts_json *json, int64_t number)
{
    char text[24];
    put_number(json, text, snprintf(text, sizeof(text), "%lld", (long long)number));
}

void cts_json_uint(struct cts_json *json, uint64_t number)
{
    char text[24];
    put_number(json, text, snprintf(text, sizeof(text), "%llu", (unsigned long long)number));
}

void cts_json_double(struct cts_json *json, double number)
{
    char text[40];
    int count;

    /* JSON has no word for these. */
    if (!isfinite(number)) {
        cts_json_null(json);
        return;
    }
    count = snprintf(text, sizeof(text), "%.17g", number);
    /* A locale may have chosen another decimal point. */
    for (int i = 0; i < count; i++) {
        if (text[i] == ',')
            text[i] = '.';
    }
    put_number(json, text, count);
}

void cts_json_bool(struct cts_json *json, bool value)
{
    begin_value(json);
    put(json, value ? "true" : "false", value ? 4 : 5);
}

void cts_json_null(struct cts_json *json)
{
    begin_value(json);
    put(json, "null", 4);
}
