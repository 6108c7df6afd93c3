/* hand.c - see hand.h. */
#include "hand.h"
#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

static const char abort_reply[] =
    "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Type: text/html\r\n"
    "Content-Length: 141\r\n\r\n"
    "<html>\n  <head>\n    <title>Internal Server Error</title>\n  </head>\n  <body>\n"
    "    <h1><p>Internal Server Error</p></h1>\n    \n  </body>\n</html>\n";

int hand_init(struct hand *hand, struct service *service)
{
    memset(hand, 0, sizeof(*hand));
    hand->service = service;
    hand->scratch = malloc(HAND_SCRATCH_BYTES);
    return hand->scratch == NULL ? -ENOMEM : 0;
}

void hand_done(struct hand *hand)
{
    if (hand->service != NULL)
        access_flush(&hand->service->access, &hand->access);
    cts_buffer_free(&hand->access);
    job_free(hand->spare_job);
    free(hand->scratch);
    hand->spare_job = NULL;
    hand->scratch = NULL;
}

struct job *hand_lend(struct hand *hand, struct connection *connection)
{
    struct job *job = connection->job;
    if (job == NULL) {
        job = hand->spare_job;
        hand->spare_job = NULL;
    }
    if (job == NULL)
        job = job_new(hand->service);
    if (job != NULL) {
        job->connection = connection;
        job->parser.is_trusted = connection->peer.is_trusted;
    }
    connection->job = job;
    return job;
}

void hand_take_back(struct hand *hand, struct connection *connection)
{
    struct job *job = connection->job;
    connection->job = NULL;
    if (hand == NULL || hand->spare_job != NULL) {
        job_free(job);
        return;
    }
    job_rest(job);
    hand->spare_job = job;
}

void hand_abort_notice(struct hand *hand)
{
    struct connection *connection = atomic_load_explicit(&hand->current, memory_order_acquire);
    int open = JOB_ANSWER_OPEN;

    if (connection == NULL || !connection->transport->is_plain || connection->job->out_mark != 0)
        return;
    if (!atomic_compare_exchange_strong(&connection->job->answer, &open, JOB_ANSWER_ABORTED))
        return;
    if (send(connection->fd, abort_reply, sizeof(abort_reply) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}
