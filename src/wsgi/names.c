/* names.c - header names and the environ keys they become.
 *
 * A bounded table, looked up by a hash that does not see case. Well-known names are pinned, the
 * others push each other out, so a client that invents names costs only itself. */
#include "call.h"

#include "ctserve/base.h"

static const struct {
    const char *name;
    bool keeps_value;
} known_names[] = {
    {"Host", true},
    {"User-Agent", true},
    {"Accept", true},
    {"Accept-Encoding", true},
    {"Accept-Language", true},
    {"Accept-Charset", true},
    {"Connection", true},
    {"Cache-Control", true},
    {"Pragma", true},
    {"Upgrade-Insecure-Requests", true},
    {"Sec-Fetch-Site", true},
    {"Sec-Fetch-Mode", true},
    {"Sec-Fetch-Dest", true},
    {"Sec-Fetch-User", true},
    {"Sec-Ch-Ua", true},
    {"Sec-Ch-Ua-Mobile", true},
    {"Sec-Ch-Ua-Platform", true},
    {"DNT", true},
    {"TE", true},
    {"Priority", true},
    {"X-Forwarded-Proto", true},
    {"X-Forwarded-Host", true},
    {"X-Forwarded-Port", true},
    {"X-Requested-With", true},
    {"Keep-Alive", true},
    {"Transfer-Encoding", true},
    {"Expect", true},
    {"Upgrade", true},
    {"Cookie", false},
    {"Authorization", false},
    {"Proxy-Authorization", false},
    {"X-Forwarded-For", false},
    {"X-Real-Ip", false},
    {"X-Request-Id", false},
    {"X-Csrftoken", false},
    {"Forwarded", false},
    {"Via", false},
    {"Referer", false},
    {"Origin", false},
    {"If-None-Match", false},
    {"If-Modified-Since", false},
    {"If-Match", false},
    {"If-Unmodified-Since", false},
    {"Range", false},
    {"If-Range", false},
    {"Traceparent", false},
    {"Tracestate", false},
    {"Baggage", false},
    {"From", false},
    {"Content-Encoding", false},
    {"Content-Language", false},
    {"Date", false},
    {"Trailer", false},
};

static uint64_t load(const char *at, size_t count)
{
    uint64_t word = 0;
    memcpy(&word, at, count);
    return word;
}

/* Bit 0x20 is set in every byte: cheap, and enough since a hit is compared in full. */
static uint32_t hash_name(struct cts_bytes name)
{
    const uint64_t fold = 0x2020202020202020u, mix = 0x9E3779B97F4A7C15u;
    uint64_t hash = name.count;
    size_t i = 0;
    for (; i + 8 <= name.count; i += 8)
        hash = (hash ^ (load(name.at + i, 8) | fold)) * mix;
    if (i < name.count) {
        if (name.count >= 8)
            hash = (hash ^ (load(name.at + name.count - 8, 8) | fold)) * mix;
        else if (name.count >= 4)
            hash = (hash ^ ((load(name.at, 4) << 32 | load(name.at + name.count - 4, 4)) | fold)) *
                   mix;
        else
            hash = (hash ^ ((uint64_t)name.at[0] << 16 | (uint64_t)name.at[name.count / 2] << 8 |
                            (uint64_t)name.at[name.count - 1] | fold)) *
                   mix;
    }
    return (uint32_t)(hash >> 40);
}

/* "HTTP_" and the name in upper case, '-' as '_'. Names are tokens: ASCII. */
static PyObject *make_key(struct cts_bytes name)
{
    PyObject *key = PyUnicode_New((Py_ssize_t)name.count + 5, 127);
    if (key == NULL)
        return NULL;
    char *to = (char *)PyUnicode_1BYTE_DATA(key);
    memcpy(to, "HTTP_", 5);
    for (size_t i = 0; i < name.count; i++) {
        char c = name.at[i];
        if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        to[5 + i] = c == '-' ? '_' : (char)(c & 0x7f);
    }
    return key;
}

static bool is_name(struct wsgi_name *slot, struct cts_bytes name)
{
    if (slot->count != name.count)
        return false;
    if (memcmp(slot->spelling, name.at, name.count) == 0)
        return true;
    if (!cts_bytes_equal_nocase((struct cts_bytes){slot->spelling, slot->count}, name))
        return false;
    memcpy(slot->spelling, name.at, name.count);
    return true;
}

static struct wsgi_name *find(struct wsgi_state *state, struct cts_bytes name, uint32_t hash)
{
    for (uint32_t i = 0; i < WSGI_NAME_PROBES; i++) {
        struct wsgi_name *slot = &state->names[(hash + i) & (WSGI_NAME_SLOTS - 1)];
        if (slot->key != NULL && is_name(slot, name))
            return slot;
    }
    return NULL;
}

/* A slot for a new name: a free one, else the first that is not pinned, else NULL. */
static struct wsgi_name *choose_slot(struct wsgi_state *state, uint32_t hash)
{
    struct wsgi_name *victim = NULL;
    for (uint32_t i = 0; i < WSGI_NAME_PROBES; i++) {
        struct wsgi_name *slot = &state->names[(hash + i) & (WSGI_NAME_SLOTS - 1)];
        if (slot->key == NULL)
            return slot;
        if (victim == NULL && !slot->is_pinned)
            victim = slot;
    }
    return victim;
}

static void fill_slot(struct wsgi_name *slot, struct cts_bytes name, PyObject *key)
{
    Py_INCREF(key);
    Py_XSETREF(slot->key, key);
    Py_CLEAR(slot->value);
    memcpy(slot->spelling, name.at, name.count);
    slot->count = (uint8_t)name.count;
    slot->is_pinned = slot->keeps_value = false;
    slot->serial = 0;
}

int names_start(struct wsgi_state *state)
{
    for (size_t i = 0; i < CTS_COUNT(known_names); i++) {
        struct cts_bytes name = cts_bytes_of(known_names[i].name);
        uint32_t hash = hash_name(name);
        struct wsgi_name *slot = choose_slot(state, hash);
        if (slot == NULL)
            continue; /* its neighbourhood is full: it will be made anew each time */
        PyObject *key = make_key(name);
        if (key == NULL)
            return -1;
        PyUnicode_InternInPlace(&key);
        fill_slot(slot, name, key);
        Py_DECREF(key);
        slot->is_pinned = true;
        slot->keeps_value = known_names[i].keeps_value;
    }
    return 0;
}

void names_stop(struct wsgi_state *state)
{
    for (size_t i = 0; i < WSGI_NAME_SLOTS; i++) {
        Py_CLEAR(state->names[i].key);
        Py_CLEAR(state->names[i].value);
    }
}

/* The value as str; the one of the last request when it is the same and may be kept. */
static PyObject *value_text(struct wsgi_name *slot, struct cts_bytes value)
{
    if (!slot->keeps_value || value.count > WSGI_KEPT_VALUE_BYTES_MAX)
        return latin1(value);
    PyObject *kept = slot->value;
    if (kept != NULL && (size_t)PyUnicode_GET_LENGTH(kept) == value.count &&
        memcmp(PyUnicode_1BYTE_DATA(kept), value.at, value.count) == 0)
        return Py_NewRef(kept);
    PyObject *text = latin1(value);
    if (text != NULL) {
        Py_INCREF(text);
        Py_XSETREF(slot->value, text);
    }
    return text;
}

/* The field came before (or may have): append. */
static int put_checked(PyObject *wsgi_environ, PyObject *key, PyObject *value)
{
    PyObject *borrowed_before = PyDict_GetItemWithError(wsgi_environ, key);
    if (borrowed_before == NULL)
        return PyErr_Occurred() ? -1 : PyDict_SetItem(wsgi_environ, key, value);
    CTS_AUTO_REF PyObject *joined = PyUnicode_FromFormat("%U,%U", borrowed_before, value);
    return joined == NULL ? -1 : PyDict_SetItem(wsgi_environ, key, joined);
}

static int put_unknown(struct wsgi_state *state, PyObject *wsgi_environ,
                       const struct cts_header *header, uint32_t hash)
{
    CTS_AUTO_REF PyObject *key = make_key(header->name);
    CTS_AUTO_REF PyObject *value = latin1(header->value);
    if (key == NULL || value == NULL)
        return -1;
    if (header->name.count <= WSGI_NAME_BYTES_MAX) {
        struct wsgi_name *slot = choose_slot(state, hash);
        if (slot != NULL) {
            fill_slot(slot, header->name, key);
            slot->serial = state->serial;
        }
    }
    return put_checked(wsgi_environ, key, value);
}

int names_put(struct wsgi_state *state, PyObject *wsgi_environ, const struct cts_header *header)
{
    uint32_t hash = hash_name(header->name);
    struct wsgi_name *slot = find(state, header->name, hash);
    if (slot == NULL)
        return put_unknown(state, wsgi_environ, header, hash);
    PyObject *value = value_text(slot, header->value);
    if (value == NULL)
        return -1;
    int r;
    if (CTS_LIKELY(slot->serial != state->serial))
        r = PyDict_SetItem(wsgi_environ, slot->key, value);
    else
        r = put_checked(wsgi_environ, slot->key, value);
    slot->serial = state->serial;
    Py_DECREF(value);
    return r;
}
