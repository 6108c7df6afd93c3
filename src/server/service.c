/* service.c - see service.h. */
#include "service.h"

#include "ctserve/log.h"

#include <stdlib.h>

#define CLIENT_WAIT_EARLIER_NS_MAX 2000000000u
#define CLIENT_WAIT_S_MAX 1000000   /* longer is as good as for ever */

/* gunicorn's clamping: 0 means 'no limit of yours', which still has one. */
static uint32_t clamped(int64_t asked, uint32_t zero_means, uint32_t most)
{
    if (asked <= 0)
        return zero_means;
    return asked > most ? most : (uint32_t)asked;
}

static enum cts_header_map header_map_of(const char *word)
{
    if (word != NULL && strcmp(word, "dangerous") == 0)
        return CTS_HEADER_MAP_DANGEROUS;
    return word != NULL && strcmp(word, "refuse") == 0 ? CTS_HEADER_MAP_REFUSE
                                                       : CTS_HEADER_MAP_DROP;
}

/* gunicorn's switches that make the parser less strict. */
static void read_switches(struct cts_http_rules *rules, const struct cts_settings *settings)
{
    char *const *names = NULL;

    rules->permit_obsolete_folding =
        cts_settings_bool(settings, CTS_SETTING_permit_obsolete_folding);
    rules->strip_header_spaces = cts_settings_bool(settings, CTS_SETTING_strip_header_spaces);
    rules->permit_unconventional_http_method =
        cts_settings_bool(settings, CTS_SETTING_permit_unconventional_http_method);
    rules->permit_unconventional_http_version =
        cts_settings_bool(settings, CTS_SETTING_permit_unconventional_http_version);
    rules->casefold_http_method = cts_settings_bool(settings, CTS_SETTING_casefold_http_method);
    rules->header_map = header_map_of(cts_settings_text(settings, CTS_SETTING_header_map));
    rules->forwarder_headers_count =
        cts_settings_list(settings, CTS_SETTING_forwarder_headers, &names);
    rules->forwarder_headers = (const char *const *)names;
}

/* Whom we believe, and what a proxy says first. */
static void read_proxies(struct service *service, const struct cts_settings *settings)
{
    static const char *const words[] = {"off", "v1", "v2", "auto"};
    const char *mode = cts_settings_text(settings, CTS_SETTING_proxy_protocol);

    if (trust_init(&service->forwarded, settings, CTS_SETTING_forwarded_allow_ips) < 0 ||
        trust_init(&service->proxies, settings, CTS_SETTING_proxy_allow_ips) < 0)
        cts_error_log("No memory for the lists of proxies: none is believed");
    for (size_t i = 0; i < CTS_COUNT(words) && mode != NULL; i++)
        if (strcmp(mode, words[i]) == 0)
            service->proxy_mode = (enum cts_proxy_mode)i;
}

static void read_rules(struct service *service, const struct cts_settings *settings)
{
    const char *policy = cts_settings_text(settings, CTS_SETTING_http_policy);
    service->rules = (struct cts_http_rules){
        .line_bytes_max =
            clamped(cts_settings_int(settings, CTS_SETTING_limit_request_line), 8190, 8190),
        .fields_count_max =
            clamped(cts_settings_int(settings, CTS_SETTING_limit_request_fields), 32768, 32768),
        .field_bytes_max = clamped(
            cts_settings_int(settings, CTS_SETTING_limit_request_field_size), 8190, 1u << 20),
        .gunicorn_policy = policy != NULL && strcmp(policy, "gunicorn") == 0,
    };
}

static void read_kind(struct service *service, const struct cts_settings *settings)
{
    int64_t threads = cts_settings_int(settings, CTS_SETTING_threads);
    int64_t connections = cts_settings_int(settings, CTS_SETTING_worker_connections);

    service->is_gthread = cts_settings_is_gthread(settings);
    service->keepalive_s = cts_settings_int(settings, CTS_SETTING_keepalive);
    if (service->is_gthread) {
        service->threads_count = threads < 1 ? 1 : (int)threads;
        if (threads > SERVICE_THREADS_MAX) {
            cts_warning("threads: %lld is more than %d, which is what a worker starts",
                        (long long)threads, SERVICE_THREADS_MAX);
            service->threads_count = SERVICE_THREADS_MAX;
        }
        service->connections_max = connections < 1 ? 1 : (int)(connections < 1000000 ? connections
                                                                                     : 1000000);
        service->keeps_connections = service->keepalive_s > 0;
    } else {
        /* A kept connection can wait behind a slow request while a sibling is free, so sync keeps
         * none unless somebody asked for it by name. */
        service->connections_max = SERVICE_SYNC_CONNECTIONS_MAX;
        service->keeps_connections =
            service->keepalive_s > 0 && !cts_settings_is_default(settings, CTS_SETTING_keepalive);
    }
}

/* A request over its time limit gets the worker killed; when it is the client who takes the time,
 * the request gives up a little earlier. 0: no limit. */
static uint64_t a_little_earlier(int64_t limit_s)
{
    if (limit_s <= 0 || limit_s > CLIENT_WAIT_S_MAX)
        return 0;
    uint64_t limit_ns = (uint64_t)limit_s * 1000000000u;
    uint64_t earlier_ns = limit_ns / 4;
    return limit_ns - (earlier_ns < CLIENT_WAIT_EARLIER_NS_MAX ? earlier_ns
                                                               : CLIENT_WAIT_EARLIER_NS_MAX);
}

void service_init(struct service *service, const struct worker_plan *plan)
{
    memset(service, 0, sizeof(*service));
    service->plan = plan;
    service->gateway = plan->gateway;
    service->keeper = (struct body_keeper){
        .gateway = plan->gateway,
        .rules = &service->rules,
        .memory_bytes = &service->bodies_bytes,
        .memory_bytes_max = SERVICE_BODIES_BYTES_MAX,
        .spooled_bytes = &service->spooled_bytes,
        .spooled_bytes_max = SERVICE_SPOOLED_BYTES_MAX,
    };
    read_rules(service, plan->settings);
    read_switches(&service->rules, plan->settings);
    read_proxies(service, plan->settings);
    access_open(&service->access, plan->settings);
    read_kind(service, plan->settings);
    service->turn_wait_ns = service->is_gthread ? 0 : a_little_earlier(plan->facts.timeout_s);
    service->request_wait_ns =
        a_little_earlier(cts_settings_int(plan->settings, CTS_SETTING_request_timeout));
    service->is_multiprocess = cts_settings_int(plan->settings, CTS_SETTING_workers) > 1;
    service->requests_max = plan->facts.max_requests > 0 ? (uint64_t)plan->facts.max_requests : 0;
    atomic_store(&service->is_alive, true);
    atomic_store(&service->is_last, plan->control_fd < 0);
}

void service_leave(struct service *service, enum cts_gone_reason reason)
{
    bool was_alive = true;
    if (!atomic_compare_exchange_strong(&service->is_alive, &was_alive, false))
        return;
    atomic_store(&service->leave_reason, (int)reason);
    if (service->wake != NULL)
        service->wake(service);
}

bool service_takes_backlog(const struct service *service)
{
    return atomic_load(&service->leave_reason) == CTS_GONE_STOPPED &&
           (atomic_load(&service->is_last) || atomic_load(&service->owns_backlog));
}

void service_exit(struct service *service, int exit_code)
{
    bool was_wanted = false;
    if (!atomic_compare_exchange_strong(&service->exit_wanted, &was_wanted, true))
        return;
    atomic_store(&service->exit_code, exit_code);
    service_leave(service, CTS_GONE_STOPPED);
    if (service->wake != NULL)
        service->wake(service);
}
