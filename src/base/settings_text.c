/* settings_text.c - settings as text for people: a value, and the name they probably meant. */
#include "ctserve/settings.h"

#include "ctserve/buffer.h"

#include <errno.h>
#include <stdlib.h>

/* A text as Python's repr shows it inside a list. */
static int put_quoted(struct cts_buffer *out, const char *text)
{
    const char *quote = strchr(text, '\'') != NULL && strchr(text, '"') == NULL ? "\"" : "'";
    int r = cts_buffer_put(out, quote, 1);

    for (const char *at = text; r == 0 && *at != '\0'; at++) {
        if (*at == '\\' || *at == *quote)
            r = cts_buffer_put(out, "\\", 1);
        if (r == 0 && ((unsigned char)*at < 0x20 || *at == 0x7f))
            r = cts_buffer_printf(out, "\\x%02x", (unsigned char)*at);
        else if (r == 0)
            r = cts_buffer_put(out, at, 1);
    }
    return r < 0 ? r : cts_buffer_put(out, quote, 1);
}

static int put_list(struct cts_buffer *out, const struct cts_value *value)
{
    int r = cts_buffer_put(out, "[", 1);

    for (size_t i = 0; r == 0 && i < value->list_count; i++) {
        if (i > 0)
            r = cts_buffer_put(out, ", ", 2);
        if (r == 0)
            r = put_quoted(out, value->list[i]);
    }
    return r < 0 ? r : cts_buffer_put(out, "]", 1);
}

int cts_settings_put_value(const struct cts_settings *settings, enum cts_setting_id id,
                           struct cts_buffer *out)
{
    const struct cts_value *value = &settings->values[id];
    const struct cts_setting_row *row = &cts_setting_rows[id];

    switch (value->kind) {
    case CTS_VALUE_NONE:
        /* A hook or dictionary that nobody set is what its row says. */
        if ((row->kind == CTS_KIND_DICT || row->kind == CTS_KIND_HOOK) &&
            row->default_text != NULL)
            return cts_buffer_printf(out, "%s", row->default_text);
        return cts_buffer_printf(out, "None");
    case CTS_VALUE_INT:
        return cts_buffer_printf(out, "%lld", (long long)value->number);
    case CTS_VALUE_BOOL:
        return cts_buffer_printf(out, "%s", value->number != 0 ? "True" : "False");
    case CTS_VALUE_TEXT:
        return cts_buffer_printf(out, "%s", value->text);
    case CTS_VALUE_LIST:
        return put_list(out, value);
    case CTS_VALUE_OBJECT:
        return cts_buffer_printf(out, "<object>");
    }
    return -EINVAL;
}

/* Does one of the row's long flags, written with underscores, read like `name`? Short words are
 * left out: `env` or `name` in a config file is more likely a variable of the user's own. */
static bool flag_reads_like(const struct cts_setting_row *row, const char *name)
{
    size_t name_count = strlen(name);

    if (name_count < 6)
        return false;
    for (const char *at = strstr(row->flags, "--"); at != NULL; at = strstr(at + 2, "--")) {
        size_t count = strcspn(at + 2, " ");
        size_t i = 0;

        while (count == name_count && i < count &&
               (at[2 + i] == name[i] || (at[2 + i] == '-' && name[i] == '_')))
            i++;
        if (i == name_count)
            return true;
    }
    return false;
}

const char *cts_settings_nearest(const char *name)
{
    const char *names[CTS_SETTINGS_COUNT];
    int near;

    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        names[id] = cts_setting_rows[id].name;
        if (flag_reads_like(&cts_setting_rows[id], name))
            return names[id];
    }
    near = cts_nearest_word(name, names, CTS_SETTINGS_COUNT);
    return near < 0 ? NULL : names[near];
}
