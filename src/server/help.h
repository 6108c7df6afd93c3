/* help.h - what --help says: the everyday page, everything, or one setting. */
#ifndef SERVER_HELP_H
#define SERVER_HELP_H

#include "ctserve/error.h"

/* topic: NULL for the everyday page (at most 40 lines), "all", or the name of a setting, with or
 * without dashes, or one of its flags. *ret_text is malloc'ed. 0, or -1 with `error`. */
int help_text(const char *topic, char **ret_text, struct cts_error *error) CTS_MUST_USE;

#endif
