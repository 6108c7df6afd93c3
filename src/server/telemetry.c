/* telemetry.c - see telemetry.h. */
#include "telemetry.h"

#include "banner.h"

#include "ctserve/buffer.h"
#include "ctserve/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool telemetry_is_on(const struct cts_settings *settings)
{
    const char *disabled = getenv("OTEL_SDK_DISABLED");
    bool is_disabled =
        disabled != NULL && cts_bytes_equal_nocase(cts_bytes_of(disabled), cts_bytes_of("true"));
    return cts_settings_bool(settings, CTS_SETTING_tracing) && !is_disabled;
}

uint32_t telemetry_ring_bytes(const struct cts_settings *settings)
{
    int64_t wanted =
        telemetry_is_on(settings) ? cts_settings_int(settings, CTS_SETTING_trace_ring_bytes) : 0;
    uint32_t bytes = CTS_RING_BYTES_MIN;
    while (bytes < wanted && bytes < CTS_RING_BYTES_MAX)
        bytes *= 2;
    return bytes;
}

static const char *api_of(const struct master *master)
{
    const char *api = cts_settings_text(master->settings, CTS_SETTING_trace_api);
    if (api == NULL)
        return "off";
    if (strcmp(api, "auto") != 0)
        return api;
    return isatty(2) && listener_is_loopback(&master->listeners) ? "auto" : "off";
}

static void on_agent_ready(void *user, const char *api, const char *token)
{
    struct master *master = user;
    if (api[0] == '\0')
        return;
    snprintf(master->traces, sizeof(master->traces), "http://%s/?t=%s", api, token);
    if (master->shows_banner && !master->traces_shown)
        banner_show_traces(master->traces);
    else
        cts_info("Traces at: %s", master->traces);
    master->traces_shown = true;
}

static void on_agent_recycle(void *user, struct ring *ring)
{
    struct master *master = user;
    struct member *member = supervisor_by_ring(&master->supervisor, ring);
    if (member == NULL)
        return;
    cts_warning("the trace ring of worker (pid:%d) is damaged: the worker is replaced",
                (int)member->pid);
    supervisor_drain(member, CTS_GONE_RING_DAMAGED);
}

static int put_hello(struct cts_buffer *out, const struct master *master)
{
    const struct cts_settings *settings = master->settings;
    const char *endpoint = cts_settings_text(settings, CTS_SETTING_trace_otlp_endpoint);
    const char *protocol = cts_settings_text(settings, CTS_SETTING_trace_otlp_protocol);
    const char *service = cts_settings_text(settings, CTS_SETTING_trace_service_name);
    char binds[1024];
    listener_names(&master->listeners, binds, sizeof(binds));
    return cts_buffer_printf(
        out,
        "master_pid=%d\nserver_version=%s\napp=%s\nuid=%d\ngid=%d\nservice_name=%s\n"
        "otlp_endpoint=%s\notlp_protocol=%s\nworkers=%lld\nbind=%s\nstarted_real_ns=%llu\n",
        (int)getpid(), CTS_VERSION, cts_settings_process_name(master->settings), (int)geteuid(),
        (int)getegid(), service != NULL ? service : "", endpoint != NULL ? endpoint : "",
        protocol != NULL ? protocol : "", (long long)master->supervisor.target, binds,
        (unsigned long long)cts_clock_real_ns());
}

void telemetry_start_agent(struct master *master)
{
    const char *api = api_of(master);
    const char *asked = cts_settings_text(master->settings, CTS_SETTING_trace_api);
    bool api_is_asked = asked != NULL && strcmp(asked, "auto") != 0 && strcmp(asked, "off") != 0;
    if (!telemetry_is_on(master->settings) && !api_is_asked)
        return;
    if (master->entry->agent_path == NULL || master->entry->agent_path[0] == '\0') {
        cts_debug("no ctserve-agent beside this program: traces are not collected");
        return;
    }
    struct cts_buffer hello = CTS_BUFFER_EMPTY;
    if (put_hello(&hello, master) == 0 && cts_buffer_put(&hello, "", 1) == 0) {
        struct agent_link_plan plan = {
            .loop = master->loop,
            .agent_path = master->entry->agent_path,
            .hello = cts_buffer_view(&hello).at,
            .api = api,
            .on_ready = on_agent_ready,
            .on_recycle = on_agent_recycle,
            .user = master,
        };
        agent_link_start(&master->agent, &plan);
    }
    cts_buffer_free(&hello);
}

void telemetry_open_ring(struct master *master)
{
    struct cts_slot_plan plan = {.slot_index = -1,
                                 .generation = 1,
                                 .rows_count = 1,
                                 .ring_bytes = master->supervisor.ring_bytes};
    int r;
    master->ring = agent_link_ring_new(&master->agent, &plan, &r);
    if (master->ring == NULL || cts_tracer_attach_master(&master->ring->slot) < 0) {
        cts_warning("the master's spans are lost: no memory for their ring");
        return;
    }
    agent_link_ring_begin(&master->agent, master->ring, getpid());
}

void telemetry_put_past(const char *name, const struct span_mark *parent, uint64_t start_ns,
                        uint64_t end_ns)
{
    struct cts_span span = {.name = name, .start_mono_ns = start_ns, .end_mono_ns = end_ns};
    memcpy(span.trace_id, parent->trace_id, sizeof(span.trace_id));
    memcpy(span.parent_span_id, parent->span_id, sizeof(span.parent_span_id));
    cts_span_put(&span);
}
