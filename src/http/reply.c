/* reply.c - what every reply needs: reasons, the date, checks of what an application wants to
 * send, and the page that goes with a refusal. Sources: RFC 9110 5, 6.6.1, 7.6.1, 15. */
#include "ctserve/http.h"
#include "classes.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static const char *const reasons[] = {
    [100] = "Continue", [101] = "Switching Protocols", [102] = "Processing",
    [103] = "Early Hints",
    [200] = "OK", [201] = "Created", [202] = "Accepted",
    [203] = "Non-Authoritative Information", [204] = "No Content", [205] = "Reset Content",
    [206] = "Partial Content", [207] = "Multi-Status", [208] = "Already Reported",
    [226] = "IM Used",
    [300] = "Multiple Choices", [301] = "Moved Permanently", [302] = "Found",
    [303] = "See Other", [304] = "Not Modified", [305] = "Use Proxy",
    [307] = "Temporary Redirect", [308] = "Permanent Redirect",
    [400] = "Bad Request", [401] = "Unauthorized", [402] = "Payment Required",
    [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
    [406] = "Not Acceptable", [407] = "Proxy Authentication Required",
    [408] = "Request Timeout", [409] = "Conflict", [410] = "Gone", [411] = "Length Required",
    [412] = "Precondition Failed", [413] = "Content Too Large", [414] = "URI Too Long",
    [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed", [418] = "I'm a Teapot", [421] = "Misdirected Request",
    [422] = "Unprocessable Content", [423] = "Locked", [424] = "Failed Dependency",
    [425] = "Too Early", [426] = "Upgrade Required", [428] = "Precondition Required",
    [429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
    [503] = "Service Unavailable", [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported", [506] = "Variant Also Negotiates",
    [507] = "Insufficient Storage", [508] = "Loop Detected", [510] = "Not Extended",
    [511] = "Network Authentication Required",
};

const char *cts_http_reason(int status)
{
    if (status < 0 || (size_t)status >= CTS_COUNT(reasons) || reasons[status] == NULL)
        return "";
    return reasons[status];
}

/* -- the date -------------------------------------------------------------------------------- */

#define DATE_BYTES 29

static void date_write(time_t now, char to[DATE_BYTES + 1])
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm;
    char text[64];

    gmtime_r(&now, &tm);
    snprintf(text, sizeof(text), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday,
             tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
             tm.tm_sec);
    memcpy(to, text, DATE_BYTES);
}

const char *cts_http_date(void)
{
    static _Thread_local time_t second = -1;
    static _Thread_local char text[DATE_BYTES + 1];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != second) {
        second = now.tv_sec;
        date_write(second, text);
    }
    return text;
}

/* -- checks of what an application sends ------------------------------------------------------ */

bool cts_http_name_ok(struct cts_bytes name)
{
    const unsigned char *at = (const unsigned char *)name.at, *end = at + name.count;

    return name.count != 0 && http_skip(at, end, HTTP_TOKEN) == end;
}

bool cts_http_value_ok(struct cts_bytes value)
{
    const unsigned char *at = (const unsigned char *)value.at, *end = at + value.count;

    return http_skip_value(at, end) == end;
}

int cts_http_status_line(struct cts_bytes status)
{
    int number = 0;

    if (status.count < 3)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (!http_is((unsigned char)status.at[i], HTTP_DIGIT))
            return -1;
        number = number * 10 + (status.at[i] - '0');
    }
    if (number < 100)
        return -1;
    if (status.count == 3)
        return number;
    if (status.at[3] != ' ')
        return -1;
    return cts_http_value_ok((struct cts_bytes){status.at + 4, status.count - 4}) ? number : -1;
}

bool cts_http_is_hop_by_hop(struct cts_bytes name)
{
    static const char *const names[] = {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "trailers", "transfer-encoding", "upgrade",
    };

    if (name.count == 0 || strchr("ckptuCKPTU", *name.at) == NULL)
        return false;
    for (size_t i = 0; i < CTS_COUNT(names); i++) {
        if (strlen(names[i]) == name.count && http_token_is(name.at, names[i], name.count))
            return true;
    }
    return false;
}

/* -- refusals --------------------------------------------------------------------------------- */

/* `text` into html; what does not fit is cut, what is no printable ASCII becomes '?'. */
static void html_escape(const char *text, char *to, size_t to_bytes)
{
    size_t at = 0;

    for (; *text != '\0' && at + 7 <= to_bytes; text++) {
        unsigned char byte = (unsigned char)*text;
        const char *entity = byte == '<' ? "&lt;" : byte == '>' ? "&gt;" : byte == '&' ? "&amp;"
                             : byte == '"' ? "&quot;" : NULL;
        if (entity == NULL) {
            to[at++] = byte < 0x20 || byte > 0x7E ? '?' : (char)byte;
            continue;
        }
        memcpy(to + at, entity, strlen(entity));
        at += strlen(entity);
    }
    to[at] = '\0';
}

int cts_http_refusal(struct cts_buffer *out, int status, const char *detail)
{
    const char *reason = cts_http_reason(status);
    char escaped[512], page[1024], head[256];
    int head_count, page_count;

    html_escape(detail == NULL ? "" : detail, escaped, sizeof(escaped));
    page_count = snprintf(page, sizeof(page),
                          "<html>\n  <head>\n    <title>%s</title>\n  </head>\n"
                          "  <body>\n    <h1>%s</h1>\n    <p>%s</p>\n  </body>\n</html>\n",
                          reason, reason, escaped);
    head_count = snprintf(head, sizeof(head),
                          "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/html\r\n"
                          "Content-Length: %d\r\n\r\n", status, reason, page_count);
    /* All or nothing: half a head would be worse than none. */
    if (cts_buffer_reserve(out, (size_t)head_count + (size_t)page_count) < 0)
        return -ENOMEM;
    memcpy(out->at + out->end, head, (size_t)head_count);
    memcpy(out->at + out->end + head_count, page, (size_t)page_count);
    out->end += (size_t)head_count + (size_t)page_count;
    return 0;
}
