/* conn.h over socketpairs: what it answers to wait for, and that no byte is lost on the way. */
#include "conn.h"
#include "net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const struct peer nobody = {.port = 7};

/* Where the linker has --wrap, conn.c's clock is ours as soon as it is set. */
static atomic_uint_least64_t clock_ms; /* 0: not set */
static int clock_readings;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker wants these names */
int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    clock_readings++;
    assert_int_equal(id, CLOCK_MONOTONIC); /* nobody sets it */
    if (clock_ms == 0)
        return __real_clock_gettime(id, t);
    uint64_t now = clock_ms;
    *t = (struct timespec){.tv_sec = (time_t)(now / 1000),
                           .tv_nsec = (long)(now % 1000) * 1000000 + 999999};
    return 0;
}
#ifdef __APPLE__ /* nobody calls the one above, and nobody has the one it calls */
int __real_clock_gettime(clockid_t id, struct timespec *t)
{
    return clock_gettime(id, t);
}
#endif
/* NOLINTEND(bugprone-reserved-identifier) */

/* A client and its conn; the buffers between them are as small as the kernel lets them be. */
struct pair {
    int client;
    struct conn *c;
};

static struct pair make_pair(struct conn_list *list)
{
    int ends[2], small = 1;

    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    assert_return_code(net_set_nonblocking(ends[1]), errno);
    struct pair pair = {.client = ends[0], .c = conn_open(list, ends[1], &nobody)};
    assert_non_null(pair.c);
    assert_int_equal(pair.c->want, WANT_READ);
    assert_int_equal(conn_greet(pair.c), WANT_READ);
    return pair;
}

static void expect(const struct pair *pair, const char *text)
{
    char got[64];
    size_t n = strlen(text);

    assert_int_equal(recv(pair->client, got, n, MSG_WAITALL), n);
    assert_memory_equal(got, text, n);
}

static void say(const struct pair *pair, const char *text)
{
    assert_int_equal(send(pair->client, text, strlen(text), 0), strlen(text));
}

static void leave(struct conn_list *list, const struct pair *pair)
{
    conn_close(list, pair->c);
    close(pair->client);
}

static void greets_and_answers(void **state)
{
    struct conn_list list = {0};
    struct pair pair = make_pair(&list);

    (void)state;
    assert_int_equal(list.count, 1);
    assert_int_equal(pair.c->want, WANT_READ);
    expect(&pair, "*");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ); /* nothing there: EAGAIN */
    assert_false(pair.c->moved);
    say(&pair, "^abc$de^abte$f");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    assert_true(pair.c->moved);
    expect(&pair, "bcdbcuf");
    assert_null(pair.c->owed);
    leave(&list, &pair);
    assert_int_equal(list.count, 0);
    assert_null(list.first);
    assert_null(list.last);
}

static void reads_no_more_while_it_owes(void **state)
{
    enum { SIZE = 1024 * 1024 };
    struct conn_list list = {0};
    struct pair pair = make_pair(&list);
    static unsigned char in[SIZE], out[SIZE];
    size_t sent = 0, got = 0;
    int laps_owing = 0;

    (void)state;
    in[0] = '^';
    for (size_t i = 1; i < SIZE; i++)
        in[i] = (unsigned char)("abcdefg"[i % 7]);
    net_set_nonblocking(pair.client);
    expect(&pair, "*");
    while (got < SIZE - 1) {
        ssize_t n = send(pair.client, in + sent, SIZE - sent, 0);
        sent += n > 0 ? (size_t)n : 0;
        size_t before = sent;
        /* As long as it is owed to, the conn takes nothing, however often it is pumped. */
        for (int i = 0; i < 5; i++) {
            int want = conn_pump(&list, pair.c);
            if (want == WANT_WRITE) {
                assert_non_null(pair.c->owed);
                laps_owing++;
            } else {
                assert_int_equal(want, WANT_READ);
                assert_null(pair.c->owed);
            }
        }
        n = recv(pair.client, out + got, SIZE - got < 900 ? SIZE - got : 900, 0); /* slowly */
        got += n > 0 ? (size_t)n : 0;
        assert_true(got < before);
    }
    assert_true(laps_owing > 0);
    for (size_t i = 0; i < SIZE - 1; i++)
        assert_int_equal(out[i], in[i + 1] + 1);
    leave(&list, &pair);
}

static void a_client_that_never_reads_is_waited_for(void **state)
{
    struct conn_list list = {0};
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
    assert_false(pair.c->moved);
    struct pollfd fd = {.fd = pair.client, .events = POLLOUT};
    assert_int_equal(poll(&fd, 1, 0), 0); /* and so the client itself is stopped */
    while (recv(pair.client, flood, sizeof flood, 0) > 0)
        ;
    conn_pump(&list, pair.c);
    assert_true(pair.c->moved);
    leave(&list, &pair);
}

static void half_close_delivers_first(void **state)
{
    enum { SIZE = 200 * 1024 };
    struct conn_list list = {0};
    struct pair pair = make_pair(&list);
    static char in[SIZE], out[SIZE];
    size_t sent = 0, got = 0;
    int want = WANT_READ;

    (void)state;
    memset(in, 'x', sizeof in);
    in[0] = '^';
    net_set_nonblocking(pair.client);
    expect(&pair, "*");
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
    leave(&list, &pair);
}

static void a_dead_client_is_finished(void **state)
{
    struct conn_list list = {0};
    struct pair reader = make_pair(&list), writer = make_pair(&list);
    static char flood[64 * 1024];

    (void)state;
    close(reader.client); /* with a greeting unread: a reset */
    assert_int_equal(conn_pump(&list, reader.c), 0);
    memset(flood, '^', sizeof flood);
    net_set_nonblocking(writer.client);
    while (conn_pump(&list, writer.c) != WANT_WRITE)
        (void)!send(writer.client, flood, sizeof flood, 0);
    close(writer.client); /* with answers owed */
    assert_int_equal(conn_pump(&list, writer.c), 0);
    conn_close(&list, reader.c);
    conn_close(&list, writer.c);

    struct pair asker = make_pair(&list);
    expect(&asker, "*");
    say(&asker, "^abc");
    close(asker.client); /* before it is answered */
    assert_int_equal(conn_pump(&list, asker.c), 0);
    assert_null(asker.c->owed);
    conn_close(&list, asker.c);

    int ends[2]; /* and one that has gone before it is greeted */
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    close(ends[0]);
    struct conn *early = conn_open(&list, ends[1], &nobody);
    assert_int_equal(conn_greet(early), WANT_READ); /* that will tell */
    assert_int_equal(early->want, WANT_READ);
    assert_int_equal(conn_pump(&list, early), 0);
    conn_close(&list, early);
}

static void the_silent_expire_in_order(void **state)
{
    struct conn_list list = {.idle_limit = 40};
    struct pair a = make_pair(&list), b = make_pair(&list), c = make_pair(&list);

    (void)state;
    assert_ptr_equal(list.first, a.c);
    assert_false(conn_expired(&list));
    assert_in_range(conn_expiry_ms(&list), 1, 40);
    while (conn_expiry_ms(&list) != 0)
        poll(NULL, 0, conn_expiry_ms(&list));
    say(&a, "x"); /* heard just in time: now the others are the longest silent */
    conn_pump(&list, a.c);
    assert_ptr_equal(list.first, b.c);
    assert_ptr_equal(list.last, a.c);
    poll(NULL, 0, 5);
    assert_true(conn_expired(&list));
    assert_ptr_equal(list.first, b.c);
    leave(&list, &b);
    assert_true(conn_expired(&list));
    assert_ptr_equal(list.first, c.c);
    leave(&list, &c);
    assert_false(conn_expired(&list));
    leave(&list, &a);
    assert_int_equal(conn_expiry_ms(&list), -1);
}

/* To the millisecond, whatever the clock shows: also when its 32 bits wrap. */
static void silence_is_measured(void **state)
{
    static const uint64_t times[] = {1000, 999999, (UINT64_C(1) << 32) - 10};

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct conn_list list = {.idle_limit = 40};
        clock_ms = times[i];
        struct pair pair = make_pair(&list);
        assert_int_equal(conn_expiry_ms(&list), 40);
        clock_ms += 39;
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ); /* it says nothing */
        assert_int_equal(conn_expiry_ms(&list), 1);
        assert_false(conn_expired(&list));
        say(&pair, "x");
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
        assert_int_equal(conn_expiry_ms(&list), 40);
        clock_ms += 40;
        assert_int_equal(conn_expiry_ms(&list), 0);
        say(&pair, "y");
        assert_false(conn_expired(&list)); /* it is we who did not listen */
        assert_int_equal(conn_expiry_ms(&list), 40);
        assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
        clock_ms += 40;
        assert_int_equal(conn_expiry_ms(&list), 0);
        assert_true(conn_expired(&list));
        assert_ptr_equal(list.first, pair.c);
        leave(&list, &pair);
    }
    clock_ms = 0;
}

/* Who is owed something and takes some of it, be it without a word, may stay. */
static void taking_is_not_silence(void **state)
{
    struct conn_list list = {.idle_limit = 40};
    static char flood[64 * 1024];
    const int large = 2 * sizeof flood;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    clock_ms = 1000;
    struct pair taking = make_pair(&list), silent = make_pair(&list);
    memset(flood, '^', sizeof flood);
    net_set_nonblocking(taking.client);
    setsockopt(taking.client, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    while (conn_pump(&list, taking.c) != WANT_WRITE)
        (void)!send(taking.client, flood, sizeof flood, 0);
    say(&silent, "x");
    assert_int_equal(conn_pump(&list, silent.c), WANT_READ);
    for (int i = 0; i < 2; i++) {
        assert_ptr_equal(list.first, taking.c);
        assert_true(recv(taking.client, flood, sizeof flood, 0) > 0);
        clock_ms += 40;
        assert_true(conn_expired(&list));
        assert_ptr_equal(list.first, silent.c);
        assert_ptr_equal(list.last, taking.c);
        assert_int_equal(conn_pump(&list, taking.c), WANT_WRITE);
        say(&silent, "x");
        assert_int_equal(conn_pump(&list, silent.c), WANT_READ);
        assert_false(conn_expired(&list));
        assert_int_equal(conn_expiry_ms(&list), 40);
    }
    clock_ms += 40;
    assert_true(conn_expired(&list)); /* it takes no more */
    assert_ptr_equal(list.first, taking.c);
    leave(&list, &silent);
    leave(&list, &taking);
    clock_ms = 0;
}

/* Not even the greeting has room: who takes nothing is silent from the beginning. */
static void not_taking_the_greeting_is_silence(void **state)
{
    struct conn_list list = {.idle_limit = 40};
    char byte = '-';
    int ends[2];

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    clock_ms = 1000;
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), errno);
    assert_return_code(net_set_nonblocking(ends[1]), errno);
    while (send(ends[1], &byte, 1, 0) == 1)
        ;
    struct pair pair = {.client = ends[0], .c = conn_open(&list, ends[1], &nobody)};
    assert_int_equal(conn_greet(pair.c), WANT_WRITE);
    assert_int_equal(pair.c->want, WANT_WRITE);
    clock_ms += 40;
    assert_true(conn_expired(&list));
    while (byte == '-' && recv(pair.client, &byte, 1, MSG_DONTWAIT) == 1)
        if (pair.c->owed != NULL)
            conn_pump(&list, pair.c);
    assert_int_equal(byte, '*');
    leave(&list, &pair);
    clock_ms = 0;
}

static void without_a_limit_no_clock_is_read(void **state)
{
    struct conn_list list = {0};
    int before = clock_readings;

    (void)state;
    struct pair pair = make_pair(&list);
    say(&pair, "^abc");
    assert_int_equal(conn_pump(&list, pair.c), WANT_READ);
    assert_false(conn_expired(&list));
    assert_int_equal(conn_expiry_ms(&list), -1);
    leave(&list, &pair);
    assert_int_equal(clock_readings, before);
}

static int farewells;

static void gone(const struct peer *peer)
{
    assert_int_equal(peer->port, nobody.port);
    farewells++;
}

static void draining_answers_what_came(void **state)
{
    struct conn_list list = {.idle_limit = 1000}; /* which no longer counts */
    struct pair asking = make_pair(&list), silent = make_pair(&list), deaf = make_pair(&list),
                another = make_pair(&list);
    static char flood[64 * 1024];

    (void)state;
    memset(flood, '^', sizeof flood);
    net_set_nonblocking(deaf.client);
    while (conn_pump(&list, deaf.c) != WANT_WRITE)
        (void)!send(deaf.client, flood, sizeof flood, 0);
    say(&asking, "^abc");
    say(&another, "^xyz");
    farewells = 0;
    conn_drain(&list, 10, 100, gone);
    assert_int_equal(farewells, 4);
    assert_int_equal(list.count, 0);
    expect(&asking, "*bcd");
    expect(&another, "*yz{");
    expect(&silent, "*");
    assert_int_equal(recv(silent.client, flood, 1, 0), 0);
    close(silent.client);
    close(asking.client);
    close(another.client);
    close(deaf.client);
}

enum { QUIET_MS = 20, OWED = 64 * 1024 };

/* What the clients do while their conns are drained: the clock is theirs. */
static struct {
    struct pair asking, late, slow;
    size_t heard;
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

static void *talk(void *unused)
{
    static char bytes[OWED];
    ssize_t n;

    /* Two answers to another: the lap in which the late one was looked at is over. */
    crowd.answered = is_answered(crowd.asking.client, 2);
    for (int i = 0; i < 3 && crowd.answered; i++) {
        crowd.answered = is_answered(crowd.late.client, 1);
        clock_ms += QUIET_MS - 1; /* which is not too long, again and again */
        crowd.answered = crowd.answered && is_answered(crowd.asking.client, 2);
    }
    poll(NULL, 0, 2 * QUIET_MS); /* a drain with nothing to do for so long */
    while (crowd.heard < OWED && (n = recv(crowd.slow.client, bytes, OWED, 0)) > 0)
        crowd.heard += (size_t)n;
    clock_ms += QUIET_MS;
    return unused;
}

static uint16_t order[3];

static void gone_in_order(const struct peer *peer)
{
    order[farewells++] = peer->port;
}

/* Who speaks before it has been silent for too long is served, and who is owed something gets
 * it, late or slow. */
static void draining_waits_for_the_late_and_the_slow(void **state)
{
    struct conn_list list = {.idle_limit = 1000};
    static char flood[OWED];
    const int large = 2 * OWED;
    pthread_t clients;

    (void)state;
#ifdef __APPLE__
    skip();
#endif
    clock_ms = 1000;
    crowd.asking = make_pair(&list);
    crowd.late = make_pair(&list);
    crowd.slow = make_pair(&list);
    expect(&crowd.asking, "*");
    expect(&crowd.late, "*");
    crowd.asking.c->peer.port = 1;
    crowd.late.c->peer.port = 2;
    crowd.slow.c->peer.port = 3;
    memset(flood, '^', sizeof flood);
    setsockopt(crowd.slow.client, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
    assert_int_equal(send(crowd.slow.client, flood, sizeof flood, 0), OWED);
    farewells = 0;
    clock_ms += 2 * QUIET_MS; /* how silent they were before does not matter */
    time_t start = time(NULL);
    int before = clock_readings;
    pthread_create(&clients, NULL, talk, NULL);
    conn_drain(&list, QUIET_MS, 10000, gone_in_order);
    pthread_join(clients, NULL);
    clock_ms = 0;
    assert_true(clock_readings - before < 2000); /* it sleeps, */
    assert_true(time(NULL) - start < 5);         /* but not to the limit */
    assert_true(crowd.answered);
    assert_int_equal(crowd.heard, OWED); /* a greeting, and all but the first `^` */
    assert_int_equal(farewells, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(order[i], i + 1);
    close(crowd.asking.client);
    close(crowd.late.client);
    close(crowd.slow.client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greets_and_answers),
        cmocka_unit_test(reads_no_more_while_it_owes),
        cmocka_unit_test(a_client_that_never_reads_is_waited_for),
        cmocka_unit_test(half_close_delivers_first),
        cmocka_unit_test(a_dead_client_is_finished),
        cmocka_unit_test(the_silent_expire_in_order),
        cmocka_unit_test(silence_is_measured),
        cmocka_unit_test(taking_is_not_silence),
        cmocka_unit_test(not_taking_the_greeting_is_silence),
        cmocka_unit_test(without_a_limit_no_clock_is_read),
        cmocka_unit_test(draining_answers_what_came),
        cmocka_unit_test(draining_waits_for_the_late_and_the_slow),
    };

    return cmocka_run_group_tests_name("conn", tests, NULL, NULL);
}
