/* outbox_test.c - what waits for a slow client: order, bounds, and nothing lost or twice. */
#include "../../../src/server/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define ALL_MAX (256ull << 20)

/* A client with little room, and everything that it has read. */
struct client {
    int near_fd, far_fd;
    struct cts_buffer read;
};

static _Atomic uint64_t spooled_bytes;

static void client_open(struct client *client)
{
    int ends[2], bytes = 4096;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    *client = (struct client){.near_fd = ends[0], .far_fd = ends[1]};
}

static void client_close(struct client *client)
{
    close(client->near_fd);
    close(client->far_fd);
    cts_buffer_free(&client->read);
}

static void client_read(struct client *client)
{
    for (;;) {
        assert_int_equal(cts_buffer_reserve(&client->read, 65536), 0);
        ssize_t n = read(client->far_fd, client->read.at + client->read.end, 65536);
        if (n <= 0)
            return;
        client->read.end += (size_t)n;
    }
}

/* Flush and read until nothing waits. */
static void deliver(struct outbox *outbox, struct client *client)
{
    int r;
    do {
        r = outbox_flush(outbox, &transport_plain, client->near_fd);
        assert_true(r == 0 || r == -EAGAIN);
        client_read(client);
    } while (r != 0);
    assert_true(outbox_is_empty(outbox));
    assert_int_equal(outbox_count(outbox), 0);
}

static char pattern(size_t at)
{
    return (char)('a' + (at * 7 + at / 251) % 26);
}

static char *make(size_t count, size_t from)
{
    char *bytes = malloc(count);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++)
        bytes[i] = pattern(from + i);
    return bytes;
}

static void assert_pattern(const struct client *client, size_t count)
{
    struct cts_bytes view = cts_buffer_view(&client->read);
    assert_int_equal(view.count, count);
    for (size_t i = 0; i < count; i++)
        if (view.at[i] != pattern(i))
            fail_msg("byte %zu is not what was sent", i);
}

static int send_some(struct outbox *outbox, struct client *client, size_t *from, size_t count)
{
    char *bytes = make(count, *from);
    struct cts_bytes view = {bytes, count};
    int r = outbox_send(outbox, &transport_plain, client->near_fd, &view, &spooled_bytes, ALL_MAX);
    *from += count - view.count;
    free(bytes);
    return r;
}

static void append(struct outbox *outbox, size_t *from, size_t count)
{
    char *bytes = make(count, *from);
    assert_int_equal(cts_buffer_put(&outbox->bytes, bytes, count), 0);
    *from += count;
    free(bytes);
}

static void what_the_kernel_takes_is_not_kept(void **state)
{
    struct outbox outbox;
    struct client client;
    size_t sent = 0;
    outbox_init(&outbox);
    client_open(&client);
    append(&outbox, &sent, 100);
    assert_int_equal(send_some(&outbox, &client, &sent, 1000), 0);
    assert_true(outbox_is_empty(&outbox));
    client_read(&client);
    assert_pattern(&client, 1100);
    outbox_free(&outbox);
    client_close(&client);
}

static void a_little_waits_in_memory_and_much_in_a_spool_and_all_leaves_in_order(void **state)
{
    struct outbox outbox;
    struct client client;
    size_t sent = 0;
    outbox_init(&outbox);
    client_open(&client);
    assert_int_equal(send_some(&outbox, &client, &sent, 300000), 0);
    assert_int_equal(outbox.spool.fd, -1);
    for (int i = 0; i < 20; i++) {
        append(&outbox, &sent, 10);
        assert_int_equal(send_some(&outbox, &client, &sent, 200000), 0);
        append(&outbox, &sent, 7);
        if (i % 5 == 4)
            client_read(&client);
    }
    assert_true(outbox.spool.fd >= 0);
    assert_true(spooled_bytes > 0);
    deliver(&outbox, &client);
    assert_pattern(&client, sent);
    assert_int_equal(spooled_bytes, 0);
    assert_int_equal(outbox.spool.fd, -1);
    append(&outbox, &sent, 5);
    deliver(&outbox, &client);
    assert_pattern(&client, sent);
    outbox_free(&outbox);
    client_close(&client);
}

static void at_its_bound_it_says_so_and_loses_nothing(void **state)
{
    struct outbox outbox;
    struct client client;
    size_t sent = 0;
    int r = 0;
    outbox_init(&outbox);
    client_open(&client);
    while (r == 0) {
        r = send_some(&outbox, &client, &sent, 5000000);
        assert_true(sent < OUTBOX_SPOOLED_BYTES_MAX + (8u << 20));
    }
    assert_int_equal(r, -EAGAIN);
    assert_true(spooled_bytes <= OUTBOX_SPOOLED_BYTES_MAX);
    deliver(&outbox, &client);
    assert_pattern(&client, sent);
    outbox_free(&outbox);
    assert_int_equal(spooled_bytes, 0);
    client_close(&client);
}

static void a_file_leaves_between_what_was_there_and_what_comes(void **state)
{
    char path[] = "/tmp/ctserve-outbox-XXXXXX";
    struct outbox outbox;
    struct client client;
    int fd = mkstemp(path);
    size_t sent = 0;
    assert_true(fd >= 0);
    unlink(path);
    outbox_init(&outbox);
    client_open(&client);
    append(&outbox, &sent, 100);
    char *bytes = make(5000000, sent);
    assert_int_equal(pwrite(fd, bytes, 5000000, 3), 5000000);
    free(bytes);
    assert_int_equal(outbox_put_file(&outbox, fd, 3, 5000000), 0);
    assert_int_equal(outbox_put_file(&outbox, fd, 3, 1), -EBUSY);
    close(fd);
    sent += 5000000;
    append(&outbox, &sent, 200);
    deliver(&outbox, &client);
    assert_pattern(&client, sent);
    assert_int_equal(outbox.file_fd, -1);
    outbox_free(&outbox);
    client_close(&client);
}

static void a_file_that_became_shorter_ends_the_connection(void **state)
{
    char path[] = "/tmp/ctserve-outbox-XXXXXX";
    struct outbox outbox;
    struct client client;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
    outbox_init(&outbox);
    client_open(&client);
    assert_int_equal(outbox_put_file(&outbox, fd, 0, 10), 0);
    assert_int_equal(outbox_flush(&outbox, &transport_plain, client.near_fd), -EPIPE);
    outbox_free(&outbox);
    close(fd);
    client_close(&client);
}

static void a_client_that_left_is_told_of(void **state)
{
    struct outbox outbox;
    struct client client;
    size_t sent = 0;
    outbox_init(&outbox);
    client_open(&client);
    assert_int_equal(send_some(&outbox, &client, &sent, 3000000), 0);
    close(client.far_fd);
    client.far_fd = -1;
    assert_int_equal(outbox_flush(&outbox, &transport_plain, client.near_fd), -EPIPE);
    outbox_empty(&outbox);
    assert_int_equal(spooled_bytes, 0);
    outbox_free(&outbox);
    client_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_kernel_takes_is_not_kept),
        cmocka_unit_test(a_little_waits_in_memory_and_much_in_a_spool_and_all_leaves_in_order),
        cmocka_unit_test(at_its_bound_it_says_so_and_loses_nothing),
        cmocka_unit_test(a_file_leaves_between_what_was_there_and_what_comes),
        cmocka_unit_test(a_file_that_became_shorter_ends_the_connection),
        cmocka_unit_test(a_client_that_left_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
