/* drive.h - a connection without a socket: bytes in, the answers a server would give out.
 *
 * Used by the unit tests, the parse tool and the fuzz targets. The application it stands for
 * reads the whole body and then answers 200. */
#ifndef CTSERVE_TESTS_DRIVE_H
#define CTSERVE_TESTS_DRIVE_H

#include "ctserve/http.h"

#define DRIVE_ANSWERS_MAX 64

struct drive_event {
    const struct cts_request *request;   /* views live until the callback returns */
    struct cts_bytes body;
    struct cts_bytes trailers;           /* for cts_trailer_next() */
};

struct drive {
    struct cts_http_rules rules;
    struct cts_head_parser parser;
    struct cts_chunked chunked;
    struct cts_request request;
    enum { DRIVE_HEAD, DRIVE_LENGTH, DRIVE_CHUNKED, DRIVE_CLOSED } phase;
    struct cts_bytes received;           /* everything so far; belongs to the caller */
    size_t head_start, body_at, body_left;
    char *body;
    size_t body_bytes, body_capacity;
    struct cts_buffer trailers;
    int answers[DRIVE_ANSWERS_MAX];
    size_t answers_count;
    size_t verdict_at;                   /* bytes received when a refusal came */
    const char *code;                    /* of the refusal or NULL */
    uint64_t hash;                       /* over all that was understood */
    void (*on_request)(const struct drive_event *event, void *context);
    void *context;
};

extern const struct cts_http_rules drive_strict, drive_gunicorn;

void drive_init(struct drive *drive, const struct cts_http_rules *rules);
void drive_done(struct drive *drive);

/* `received` is everything from the first byte of the connection; it may have moved. */
void drive_feed(struct drive *drive, struct cts_bytes received);

#endif
