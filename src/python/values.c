/* values.c - settings between C and Python.
 *
 * A value that only Python understands (a hook, a dict) is held by a list in the module state;
 * settings borrow it. New objects are appended while a config file is read; values_refresh drops
 * those that the settings in force no longer point at, so a failed reload loses nothing. */
#include "room.h"

#include <stdlib.h>

static PyObject *list_of_text(const struct cts_value *value)
{
    CTS_AUTO_REF PyObject *list = PyList_New((Py_ssize_t)value->list_count);
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < value->list_count; i++) {
        PyObject *text = PyUnicode_DecodeFSDefault(value->list[i]);
        if (text == NULL)
            return NULL;
        PyList_SET_ITEM(list, (Py_ssize_t)i, text);
    }
    return CTS_GIVE(list);
}

/* A dict nobody set stands in the table as the text of a literal. */
static PyObject *literal(const char *text)
{
    CTS_AUTO_REF PyObject *ast = PyImport_ImportModule("ast");
    if (ast == NULL)
        return NULL;
    PyObject *object = PyObject_CallMethod(ast, "literal_eval", "s", text);
    if (object == NULL) {
        PyErr_Clear();
        object = PyUnicode_FromString(text);
    }
    return object;
}

PyObject *value_to_object(const struct cts_settings *settings, enum cts_setting_id id)
{
    const struct cts_value *value = &settings->values[id];
    switch (value->kind) {
    case CTS_VALUE_NONE:
        break;
    case CTS_VALUE_INT:
        return PyLong_FromLongLong(value->number);
    case CTS_VALUE_BOOL:
        return PyBool_FromLong(value->number != 0);
    case CTS_VALUE_TEXT:
        if (value->text == NULL)
            break;
        if (cts_setting_rows[id].kind == CTS_KIND_DICT)
            return literal(value->text);
        return PyUnicode_DecodeFSDefault(value->text);
    case CTS_VALUE_LIST:
        return list_of_text(value);
    case CTS_VALUE_OBJECT:
        if (value->object == NULL)
            break;
        Py_INCREF((PyObject *)value->object);
        return value->object;
    }
    if (cts_setting_rows[id].kind == CTS_KIND_DICT && cts_setting_rows[id].default_text != NULL)
        return literal(cts_setting_rows[id].default_text);
    Py_RETURN_NONE;
}

static int refuse_value(enum cts_setting_id id, PyObject *object, const char *wanted,
                        struct cts_error *error)
{
    CTS_AUTO_REF PyObject *shown = PyObject_Repr(object);
    const char *text = shown != NULL ? PyUnicode_AsUTF8(shown) : NULL;
    cts_error_set(error, CTS_EXIT_FAILURE, "Invalid value for %s: %.200s; it must be %s",
                  cts_setting_rows[id].name, text != NULL ? text : Py_TYPE(object)->tp_name,
                  wanted);
    PyErr_Clear();
    return -1;
}

static int set_raw(struct cts_settings *settings, enum cts_setting_id id,
                   const struct cts_value *raw, struct cts_error *error)
{
    return cts_settings_set(settings, id, CTS_SOURCE_FILE, raw, error);
}

/* Text as the operating system has it; a path may hold bytes that are no UTF-8. */
static int set_text(struct cts_settings *settings, enum cts_setting_id id, PyObject *object,
                    struct cts_error *error)
{
    CTS_AUTO_REF PyObject *text = PyObject_Str(object);
    CTS_AUTO_REF PyObject *bytes = text != NULL ? PyUnicode_EncodeFSDefault(text) : NULL;
    char *chars;
    if (bytes == NULL || PyBytes_AsStringAndSize(bytes, &chars, NULL) < 0)
        return refuse_value(id, object, "text without NUL", error);
    struct cts_value raw = {.kind = CTS_VALUE_TEXT, .text = chars};
    return set_raw(settings, id, &raw, error);
}

static int set_list(struct cts_settings *settings, enum cts_setting_id id, PyObject *object,
                    struct cts_error *error)
{
    CTS_AUTO_REF PyObject *items = PySequence_Fast(object, "");
    if (items == NULL)
        return refuse_value(id, object, "a list of text", error);
    size_t count = (size_t)PySequence_Fast_GET_SIZE(items);
    CTS_AUTO_REF PyObject *encoded = PyList_New(0);  /* owns the bytes while `list` points there */
    char **list = calloc(count + 1, sizeof(*list));
    int r = -1;
    if (encoded == NULL || list == NULL) {
        PyErr_Clear();
        cts_error_set(error, CTS_EXIT_FAILURE, "no memory");
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        PyObject *borrowed_item = PySequence_Fast_GET_ITEM(items, (Py_ssize_t)i);
        CTS_AUTO_REF PyObject *bytes =
            PyUnicode_Check(borrowed_item) ? PyUnicode_EncodeFSDefault(borrowed_item) : NULL;
        if (bytes == NULL || PyBytes_AsStringAndSize(bytes, &list[i], NULL) < 0 ||
            PyList_Append(encoded, bytes) < 0) {
            refuse_value(id, object, "a list of text", error);
            goto done;
        }
    }
    struct cts_value raw = {.kind = CTS_VALUE_LIST, .list = list, .list_count = count};
    r = set_raw(settings, id, &raw, error);
done:
    free(list);
    return r;
}

static int set_object(struct python_state *state, struct cts_settings *settings,
                      enum cts_setting_id id, PyObject *object, struct cts_error *error)
{
    if (PyList_Append(state->kept, object) < 0)
        return exception_to_error(error, CTS_EXIT_FAILURE, cts_setting_rows[id].name);
    struct cts_value raw = {.kind = CTS_VALUE_OBJECT, .object = object};
    return set_raw(settings, id, &raw, error);
}

static int set_hook(struct python_state *state, struct cts_settings *settings,
                    enum cts_setting_id id, PyObject *object, struct cts_error *error)
{
    const struct cts_setting_row *row = &cts_setting_rows[id];
    CTS_AUTO_REF PyObject *checked =
        PyObject_CallMethod(state->config, "check_hook", "sOii", row->name, object,
                            row->arity_min, row->arity_max);
    if (checked == NULL)
        return exception_to_error(error, CTS_EXIT_FAILURE, row->name);
    return set_object(state, settings, id, PyTuple_GET_ITEM(checked, 0), error);
}

static int set_number(struct cts_settings *settings, enum cts_setting_id id, PyObject *object,
                      struct cts_error *error)
{
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0)
        return refuse_value(id, object, "a number of at most 63 bits", error);
    struct cts_value raw = {.kind = PyBool_Check(object) ? CTS_VALUE_BOOL : CTS_VALUE_INT,
                            .number = number};
    /* gunicorn: "Booleans are ints!" */
    if (cts_setting_rows[id].kind == CTS_KIND_INT)
        raw.kind = CTS_VALUE_INT;
    return set_raw(settings, id, &raw, error);
}

int value_set(struct python_state *state, struct cts_settings *settings, enum cts_setting_id id,
              PyObject *object, struct cts_error *error)
{
    enum cts_setting_kind kind = cts_setting_rows[id].kind;
    if (kind == CTS_KIND_HOOK)
        return set_hook(state, settings, id, object, error);
    if (object == Py_None) {
        struct cts_value raw = {.kind = CTS_VALUE_NONE};
        return set_raw(settings, id, &raw, error);
    }
    if (PyUnicode_Check(object))
        return set_text(settings, id, object, error);
    /* A constant of the module ssl is a number. */
    if (PyLong_Check(object) && id == CTS_SETTING_ssl_version)
        return set_text(settings, id, object, error);
    if (PyLong_Check(object) && kind != CTS_KIND_TEXT && kind != CTS_KIND_LIST &&
        kind != CTS_KIND_DICT)
        return set_number(settings, id, object, error);
    if (kind == CTS_KIND_LIST && (PyList_Check(object) || PyTuple_Check(object)))
        return set_list(settings, id, object, error);
    if (kind == CTS_KIND_DICT && PyDict_Check(object))
        return set_object(state, settings, id, object, error);
    /* worker_class, logger_class: the table's owner decides what a class is worth. */
    if (kind == CTS_KIND_TEXT && PyType_Check(object))
        return set_object(state, settings, id, object, error);
    static const char *const wanted[] = {
        [CTS_KIND_INT] = "a number",        [CTS_KIND_BOOL] = "True or False",
        [CTS_KIND_TEXT] = "text",           [CTS_KIND_CHOICE] = "one of its words",
        [CTS_KIND_LIST] = "a list of text", [CTS_KIND_DICT] = "a dict",
    };
    return refuse_value(id, object, wanted[kind], error);
}

static int refresh_hook(struct python_state *state, enum cts_setting_id id, PyObject *object)
{
    state->hooks[id] = object;
    CTS_AUTO_REF PyObject *count = PyObject_CallMethod(state->config, "arity", "O", object);
    if (count == NULL)
        return -1;
    state->hook_arities[id] = (int)PyLong_AsLong(count);
    return 0;
}

int values_refresh(struct python_state *state)
{
    CTS_AUTO_REF PyObject *kept = PyList_New(0);
    if (kept == NULL)
        return -1;
    memset(state->hooks, 0, sizeof(state->hooks));
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        const struct cts_value *value = &state->settings->values[id];
        if (value->kind != CTS_VALUE_OBJECT || value->object == NULL)
            continue;
        if (PyList_Append(kept, value->object) < 0)
            return -1;
        if (cts_setting_rows[id].kind == CTS_KIND_HOOK &&
            refresh_hook(state, (enum cts_setting_id)id, value->object) < 0)
            return -1;
    }
    Py_SETREF(state->kept, CTS_GIVE(kept));
    return 0;
}
