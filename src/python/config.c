/* config.c - the config file: executed in Python, taken over into the settings here. */
#include "room.h"

#include "ctserve/log.h"

#include <stdlib.h>

/* Every row's name, for 'did you mean'. */
static const char *const setting_names[] = {
#define CTS_SETTING(name, ...) #name,
#include "ctserve/settings.def"
#undef CTS_SETTING
};

/* gunicorn ignores names it does not know, and so do we; but a name one slip away from a setting
 * is said, because `wrokers = 4` has never been what anybody wanted. */
static void warn_of_near_miss(const char *spec, const char *name, PyObject *value,
                              struct cts_settings *settings)
{
    if (name[0] == '_' || PyModule_Check(value) || PyType_Check(value))
        return;
    int near = cts_nearest_word(name, setting_names, CTS_COUNT(setting_names));
    if (near < 0)
        return;
    settings->unused_count++;
    cts_warning("%s: '%s' is not a setting and does nothing; did you mean '%s'?", spec, name,
                setting_names[near]);
}

static int take_name(struct python_state *state, const char *spec, PyObject *key, PyObject *value,
                     struct cts_settings *settings, struct cts_error *error)
{
    const char *name = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;
    if (name == NULL) {
        PyErr_Clear();
        return 0;
    }
    int id = cts_settings_find(name);
    if (id < 0) {
        warn_of_near_miss(spec, name, value, settings);
        return 0;
    }
    return value_set(state, settings, (enum cts_setting_id)id, value, error);
}

int config_load(const char *spec, bool required, struct cts_settings *settings,
                struct cts_error *error)
{
    struct python_state *state = state_get();
    if (state_load_modules(state) < 0)
        return exception_to_error(error, CTS_EXIT_FAILURE, "ctserve");
    CTS_AUTO_REF PyObject *names =
        PyObject_CallMethod(state->config, "read", "sO", spec, required ? Py_True : Py_False);
    if (names == NULL)
        return exception_to_error(error, CTS_EXIT_FAILURE, spec);
    PyObject *borrowed_key, *borrowed_value;
    Py_ssize_t position = 0;
    /* `names` is a copy that nobody else knows, so nothing changes it while we walk. */
    while (PyDict_Next(names, &position, &borrowed_key, &borrowed_value)) {
        if (take_name(state, spec, borrowed_key, borrowed_value, settings, error) < 0)
            return -1;
    }
    return 0;
}

char *config_value_text(const struct cts_settings *settings, enum cts_setting_id id)
{
    struct python_state *state = state_get();
    CTS_AUTO_REF PyObject *value = value_to_object(settings, id);
    CTS_AUTO_REF PyObject *text =
        value != NULL && state_load_modules(state) == 0
            ? PyObject_CallMethod(state->objects, "setting_text", "sO", cts_setting_rows[id].name,
                                  value)
            : NULL;
    CTS_AUTO_REF PyObject *bytes = text != NULL ? PyUnicode_EncodeFSDefault(text) : NULL;
    char *copy = bytes != NULL ? strdup(PyBytes_AS_STRING(bytes)) : strdup("?");
    PyErr_Clear();
    return copy;
}
