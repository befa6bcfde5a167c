/* net.h on real sockets over the loopback. The faults a kernel may answer with are tried in
 * faults.c. */
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
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

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

static void listens_and_accepts(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct sockaddr_in me;
    socklen_t size = sizeof me;
    char host[PEER_HOST_SIZE];
    struct peer peer;
    int on = 0;

    (void)state;
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    assert_int_not_equal(fd, -1);
    assert_string_equal(peer_host(&peer, host), "127.0.0.1");
    getsockname(client, (struct sockaddr *)&me, &size);
    assert_int_equal(peer.port, ntohs(me.sin_port));
    size = sizeof on;
    getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size);
    assert_true(on);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(listener.fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(listener.spare, F_GETFD) & FD_CLOEXEC);
    close(client);
    close(fd);
    net_unlisten(&listener);
    assert_int_equal(listener.fd, -1);
    assert_int_equal(listener.spare, -1);
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

static void listens_on_names_and_ipv6(void **state)
{
    static const struct {
        const char *host, *address;
    } hosts[] = {{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "0.0.0.0"}, {"::1", "::1"}};
    char host[PEER_HOST_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        if (strcmp(hosts[i].host, "::1") == 0 && !has_ipv6()) {
            print_message("no IPv6 here\n");
            continue;
        }
        struct net_listener listener = listen_somewhere(hosts[i].host);
        assert_string_equal(peer_host(&listener.address, host), hosts[i].address);
        net_unlisten(&listener);
    }
    struct net_listener listener = listen_somewhere("localhost"); /* one or the other */
    net_unlisten(&listener);
}

static void says_why_it_cannot_listen(void **state)
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

/* Even while the connections it closed stay behind in TIME_WAIT. */
static void its_port_is_free_again_at_once(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    const char *why = "";
    struct peer peer;
    char port[8], byte;

    (void)state;
    snprintf(port, sizeof port, "%u", (unsigned)listener.address.port);
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    close(fd); /* the server first: so the waiting is its */
    assert_int_equal(recv(client, &byte, 1, 0), 0);
    close(client);
    net_unlisten(&listener);
    assert_int_equal(net_listen(&listener, "127.0.0.1", port, &why), 0);
    net_unlisten(&listener);
}

/* Clients that come all at once wait for accept, they are not turned away. */
static void many_may_wait(void **state)
{
    enum { MANY = 100 }; /* SOMAXCONN is 128 somewhere */
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

static void nobody_is_waiting(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct peer peer;

    (void)state;
    assert_return_code(net_set_nonblocking(listener.fd), errno);
    assert_int_equal(net_accept(&listener, &peer), -1);
    assert_true(net_is_again(errno));
    net_unlisten(&listener);
}

static void tells_errors_apart(void **state)
{
    (void)state;
    assert_true(net_is_again(EAGAIN) && net_is_again(EWOULDBLOCK) && net_is_again(EINTR));
    assert_false(net_is_again(ECONNRESET) || net_is_again(EMFILE) || net_is_again(0));
    assert_true(net_is_full(EMFILE) && net_is_full(ENFILE));
    assert_false(net_is_full(ENOMEM) || net_is_full(EAGAIN) || net_is_full(0));
}

/* Fills the table of descriptors up to the last, and gives back how many it opened. */
static int fill_descriptors(int *fds, int most)
{
    int n = 0;

    while (n < most && (fds[n] = open("/dev/null", O_RDONLY)) != -1)
        n++;
    assert_int_equal(errno, EMFILE);
    return n;
}

static void full_house(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    int clients[4], fds[64] = {0}, n;
    struct rlimit before, low;
    struct peer peer;
    char byte;

    (void)state;
    for (int i = 0; i < 3; i++)
        clients[i] = dial(&listener);
    clients[3] = socket(AF_INET, SOCK_STREAM, 0); /* comes later */
    getrlimit(RLIMIT_NOFILE, &before);
    low = (struct rlimit){.rlim_cur = 64, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    net_set_nonblocking(listener.fd);
    n = fill_descriptors(fds, 64);

    for (int i = 0; i < 2; i++) { /* each newcomer is shown out, and told so */
        memset(&peer, 0, sizeof peer);
        assert_int_equal(net_accept(&listener, &peer), -1);
        assert_true(net_is_full(errno));
        assert_int_not_equal(peer.port, 0);
        assert_int_equal(recv(clients[i], &byte, 1, 0), 0);
        assert_int_not_equal(listener.spare, -1);
    }
    close(fds[--n]); /* somebody leaves: there is room for one */
    int fd = net_accept(&listener, &peer);
    assert_int_not_equal(fd, -1);
    assert_int_equal(net_accept(&listener, &peer), -1);
    assert_true(net_is_again(errno)); /* a full house without a newcomer is no news */

    close(listener.spare); /* lost, and somebody else was quicker */
    listener.spare = -1;
    assert_int_not_equal(fds[n++] = open("/dev/null", O_RDONLY), -1);
    connect_to(&listener, clients[3]);
    uint64_t calls = atomic_load(&stats.accept_calls);
    assert_int_equal(net_accept(&listener, &peer), -1);
    assert_int_equal(errno, ENOBUFS);
    assert_int_equal(atomic_load(&stats.accept_calls), calls + 1);
    close(fds[--n]); /* the next descriptor there is becomes the spare one */
    assert_int_equal(net_accept(&listener, &peer), -1);
    assert_int_equal(errno, EMFILE);
    assert_int_equal(recv(clients[3], &byte, 1, 0), 0);
    assert_int_not_equal(listener.spare, -1);

    while (n > 0)
        close(fds[--n]);
    close(fd);
    for (int i = 0; i < 4; i++)
        close(clients[i]);
    setrlimit(RLIMIT_NOFILE, &before);
    net_unlisten(&listener);
}

/* No start then, and what was open already is closed. */
static void no_room_to_listen(void **state)
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
    for (int room = 0; room < 2; room++) { /* for the listener, but not for its spare */
        assert_int_equal(net_listen(&listener, "127.0.0.1", "0", &why), -1);
        assert_string_equal(why, strerror(EMFILE));
        close(fds[--n]);
    }
    while (n > 0)
        close(fds[--n]);
    setrlimit(RLIMIT_NOFILE, &before);
}

struct reader {
    int fd;
    size_t got;
    bool wrong; /* has it read something else than pattern()? */
};

static char pattern(size_t at)
{
    return (char)(at / 997 % 128);
}

static void *read_slowly(void *argument)
{
    struct reader *reader = argument;
    char bytes[1000];
    ssize_t n;

    while ((n = recv(reader->fd, bytes, sizeof bytes, 0)) > 0)
        for (ssize_t i = 0; i < n; i++)
            reader->wrong |= bytes[i] != pattern(reader->got++);
    return NULL;
}

static void send_all_sends_all(void **state)
{
    enum { SIZE = 4 * 1024 * 1024 };
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct reader reader = {.fd = dial(&listener)};
    atomic_bool give_up = false;
    struct peer peer;
    pthread_t thread;

    (void)state;
    int fd = net_accept(&listener, &peer);
    char *bytes = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = pattern(i);
    uint64_t before = atomic_load(&stats.bytes_out);
    pthread_create(&thread, NULL, read_slowly, &reader);
    assert_return_code(net_send_all(fd, bytes, SIZE, &give_up), errno);
    close(fd);
    pthread_join(thread, NULL);
    assert_int_equal(reader.got, SIZE);
    assert_false(reader.wrong);
    assert_int_equal(atomic_load(&stats.bytes_out) - before, SIZE);
    free(bytes);
    close(reader.fd);
    net_unlisten(&listener);
}

/* Who does not read is given up when the time is over; on request, at once; who reads, never.
 */
static void send_all_gives_up(void **state)
{
    enum { SIZE = 32 * 1024 * 1024 };
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct reader reader = {.fd = dial(&listener)};
    atomic_bool give_up = false;
    struct peer peer;
    pthread_t thread;

    (void)state;
    int fd = net_accept(&listener, &peer);
    char *bytes = calloc(1, SIZE);
    assert_return_code(net_set_timeout(fd, 20), errno);
    for (int i = 0; i < 2; i++) {
        uint64_t before = atomic_load(&stats.send_again);
        assert_int_equal(net_send_all(fd, bytes, SIZE, &give_up), -1);
        assert_int_equal(errno, EAGAIN);
        /* Called when all is full already it cannot know yet that nothing is taken. */
        assert_true(atomic_load(&stats.send_again) - before >= 1 + (uint64_t)i);
    }
    give_up = true;
    assert_int_equal(net_send_all(fd, bytes, SIZE, &give_up), -1);
    assert_int_equal(errno, EINTR);
    give_up = false;
    assert_true(net_untaken(fd) > 0);
    assert_return_code(net_set_timeout(fd, 1000), errno); /* the machine may be busy */
    pthread_create(&thread, NULL, read_slowly, &reader);
    assert_return_code(net_send_all(fd, bytes, SIZE / 8, &give_up), errno);
    give_up = true; /* too late: it is all sent */
    assert_return_code(net_send_all(fd, bytes, 1, &give_up), errno);
    close(fd);
    pthread_join(thread, NULL);
    free(bytes);
    close(reader.fd);
    net_unlisten(&listener);
}

static void sending_to_the_dead_raises_no_signal(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    const struct linger reset = {.l_onoff = 1};
    struct peer peer;

    (void)state;
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(client);
    assert_true(net_readable(fd, 5000)); /* the reset has arrived */
    atomic_bool give_up = false;
    assert_int_equal(net_send_all(fd, "x", 1, &give_up), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(net_send(fd, "x", 1), -1); /* SIGPIPE would end us here */
    assert_int_equal(errno, EPIPE);
    close(fd);
    net_unlisten(&listener);
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

/* To the millisecond, each way; and a signal ends any wait. */
static void time_limits(void **state)
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
    assert_int_equal(net_set_timeout(-1, 1), -1);
    signal(SIGALRM, do_nothing);
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_true(net_readable(ends[0], 60000));
    setitimer(ITIMER_REAL, &never, NULL);
    close(ends[0]);
    close(ends[1]);
}

static void polls_beyond_a_lowered_limit(void **state)
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
        assert_int_equal(ready, most == 0 ? 3 : 2); /* with none it cannot tell */
        assert_int_equal(fds[0].revents, POLLIN);
        assert_int_equal(fds[1].revents, most == 0 ? POLLIN : 0);
        assert_int_equal(fds[2].revents, POLLOUT);
    }
    close(ends[0]);
    close(ends[1]);
}

/* However often signals cut it short. */
static void signals_lengthen_no_silence(void **state)
{
    const struct itimerval soon = {.it_value.tv_usec = 10000, .it_interval.tv_usec = 10000},
                           never = {.it_value.tv_usec = 0};
    const struct sigaction interrupt = {.sa_handler = do_nothing};
    static char much[1 << 20];
    const atomic_bool never_give_up = false;
    long long cut = 0;
    int ends[2], calls = 1;

    (void)state;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_false(net_overdue(ends[0], &cut)); /* it has no limit */
    assert_return_code(net_set_timeout(ends[0], 100), errno);
    sigaction(SIGALRM, &interrupt, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    for (cut = 0; calls < 50 && net_recv(ends[0], much, 1) == -1 && errno == EINTR; calls++)
        if (net_overdue(ends[0], &cut))
            break;
    assert_in_range(calls, 1, 49);
    assert_true(cut == 0 || errno == EAGAIN); /* a busy machine may let 100 ms pass in one */
    assert_int_equal(net_send_all(ends[0], much, sizeof much, &never_give_up), -1);
    setitimer(ITIMER_REAL, &never, NULL);
    close(ends[0]);
    close(ends[1]);
}

static void silence_ends_a_blocking_recv(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct peer peer;
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

static void peers_are_numbers(void **state)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(65535)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(1)};
    struct sockaddr neither = {.sa_family = AF_UNIX};
    char host[PEER_HOST_SIZE];
    struct peer peer;

    (void)state;
    inet_pton(AF_INET, "203.0.113.9", &four.sin_addr);
    peer_from_sockaddr(&peer, (struct sockaddr *)&four);
    assert_string_equal(peer_host(&peer, host), "203.0.113.9");
    assert_int_equal(peer.port, 1);
    inet_pton(AF_INET6, "2001:db8::7", &six.sin6_addr);
    peer_from_sockaddr(&peer, (struct sockaddr *)&six);
    assert_string_equal(peer_host(&peer, host), "2001:db8::7");
    assert_int_equal(peer.port, 65535);
    inet_pton(AF_INET6, "::ffff:192.0.2.3", &six.sin6_addr); /* IPv4 on a socket bound to :: */
    peer_from_sockaddr(&peer, (struct sockaddr *)&six);
    assert_string_equal(peer_host(&peer, host), "192.0.2.3");
    peer_from_sockaddr(&peer, &neither);
    assert_string_equal(peer_host(&peer, host), "::");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, count_descriptors, same_descriptors)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(listens_and_accepts),
        TEST(listens_on_names_and_ipv6),
        TEST(says_why_it_cannot_listen),
        TEST(its_port_is_free_again_at_once),
        TEST(many_may_wait),
        TEST(tells_errors_apart),
        TEST(nobody_is_waiting),
        TEST(full_house),
        TEST(no_room_to_listen),
        TEST(send_all_sends_all),
        TEST(send_all_gives_up),
        TEST(sending_to_the_dead_raises_no_signal),
        TEST(time_limits),
        TEST(polls_beyond_a_lowered_limit),
        TEST(signals_lengthen_no_silence),
        TEST(silence_ends_a_blocking_recv),
        TEST(peers_are_numbers),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
