/* wire.c - one packet between master and agent, with at most one descriptor.
 *
 * Either side may die at any byte and the agent runs as somebody else, so what comes in is checked
 * whole, and descriptors that nobody asked for are closed. */
#include "ctserve/agent_wire.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS_MAX 8 /* room to see, and close, more than the one we take */

union control {
    char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct cmsghdr align;
};

static void attach_fd(struct msghdr *message, union control *control, int fd)
{
    memset(control, 0, sizeof(*control));
    message->msg_control = control->space;
    message->msg_controllen = CMSG_SPACE(sizeof(int));
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
}

int cts_agent_send(int socket_fd, enum cts_agent_message kind, const void *head, size_t head_bytes,
                   const void *tail, size_t tail_bytes, int attached_fd)
{
    struct cts_agent_packet packet = {.magic = CTS_AGENT_WIRE_MAGIC, .kind = (uint32_t)kind};
    size_t body_max = CTS_AGENT_PACKET_BYTES_MAX - sizeof(packet);
    if (head_bytes > body_max || tail_bytes > body_max - head_bytes)
        return -EMSGSIZE;
    packet.body_bytes = (uint32_t)(head_bytes + tail_bytes);
    struct iovec parts[3] = {
        {&packet, sizeof(packet)},
        {(void *)(uintptr_t)head, head_bytes},
        {(void *)(uintptr_t)tail, tail_bytes},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    union control control;
    if (attached_fd >= 0)
        attach_fd(&message, &control, attached_fd);
    ssize_t sent;
    do
        sent = sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    return 0;
}

/* The first descriptor that came along, or -1; the others are closed. */
static int take_fd(struct msghdr *message)
{
    int taken_fd = -1;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head != NULL;
         head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(fd));
            if (taken_fd < 0)
                taken_fd = fd;
            else
                cts_fd_close(&fd);
        }
    }
    return taken_fd;
}

/* Does the packet say of itself what came? Only a RING carries a descriptor. */
static bool packet_is_right(const struct cts_agent_packet *packet, size_t received, int flags,
                            int attached_fd)
{
    if ((flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || received < sizeof(*packet))
        return false;
    if (packet->magic != CTS_AGENT_WIRE_MAGIC || packet->body_bytes != received - sizeof(*packet))
        return false;
    return attached_fd < 0 || packet->kind == CTS_AGENT_RING;
}

int cts_agent_receive(int socket_fd, void *space, enum cts_agent_message *ret_kind,
                      struct cts_bytes *ret_body, int *ret_attached_fd)
{
    struct cts_agent_packet packet = {0};
    struct iovec part = {space, CTS_AGENT_PACKET_BYTES_MAX};
    union control control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    ssize_t received;
    *ret_body = (struct cts_bytes){space, 0};
    *ret_attached_fd = -1;
    do
        received = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    if (received < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;

    int attached_fd = take_fd(&message);
    if (received == 0 && attached_fd < 0)
        return -EPIPE;
    if ((size_t)received >= sizeof(packet))
        memcpy(&packet, space, sizeof(packet));
    if (!packet_is_right(&packet, (size_t)received, message.msg_flags, attached_fd)) {
        cts_fd_close(&attached_fd);
        return -EBADMSG;
    }
    *ret_kind = (enum cts_agent_message)packet.kind;
    *ret_body = (struct cts_bytes){(const char *)space + sizeof(packet), packet.body_bytes};
    *ret_attached_fd = attached_fd;
    return 0;
}
