/* env.c - reading OTEL_* variables. */
#include "env.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define TIMEOUT_MS_DEFAULT 10000u
#define TIMEOUT_MS_MAX 600000u

struct reader {
    env_get *get;
    env_warn *warn;
    void *context;
};

CTS_PRINTF(2, 3) static void warn(const struct reader *reader, const char *format, ...)
{
    char sentence[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    reader->warn(reader->context, sentence);
}

/* The first of the names that is set and not empty, else NULL. */
static const char *look(const struct reader *reader, const char *first, const char *second)
{
    const char *value = reader->get(first);
    if (value != NULL && value[0] != '\0')
        return value;
    if (second == NULL)
        return NULL;
    value = reader->get(second);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool is_true(const char *value)
{
    return value != NULL && strcasecmp(value, "true") == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* A trimmed, percent-decoded copy of text[0..count), or NULL. A decoded NUL ends it early. */
static char *decoded(const char *text, size_t count)
{
    while (count > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        count--;
    }
    while (count > 0 && (text[count - 1] == ' ' || text[count - 1] == '\t'))
        count--;
    char *copy = malloc(count + 1);
    if (copy == NULL)
        return NULL;
    size_t length = 0;
    for (size_t i = 0; i < count; i++) {
        if (text[i] == '%' && i + 2 < count && hex_digit(text[i + 1]) >= 0 &&
            hex_digit(text[i + 2]) >= 0) {
            copy[length++] = (char)(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
            i += 2;
        } else {
            copy[length++] = text[i];
        }
    }
    copy[length] = '\0';
    return copy;
}

/* "k=v,k2=v2" into pairs; the later of two equal names wins by coming later. */
static size_t read_pairs(const struct reader *reader, const char *what, const char *text,
                         struct env_pair *pairs, size_t count_max)
{
    size_t count = 0;
    while (text != NULL && *text != '\0') {
        size_t length = strcspn(text, ",");
        const char *equals = memchr(text, '=', length);
        if (equals == NULL || equals == text) {
            if (length > 0)
                warn(reader, "%s: ignored a member that is not name=value", what);
        } else if (count == count_max) {
            warn(reader, "%s: more than %zu members, the rest is ignored", what, count_max);
            return count;
        } else {
            pairs[count].name = decoded(text, (size_t)(equals - text));
            pairs[count].value = decoded(equals + 1, length - (size_t)(equals - text) - 1);
            if (pairs[count].name == NULL || pairs[count].value == NULL) {
                free(pairs[count].name);
                free(pairs[count].value);
                return count;
            }
            count++;
        }
        text += length + (text[length] == ',');
    }
    return count;
}

/* A header that could break out of its line is no header. */
static size_t drop_bad_headers(const struct reader *reader, struct env_pair *pairs, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        bool fine = pairs[i].name[0] != '\0';
        for (const char *c = pairs[i].name; *c != '\0'; c++)
            fine = fine && (unsigned char)*c > 0x20 && (unsigned char)*c < 0x7f && *c != ':';
        for (const char *c = pairs[i].value; *c != '\0'; c++)
            fine = fine && (unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f;
        if (fine) {
            pairs[kept++] = pairs[i];
            continue;
        }
        warn(reader, "OTEL_EXPORTER_OTLP_HEADERS: ignored a member with bytes no header may have");
        free(pairs[i].name);
        free(pairs[i].value);
    }
    return kept;
}

static uint32_t read_timeout(const struct reader *reader)
{
    const char *text =
        look(reader, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
    if (text == NULL)
        return TIMEOUT_MS_DEFAULT;
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (*end != '\0' || errno != 0 || number <= 0) {
        warn(reader, "OTEL_EXPORTER_OTLP_TIMEOUT: not a number of milliseconds, %u is used",
             TIMEOUT_MS_DEFAULT);
        return TIMEOUT_MS_DEFAULT;
    }
    if (number < 100)
        warn(reader, "OTEL_EXPORTER_OTLP_TIMEOUT is %ld milliseconds (the specification counts "
             "milliseconds, some programs read seconds)", number);
    return number > (long)TIMEOUT_MS_MAX ? TIMEOUT_MS_MAX : (uint32_t)number;
}

/* The authority of `url`: what stands behind the scheme, up to a slash. */
static struct cts_bytes authority_of(const char *url)
{
    const char *start = strstr(url, "://");
    start = start == NULL ? url : start + 3;
    return (struct cts_bytes){start, strcspn(start, "/?#")};
}

static bool ends_with(struct cts_bytes text, const char *end)
{
    size_t count = strlen(end);
    return text.count >= count && memcmp(text.at + text.count - count, end, count) == 0;
}

static bool begins_with(const char *text, const char *start)
{
    return strncasecmp(text, start, strlen(start)) == 0;
}

static bool is_loopback(struct cts_bytes authority)
{
    return begins_with(authority.at, "localhost:") || begins_with(authority.at, "127.") ||
           begins_with(authority.at, "[::1]");
}

static void choose_protocol(const struct reader *reader, const struct env_settings *settings,
                            const char *endpoint, struct env_plan *plan)
{
    const char *word = settings->protocol;
    if (word == NULL || word[0] == '\0')
        word = look(reader, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
    if (word != NULL && strcasecmp(word, "grpc") == 0) {
        plan->protocol = ENV_PROTOCOL_GRPC;
        return;
    }
    if (word != NULL && strcasecmp(word, "http/protobuf") == 0) {
        plan->protocol = ENV_PROTOCOL_HTTP;
        return;
    }
    plan->protocol = ends_with(authority_of(endpoint), ":4317") || begins_with(endpoint, "unix:")
                         ? ENV_PROTOCOL_GRPC : ENV_PROTOCOL_HTTP;
    if (word != NULL)
        warn(reader, "OTLP protocol: grpc or http/protobuf are spoken, %s is used",
             plan->protocol == ENV_PROTOCOL_GRPC ? "grpc" : "http/protobuf");
}

/* A base URL gets /v1/traces; one that was given for traces is taken as it is. */
static bool write_url(struct env_plan *plan, const char *endpoint, bool is_base)
{
    const char *scheme = strstr(endpoint, "://") == NULL ? "http://" : "";
    size_t length = strlen(endpoint);
    int written;
    if (is_base && !ends_with(cts_bytes_of(endpoint), "/v1/traces")) {
        while (length > 0 && endpoint[length - 1] == '/')
            length--;
        written = snprintf(plan->url, sizeof(plan->url), "%s%.*s/v1/traces", scheme, (int)length,
                           endpoint);
    } else {
        bool has_path = authority_of(endpoint).at[authority_of(endpoint).count] != '\0';
        written = snprintf(plan->url, sizeof(plan->url), "%s%s%s", scheme, endpoint,
                           has_path ? "" : "/");
    }
    return written > 0 && (size_t)written < sizeof(plan->url) &&
           (begins_with(plan->url, "http://") || begins_with(plan->url, "https://"));
}

static bool write_target(const struct reader *reader, struct env_plan *plan, const char *endpoint)
{
    struct cts_bytes authority = authority_of(endpoint);
    int written;
    if (begins_with(endpoint, "unix:")) {
        written = snprintf(plan->target, sizeof(plan->target), "%s", endpoint);
    } else {
        if (begins_with(endpoint, "https://"))
            plan->use_tls = true;
        else if (strstr(endpoint, "://") == NULL)
            plan->use_tls = !is_loopback(authority) &&
                            !is_true(look(reader, "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
                                          "OTEL_EXPORTER_OTLP_INSECURE"));
        else if (!begins_with(endpoint, "http://"))
            return false;
        bool has_port = memchr(authority.at, ':', authority.count) != NULL &&
                        authority.at[authority.count - 1] != ']';
        written = snprintf(plan->target, sizeof(plan->target), "%.*s%s", (int)authority.count,
                           authority.at, has_port ? "" : ":4317");
    }
    snprintf(plan->url, sizeof(plan->url), "%s", endpoint);
    return authority.count > 0 && written > 0 && (size_t)written < sizeof(plan->target);
}

static void choose_endpoint(const struct reader *reader, const struct env_settings *settings,
                            struct env_plan *plan)
{
    if (is_true(look(reader, "OTEL_SDK_DISABLED", NULL)))
        return;
    const char *exporter = look(reader, "OTEL_TRACES_EXPORTER", NULL);
    bool is_base = true;
    const char *endpoint = settings->endpoint;
    if (endpoint == NULL || endpoint[0] == '\0') {
        if (exporter != NULL && strcasecmp(exporter, "none") == 0)
            return;
        endpoint = look(reader, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", NULL);
        is_base = endpoint == NULL;
        if (is_base)
            endpoint = look(reader, "OTEL_EXPORTER_OTLP_ENDPOINT", NULL);
    }
    if (endpoint == NULL || endpoint[0] == '\0')
        return;

    choose_protocol(reader, settings, endpoint, plan);
    plan->is_exporting = plan->protocol == ENV_PROTOCOL_GRPC
                             ? write_target(reader, plan, endpoint)
                             : write_url(plan, endpoint, is_base);
    if (!plan->is_exporting) {
        char escaped[200];
        cts_bytes_escape(cts_bytes_of(endpoint), escaped, sizeof(escaped));
        warn(reader, "OTLP endpoint \"%s\" is no http:// or https:// address: nothing is sent",
             escaped);
    }
}

void env_read(const struct env_settings *settings, env_get *get, env_warn *warn_to, void *context,
              struct env_plan *ret_plan)
{
    struct reader reader = {get, warn_to, context};
    struct env_plan *plan = ret_plan;
    *plan = (struct env_plan){0};

    choose_endpoint(&reader, settings, plan);
    plan->timeout_ms = read_timeout(&reader);
    plan->headers_count = read_pairs(
        &reader, "OTEL_EXPORTER_OTLP_HEADERS",
        look(&reader, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
        plan->headers, ENV_HEADERS_COUNT_MAX);
    plan->headers_count = drop_bad_headers(&reader, plan->headers, plan->headers_count);
    plan->attributes_count =
        read_pairs(&reader, "OTEL_RESOURCE_ATTRIBUTES",
                   look(&reader, "OTEL_RESOURCE_ATTRIBUTES", NULL), plan->attributes,
                   ENV_ATTRIBUTES_COUNT_MAX);
    if (look(&reader, "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"))
        warn(&reader, "OTEL_EXPORTER_OTLP_COMPRESSION does nothing yet: requests are sent plain");

    const char *name = settings->service_name;
    if (name == NULL || name[0] == '\0')
        name = look(&reader, "OTEL_SERVICE_NAME", NULL);
    for (size_t i = 0; name == NULL && i < plan->attributes_count; i++) {
        if (strcmp(plan->attributes[i].name, "service.name") == 0)
            name = plan->attributes[i].value;
    }
    snprintf(plan->service_name, sizeof(plan->service_name), "%s",
             name != NULL && name[0] != '\0' ? name : "unknown_service:ctserve");
}

void env_plan_done(struct env_plan *plan)
{
    for (size_t i = 0; i < plan->headers_count; i++) {
        free(plan->headers[i].name);
        free(plan->headers[i].value);
    }
    for (size_t i = 0; i < plan->attributes_count; i++) {
        free(plan->attributes[i].name);
        free(plan->attributes[i].value);
    }
    *plan = (struct env_plan){0};
}
