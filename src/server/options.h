/* options.h - the options of the command line, as the settings table spells them. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include "ctserve/error.h"
#include "ctserve/settings.h"

#define OPTION_FLAG_BYTES_MAX 64

/* What an option means. */
enum option_kind {
    OPTION_SETTING,
    OPTION_HELP,
    OPTION_VERSION,
};

struct option_match {
    enum option_kind kind;
    enum cts_setting_id id;      /* SETTING */
    bool takes_value;
    bool says_false;             /* --no-sendfile, --no-tracing */
};

/* Which option is `flag` (`count` bytes, "--workers" or "-w")? Beginnings of long options count
 * when only one option begins so. 0, or -1 with a usage error. */
int options_find(const char *flag, size_t count, struct option_match *ret_match,
                 struct cts_error *error) CTS_MUST_USE;

/* Give `text` to callbacks per flag of a row: "-w --workers" is two words. Returns the next word
 * in *ret_word and the rest, NULL at the end. */
const char *options_next_word(const char *words, struct cts_bytes *ret_word);

#endif
