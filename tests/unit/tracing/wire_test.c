/* Packets between master and agent: whole ones arrive, all others are ignored and leak nothing. */
#include "help.h"

#include "ctserve/agent_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static char space[CTS_AGENT_PACKET_BYTES_MAX] __attribute__((aligned(8)));
static int ends[2];

static int open_pair(void **state)
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

static int close_pair(void **state)
{
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static int receive(enum cts_agent_message *kind, struct cts_bytes *body, int *fd)
{
    return cts_agent_receive(ends[1], space, kind, body, fd);
}

static int lowest_free_fd(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

static void a_packet_arrives_with_both_parts_of_its_body(void **state)
{
    enum cts_agent_message kind;
    struct cts_bytes body;
    int fd;
    assert_int_equal(receive(&kind, &body, &fd), -EAGAIN);
    assert_int_equal(cts_agent_send(ends[0], CTS_AGENT_NOTE, "head", 4, "tail!", 5, -1), 0);
    assert_int_equal(receive(&kind, &body, &fd), 0);
    assert_int_equal(kind, CTS_AGENT_NOTE);
    assert_int_equal(fd, -1);
    assert_int_equal(body.count, 9);
    assert_memory_equal(body.at, "headtail!", 9);
}

static void a_ring_arrives_with_its_descriptor(void **state)
{
    enum cts_agent_message kind;
    struct cts_bytes body;
    struct cts_agent_ring ring = {.ring_id = 7};
    struct cts_slot slot;
    struct cts_slot_view view;
    int fd;
    help_slot_create(&slot, ROWS);
    assert_int_equal(cts_agent_send(ends[0], CTS_AGENT_RING, &ring, sizeof(ring), NULL, 0, slot.fd),
                     0);
    cts_slot_free(&slot);
    assert_int_equal(receive(&kind, &body, &fd), 0);
    assert_true(fd >= 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(cts_slot_view_map(fd, true, &view), 0);
    cts_slot_view_unmap(&view);
    close(fd);
}

static void packets_that_lie_are_ignored(void **state)
{
    struct cts_agent_packet right = {CTS_AGENT_WIRE_MAGIC, CTS_AGENT_STOP, 4, 0};
    struct cts_agent_packet wrong_magic = right, too_long = right, too_short = right;
    char bytes[sizeof(right) + 4] = {0};
    enum cts_agent_message kind;
    struct cts_bytes body;
    int fd;
    wrong_magic.magic++;
    too_long.body_bytes = 0xffffffffu;
    too_short.body_bytes = 0;
    const struct cts_agent_packet *wrong[] = {&wrong_magic, &too_long, &too_short};
    for (size_t i = 0; i < CTS_COUNT(wrong); i++) {
        memcpy(bytes, wrong[i], sizeof(right));
        assert_int_equal(send(ends[0], bytes, sizeof(bytes), 0), sizeof(bytes));
        assert_int_equal(receive(&kind, &body, &fd), -EBADMSG);
        assert_int_equal(fd, -1);
    }
    for (size_t count = 1; count < sizeof(bytes); count++) {
        memcpy(bytes, &right, sizeof(right));
        assert_int_equal(send(ends[0], bytes, count, 0), (int)count);
        assert_int_equal(receive(&kind, &body, &fd), -EBADMSG);
    }
    assert_int_equal(send(ends[0], bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_int_equal(receive(&kind, &body, &fd), 0);
    assert_int_equal(body.count, 4);
}

/* Ten descriptors, or one where none belongs: all closed. */
static void descriptors_that_nobody_asked_for_are_closed(void **state)
{
    union {
        char space[CMSG_SPACE(10 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct cts_agent_packet packet = {CTS_AGENT_WIRE_MAGIC, CTS_AGENT_RING, 0, 0};
    struct iovec part = {&packet, sizeof(packet)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    int zeros[10] = {0};
    enum cts_agent_message kind;
    struct cts_bytes body;
    int fd, free_before = lowest_free_fd();
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(zeros));
    memcpy(CMSG_DATA(head), zeros, sizeof(zeros));
    assert_int_equal(sendmsg(ends[0], &message, 0), sizeof(packet));
    assert_int_equal(receive(&kind, &body, &fd), -EBADMSG);
    assert_int_equal(lowest_free_fd(), free_before);
    assert_int_equal(cts_agent_send(ends[0], CTS_AGENT_STOP, NULL, 0, NULL, 0, 0), 0);
    assert_int_equal(receive(&kind, &body, &fd), -EBADMSG);
    assert_int_equal(lowest_free_fd(), free_before);
}

static void the_end_of_the_stream_is_told(void **state)
{
    enum cts_agent_message kind;
    struct cts_bytes body;
    int fd;
    close(ends[0]);
    assert_int_equal(receive(&kind, &body, &fd), -EPIPE);
    assert_int_equal(cts_agent_send(ends[1], CTS_AGENT_STOP, NULL, 0, NULL, 0, -1), -EPIPE);
    ends[0] = dup(0);
}

static void a_full_socket_says_again_and_a_body_too_long_is_refused(void **state)
{
    int r = 0, sent = 0;
    while (r == 0 && sent++ < 100000)
        r = cts_agent_send(ends[0], CTS_AGENT_NOTE, space, 1000, NULL, 0, -1);
    assert_int_equal(r, -EAGAIN);
    assert_int_equal(cts_agent_send(ends[0], CTS_AGENT_NOTE, space, sizeof(space), NULL, 0, -1),
                     -EMSGSIZE);
}

int main(void)
{
#define with_pair(test) cmocka_unit_test_setup_teardown(test, open_pair, close_pair)
    const struct CMUnitTest tests[] = {
        with_pair(a_packet_arrives_with_both_parts_of_its_body),
        with_pair(a_ring_arrives_with_its_descriptor),
        with_pair(packets_that_lie_are_ignored),
        with_pair(descriptors_that_nobody_asked_for_are_closed),
        with_pair(the_end_of_the_stream_is_told),
        with_pair(a_full_socket_says_again_and_a_body_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
