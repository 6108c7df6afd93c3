/* settings_check.h - inside the room: is one element of a list setting in order? */
#ifndef BASE_SETTINGS_CHECK_H
#define BASE_SETTINGS_CHECK_H

#include "ctserve/settings.h"

/* 0, or -1 with a sentence: ports of `bind`, networks of the allow lists, protocols. */
int settings_check_element(enum cts_setting_id id, struct cts_bytes element,
                           struct cts_error *error) CTS_MUST_USE;

#endif
