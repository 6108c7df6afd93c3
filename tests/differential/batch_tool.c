/* batch_tool.c - the parser's understanding of many connections, one JSON line each.
 *
 *     batch_tool strict|gunicorn
 * A batch on stdin is a count and that many inputs, each a length and its bytes (32 bits each,
 * little-endian). It is read as a whole before its lines are written, so that neither side waits
 * for the other. A line says what was understood: "end" is where the last whole request ended,
 * "split" whether one byte at a time gave the same; "requests" are lists of method, target, minor
 * version, headers, whether the body came in chunks, and the body. Strings are Latin-1: one
 * character is one byte. Used by tests/differential/ours.py. */
#include "drive.h"

#include <stdio.h>
#include <stdlib.h>

#define BATCH_INPUTS_MAX 65536u
#define INPUT_BYTES_MAX (1u << 22)

static void print_text(struct cts_bytes text)
{
    putchar_unlocked('"');
    for (size_t i = 0; i < text.count; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        if (byte < 0x20 || byte > 0x7E || byte == '"' || byte == '\\')
            printf("\\u%04x", byte);
        else
            putchar_unlocked(byte);
    }
    putchar_unlocked('"');
}

static void print_request(const struct drive_event *event, void *context)
{
    const struct cts_request *request = event->request;
    bool *is_first = context;

    fputs(*is_first ? "[" : ", [", stdout);
    *is_first = false;
    print_text(request->method);
    fputs(", ", stdout);
    print_text(request->target);
    printf(", %d, [", request->version_minor);
    for (uint32_t i = 0; i < request->headers_count; i++) {
        fputs(i == 0 ? "[" : ", [", stdout);
        print_text(request->headers[i].name);
        fputs(", ", stdout);
        print_text(request->headers[i].value);
        putchar_unlocked(']');
    }
    printf("], %s, ", request->is_chunked ? "true" : "false");
    print_text(event->body);
    putchar_unlocked(']');
}

/* Everything at once, understood as it comes. */
static void drive_whole(struct drive *drive, struct cts_bytes input)
{
    bool is_first = true;

    drive->on_request = print_request;
    drive->context = &is_first;
    drive_feed(drive, input);
}

static void drive_bytes(struct drive *drive, struct cts_bytes input)
{
    for (size_t given = 1; given <= input.count && drive->phase != DRIVE_CLOSED; given++)
        drive_feed(drive, (struct cts_bytes){input.at, given});
}

static bool same(const struct drive *whole, const struct drive *split)
{
    return whole->hash == split->hash && whole->phase == split->phase &&
           whole->head_start == split->head_start && whole->body_at == split->body_at &&
           whole->code == split->code && whole->answers_count == split->answers_count &&
           memcmp(whole->answers, split->answers,
                  whole->answers_count * sizeof(whole->answers[0])) == 0;
}

static void answer(struct cts_bytes input, const struct cts_http_rules *rules)
{
    struct drive whole, split;

    drive_init(&whole, rules);
    drive_init(&split, rules);
    fputs("{\"requests\": [", stdout);
    drive_whole(&whole, input);
    drive_bytes(&split, input);
    printf("], \"end\": %zu, \"code\": \"%s\", \"split\": %s}\n", whole.head_start,
           whole.code == NULL ? "" : whole.code, same(&whole, &split) ? "true" : "false");
    drive_done(&whole);
    drive_done(&split);
}

static bool read_number(uint32_t *ret_number)
{
    unsigned char raw[4];

    if (fread(raw, 1, sizeof(raw), stdin) != sizeof(raw))
        return false;
    *ret_number = raw[0] | (uint32_t)raw[1] << 8 | (uint32_t)raw[2] << 16 | (uint32_t)raw[3] << 24;
    return true;
}

/* Each input gets memory of its own, so that a sanitizer sees a read behind its end. */
static bool read_input(struct cts_bytes *ret_input)
{
    uint32_t count;
    char *bytes;

    if (!read_number(&count) || count > INPUT_BYTES_MAX)
        return false;
    bytes = malloc(count == 0 ? 1 : count);
    *ret_input = (struct cts_bytes){bytes, count};
    return bytes != NULL && fread(bytes, 1, count, stdin) == count;
}

int main(int argc, char **argv)
{
    static struct cts_bytes inputs[BATCH_INPUTS_MAX];
    const struct cts_http_rules *rules;
    uint32_t count;

    if (argc != 2 || (strcmp(argv[1], "strict") != 0 && strcmp(argv[1], "gunicorn") != 0)) {
        fprintf(stderr, "usage: batch_tool strict|gunicorn\n");
        return 2;
    }
    rules = strcmp(argv[1], "gunicorn") == 0 ? &drive_gunicorn : &drive_strict;
    while (read_number(&count)) {
        if (count > BATCH_INPUTS_MAX)
            return 2;
        for (uint32_t i = 0; i < count; i++) {
            if (!read_input(&inputs[i]))
                return 2;
        }
        for (uint32_t i = 0; i < count; i++) {
            answer(inputs[i], rules);
            free((char *)inputs[i].at);
        }
        fflush(stdout);
    }
    return 0;
}
