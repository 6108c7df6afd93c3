/* settings_value.h - inside the room: values, and how one is read from what a user wrote. */
#ifndef BASE_SETTINGS_VALUE_H
#define BASE_SETTINGS_VALUE_H

#include "ctserve/settings.h"

/* How many elements a list setting may have; more is an error. */
#define SETTINGS_LIST_COUNT_MAX 1024

void value_free(struct cts_value *value);
/* A deep copy, but for `object`, which is shared. 0 or -ENOMEM. */
int value_copy(const struct cts_value *from, struct cts_value *ret_copy) CTS_MUST_USE;
bool value_equal(const struct cts_value *left, const struct cts_value *right);

/* Make *ret_value (TEXT) from `count` bytes. 0 or -ENOMEM. */
int value_set_text(struct cts_value *value, const char *text, size_t count) CTS_MUST_USE;
/* Append a copy of `count` bytes to a LIST (NONE becomes one). 0, -E2BIG or -ENOMEM. */
int value_list_add(struct cts_value *value, const char *text, size_t count) CTS_MUST_USE;

/* Validate `raw` for one setting and convert it. 0, or -1 with a sentence in `error`; on failure
 * *ret_value holds nothing. */
int value_read(enum cts_setting_id id, enum cts_setting_source source,
               const struct cts_value *raw, struct cts_value *ret_value,
               struct cts_error *error) CTS_MUST_USE;

/* The default of one setting; with_env: as the environment changes it, and then *ret_from_env
 * says whether it did. */
int value_default(enum cts_setting_id id, bool with_env, struct cts_value *ret_value,
                  bool *ret_from_env, struct cts_error *error) CTS_MUST_USE;

/* A list that is written as one text with commas (gunicorn takes no Python list there). */
bool value_is_comma_list(enum cts_setting_id id);

#endif
