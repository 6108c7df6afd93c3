/* api.h - the JSON API: HTTP/1.1 on loopback, GET only, one request per connection.
 *
 * Every answer but a refusal of the connection itself needs the token (`Authorization: Bearer`, or
 * `?t=`), and a Host that is this machine's loopback: a page in somebody's browser can then reach
 * it neither by guessing nor by a name that points here. */
#ifndef AGENT_API_H
#define AGENT_API_H

#include "agent.h"

#include "ctserve/http.h"
#include "ctserve/json.h"

#define API_CONNECTIONS_MAX 64
#define API_PORT_FIRST 8001
#define API_PORTS_TRIED 200
#define API_SECONDS_PER_REQUEST 10.0

struct api;

struct api_plan {
    struct agent *agent;
    /* The address that is served now; again when it changed. */
    void (*ready)(void *context, const char *address, const char *token);
    void *context;
};

/* As HELLO's `api` says: "off", "auto" or "HOST:PORT". NULL when off or not to be had. A wanted
 * port that is taken is asked for again every second; until then the next free one serves. */
struct api *api_new(const struct api_plan *plan);
void api_free(struct api *api);

/* -- api_answers.c ---------------------------------------------------------------------------- */
/* The answer to GET `path`?`query`, as JSON. Returns the HTTP status. */
int api_answer(struct agent *agent, struct cts_bytes path, struct cts_bytes query,
               struct cts_buffer *out);
/* The decoded value of `name` in a query, into `to`. False if it is not there. */
bool api_query_value(struct cts_bytes query, const char *name, char *to, size_t to_bytes);

#endif
