/* net.h on real sockets over the loopback. faults.c makes each system call of a whole server
 * fail; here are the failures of accept. */
#include "net.h"
#include "stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Where the linker has --wrap, accept fails on demand, and we count how often net_accept sleeps
 * afterwards. */
static int accept_errors[2]; /* of the next calls; 0: the call is made */
static int accepts = 2;      /* calls since this was set to 0 */
static int rests;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
int __real_accept(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int fd, struct sockaddr *address, socklen_t *size);
int __wrap_accept(int fd, struct sockaddr *address, socklen_t *size)
{
    int call = accepts++;

    if (call < 2 && accept_errors[call] != 0) {
        errno = accept_errors[call];
        return -1;
    }
    return __real_accept(fd, address, size);
}

int __real_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int ms)
{
    rests += n == 0 && ms == 10;
    return __real_poll(fds, n, ms);
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls those above */
int __real_accept(int fd, struct sockaddr *address, socklen_t *size)
{
    return accept(fd, address, size);
}
int __real_poll(struct pollfd *fds, nfds_t n, int ms)
{
    return poll(fds, n, ms);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* No test leaves more descriptors open than it found. */
static int count_descriptors(void **state)
{
    static int before;

    *state = &before;
    before = open_descriptors();
    return 0;
}

static int same_descriptors(void **state)
{
    assert_int_equal(open_descriptors(), *(int *)*state);
    return 0;
}

static void connect_to(const struct net_listener *listener, int fd)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(listener->address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    assert_return_code(connect(fd, (struct sockaddr *)&to, sizeof to), errno);
}

static int dial(const struct net_listener *listener)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_not_equal(fd, -1);
    connect_to(listener, fd);
    return fd;
}

static struct net_listener listen_somewhere(const char *host)
{
    struct net_listener listener;
    const char *why = NULL;

    if (net_listen(&listener, host, "0", &why) == -1)
        fail_msg("cannot listen on %s: %s", host, why);
    assert_int_not_equal(listener.address.port, 0);
    return listener;
}

static void it_listens_and_accepts(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct sockaddr_in me;
    socklen_t size = sizeof me;
    char host[ADDRESS_HOST_SIZE];
    struct address peer;
    int on = 0;

    (void)state;
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    assert_int_not_equal(fd, -1);
    assert_string_equal(address_host(&peer, host), "127.0.0.1");
    getsockname(client, (struct sockaddr *)&me, &size);
    assert_int_equal(peer.port, ntohs(me.sin_port));
    size = sizeof on;
    getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size);
    assert_true(on);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(listener.fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(listener.reserved, F_GETFD) & FD_CLOEXEC);
    close(client);
    close(fd);
    net_unlisten(&listener);
    assert_int_equal(listener.fd, -1);
    assert_int_equal(listener.reserved, -1);
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool bound = fd != -1 && bind(fd, (struct sockaddr *)&to, sizeof to) == 0;

    if (fd != -1)
        close(fd);
    return bound;
}

static void it_listens_on_names_and_ipv6(void **state)
{
    static const struct {
        const char *host, *address;
    } hosts[] = {{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "0.0.0.0"}, {"::1", "::1"}};
    char host[ADDRESS_HOST_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        if (strcmp(hosts[i].host, "::1") == 0 && !has_ipv6()) {
            print_message("no IPv6 here\n");
            continue;
        }
        struct net_listener listener = listen_somewhere(hosts[i].host);
        assert_string_equal(address_host(&listener.address, host), hosts[i].address);
        net_unlisten(&listener);
    }
    struct net_listener listener = listen_somewhere("localhost"); /* one or the other */
    net_unlisten(&listener);
}

static void it_says_why_it_cannot_listen(void **state)
{
    struct net_listener first = listen_somewhere("127.0.0.1"), second;
    const char *why = NULL;
    char port[8];

    (void)state;
    snprintf(port, sizeof port, "%u", (unsigned)first.address.port);
    assert_int_equal(net_listen(&second, "127.0.0.1", port, &why), -1);
    assert_string_equal(why, strerror(EADDRINUSE));
    assert_int_equal(net_listen(&second, "192.0.2.1", "0", &why), -1); /* TEST-NET: not ours */
    assert_string_equal(why, strerror(EADDRNOTAVAIL));
    assert_int_equal(net_listen(&second, "127.0.0.1", "no number", &why), -1);
    assert_string_equal(why, gai_strerror(EAI_NONAME));
    net_unlisten(&first);
}

/* Even while connections that the server has closed are in TIME_WAIT. */
static void its_port_can_be_used_again_at_once(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    const char *why = "";
    struct address peer;
    char port[8], byte;

    (void)state;
    snprintf(port, sizeof port, "%u", (unsigned)listener.address.port);
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    close(fd); /* the server closes first, so its end enters TIME_WAIT */
    assert_int_equal(recv(client, &byte, 1, 0), 0);
    close(client);
    net_unlisten(&listener);
    assert_int_equal(net_listen(&listener, "127.0.0.1", port, &why), 0);
    net_unlisten(&listener);
}

/* Many clients may come at the same moment: they wait for accept in the backlog. */
static void the_backlog_is_long(void **state)
{
    enum { MANY = 100 }; /* SOMAXCONN is 128 on some systems */
    struct net_listener listener = listen_somewhere("127.0.0.1");
    int fds[MANY];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_return_code(net_set_timeout(fds[i], 5000), errno);
        connect_to(&listener, fds[i]);
    }
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    net_unlisten(&listener);
}

static void no_connection_is_pending(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct address peer;

    (void)state;
    assert_return_code(net_set_nonblocking(listener.fd), errno);
    assert_int_equal(net_accept(&listener, &peer), -1);
    assert_true(net_is_again(errno));
    net_unlisten(&listener);
}

static void errors_are_told_apart(void **state)
{
    (void)state;
    assert_true(net_is_again(EAGAIN) && net_is_again(EWOULDBLOCK));
    assert_false(net_is_again(EINTR) || net_is_again(ECONNRESET) || net_is_again(EMFILE) ||
                 net_is_again(0));
    assert_true(net_is_out_of_descriptors(EMFILE) && net_is_out_of_descriptors(ENFILE));
    assert_false(net_is_out_of_descriptors(ENOMEM) || net_is_out_of_descriptors(EAGAIN) ||
                 net_is_out_of_descriptors(0));
}

/* Fills the table of descriptors to the last. Returns how many it opened. */
static int fill_descriptors(int *fds, int most)
{
    int n = 0;

    while (n < most && (fds[n] = open("/dev/null", O_RDONLY)) != -1)
        n++;
    assert_int_equal(errno, EMFILE);
    return n;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void without_a_descriptor_clients_are_rejected(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    int clients[4], fds[64] = {0}, n;
    struct rlimit before, low;
    struct address peer;
    char byte;

    (void)state;
    for (int i = 0; i < 3; i++)
        clients[i] = dial(&listener);
    clients[3] = socket(AF_INET, SOCK_STREAM, 0); /* connects later */
    getrlimit(RLIMIT_NOFILE, &before);
    low = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    net_set_nonblocking(listener.fd);
    n = fill_descriptors(fds, 64);

    for (int i = 0; i < 2; i++) { /* each is accepted and closed, so that it knows */
        assert_int_equal(net_accept(&listener, &peer), NET_REJECTED);
        assert_int_equal(errno, EMFILE);
        assert_int_not_equal(peer.port, 0);
        assert_int_equal(recv(clients[i], &byte, 1, 0), 0);
        assert_int_not_equal(listener.reserved, -1);
    }
    close(fds[--n]); /* a client has left: there is room for one */
    int fd = net_accept(&listener, &peer);
    assert_true(fd >= 0);
    assert_int_equal(net_accept(&listener, &peer), -1); /* no room, but no client either */
    assert_true(net_is_again(errno));
    assert_int_not_equal(listener.reserved, -1);

    close(listener.reserved); /* lost, because another thread took the last descriptor */
    listener.reserved = -1;
    assert_int_not_equal(fds[n++] = open("/dev/null", O_RDONLY), -1);
    connect_to(&listener, clients[3]);
    uint64_t calls = atomic_load(&stats.accept_calls);
    int64_t start = now_ms();
    assert_int_equal(net_accept(&listener, &peer), -1);
    assert_int_equal(errno, EMFILE);
    assert_true(now_ms() - start >= 10);
    assert_int_equal(atomic_load(&stats.accept_calls), calls + 1);
    close(fds[--n]); /* the next free descriptor becomes the reserved one */
    assert_int_equal(net_accept(&listener, &peer), NET_REJECTED);
    assert_int_equal(errno, EMFILE);
    assert_int_equal(recv(clients[3], &byte, 1, 0), 0);
    assert_int_not_equal(listener.reserved, -1);

    while (n > 0)
        close(fds[--n]);
    close(fd);
    for (int i = 0; i < 4; i++)
        close(clients[i]);
    setrlimit(RLIMIT_NOFILE, &before);
    net_unlisten(&listener);
}

/* A client may leave while the reserved descriptor is given up. Then there is room. */
static void the_reserved_descriptor_is_replaced(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct address peer;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    int client = dial(&listener);
    accept_errors[0] = ENFILE;
    accept_errors[1] = 0;
    accepts = 0;
    int fd = net_accept(&listener, &peer);
    assert_true(fd >= 0);
    assert_int_equal(accepts, 2);
    assert_int_not_equal(listener.reserved, -1);
    assert_int_not_equal(peer.port, 0);
    close(fd);
    close(client);
    net_unlisten(&listener);
}

/* accept may fail although the reserved descriptor is given up: ENFILE is the whole system's
 * limit. Nobody is rejected then, and a call that fails takes 10 ms, so that no loop spins. */
static void without_any_descriptor_nobody_is_rejected(void **state)
{
    static const int errors[] = {EMFILE, ENFILE};
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct address peer;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    int client = dial(&listener);
    for (size_t i = 0; i < 2; i++) {
        accept_errors[0] = accept_errors[1] = errors[i];
        accepts = 0;
        int64_t start = now_ms();
        assert_int_equal(net_accept(&listener, &peer), -1);
        assert_int_equal(errno, errors[i]);
        assert_true(now_ms() - start >= 10);
        assert_int_equal(accepts, 2);
        assert_int_equal(peer.port, 0);
        assert_int_not_equal(listener.reserved, -1);
    }
    int fd = net_accept(&listener, &peer); /* the client was left in the backlog */
    assert_true(fd >= 0);
    close(fd);
    close(client);
    net_unlisten(&listener);
}

/* The caller may call again at once after an error of one connection, but not after others. */
static void lasting_errors_take_time(void **state)
{
    static const int passing[] = {EINTR, EAGAIN, ECONNABORTED, EPROTO},
                     lasting[] = {ENOBUFS, ENOMEM, EINVAL, EPERM, ENETDOWN, EOPNOTSUPP};
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct address peer;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++) {
        accept_errors[0] = passing[i];
        accepts = rests = 0;
        assert_int_equal(net_accept(&listener, &peer), -1);
        assert_int_equal(errno, passing[i]);
        assert_int_equal(rests, 0);
    }
    for (size_t i = 0; i < sizeof lasting / sizeof *lasting; i++) {
        accept_errors[0] = lasting[i];
        accepts = rests = 0;
        assert_int_equal(net_accept(&listener, &peer), -1);
        assert_int_equal(errno, lasting[i]);
        assert_int_equal(rests, 1);
        assert_int_equal(accepts, 1);
    }
    net_unlisten(&listener);
}

/* Then the program does not start, and nothing stays open. */
static void without_a_descriptor_it_does_not_listen(void **state)
{
    struct net_listener listener;
    const char *why = "";
    int fds[64] = {0}, n;
    struct rlimit before, low;

    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    low = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    n = fill_descriptors(fds, 64);
    assert_true(n > 2);
    for (int room = 0; room < 2; room++) { /* first none, then only the listener's */
        assert_int_equal(net_listen(&listener, "127.0.0.1", "0", &why), -1);
        assert_string_equal(why, strerror(EMFILE));
        close(fds[--n]);
    }
    while (n > 0)
        close(fds[--n]);
    setrlimit(RLIMIT_NOFILE, &before);
}

static void sending_to_a_dead_connection_raises_no_signal(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    const struct linger reset = {.l_onoff = 1};
    struct address peer;

    (void)state;
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
    assert_true(net_readable(fd, 5000)); /* the reset has arrived */
    assert_int_equal(net_send(fd, "x", 1), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(net_send(fd, "x", 1), -1); /* SIGPIPE would end us here */
    assert_int_equal(errno, EPIPE);
    close(fd);
    net_unlisten(&listener);
}

static void only_a_part_counts_as_a_short_send(void **state)
{
    static const char bytes[1 << 20];
    int ends[2];

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_return_code(net_set_nonblocking(ends[0]), errno);
    const uint64_t before = stats.send_short;
    assert_int_equal(net_send(ends[0], bytes, 100), 100);
    assert_int_equal(stats.send_short, before);
    assert_true(net_send(ends[0], bytes, sizeof bytes) < (ssize_t)sizeof bytes);
    assert_int_equal(stats.send_short, before + 1);
    close(ends[0]);
    close(ends[1]);
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

/* In both directions, to the millisecond. A signal ends the wait of net_readable. */
static void timeouts_are_set(void **state)
{
    const struct itimerval soon = {.it_value.tv_usec = 20000, .it_interval.tv_usec = 20000},
                           never = {.it_value.tv_usec = 0};
    int ends[2];

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_return_code(net_set_timeout(ends[0], 2040), errno);
    for (int i = 0; i < 2; i++) {
        struct timeval limit = {0};
        socklen_t size = sizeof limit;
        getsockopt(ends[0], SOL_SOCKET, i == 0 ? SO_RCVTIMEO : SO_SNDTIMEO, &limit, &size);
        assert_int_equal(limit.tv_sec, 2);
        assert_int_equal(limit.tv_usec, 40000); /* a multiple of any tick */
    }
    assert_int_equal(net_timeout(ends[0]), 2040);
    assert_int_equal(net_timeout(ends[1]), 0);
    assert_int_equal(net_set_timeout(-1, 1), -1);
    signal(SIGALRM, do_nothing);
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_true(net_readable(ends[0], 60000));
    setitimer(ITIMER_REAL, &never, NULL);
    close(ends[0]);
    close(ends[1]);
}

static void net_poll_works_beyond_a_lowered_limit(void **state)
{
    int ends[2];
    struct rlimit before, limit;

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    struct pollfd fds[] = {{.fd = ends[0], .events = POLLIN},
                           {.fd = ends[1], .events = POLLIN},
                           {.fd = ends[1], .events = POLLOUT}};
    assert_int_equal(send(ends[1], "x", 1, 0), 1);
    assert_return_code(getrlimit(RLIMIT_NOFILE, &before), errno);
    for (int most = 3; most >= 0; most--) {
        limit = (struct rlimit){.rlim_cur = (rlim_t)most, .rlim_max = before.rlim_max};
        assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
        int ready = net_poll(fds, 3, most % 2 == 0 ? 0 : 60000);
        assert_true(net_readable(ends[0], 0));
        assert_false(net_readable(ends[1], 0));
        assert_return_code(setrlimit(RLIMIT_NOFILE, &before), errno);
        assert_int_equal(ready, most == 0 ? 3 : 2); /* with a limit of 0 it cannot know */
        assert_int_equal(fds[0].revents, POLLIN);
        assert_int_equal(fds[1].revents, most == 0 ? POLLIN : 0);
        assert_int_equal(fds[2].revents, POLLOUT);
    }
    close(ends[0]);
    close(ends[1]);
}

/* poll fails when no descriptor is allowed. The listener has a connection, but accept fails. */
static void net_readable_waits_although_no_descriptor_is_allowed(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    int client = dial(&listener);
    struct rlimit before, limit;

    (void)state;
    assert_true(net_readable(listener.fd, 60000));
    assert_return_code(getrlimit(RLIMIT_NOFILE, &before), errno);
    limit = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    const int64_t start = now_ms();
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    bool listener_is_ready = net_readable(listener.fd, 0),
         client_is_ready = net_readable(client, 30);
    const int64_t ms = now_ms() - start;
    assert_return_code(setrlimit(RLIMIT_NOFILE, &before), errno);
    assert_false(listener_is_ready);
    assert_false(client_is_ready);
    assert_true(ms >= 30);
    close(client);
    net_unlisten(&listener);
}

static void a_timeout_ends_a_blocking_recv(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct address peer;
    char bytes[2];

    (void)state;
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    assert_false(net_readable(fd, 1));
    assert_return_code(net_set_timeout(fd, 20), errno);
    uint64_t before = atomic_load(&stats.recv_again);
    assert_int_equal(net_recv(fd, bytes, sizeof bytes), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(atomic_load(&stats.recv_again) - before, 1);
    assert_return_code(net_set_timeout(fd, 0), errno);
    assert_int_equal(send(client, "x", 1, 0), 1);
    assert_int_equal(net_recv(fd, bytes, sizeof bytes), 1);  /* what there is */
    assert_int_equal(net_recv(-1, bytes, sizeof bytes), -1); /* another error */
    assert_int_equal(atomic_load(&stats.recv_again) - before, 1);
    close(client);
    close(fd);
    net_unlisten(&listener);
}

static void addresses_are_numeric(void **state)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(65535)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(1)};
    struct sockaddr neither = {.sa_family = AF_UNIX};
    char host[ADDRESS_HOST_SIZE];
    struct address peer;

    (void)state;
    inet_pton(AF_INET, "203.0.113.9", &four.sin_addr);
    address_from_sockaddr(&peer, (struct sockaddr *)&four);
    assert_string_equal(address_host(&peer, host), "203.0.113.9");
    assert_int_equal(peer.port, 1);
    inet_pton(AF_INET6, "2001:db8::7", &six.sin6_addr);
    address_from_sockaddr(&peer, (struct sockaddr *)&six);
    assert_string_equal(address_host(&peer, host), "2001:db8::7");
    assert_int_equal(peer.port, 65535);
    inet_pton(AF_INET6, "::ffff:192.0.2.3", &six.sin6_addr); /* IPv4 on a socket bound to :: */
    address_from_sockaddr(&peer, (struct sockaddr *)&six);
    assert_string_equal(address_host(&peer, host), "192.0.2.3");
    address_from_sockaddr(&peer, &neither);
    assert_string_equal(address_host(&peer, host), "::");
}

/* Connects n clients to the listener's port. */
static void connect_many(const struct net_listener *listener, int n, int clients[])
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(listener->address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    for (int i = 0; i < n; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&to, sizeof to), 0);
    }
}

/* Accepts all clients that wait. Returns how many there were. */
static int accept_all(struct net_listener *listener)
{
    struct address peer;
    int n = 0, fd;

    assert_int_equal(net_set_nonblocking(listener->fd), 0);
    while ((fd = net_accept(listener, &peer)) >= 0) {
        close(fd);
        n++;
    }
    assert_true(net_is_again(errno));
    return n;
}

enum { MANY = 40 };

static void threads_share_a_listener(void **state)
{
    struct net_listener first, same;
    int clients[MANY];
    const char *why;

    (void)state;
    assert_int_equal(net_listen(&first, "127.0.0.1", "0", &why), 0);
    assert_int_equal(net_listen_dup(&same, &first), 0);
    assert_int_not_equal(same.fd, first.fd);
    assert_int_not_equal(same.reserved, first.reserved);
    connect_many(&first, MANY, clients);
    net_unlisten(&first); /* the other still listens, and has all clients */
    assert_int_equal(accept_all(&same), MANY);
    net_unlisten(&same);
    for (int i = 0; i < MANY; i++)
        close(clients[i]);
}

static void threads_listen_side_by_side(void **state)
{
    struct net_listener first, beside, stranger;
    int clients[MANY];
    const char *why;
    char port[8];

    (void)state;
    assert_int_equal(net_listen(&first, "127.0.0.1", "0", &why), 0);
    assert_int_equal(net_listen_reuseport(&beside, &first), 0);
    assert_int_equal(beside.address.port, first.address.port);
    snprintf(port, sizeof port, "%d", first.address.port);
    assert_int_equal(net_listen(&stranger, "127.0.0.1", port, &why), -1); /* not by mistake */
    connect_many(&first, MANY, clients);
    int n = accept_all(&first), m = accept_all(&beside);
    assert_int_equal(n + m, MANY);
    assert_true(n > 0 && m > 0);
    net_unlisten(&first);
    net_unlisten(&beside);
    for (int i = 0; i < MANY; i++)
        close(clients[i]);
}

/* How a server with several listeners stops when another process keeps the first one. */
static void only_the_first_listener_gets_clients(void **state)
{
    struct net_listener first, beside, next;
    int clients[MANY];
    const char *why;

    (void)state;
    assert_int_equal(net_listen(&first, "127.0.0.1", "0", &why), 0);
    assert_int_equal(net_listen_reuseport(&beside, &first), 0);
    int done = net_only_first(&beside), error = errno;
    if (done == -1) {
        assert_int_equal(error, ENOPROTOOPT);
        net_unlisten(&first);
        net_unlisten(&beside);
        skip(); /* also an emulator that does not know this option */
    }
    connect_many(&first, MANY, clients);
    assert_int_equal(accept_all(&first), MANY);
    assert_int_equal(accept_all(&beside), 0);
    net_unlisten(&beside);
    for (int i = 0; i < MANY; i++)
        close(clients[i]);

    assert_int_equal(net_listen_reuseport(&next, &first), 0); /* the next server */
    connect_many(&first, MANY, clients);
    int n = accept_all(&first), m = accept_all(&next);
    assert_int_equal(n + m, MANY);
    assert_true(n > 0 && m > 0);
    net_unlisten(&first);
    net_unlisten(&next);
    for (int i = 0; i < MANY; i++)
        close(clients[i]);
}

static void a_shut_listener_admits_nobody(void **state)
{
    struct net_listener first, same;
    struct address peer;
    const char *why;

    (void)state;
#ifndef __linux__
    skip();
#endif
    assert_int_equal(net_listen(&first, "127.0.0.1", "0", &why), 0);
    assert_int_equal(net_listen_dup(&same, &first), 0);
    net_shut(&first);
    assert_int_equal(net_accept(&same, &peer), -1);
    assert_int_equal(errno, EINVAL);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(first.address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&to, sizeof to), -1);
    close(client);
    net_unlisten(&first);
    net_unlisten(&same);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, count_descriptors, same_descriptors)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_listens_and_accepts),
        TEST(it_listens_on_names_and_ipv6),
        TEST(it_says_why_it_cannot_listen),
        TEST(its_port_can_be_used_again_at_once),
        TEST(the_backlog_is_long),
        TEST(threads_share_a_listener),
        TEST(threads_listen_side_by_side),
        TEST(only_the_first_listener_gets_clients),
        TEST(a_shut_listener_admits_nobody),
        TEST(errors_are_told_apart),
        TEST(no_connection_is_pending),
        TEST(without_a_descriptor_clients_are_rejected),
        TEST(the_reserved_descriptor_is_replaced),
        TEST(without_any_descriptor_nobody_is_rejected),
        TEST(lasting_errors_take_time),
        TEST(without_a_descriptor_it_does_not_listen),
        TEST(sending_to_a_dead_connection_raises_no_signal),
        TEST(only_a_part_counts_as_a_short_send),
        TEST(timeouts_are_set),
        TEST(net_poll_works_beyond_a_lowered_limit),
        TEST(net_readable_waits_although_no_descriptor_is_allowed),
        TEST(a_timeout_ends_a_blocking_recv),
        TEST(addresses_are_numeric),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
