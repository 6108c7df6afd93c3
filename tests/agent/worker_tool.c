/* worker_tool.c - plays a worker (or the master's own tracer) for tests of the agent.
 *
 *     worker_tool play RING_ID SLOT GENERATION RING_BYTES ROWS
 *         says "fd N", waits for a line, attaches, then obeys lines on stdin and answers each
 *         with "ok": spans N | flood N USEC | open N | put N | scribble | die | quit
 *     worker_tool sum FD
 *         the identity of a slot, as one line of JSON, from the shared memory alone */
#include "ctserve/slot_read.h"
#include "ctserve/tracing.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define OPEN_MAX 64

static struct cts_slot slot;
static struct cts_trace_request open_requests[OPEN_MAX];

static void begin(struct cts_trace_request *request, int number)
{
    char path[64];
    uint64_t now_ns = cts_clock_mono_ns();
    snprintf(path, sizeof(path), "/item/%d", number);
    struct cts_trace_start start = {
        .method = cts_bytes_of(number % 7 == 6 ? "BREW" : "GET"),
        .path = cts_bytes_of(number % 5 == 4 ? "/caf\xe9" : path),
        .query = cts_bytes_of("a=1&sig=hush&b=2"), .scheme = cts_bytes_of("http"),
        .host = cts_bytes_of("shop.test:8000"), .user_agent = cts_bytes_of("tool/1"),
        .traceparent = cts_bytes_of(
            number % 2 == 0 ? "" : "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        .peer_address = cts_bytes_of("127.0.0.1"), .peer_port = 4711, .server_port = 8000,
        .version_minor = 1, .accept_ns = now_ns - 1000, .start_ns = now_ns};
    memset(request, 0, sizeof(*request));
    cts_trace_begin(request, &start);
    cts_trace_phase(request, CTS_PHASE_APP);
}

static void end(struct cts_trace_request *request, int number)
{
    bool fails = number % 10 == 9;
    struct cts_trace_end end_of = {
        .status = fails ? 500 : 200, .response_body_bytes = 12,
        .error_type = cts_bytes_of(fails ? "ValueError" : ""),
        .error_message = cts_bytes_of(fails ? "no such thing" : ""),
        .route = cts_bytes_of(number % 3 == 0 ? "/item/<int:id>" : "")};
    cts_trace_phase(request, CTS_PHASE_SENT);
    cts_trace_end(request, &end_of);
}

static void spans(int count, int pause_us)
{
    struct cts_trace_request request;
    for (int i = 0; i < count; i++) {
        begin(&request, i);
        end(&request, i);
        if (pause_us > 0)
            usleep((useconds_t)pause_us);
    }
}

static void put(int count)
{
    for (int i = 0; i < count; i++) {
        struct cts_attribute attributes[] = {
            {"ctserve.number", CTS_ATTRIBUTE_INT, {"", 0}, i},
            {"ctserve.word", CTS_ATTRIBUTE_TEXT, cts_bytes_of("fork"), 0},
            {"ctserve.yes", CTS_ATTRIBUTE_BOOL, {"", 0}, 1}};
        struct cts_span span = {.name = "ctserve.fork", .start_mono_ns = cts_clock_mono_ns(),
                                .attributes = attributes, .attributes_count = 3};
        span.end_mono_ns = span.start_mono_ns + 1000;
        memset(span.link_trace_id, 7, 16);
        memset(span.link_span_id, 7, 8);
        cts_span_put(&span);
    }
}

static void scribble(int fd)
{
    struct cts_slot_header *header =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    unsigned char *all = mmap(NULL, header->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint32_t at = header->ring_offset;
    spans(3, 0);
    for (uint32_t i = 0; i < header->ring_bytes; i++)
        all[at + i] = (unsigned char)(i * 37);
    spans(3, 0);
}

static int play(char **words)
{
    char line[128], verb[32];
    int count, pause_us;
    struct cts_slot_plan plan = {
        .ring_id = strtoull(words[0], NULL, 10), .slot_index = atoi(words[1]),
        .generation = (uint32_t)atoi(words[2]), .age = 1,
        .ring_bytes = (uint32_t)atoi(words[3]), .rows_count = (uint32_t)atoi(words[4])};
    if (cts_slot_create(&plan, &slot) < 0)
        return 1;
    int kept_fd = dup(slot.fd);
    printf("fd %d\n", kept_fd);
    fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL)
        return 1;
    if ((plan.slot_index < 0 ? cts_tracer_attach_master(&slot)
                             : cts_tracer_attach(&slot, false)) < 0)
        return 1;
    cts_tracer_enable(true);
    for (;;) {
        printf("ok\n");
        fflush(stdout);
        count = pause_us = 0;
        if (fgets(line, sizeof(line), stdin) == NULL ||
            sscanf(line, "%31s %d %d", verb, &count, &pause_us) < 1 || strcmp(verb, "quit") == 0)
            return 0;
        if (strcmp(verb, "spans") == 0 || strcmp(verb, "flood") == 0)
            spans(count, pause_us);
        else if (strcmp(verb, "put") == 0)
            put(count);
        else if (strcmp(verb, "scribble") == 0)
            scribble(kept_fd);
        else if (strcmp(verb, "die") == 0)
            raise(SIGKILL);
        for (int i = 0; strcmp(verb, "open") == 0 && i < count && i < OPEN_MAX; i++)
            begin(&open_requests[i], i);
    }
}

static int sum(int fd)
{
    struct cts_slot_view view;
    struct cts_slot_counts slot_counts;
    struct cts_consumer_counts counts;
    if (cts_slot_view_map(fd, false, &view) < 0)
        return 1;
    cts_slot_count(&view, &slot_counts);
    cts_consumer_read(&view, &counts);
    uint64_t dropped = slot_counts.dropped_ring_full;
    for (int i = 0; i < CTS_DROP_REASONS_COUNT; i++)
        dropped += counts.dropped[i];
    printf("{\"started\": %llu, \"open\": %llu, \"rowless_open\": %llu, \"ring_full\": %llu, "
           "\"in_ring\": %lld, \"in_heap\": %llu, \"acked\": %llu, \"rejected\": %llu, "
           "\"dropped\": %llu, \"refused\": %llu, \"agent_lost\": %llu, \"bad_record\": %llu, "
           "\"lost_uncommitted\": %llu, \"is_exact\": %s}\n",
           (unsigned long long)slot_counts.started,
           (unsigned long long)(slot_counts.open - counts.open_closed),
           (unsigned long long)slot_counts.rowless_open,
           (unsigned long long)slot_counts.dropped_ring_full,
           (long long)cts_ring_count(&view, counts.tail), (unsigned long long)counts.heap_taken,
           (unsigned long long)counts.acked, (unsigned long long)counts.rejected,
           (unsigned long long)dropped, (unsigned long long)counts.dropped[CTS_DROP_REFUSED],
           (unsigned long long)counts.dropped[CTS_DROP_AGENT_LOST],
           (unsigned long long)counts.dropped[CTS_DROP_BAD_RECORD],
           (unsigned long long)counts.lost_uncommitted, slot_counts.is_exact ? "true" : "false");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 7 && strcmp(argv[1], "play") == 0)
        return play(argv + 2);
    if (argc == 3 && strcmp(argv[1], "sum") == 0)
        return sum(atoi(argv[2]));
    fprintf(stderr, "worker_tool play RING SLOT GENERATION BYTES ROWS | sum FD\n");
    return 2;
}
