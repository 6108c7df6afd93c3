/* main.c - the one file that knows every room, and decides nothing. */
#include "boot.h"

#include "ctserve/entry.h"
#include "ctserve/wsgi.h"

int cts_main(const struct cts_entry *entry)
{
    return boot_run(entry, cts_wsgi_gateway());
}
