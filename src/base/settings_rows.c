/* settings_rows.c - the table of settings.def as an array. */
#include "ctserve/settings.h"

const struct cts_setting_row cts_setting_rows[CTS_SETTINGS_COUNT] = {
#define CTS_SETTING(row_name, row_section, row_flags, row_metavar, row_kind, row_default, row_env, \
                    row_reloadable, row_status, row_everyday, row_ours, row_arity_min, \
                    row_arity_max, row_doc, row_difference) \
    [CTS_SETTING_##row_name] = { \
        .name = #row_name, \
        .section = row_section, \
        .flags = row_flags, \
        .metavar = row_metavar, \
        .kind = row_kind, \
        .default_text = row_default, \
        .env = row_env, \
        .reloadable = row_reloadable, \
        .status = row_status, \
        .everyday = row_everyday, \
        .ours = row_ours, \
        .arity_min = row_arity_min, \
        .arity_max = row_arity_max, \
        .doc = row_doc, \
        .difference = row_difference, \
    },
#include "ctserve/settings.def"
#undef CTS_SETTING
};
