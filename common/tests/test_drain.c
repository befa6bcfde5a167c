/* drain.h: at a stop each client gets its answers, and nobody is waited for too long. */
#include "server.h"
#include "drain.h"
#include "fake_clock.h"
#include "options.h"
#include "stats.h"
#include "stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 8, FLOOD = 64 * 1024 };

/* The ports of the clients that were disconnected, in this order. */
static uint16_t disconnected[CLIENTS_MAX];
static int disconnections;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
void __real_server_disconnected(const struct address *peer);
void __wrap_server_disconnected(const struct address *peer);
void __wrap_server_disconnected(const struct address *peer)
{
    disconnected[disconnections++] = peer->port;
    __real_server_disconnected(peer);
}
#ifdef __APPLE__ /* this linker has no --wrap: nothing calls the one above */
void __real_server_disconnected(const struct address *peer)
{
    server_disconnected(peer);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

/* A client and its conn. The buffers between them are as small as the kernel allows. */
struct pair {
    int client;
    struct conn *c;
};

static struct pair make_pair(struct conn_list *list, uint16_t port)
{
    const struct address peer = {.port = port};
    int ends[2], small = 1;

    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    struct pair pair = {.client = ends[0], .c = conn_open(list, ends[1], &peer)};
    assert_non_null(pair.c);
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

static int64_t real_ms(void)
{
    struct timespec t;

    __real_clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int prepare(void **state)
{
    (void)state;
    alarm(60); /* ends us if a drain waits for ever */
    disconnections = 0;
    fake_ms = 0;
    return 0;
}

static void without_clients_nothing_is_waited_for(void **state)
{
    struct conn_list list;
    const int64_t start = real_ms();

    (void)state;
    conn_list_init(&list);
    drain_clients(&list);
    assert_true(real_ms() - start < STOP_GRACE_MS);
}

static void what_came_is_answered(void **state)
{
    struct conn_list list;
    static char flood[FLOOD];

    (void)state;
    conn_list_init(&list);
    list.idle.limit_ms = 1; /* no longer matters */
    struct pair asking = make_pair(&list, 1), idle = make_pair(&list, 2),
                unread = make_pair(&list, 3), leaving = make_pair(&list, 4),
                another = make_pair(&list, 5);
    memset(flood, '^', sizeof flood);
    assert_return_code(net_set_nonblocking(unread.client), errno);
    while (conn_pump(&list, unread.c) != WANT_WRITE)
        (void)!send(unread.client, flood, sizeof flood, 0);
    send_text(&asking, "^abc");
    send_text(&another, "^xyz");
    close(leaving.client);
    const int64_t start = real_ms();
    drain_clients(&list);
    const int64_t ms = real_ms() - start;
    assert_true(ms >= STOP_GRACE_MS); /* for the client that reads nothing */
    assert_int_equal(list.count, 0);
    assert_null(conn_first(&list));
#ifndef __APPLE__
    assert_int_equal(disconnections, 5);
    assert_int_equal(disconnected[0], 4); /* has left */
    assert_int_equal(disconnected[4], 3); /* is closed when the time is over */
#endif
    expect_bytes(&asking, "*bcd");
    expect_bytes(&another, "*yz{");
    expect_bytes(&idle, "*");
    assert_int_equal(recv(idle.client, flood, 1, 0), 0);
    close(asking.client);
    close(idle.client);
    close(unread.client);
    close(another.client);
}

/* What the clients do while their conns are drained. Their thread moves the clock. */
static struct {
    struct pair asking, late, slow;
    size_t received;
    bool answered;
} crowd;

static bool is_answered(int client, int times)
{
    char byte = 'b';

    while (byte == 'b' && times-- > 0)
        if (send(client, "^a$", 3, MSG_NOSIGNAL) != 3 ||
            recv(client, &byte, 1, MSG_WAITALL) != 1)
            return false;
    return byte == 'b';
}

static void *run_clients(void *unused)
{
    static char bytes[FLOOD];
    ssize_t n;

    /* Two answers to another client: then the drain has looked at the late one meanwhile. */
    crowd.answered = is_answered(crowd.asking.client, 2);
    for (int i = 0; i < 3 && crowd.answered; i++) {
        crowd.answered = is_answered(crowd.late.client, 1);
        fake_ms += STOP_LINGER_MS - 1; /* not too long, again and again */
        crowd.answered = crowd.answered && is_answered(crowd.asking.client, 2);
    }
    poll(NULL, 0, 2 * STOP_LINGER_MS); /* the drain must sleep meanwhile */
    while (crowd.received < FLOOD && (n = recv(crowd.slow.client, bytes, FLOOD, 0)) > 0)
        crowd.received += (size_t)n;
    fake_ms += STOP_LINGER_MS;
    return unused;
}

/* A client that sends before it has been idle for STOP_LINGER_MS is answered, and a client with
 * unsent output gets it, however slowly it reads. */
static void late_and_slow_clients_are_served(void **state)
{
    struct conn_list list;
    static char flood[FLOOD];
    const int large = 2 * FLOOD;
    pthread_t clients;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    conn_list_init(&list);
    list.idle.limit_ms = 1000;
    fake_ms = 1000;
    crowd.asking = make_pair(&list, 1);
    crowd.late = make_pair(&list, 2);
    crowd.slow = make_pair(&list, 3);
    expect_bytes(&crowd.asking, "*");
    expect_bytes(&crowd.late, "*");
    memset(flood, '^', sizeof flood);
    setsockopt(crowd.slow.client, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    assert_int_equal(send(crowd.slow.client, flood, sizeof flood, 0), FLOOD);
    fake_ms += 2 * STOP_LINGER_MS; /* how long they were idle before does not matter */
    const int64_t start = real_ms();
    int before = clock_readings;
    assert_int_equal(pthread_create(&clients, NULL, run_clients, NULL), 0);
    drain_clients(&list);
    pthread_join(clients, NULL);
    assert_true(clock_readings - before < 2000); /* the drain sleeps, */
    assert_true(real_ms() - start < 5000);       /* but not for ever */
    assert_true(crowd.answered);
    assert_int_equal(crowd.received, FLOOD); /* a greeting, and all but the first `^` */
    assert_int_equal(disconnections, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(disconnected[i], i + 1);
    close(crowd.asking.client);
    close(crowd.late.client);
    close(crowd.slow.client);
}

/* When no descriptor is allowed, poll fails, and only recv tells whether a client is ready. */
static void a_drain_sleeps_and_ends_where_poll_fails(void **state)
{
    struct conn_list list;
    struct rlimit before, limit;

    (void)state;
    conn_list_init(&list);
    struct pair asking = make_pair(&list, 1);
    expect_bytes(&asking, "*");
    send_text(&asking, "^abc");
    assert_return_code(getrlimit(RLIMIT_NOFILE, &before), errno);
    limit = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_return_code(setrlimit(RLIMIT_NOFILE, &limit), errno);
    const uint64_t calls = stats.recv_calls;
    drain_clients(&list);
    assert_return_code(setrlimit(RLIMIT_NOFILE, &before), errno);
    assert_true(stats.recv_calls - calls < 100); /* not for all of STOP_GRACE_MS */
    expect_bytes(&asking, "bcd");
    assert_int_equal(recv(asking.client, &(char){0}, 1, 0), 0);
    close(asking.client);
}

int main(void)
{
    char *arguments[] = {(char *)"server", (char *)"--quiet", NULL};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_clients_nothing_is_waited_for, prepare),
        cmocka_unit_test_setup(what_came_is_answered, prepare),
        cmocka_unit_test_setup(late_and_slow_clients_are_served, prepare),
        cmocka_unit_test_setup(a_drain_sleeps_and_ends_where_poll_fails, prepare),
    };

    options_parse(2, arguments, NULL);
    return cmocka_run_group_tests_name("drain", tests, NULL, NULL);
}
