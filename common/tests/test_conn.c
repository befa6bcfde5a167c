/* conn.h over socketpairs: what it answers to wait for, and that no byte is lost on the way. */
#include "conn.h"
#include "fake_clock.h"
#include "net.h"
#include "options.h"
#include "stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct address nobody = {.port = 7};

/* Where the linker has --wrap, this many calls of recv and send are interrupted. */
static int interruptions;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
ssize_t __real_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags);
ssize_t __wrap_recv(int fd, void *bytes, size_t n, int flags)
{
    errno = EINTR;
    if (interruptions == 0)
        return __real_recv(fd, bytes, n, flags);
    interruptions--;
    return -1;
}

ssize_t __real_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *bytes, size_t n, int flags)
{
    errno = EINTR;
    if (interruptions == 0)
        return __real_send(fd, bytes, n, flags);
    interruptions--;
    return -1;
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls those above */
ssize_t __real_recv(int fd, void *bytes, size_t n, int flags)
{
    return recv(fd, bytes, n, flags);
}
ssize_t __real_send(int fd, const void *bytes, size_t n, int flags)
{
    return send(fd, bytes, n, flags);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

/* A client and its conn. The buffers between them are as small as the kernel allows. */
struct pair {
    int client;
    struct conn *c;
};

enum { LIMIT_MS = 40 };

static struct conn_list make_list(int limit_ms)
{
    struct conn_list list;

    conn_list_init(&list);
    assert_int_equal(list.idle.limit_ms, options->idle_timeout_ms);
    list.idle.limit_ms = limit_ms;
    return list;
}

static struct pair make_pair(struct conn_list *list)
{
    int ends[2], small = 1;

    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    struct pair pair = {.client = ends[0], .c = conn_open(list, ends[1], &nobody)};
    assert_non_null(pair.c);
    assert_int_equal(pair.c->want, WANT_READ);
    assert_int_equal(conn_greet(pair.c), WANT_READ);
    return pair;
}

static void expect_bytes(const struct pair *pair, const char *text)
{
    char got[64];
    size_t n = strlen(text);

    assert_int_equal(recv(pair->client, got, n, MSG_WAITALL), n);
    assert_memory_equal(got, text, n);
}

static void send_text(const struct pair *pair, const char *text)
{
    assert_int_equal(send(pair->client, text, strlen(text), 0), strlen(text));
}

static void disconnect(struct conn_list *list, const struct pair *pair)
{
    conn_close(list, pair->c);
    close(pair->client);
}

static void greets_and_answers(void **state)
{
    struct conn_list list = make_list(0);
    struct pair pair = make_pair(&list);

    (void)state;
    assert_int_equal(list.count, 1);
    assert_int_equal(pair.c->want, WANT_READ);
    expect_bytes(&pair, "*");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ); /* nothing there: EAGAIN */
    assert_false(pair.c->progress);
    send_text(&pair, "^abc$de^abte$f");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    assert_true(pair.c->progress);
    expect_bytes(&pair, "bcdbcuf");
    assert_null(pair.c->unsent);
    disconnect(&list, &pair);
    assert_int_equal(list.count, 0);
    assert_null(conn_first(&list));
    assert_null(list.idle.last);
}

static void nothing_is_read_while_output_is_unsent(void **state)
{
    enum { SIZE = 1024 * 1024 };
    struct conn_list list = make_list(0);
    struct pair pair = make_pair(&list);
    static unsigned char in[SIZE], out[SIZE];
    size_t sent = 0, got = 0;
    int waits = 0;

    (void)state;
    in[0] = '^';
    for (size_t i = 1; i < SIZE; i++)
        in[i] = (unsigned char)("abcdefg"[i % 7]);
    net_set_nonblocking(pair.client);
    expect_bytes(&pair, "*");
    while (got < SIZE - 1) {
        ssize_t n = send(pair.client, in + sent, SIZE - sent, 0);
        sent += n > 0 ? (size_t)n : 0;
        size_t before = sent;
        /* While output is unsent the conn reads nothing, however often it is pumped. */
        for (int i = 0; i < 5; i++) {
            int want = conn_pump(&list, pair.c);
            if (want == WANT_WRITE) {
                assert_non_null(pair.c->unsent);
                waits++;
            } else {
                assert_int_equal(want, WANT_READ);
                assert_null(pair.c->unsent);
            }
        }
        n = recv(pair.client, out + got, SIZE - got < 900 ? SIZE - got : 900, 0); /* slowly */
        got += n > 0 ? (size_t)n : 0;
        assert_true(got < before);
    }
    assert_true(waits > 0);
    for (size_t i = 0; i < SIZE - 1; i++)
        assert_int_equal(out[i], in[i + 1] + 1);
    disconnect(&list, &pair);
}

static void a_client_that_never_reads_is_stopped(void **state)
{
    struct conn_list list = make_list(0);
    struct pair pair = make_pair(&list);
    static char flood[64 * 1024];

    (void)state;
    memset(flood, 'x', sizeof flood);
    flood[0] = '^';
    net_set_nonblocking(pair.client);
    for (int i = 0; i < 100; i++) {
        (void)!send(pair.client, flood, sizeof flood, 0);
        conn_pump(&list, pair.c);
    }
    assert_int_equal(pair.c->want, WANT_WRITE);
    assert_false(pair.c->progress);
    struct pollfd fd = {.fd = pair.client, .events = POLLOUT};
    assert_int_equal(poll(&fd, 1, 0), 0); /* the client cannot send any more */
    while (recv(pair.client, flood, sizeof flood, 0) > 0)
        ;
    conn_pump(&list, pair.c);
    assert_true(pair.c->progress);
    disconnect(&list, &pair);
}

static void half_close_delivers_first(void **state)
{
    enum { SIZE = 200 * 1024 };
    struct conn_list list = make_list(0);
    struct pair pair = make_pair(&list);
    static char in[SIZE], out[SIZE];
    size_t sent = 0, got = 0;
    int want = WANT_READ;

    (void)state;
    memset(in, 'x', sizeof in);
    in[0] = '^';
    net_set_nonblocking(pair.client);
    expect_bytes(&pair, "*");
    while (want != 0) {
        ssize_t n = sent < sizeof in ? send(pair.client, in + sent, sizeof in - sent, 0) : 0;
        if (n > 0 && (sent += (size_t)n) == sizeof in)
            shutdown(pair.client, SHUT_WR);
        want = conn_pump(&list, pair.c);
        n = recv(pair.client, out + got, sizeof out - got, 0);
        got += n > 0 ? (size_t)n : 0;
        assert_true(want != 0 || sent == sizeof in);
    }
    assert_int_equal(got, sizeof in - 1);
    disconnect(&list, &pair);
}

static void a_dead_client_is_finished(void **state)
{
    struct conn_list list = make_list(0);
    struct pair reader = make_pair(&list), writer = make_pair(&list);
    static char flood[64 * 1024];

    (void)state;
    close(reader.client); /* with a greeting unread: a reset */
    assert_int_equal(conn_pump(&list, reader.c), 0);
    memset(flood, '^', sizeof flood);
    net_set_nonblocking(writer.client);
    while (conn_pump(&list, writer.c) != WANT_WRITE)
        (void)!send(writer.client, flood, sizeof flood, 0);
    close(writer.client); /* with unsent answers */
    assert_int_equal(conn_pump(&list, writer.c), 0);
    conn_close(&list, reader.c);
    conn_close(&list, writer.c);

    struct pair sender = make_pair(&list);
    expect_bytes(&sender, "*");
    send_text(&sender, "^abc");
    close(sender.client); /* before it is answered */
    assert_int_equal(conn_pump(&list, sender.c), 0);
    assert_null(sender.c->unsent);
    conn_close(&list, sender.c);

    int ends[2]; /* and one that has disconnected before it is greeted */
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    close(ends[0]);
    struct conn *early = conn_open(&list, ends[1], &nobody);
    assert_int_equal(conn_greet(early), WANT_READ); /* recv will report the end */
    assert_int_equal(early->want, WANT_READ);
    assert_int_equal(conn_pump(&list, early), 0);
    conn_close(&list, early);
}

static void clients_expire_in_order(void **state)
{
    struct conn_list list = make_list(LIMIT_MS);
    struct pair a = make_pair(&list), b = make_pair(&list), c = make_pair(&list);

    (void)state;
    assert_ptr_equal(conn_first(&list), a.c);
    assert_false(conn_expired(&list));
    assert_in_range(conn_expiry_ms(&list), 1, 40);
    while (conn_expiry_ms(&list) != 0)
        poll(NULL, 0, conn_expiry_ms(&list));
    send_text(&a, "x"); /* just in time: now the others have been idle for longer */
    conn_pump(&list, a.c);
    assert_ptr_equal(conn_first(&list), b.c);
    assert_ptr_equal(list.idle.last, a.c);
    poll(NULL, 0, 5);
    assert_true(conn_expired(&list));
    assert_ptr_equal(conn_first(&list), b.c);
    disconnect(&list, &b);
    assert_true(conn_expired(&list));
    assert_ptr_equal(conn_first(&list), c.c);
    disconnect(&list, &c);
    assert_false(conn_expired(&list));
    disconnect(&list, &a);
    assert_int_equal(conn_expiry_ms(&list), -1);
}

/* To the millisecond, whatever the clock shows: also when its 32 bits wrap. */
static void idleness_is_measured(void **state)
{
    static const int64_t times[] = {1000, 999999, (INT64_C(1) << 32) - 10};

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct conn_list list = make_list(LIMIT_MS);
        fake_ms = times[i];
        struct pair pair = make_pair(&list);
        assert_int_equal(conn_expiry_ms(&list), 40);
        fake_ms += 39;
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ); /* nothing came */
        assert_int_equal(conn_expiry_ms(&list), 1);
        assert_false(conn_expired(&list));
        send_text(&pair, "x");
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
        assert_int_equal(conn_expiry_ms(&list), 40);
        fake_ms += 40;
        assert_int_equal(conn_expiry_ms(&list), 0);
        send_text(&pair, "y");
        assert_false(conn_expired(&list)); /* it is not idle: it has unread input */
        assert_int_equal(conn_expiry_ms(&list), 40);
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
        fake_ms += 40;
        assert_int_equal(conn_expiry_ms(&list), 0);
        assert_true(conn_expired(&list));
        assert_ptr_equal(conn_first(&list), pair.c);
        disconnect(&list, &pair);
    }
    fake_ms = 0;
}

/* A client is not idle while it drains its output, although it sends nothing. */
static void draining_is_not_idleness(void **state)
{
    struct conn_list list = make_list(LIMIT_MS);
    static char flood[64 * 1024];
    const int large = 2 * sizeof flood;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    fake_ms = 1000;
    struct pair draining = make_pair(&list), idle_one = make_pair(&list);
    memset(flood, '^', sizeof flood);
    net_set_nonblocking(draining.client);
    setsockopt(draining.client, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    while (conn_pump(&list, draining.c) != WANT_WRITE)
        (void)!send(draining.client, flood, sizeof flood, 0);
    send_text(&idle_one, "x");
    assert_int_equal(conn_pump(&list, idle_one.c), WANT_READ);
    for (int i = 0; i < 2; i++) {
        assert_ptr_equal(conn_first(&list), draining.c);
        assert_true(recv(draining.client, flood, sizeof flood, 0) > 0);
        fake_ms += 40;
        assert_true(conn_expired(&list));
        assert_ptr_equal(conn_first(&list), idle_one.c);
        assert_ptr_equal(list.idle.last, draining.c);
        assert_int_equal(conn_pump(&list, draining.c), WANT_WRITE);
        send_text(&idle_one, "x");
        assert_int_equal(conn_pump(&list, idle_one.c), WANT_READ);
        assert_false(conn_expired(&list));
        assert_int_equal(conn_expiry_ms(&list), 40);
    }
    fake_ms += 40;
    assert_true(conn_expired(&list)); /* it has stopped reading */
    assert_ptr_equal(conn_first(&list), draining.c);
    disconnect(&list, &idle_one);
    disconnect(&list, &draining);
    fake_ms = 0;
}

/* A client that does not even read the greeting is idle from the beginning. */
static void an_unread_greeting_is_idleness(void **state)
{
    struct conn_list list = make_list(LIMIT_MS);
    char byte = '-';
    int ends[2];

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    fake_ms = 1000;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_return_code(net_set_nonblocking(ends[1]), errno);
    while (send(ends[1], &byte, 1, 0) == 1)
        ;
    struct pair pair = {.client = ends[0], .c = conn_open(&list, ends[1], &nobody)};
    assert_int_equal(conn_greet(pair.c), WANT_WRITE);
    assert_int_equal(pair.c->want, WANT_WRITE);
    fake_ms += 40;
    assert_true(conn_expired(&list));
    while (byte == '-' && recv(pair.client, &byte, 1, MSG_DONTWAIT) == 1)
        if (pair.c->unsent != NULL)
            conn_pump(&list, pair.c);
    assert_int_equal(byte, '*');
    disconnect(&list, &pair);
    fake_ms = 0;
}

static void a_client_that_cannot_be_a_conn_is_rejected(void **state)
{
    struct conn_list list = make_list(0);
    const int before = stats_clients();

    (void)state;
    assert_true(stats_client_begin(before + 1));
    assert_null(conn_open(&list, -1, &nobody)); /* EBADF */
    assert_int_equal(errno, ECONNABORTED);
    assert_int_equal(stats_clients(), before);
    assert_int_equal(list.count, 0);
}

static void without_a_limit_no_clock_is_read(void **state)
{
    struct conn_list list = make_list(0);
    int before = clock_readings;

    (void)state;
    struct pair pair = make_pair(&list);
    send_text(&pair, "^abc");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    assert_false(conn_expired(&list));
    assert_int_equal(conn_expiry_ms(&list), -1);
    disconnect(&list, &pair);
    assert_int_equal(clock_readings, before);
}

/* EINTR means that the call has not looked yet. An edge-triggered server that now waited for a
 * change would wait for ever, so the conn reports progress: pump again. */
static void an_interrupted_recv_is_called_again(void **state)
{
    struct conn_list list = make_list(0);
    struct pair pair = make_pair(&list);

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    send_text(&pair, "^abc");
    for (int i = 1; i <= 3; i++) {
        interruptions = 1;
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
        assert_int_equal(interruptions, 0);
        assert_int_equal(pair.c->want, WANT_READ);
        assert_true(pair.c->progress);
        assert_int_equal(list.progress, i);
    }
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    assert_true(pair.c->progress);
    expect_bytes(&pair, "*bcd");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    assert_false(pair.c->progress);
    assert_int_equal(list.progress, 4);
    disconnect(&list, &pair);
}

static void an_interrupted_send_is_called_again(void **state)
{
    struct conn_list list = make_list(0);
    int ends[2];

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    struct pair pair = {.client = ends[0], .c = conn_open(&list, ends[1], &nobody)};
    interruptions = 1;
    assert_int_equal(conn_greet(pair.c), WANT_WRITE); /* the greeting is unsent */
    for (int i = 1; i <= 3; i++) {
        interruptions = 1;
        assert_int_equal(conn_pump(&list, pair.c), WANT_WRITE);
        assert_int_equal(interruptions, 0);
        assert_int_equal(pair.c->want, WANT_WRITE);
        assert_true(pair.c->progress);
        assert_int_equal(list.progress, i);
    }
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    expect_bytes(&pair, "*");
    disconnect(&list, &pair);
}

static int connect_to(const struct net_listener *listener)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(listener->address.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_return_code(connect(fd, (struct sockaddr *)&to, sizeof to), errno);
    return fd;
}

static void a_client_is_accepted_or_rejected(void **state)
{
    struct conn_list list = make_list(0);
    struct net_listener listener;
    const char *why;
    char byte;

    (void)state;
    assert_int_equal(net_listen(&listener, "127.0.0.1", "0", &why), 0);
    assert_return_code(net_set_nonblocking(listener.fd), errno);
    assert_null(conn_accept(&list, &listener));
    assert_true(net_is_again(errno));

    struct pair pair = {.client = connect_to(&listener)};
    const int clients = stats_clients();
    const uint64_t served = atomic_load(&stats.clients_served),
                   rejected = atomic_load(&stats.clients_rejected);
    pair.c = conn_accept(&list, &listener);
    assert_non_null(pair.c);
    assert_int_not_equal(pair.c->peer.port, 0);
    assert_int_equal(list.count, 1);
    assert_int_equal(stats_clients(), clients + 1);
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ); /* the socket is non-blocking */
    assert_false(pair.c->progress);
    assert_int_equal(conn_greet(pair.c), WANT_READ);
    expect_bytes(&pair, "*");
    disconnect(&list, &pair);
    assert_int_equal(stats_clients(), clients);
    assert_int_equal(atomic_load(&stats.clients_served), served + 1);

    pair.client = connect_to(&listener);
    pair.c = conn_accept(&list, &listener);
    conn_reject(&list, pair.c, "no room");
    assert_int_equal(recv(pair.client, &byte, 1, 0), 0); /* not even greeted */
    close(pair.client);
    assert_int_equal(list.count, 0);
    assert_int_equal(stats_clients(), clients);
    assert_int_equal(atomic_load(&stats.clients_served), served + 1);
    assert_int_equal(atomic_load(&stats.clients_rejected), rejected + 1);
    net_unlisten(&listener);
}

int main(void)
{
    char *arguments[] = {(char *)"server", (char *)"--quiet", NULL};

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greets_and_answers),
        cmocka_unit_test(nothing_is_read_while_output_is_unsent),
        cmocka_unit_test(a_client_that_never_reads_is_stopped),
        cmocka_unit_test(half_close_delivers_first),
        cmocka_unit_test(a_dead_client_is_finished),
        cmocka_unit_test(clients_expire_in_order),
        cmocka_unit_test(idleness_is_measured),
        cmocka_unit_test(draining_is_not_idleness),
        cmocka_unit_test(an_unread_greeting_is_idleness),
        cmocka_unit_test(a_client_that_cannot_be_a_conn_is_rejected),
        cmocka_unit_test(without_a_limit_no_clock_is_read),
        cmocka_unit_test(an_interrupted_recv_is_called_again),
        cmocka_unit_test(an_interrupted_send_is_called_again),
        cmocka_unit_test(a_client_is_accepted_or_rejected),
    };

    options_parse(2, arguments, NULL);
    return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
