/* control.h - what master and worker say to each other over their socketpair.
 *
 * One SOCK_SEQPACKET socketpair per worker, both ends non-blocking and close-on-exec. One letter
 * first, the rest depends on it. End of stream means that the other side is gone. Orders travel
 * here as well as by signal, because an application can take a signal handler away from us. */
#ifndef SERVER_CONTROL_H
#define SERVER_CONTROL_H

enum control_letter {
    /* worker -> master */
    CONTROL_READY = 'R',        /* booted: post_worker_init done, the loop turns; what kind of
                                   application was found, and why, may follow as text */
    CONTROL_BOOT_FAILED = 'F',  /* struct control_failure follows */
    CONTROL_LEAVING = 'L',      /* draining by itself: one byte enum cts_gone_reason follows */
    /* master -> worker */
    CONTROL_LAST = 'Z',         /* before STOP, by itself no order: the whole service stops, so
                                 * nobody else will take in who waits in the backlog */
    CONTROL_EMPTY = 'E',        /* before STOP, by itself no order: the worker's own sockets go with
                                 * it, so who waits in them is its to answer; others serve on */
    CONTROL_STOP = 'T',         /* as SIGTERM: finish what runs, then leave */
    CONTROL_QUIT = 'Q',         /* as SIGQUIT: worker_int, leave now */
    CONTROL_REOPEN = 'U',       /* reopen logs */
};

struct control_failure {
    int exit_code;              /* 3 or 4 */
    char text[3900];            /* what the user should read, terminated */
};

#define CONTROL_PACKET_BYTES_MAX 4096

#endif
