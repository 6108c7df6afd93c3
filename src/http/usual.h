/* usual.h - the quick way through a head that arrived in one piece. Used by head.c only.
 *
 * Takes whole lines of the usual shape from the front: the request line, then fields. At the
 * first byte that is anything else it stops before that line, and the careful way (scan.h)
 * goes on there. So nothing is refused here but by fields_take(), which both ways share, and the
 * verdict on a head cannot depend on the way it was read. */
#ifndef CTSERVE_HTTP_USUAL_H
#define CTSERVE_HTTP_USUAL_H

#include "ctserve/http.h"

enum usual {
    USUAL_NOTHING,   /* not even the request line: nothing was changed */
    USUAL_LINES,     /* up to inner.position, which is the start of a field line */
    USUAL_HEAD,      /* all of it, empty line included */
};

/* Places of fields in the table are pointers after USUAL_HEAD, offsets after USUAL_LINES.
 * Returns 0, or the status to answer with, *ret_code then names the rule. */
int usual_read(struct cts_head_parser *parser, const unsigned char *base,
               const unsigned char *end, enum usual *ret_how, const char **ret_code) CTS_MUST_USE;

#endif
