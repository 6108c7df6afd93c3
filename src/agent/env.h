/* env.h - where spans go and what they are called: HELLO's settings over OTEL_* variables.
 *
 * Rules as in the OpenTelemetry specification: empty means unset, booleans are "true" in any case,
 * a bad value is named once and ignored, the variable for traces wins over the general one.
 * A setting of ctserve wins over both. */
#ifndef AGENT_ENV_H
#define AGENT_ENV_H

#include "ctserve/base.h"

#define ENV_HEADERS_COUNT_MAX 32
#define ENV_ATTRIBUTES_COUNT_MAX 64

struct env_pair {
    char *name;
    char *value;
};

enum env_protocol { ENV_PROTOCOL_HTTP, ENV_PROTOCOL_GRPC };

struct env_plan {
    bool is_exporting;             /* false: no endpoint, disabled, or exporter "none" */
    enum env_protocol protocol;
    char url[1024];                /* http: whole URL with /v1/traces; grpc: as configured */
    char target[512];              /* grpc: what a channel is made for */
    bool use_tls;                  /* grpc */
    uint32_t timeout_ms;
    struct env_pair headers[ENV_HEADERS_COUNT_MAX];
    size_t headers_count;
    char service_name[256];
    struct env_pair attributes[ENV_ATTRIBUTES_COUNT_MAX];  /* of the resource */
    size_t attributes_count;
};

/* What HELLO said; NULL or "" where it said nothing. */
struct env_settings {
    const char *endpoint, *protocol, *service_name;
};

typedef void env_warn(void *context, const char *sentence);
typedef const char *env_get(const char *name);   /* getenv, or a test's own */

/* Fill *ret_plan; give it back with env_plan_done. Never fails: what cannot be used is told to
 * `warn` and left out. */
void env_read(const struct env_settings *settings, env_get *get, env_warn *warn, void *context,
              struct env_plan *ret_plan);
void env_plan_done(struct env_plan *plan);

#endif
