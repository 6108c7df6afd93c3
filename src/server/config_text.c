/* config_text.c - --print-config: every setting in force, one line each. */
#include "cmdline.h"

#include "ctserve/buffer.h"

#include <stdlib.h>

static int by_name(const void *left, const void *right)
{
    return strcmp(cts_setting_rows[*(const int *)left].name,
                  cts_setting_rows[*(const int *)right].name);
}

static int put_value(const struct cts_settings *settings, enum cts_setting_id id, char *text,
                     struct cts_buffer *out)
{
    if (text != NULL)
        return cts_buffer_printf(out, "%s", text);
    return cts_settings_put_value(settings, id, out);
}

char *cmdline_config_text(const struct cts_settings *settings,
                          char *(*value_text)(const struct cts_settings *settings,
                                              enum cts_setting_id id))
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    int order[CTS_SETTINGS_COUNT];
    int width = 0;
    int r = 0;

    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        int count = (int)strlen(cts_setting_rows[id].name);

        order[id] = id;
        width = count > width ? count : width;
    }
    qsort(order, CTS_SETTINGS_COUNT, sizeof(order[0]), by_name);
    for (int i = 0; r == 0 && i < CTS_SETTINGS_COUNT; i++) {
        enum cts_setting_id id = (enum cts_setting_id)order[i];
        char *text = value_text != NULL ? value_text(settings, id) : NULL;

        r = cts_buffer_printf(&out, "%-*s = ", width, cts_setting_rows[id].name);
        if (r == 0)
            r = put_value(settings, id, text, &out);
        if (r == 0)
            r = cts_buffer_put(&out, "\n", 1);
        free(text);
    }
    if (r == 0)
        r = cts_buffer_put(&out, "", 1); /* the NUL */
    if (r < 0) {
        cts_buffer_free(&out);
        return NULL;
    }
    return out.at; /* nothing was dropped, so the text begins where the block does */
}
