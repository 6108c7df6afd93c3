/* parse_tool.c - the parser's verdict on a file, as one JSON object.
 *
 *     parse_tool strict|gunicorn whole|bytes FILE
 * Strings are Latin-1: one character is one byte. Used by tests/compat. */
#include "drive.h"

#include <stdio.h>
#include <stdlib.h>

static void print_text(const char *key, struct cts_bytes text)
{
    if (key != NULL)
        printf("\"%s\": ", key);
    putchar('"');
    for (size_t i = 0; i < text.count; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        if (byte < 0x20 || byte > 0x7E || byte == '"' || byte == '\\')
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

static void print_request(const struct drive_event *event, void *context)
{
    const struct cts_request *request = event->request;
    bool *is_first = context;

    printf("%s{", *is_first ? "" : ", ");
    *is_first = false;
    print_text("method", request->method);
    printf(", ");
    print_text("raw", request->target);
    printf(", \"version\": [%d, %d], ", request->version_major, request->version_minor);
    print_text("path", request->path);
    printf(", ");
    print_text("query", request->query);
    printf(", ");
    print_text("fragment", request->fragment);
    printf(", ");
    print_text("host", request->host);
    printf(", ");
    print_text("body", event->body);
    printf(", \"headers\": [");
    for (uint32_t i = 0; i < request->headers_count; i++) {
        printf("%s[", i == 0 ? "" : ", ");
        print_text(NULL, request->headers[i].name);
        printf(", ");
        print_text(NULL, request->headers[i].value);
        printf("]");
    }
    printf("]}");
}

int main(int argc, char **argv)
{
    static char bytes[1 << 22];
    struct drive drive;
    bool is_first = true;
    size_t count, step;
    FILE *file;

    if (argc != 4 || (file = fopen(argv[3], "rb")) == NULL) {
        fprintf(stderr, "usage: parse_tool strict|gunicorn whole|bytes FILE\n");
        return 2;
    }
    count = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    drive_init(&drive, strcmp(argv[1], "gunicorn") == 0 ? &drive_gunicorn : &drive_strict);
    drive.on_request = print_request;
    drive.context = &is_first;
    printf("{\"requests\": [");
    step = strcmp(argv[2], "bytes") == 0 ? 1 : count;
    for (size_t at = step; at <= count && step != 0; at += step)
        drive_feed(&drive, (struct cts_bytes){bytes, at});
    printf("], \"answers\": [");
    for (size_t i = 0; i < drive.answers_count; i++)
        printf("%s%d", i == 0 ? "" : ", ", drive.answers[i]);
    printf("], \"code\": \"%s\", \"verdict_at\": %zu, \"in_body\": %s}\n",
           drive.code == NULL ? "" : drive.code, drive.verdict_at,
           drive.phase == DRIVE_LENGTH || drive.phase == DRIVE_CHUNKED ? "true" : "false");
    drive_done(&drive);
    return 0;
}
