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
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int dial(const struct net_listener *listener)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(listener->address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_not_equal(fd, -1);
    assert_return_code(connect(fd, (struct sockaddr *)&to, sizeof to), errno);
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
    close(client);
    close(fd);
    net_unlisten(&listener);
}

static void listens_on_names_and_ipv6(void **state)
{
    static const char *const hosts[] = {"localhost", "0.0.0.0", "::1"};
    struct net_listener listener;
    const char *why;

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        if (strcmp(hosts[i], "::1") == 0 && net_listen(&listener, hosts[i], "0", &why) == -1) {
            print_message("no IPv6 here: %s\n", why);
            continue;
        }
        listener = listen_somewhere(hosts[i]);
        net_unlisten(&listener);
    }
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
    assert_int_equal(net_listen(&second, "no such host", "0", &why), -1);
    assert_non_null(why);
    net_unlisten(&first);
    assert_int_equal(net_listen(&second, "127.0.0.1", port, &why), 0); /* free again at once */
    net_unlisten(&second);
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
    int clients[3], fds[64] = {0}, n;
    struct rlimit before, low;
    struct peer peer;
    char byte;

    (void)state;
    for (int i = 0; i < 3; i++)
        clients[i] = dial(&listener);
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

    while (n > 0)
        close(fds[--n]);
    close(fd);
    for (int i = 0; i < 3; i++)
        close(clients[i]);
    setrlimit(RLIMIT_NOFILE, &before);
    net_unlisten(&listener);
}

struct reader {
    int fd;
    size_t got;
};

static void *read_slowly(void *argument)
{
    struct reader *reader = argument;
    char bytes[1000];
    ssize_t n;

    while ((n = recv(reader->fd, bytes, sizeof bytes, 0)) > 0)
        reader->got += (size_t)n;
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
    char *bytes = calloc(1, SIZE);
    uint64_t before = atomic_load(&stats.bytes_out);
    pthread_create(&thread, NULL, read_slowly, &reader);
    assert_return_code(net_send_all(fd, bytes, SIZE, &give_up), errno);
    close(fd);
    pthread_join(thread, NULL);
    assert_int_equal(reader.got, SIZE);
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
    atomic_bool give_up = true;
    struct peer peer;
    pthread_t thread;

    (void)state;
    int fd = net_accept(&listener, &peer);
    char *bytes = calloc(1, SIZE);
    assert_return_code(net_set_timeout(fd, 20), errno);
    assert_int_equal(net_send_all(fd, bytes, SIZE, &give_up), -1);
    assert_int_equal(errno, EINTR);
    give_up = false;
    assert_int_equal(net_send_all(fd, bytes, SIZE, &give_up), -1);
    assert_int_equal(errno, EAGAIN);
    assert_true(net_untaken(fd) > 0);
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
    assert_int_equal(net_send(fd, "x", 1), -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(net_send(fd, "x", 1), -1); /* SIGPIPE would end us here */
    assert_int_equal(errno, EPIPE);
    close(fd);
    net_unlisten(&listener);
}

static void silence_ends_a_blocking_recv(void **state)
{
    struct net_listener listener = listen_somewhere("127.0.0.1");
    struct peer peer;
    char byte;

    (void)state;
    int client = dial(&listener), fd = net_accept(&listener, &peer);
    assert_false(net_readable(fd, 1));
    assert_return_code(net_set_timeout(fd, 20), errno);
    assert_int_equal(net_recv(fd, &byte, 1), -1);
    assert_int_equal(errno, EAGAIN);
    assert_return_code(net_set_timeout(fd, 0), errno);
    assert_int_equal(send(client, "x", 1, 0), 1);
    assert_int_equal(net_recv(fd, &byte, 1), 1);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listens_and_accepts),
        cmocka_unit_test(listens_on_names_and_ipv6),
        cmocka_unit_test(says_why_it_cannot_listen),
        cmocka_unit_test(nobody_is_waiting),
        cmocka_unit_test(full_house),
        cmocka_unit_test(send_all_sends_all),
        cmocka_unit_test(send_all_gives_up),
        cmocka_unit_test(sending_to_the_dead_raises_no_signal),
        cmocka_unit_test(silence_ends_a_blocking_recv),
        cmocka_unit_test(peers_are_numbers),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
