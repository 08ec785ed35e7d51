/* Reaching somebody: TCP, UDP, sockets with a name, and the ways around a filter of socket(2). */
#include "attack.h"
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/un.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static struct sockaddr_in local(const char *port) {
    struct sockaddr_in it = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    it.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return it;
}

/* The other side gets a few bytes, so that it can tell. */
static void greet(int fd, void *address, socklen_t size) {
    must(connect(must(fd), address, size));
    report(write(fd, "intruder", 8));
}

static void greet_tcp(int fd, const char *port) {
    struct sockaddr_in to = local(port);
    greet(fd, &to, sizeof to);
}

static void tcp(char **a) { greet_tcp(socket(AF_INET, SOCK_STREAM, 0), a[0]); }
static void mptcp(char **a) { greet_tcp(socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP), a[0]); }

static void tcp_with_high_bits(char **a) {
    greet_tcp(syscall(SYS_socket, AF_INET | HIGH_BIT, SOCK_STREAM | HIGH_BIT, HIGH_BIT), a[0]);
}

static void tcp6(char **a) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(a[0])), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    greet(socket(AF_INET6, SOCK_STREAM, 0), &to, sizeof to);
}

static void udp(char **a) {
    struct sockaddr_in to = local(a[0]);
    report(sendto(must(socket(AF_INET, SOCK_DGRAM, 0)), "intruder", 8, 0, (void *)&to, sizeof to));
}

/* Data in the first packet: no connect(2). */
static void fastopen(char **a) {
    struct sockaddr_in to = local(a[0]);
    report(sendto(must(socket(AF_INET, SOCK_STREAM, 0)), "intruder", 8, MSG_FASTOPEN, (void *)&to, sizeof to));
}

static struct msghdr message(struct sockaddr_in *to, struct iovec *bytes) {
    return (struct msghdr){.msg_name = to, .msg_namelen = sizeof *to, .msg_iov = bytes, .msg_iovlen = 1};
}

static void fastopen_message(char **a) {
    struct sockaddr_in to = local(a[0]);
    struct iovec bytes = {"intruder", 8};
    struct msghdr it = message(&to, &bytes);
    report(sendmsg(must(socket(AF_INET, SOCK_STREAM, 0)), &it, MSG_FASTOPEN));
}

static void fastopen_messages(char **a) {
    struct sockaddr_in to = local(a[0]);
    struct iovec bytes = {"intruder", 8};
    struct mmsghdr it = {.msg_hdr = message(&to, &bytes)};
    report(sendmmsg(must(socket(AF_INET, SOCK_STREAM, 0)), &it, 1, MSG_FASTOPEN));
}

static void fastopen_on_connect(char **a) {
    int fd = must(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
    must(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on));
    greet_tcp(fd, a[0]);
}

/* Makes it the socket of a protocol on top of TCP, for which nobody counts ports. */
static void change_protocol(char **a) {
    report(setsockopt(must(socket(AF_INET, SOCK_STREAM, 0)), IPPROTO_TCP, TCP_ULP, "none", 4));
    (void)a;
}

static void listening(int fd) {
    int is = 0;
    socklen_t size = sizeof is;
    must(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &size));
    puts(is ? "listening" : "not");
}

/* The kernel chooses a port. */
static void listen_without_bind(char **a) {
    (void)a;
    int fd = must(socket(AF_INET, SOCK_STREAM, 0));
    must(listen(fd, 1));
    listening(fd);
}

static void listen_at(char **a) {
    struct sockaddr_in at = local(a[0]);
    int fd = must(socket(AF_INET, SOCK_STREAM, 0)), on = 1;
    must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    must(bind(fd, (void *)&at, sizeof at));
    must(listen(fd, 1));
    listening(fd);
}

/* Both ends inside. */
static void talk_to_self(char **a) {
    struct sockaddr_in at = local("0");
    socklen_t size = sizeof at;
    int fd = must(socket(AF_INET, SOCK_STREAM, 0));
    must(bind(fd, (void *)&at, sizeof at));
    must(listen(fd, 1));
    must(getsockname(fd, (void *)&at, &size));
    greet(socket(AF_INET, SOCK_STREAM, 0), &at, sizeof at);
    (void)a;
}

static void raw(char **a) {
    (void)a;
    report(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static void packet(char **a) {
    (void)a;
    report(socket(AF_PACKET, SOCK_RAW, htons(3)));
}

/* The interfaces of the machine. */
static void netlink(char **a) {
    struct {
        struct nlmsghdr header;
        struct rtgenmsg body;
    } question = {{sizeof question, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_UNSPEC}};
    char answer[8192];
    int fd = must(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    must(send(fd, &question, sizeof question, 0));
    report(recv(fd, answer, sizeof answer, 0));
    (void)a;
}

/* Which kinds of sockets are to be had: "family/type …". */
static void families(char **a) {
    const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, SOCK_DCCP, SOCK_PACKET};
    int found = 0;
    for (int family = 0; family < 64; family++)
        for (size_t n = 0; n < sizeof types / sizeof *types; n++) {
            int fd = socket(family, types[n], 0);
            if (fd == -1) continue;
            printf("%d/%d ", family, types[n]);
            close(fd);
            found++;
        }
    puts(found ? "" : "none");
    (void)a;
}

/* A name that begins with "@" is an abstract one. */
static socklen_t name(struct sockaddr_un *it, const char *path) {
    it->sun_family = AF_UNIX;
    strncpy(it->sun_path, path, sizeof it->sun_path - 1);
    if (*path == '@') *it->sun_path = 0;
    return offsetof(struct sockaddr_un, sun_path) + strlen(path) + (*path != '@');
}

static void local_socket(char **a) {
    struct sockaddr_un to = {0};
    socklen_t size = name(&to, a[0]);
    greet(socket(AF_UNIX, SOCK_STREAM, 0), &to, size);
}

static void local_datagram(char **a) {
    struct sockaddr_un to = {0};
    socklen_t size = name(&to, a[0]);
    report(sendto(must(socket(AF_UNIX, SOCK_DGRAM, 0)), "intruder", 8, 0, (void *)&to, size));
}

/* No socket(2) is needed for one end that sends to anybody. The type may carry bits that the kernel drops, or be one that
   the kernel takes for another (SOCK_RAW is SOCK_DGRAM to it). */
static void pair(char **a) {
    struct sockaddr_un to = {0};
    socklen_t size = name(&to, a[1]);
    int ends[2];
    long type = !strcmp(a[0], "datagram")    ? SOCK_DGRAM
                : !strcmp(a[0], "raw")       ? SOCK_RAW
                : !strcmp(a[0], "flags")     ? SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK
                : !strcmp(a[0], "high_bits") ? SOCK_DGRAM | HIGH_BIT
                                             : 0;
    must(syscall(SYS_socketpair, AF_UNIX | (type & HIGH_BIT), type, 0, ends));
    report(sendto(ends[0], "intruder", 8, 0, (void *)&to, size));
}

/* What programs need, and may have: a pair that is connected for ever, also when the other end is gone. */
static void stream_pair(char **a) {
    struct sockaddr_un to = {0};
    socklen_t size = name(&to, a[0]);
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    if (!strcmp(a[1], "alone")) close(ends[1]);
    must(connect(ends[0], (void *)&to, size));
    report(write(ends[0], "intruder", 8));
}

/* Gives a file to everybody who connects. */
static void give_file(char **a) {
    struct sockaddr_un at = {0};
    socklen_t size = name(&at, a[0]);
    int listener = must(socket(AF_UNIX, SOCK_STREAM, 0)), file = must(open(a[1], O_RDONLY));
    must(bind(listener, (void *)&at, size));
    must(chmod(a[0], 0777));
    must(listen(listener, 1));
    report(0);
    for (;;) {
        char byte = 0, room[CMSG_SPACE(sizeof file)];
        struct iovec bytes = {&byte, 1};
        struct msghdr it = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
        struct cmsghdr *header = CMSG_FIRSTHDR(&it);
        *header = (struct cmsghdr){CMSG_LEN(sizeof file), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), &file, sizeof file);
        int fd = must(accept(listener, NULL, NULL));
        lseek(file, 0, SEEK_SET);
        sendmsg(fd, &it, MSG_NOSIGNAL);
        close(fd);
    }
}

static void take_file(char **a) {
    struct sockaddr_un to = {0};
    socklen_t size = name(&to, a[0]);
    char byte, room[CMSG_SPACE(sizeof(int))];
    struct iovec bytes = {&byte, 1};
    struct msghdr it = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int fd = must(socket(AF_UNIX, SOCK_STREAM, 0)), file;
    must(connect(fd, (void *)&to, size));
    must(recvmsg(fd, &it, 0));
    memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&it)), sizeof file);
    show(file);
}

/* One request to an io_uring, which the filter of system calls does not see; gives its result. */
struct ring {
    int fd;
    char *submissions, *completions;
    struct io_uring_sqe *entries;
    struct io_uring_params about;
};

static struct ring make_ring(void) {
    struct ring it = {0};
    it.fd = must(syscall(SYS_io_uring_setup, 2, &it.about));
    it.submissions = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, it.fd, IORING_OFF_SQ_RING);
    it.completions = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, it.fd, IORING_OFF_CQ_RING);
    it.entries = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, it.fd, IORING_OFF_SQES);
    return it;
}

static int ask(struct ring *it, struct io_uring_sqe request) {
    unsigned *tail = (unsigned *)(it->submissions + it->about.sq_off.tail);
    unsigned *head = (unsigned *)(it->completions + it->about.cq_off.head);
    unsigned mask = *(unsigned *)(it->submissions + it->about.sq_off.ring_mask), at = *tail & mask;
    ((unsigned *)(it->submissions + it->about.sq_off.array))[at] = at;
    it->entries[at] = request;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    must(syscall(SYS_io_uring_enter, it->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
    mask = *(unsigned *)(it->completions + it->about.cq_off.ring_mask);
    int result = ((struct io_uring_cqe *)(it->completions + it->about.cq_off.cqes))[*head & mask].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    if (result >= 0) return result;
    errno = -result;
    return -1;
}

static void ring(char **a) {
    struct sockaddr_in to = local(a[0]);
    struct ring it = make_ring();
    int fd = must(ask(&it, (struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM}));
    must(ask(&it, (struct io_uring_sqe){.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&to, .off = sizeof to}));
    report(ask(&it, (struct io_uring_sqe){.opcode = IORING_OP_SEND, .fd = fd, .addr = (uintptr_t) "intruder", .len = 8}));
}

#ifdef __x86_64__
/* The system calls of 32-bit programs have other numbers: 359 is socket there. */
static void tcp_of_32_bits(char **a) {
    long fd;
    __asm__ volatile("int $0x80" : "=a"(fd) : "a"(359), "b"(AF_INET), "c"(SOCK_STREAM), "d"(0) : "memory", "r8", "r9", "r10", "r11");
    if (fd < 0) {
        errno = -fd;
        fd = -1;
    }
    greet_tcp(fd, a[0]);
}

/* The numbers of programs with 64-bit registers and 32-bit pointers. */
static void tcp_of_x32(char **a) { greet_tcp(syscall(0x40000000 | SYS_socket, AF_INET, SOCK_STREAM, 0), a[0]); }
#endif

const struct attack network[] = {
    {"tcp", tcp},
    {"mptcp", mptcp},
    {"tcp_with_high_bits", tcp_with_high_bits},
    {"tcp6", tcp6},
    {"udp", udp},
    {"fastopen", fastopen},
    {"fastopen_message", fastopen_message},
    {"fastopen_messages", fastopen_messages},
    {"fastopen_on_connect", fastopen_on_connect},
    {"change_protocol", change_protocol},
    {"listen_without_bind", listen_without_bind},
    {"listen_at", listen_at},
    {"talk_to_self", talk_to_self},
    {"raw", raw},
    {"packet", packet},
    {"netlink", netlink},
    {"families", families},
    {"local_socket", local_socket},
    {"local_datagram", local_datagram},
    {"pair", pair},
    {"stream_pair", stream_pair},
    {"give_file", give_file},
    {"take_file", take_file},
    {"ring", ring},
#ifdef __x86_64__
    {"tcp_of_32_bits", tcp_of_32_bits},
    {"tcp_of_x32", tcp_of_x32},
#endif
    {0},
};
