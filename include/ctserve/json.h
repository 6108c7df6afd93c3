/* json.h - writing JSON into a buffer. Room: base. Reading JSON is jansson's business. */
#ifndef CTSERVE_JSON_H
#define CTSERVE_JSON_H

#include "ctserve/buffer.h"

/* A writer keeps its own commas. After a failed allocation every call is a no-op and `failed`
 * stays true; look once at the end. Depth is bounded by CTS_JSON_DEPTH_MAX (asserted). */
#define CTS_JSON_DEPTH_MAX 32
struct cts_json {
    struct cts_buffer *out;
    bool failed;
    bool need_comma[CTS_JSON_DEPTH_MAX];
    int depth;
};

void cts_json_init(struct cts_json *json, struct cts_buffer *out);
void cts_json_object_open(struct cts_json *json);
void cts_json_object_close(struct cts_json *json);
void cts_json_array_open(struct cts_json *json);
void cts_json_array_close(struct cts_json *json);
void cts_json_key(struct cts_json *json, const char *key);
/* Invalid UTF-8 becomes U+FFFD, control bytes are escaped. */
void cts_json_text(struct cts_json *json, struct cts_bytes text);
void cts_json_int(struct cts_json *json, int64_t number);
void cts_json_uint(struct cts_json *json, uint64_t number);
void cts_json_double(struct cts_json *json, double number);
void cts_json_bool(struct cts_json *json, bool value);
void cts_json_null(struct cts_json *json);

#endif
