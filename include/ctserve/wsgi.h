/* wsgi.h - the WSGI gateway (PEP 3333). Room: wsgi. */
#ifndef CTSERVE_WSGI_H
#define CTSERVE_WSGI_H

#include "ctserve/gateway.h"

/* The table, complete; static, valid for ever. Only src/server/main.c asks for it. */
const struct cts_gateway *cts_wsgi_gateway(void);

#endif
