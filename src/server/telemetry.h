/* telemetry.h - what the master tells of itself: its ring, its past, and the agent that reads. */
#ifndef SERVER_TELEMETRY_H
#define SERVER_TELEMETRY_H

#include "master_own.h"

/* Setting `tracing`, and OTEL_SDK_DISABLED. */
bool telemetry_is_on(const struct cts_settings *settings);
/* Of one worker's ring: a power of two. */
uint32_t telemetry_ring_bytes(const struct cts_settings *settings);

/* The master's own ring. Without one (no memory), everything but its spans goes on. */
void telemetry_open_ring(struct master *master);
/* A span of something that is over, below `parent`. */
void telemetry_put_past(const char *name, const struct span_mark *parent, uint64_t start_ns,
                        uint64_t end_ns);
/* The agent, unless nobody wants to hear it. */
void telemetry_start_agent(struct master *master);

#endif
