/* serving.h - one request: from a whole head to a reply that is ready to leave.
 *
 * Works on a job. Does not write to the client, but for what the application streams; says where
 * the connection goes when the reply is written, and connection.c goes there. */
#ifndef SERVER_SERVING_H
#define SERVER_SERVING_H

#include "hand.h"
#include "job.h"

/* A head is whole, with what came of the body: let the application answer. Returns where to go
 * when the reply is written; IDLE: the bytes behind the request are in job->rest. */
enum connection_state serving_run(struct job *job, struct hand *hand);

/* One answer, then not another byte of this client is parsed. Returns LINGER. */
enum connection_state serving_refuse(struct job *job, int status, const char *code);

/* The request is over, as far as its span is concerned. `failure` is what happened to the
 * connection, or NULL; what happened in the application is told first. May be called twice. */
void serving_end(struct job *job, const char *failure);

/* The client left before the application was called. */
void serving_give_up(struct job *job, const char *failure);

#endif
