/* settings.c - the values in force, and which source gave each of them. */
#include "settings_value.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int cts_settings_init(struct cts_settings *settings, struct cts_error *error)
{
    *settings = (struct cts_settings){0};
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        bool from_env = false;

        if (value_default((enum cts_setting_id)id, true, &settings->values[id], &from_env,
                          error) < 0) {
            cts_settings_done(settings);
            return -1;
        }
        settings->sources[id] = from_env ? CTS_SOURCE_ENV_DEFAULT : CTS_SOURCE_DEFAULT;
    }
    return 0;
}

void cts_settings_done(struct cts_settings *settings)
{
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++)
        value_free(&settings->values[id]);
    free(settings->app_uri);
    *settings = (struct cts_settings){0};
}

int cts_settings_copy(const struct cts_settings *from, struct cts_settings *ret_copy)
{
    struct cts_settings copy = {.unused_count = from->unused_count};

    memcpy(copy.sources, from->sources, sizeof(copy.sources));
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        if (value_copy(&from->values[id], &copy.values[id]) < 0)
            goto no_memory;
    }
    if (from->app_uri != NULL) {
        struct cts_value app;

        if (value_set_text(&app, from->app_uri, strlen(from->app_uri)) < 0)
            goto no_memory;
        copy.app_uri = app.text;
    }
    *ret_copy = copy;
    return 0;
no_memory:
    cts_settings_done(&copy);
    return -ENOMEM;
}

int cts_settings_set_app(struct cts_settings *settings, const char *app_uri)
{
    struct cts_value app;

    if (value_set_text(&app, app_uri, strlen(app_uri)) < 0)
        return -ENOMEM;
    /* As in gunicorn: the application names the process, and a config file may say otherwise. */
    if (settings->sources[CTS_SETTING_default_proc_name] <= CTS_SOURCE_ENV_DEFAULT) {
        struct cts_value name;

        if (value_set_text(&name, app_uri, strlen(app_uri)) < 0) {
            value_free(&app);
            return -ENOMEM;
        }
        value_free(&settings->values[CTS_SETTING_default_proc_name]);
        settings->values[CTS_SETTING_default_proc_name] = name;
        settings->sources[CTS_SETTING_default_proc_name] = CTS_SOURCE_ENV_DEFAULT;
    }
    free(settings->app_uri);
    settings->app_uri = app.text;
    return 0;
}

const char *cts_settings_process_name(const struct cts_settings *settings)
{
    const char *name = cts_settings_text(settings, CTS_SETTING_proc_name);

    if (name == NULL)
        name = cts_settings_text(settings, CTS_SETTING_default_proc_name);
    return name != NULL ? name : "";
}

int cts_settings_find(const char *name)
{
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        if (strcmp(cts_setting_rows[id].name, name) == 0)
            return id;
    }
    return -1;
}

int cts_settings_set(struct cts_settings *settings, enum cts_setting_id id,
                     enum cts_setting_source source, const struct cts_value *raw,
                     struct cts_error *error)
{
    struct cts_value value;

    /* A config file cannot say which config file to read; gunicorn ignores it too. */
    if (id == CTS_SETTING_config && source == CTS_SOURCE_FILE)
        return 0;
    if (value_read(id, source, raw, &value, error) < 0)
        return -1;
    /* A value that loses is still checked: a mistake should not hide until the flag above it
     * goes away. */
    if (source < settings->sources[id]) {
        value_free(&value);
        return 0;
    }
    value_free(&settings->values[id]);
    settings->values[id] = value;
    settings->sources[id] = source;
    return 0;
}

static const struct cts_value *value_of(const struct cts_settings *settings,
                                        enum cts_setting_id id)
{
    assert((int)id >= 0 && id < CTS_SETTINGS_COUNT);
    return &settings->values[id];
}

int64_t cts_settings_int(const struct cts_settings *settings, enum cts_setting_id id)
{
    const struct cts_value *value = value_of(settings, id);

    assert(cts_setting_rows[id].kind == CTS_KIND_INT && value->kind == CTS_VALUE_INT);
    return value->number;
}

bool cts_settings_bool(const struct cts_settings *settings, enum cts_setting_id id)
{
    const struct cts_value *value = value_of(settings, id);

    assert(cts_setting_rows[id].kind == CTS_KIND_BOOL);
    return value->kind == CTS_VALUE_BOOL && value->number != 0;
}

const char *cts_settings_text(const struct cts_settings *settings, enum cts_setting_id id)
{
    const struct cts_value *value = value_of(settings, id);

    assert(cts_setting_rows[id].kind == CTS_KIND_TEXT ||
           cts_setting_rows[id].kind == CTS_KIND_CHOICE);
    return value->kind == CTS_VALUE_TEXT ? value->text : NULL;
}

size_t cts_settings_list(const struct cts_settings *settings, enum cts_setting_id id,
                         char *const **ret_list)
{
    const struct cts_value *value = value_of(settings, id);

    assert(cts_setting_rows[id].kind == CTS_KIND_LIST);
    *ret_list = value->list;
    return value->list_count;
}

bool cts_settings_is_default(const struct cts_settings *settings, enum cts_setting_id id)
{
    assert((int)id >= 0 && id < CTS_SETTINGS_COUNT);
    return settings->sources[id] <= CTS_SOURCE_ENV_DEFAULT;
}
