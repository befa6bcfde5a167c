/* test_kqueue.c - what ae_kqueue.c and step 6's kqueue variant rely on in kqueue(2).
 *
 * On BSD and macOS this tests the real kqueue, elsewhere the double in common/tests/kqueue,
 * which must behave like it.
 */
#include <sys/types.h>

#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROOM = 8 };

static int kq, ours, theirs;
static struct kevent seen[ROOM];
static const struct timespec at_once;

static int set_up(void **state)
{
    int fds[2];

    (void)state;
    if ((kq = kqueue()) == -1 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == -1)
        return -1;
    ours = fds[0];
    theirs = fds[1];
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(ours);
    close(theirs);
    return close(kq);
}

static int change(int fd, short filter, int flags)
{
    struct kevent ke;

    EV_SET(&ke, (uintptr_t)fd, filter, (unsigned short)flags, 0, 0, &theirs);
    return kevent(kq, &ke, 1, NULL, 0, NULL);
}

static int look(void)
{
    return kevent(kq, NULL, 0, seen, ROOM, &at_once);
}

/* What look() reported for a filter, or all zeros. The order of reports is not defined. */
static struct kevent find(int n, short filter)
{
    for (int i = 0; i < n; i++)
        if (seen[i].filter == filter)
            return seen[i];
    return (struct kevent){0};
}

static void assert_fails(int result, int reason)
{
    assert_int_equal(result, -1);
    assert_int_equal(errno, reason);
}

static void test_reports_each_filter_by_itself(void **state)
{
    (void)state;
    assert_int_equal(change(ours, EVFILT_READ, EV_ADD), 0);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ADD), 0);
    assert_int_equal(look(), 1);
    assert_int_equal(find(1, EVFILT_WRITE).filter, EVFILT_WRITE);
    assert_int_equal(write(theirs, "abc", 3), 3);
    for (int again = 0; again < 2; again++) { /* level-triggered */
        assert_int_equal(look(), 2);
        assert_int_equal(find(2, EVFILT_WRITE).filter, EVFILT_WRITE);

        struct kevent ke = find(2, EVFILT_READ);

        assert_int_equal(ke.ident, ours);
        assert_int_equal(ke.data, 3);
        assert_int_equal(ke.flags & EV_EOF, 0);
        assert_ptr_equal(ke.udata, &theirs);
    }
}

static void test_deletes_and_disables(void **state)
{
    (void)state;
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ADD), 0);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_DISABLE), 0);
    assert_int_equal(look(), 0);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ENABLE), 0);
    assert_int_equal(look(), 1);
    assert_fails(change(ours, EVFILT_READ, EV_DELETE), ENOENT);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_DELETE), 0);
    assert_int_equal(look(), 0);
    assert_fails(change(ours, EVFILT_WRITE, EV_DELETE), ENOENT);
    assert_fails(change(ours, EVFILT_WRITE, EV_ENABLE), ENOENT);
#ifdef KQUEUE_DOUBLE_SYS_EVENT_H /* it must fail for what it cannot do */
    assert_fails(change(ours, EVFILT_WRITE, EV_ADD | EV_CLEAR), EINVAL);
    assert_fails(change(ours, -3, EV_ADD), EINVAL);
#endif
    assert_fails(change(-1, EVFILT_READ, EV_ADD), EBADF);
    assert_fails(kevent(-1, NULL, 0, seen, ROOM, &at_once), EBADF);
}

static void test_oneshot_and_dispatch_report_once(void **state)
{
    (void)state;
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ADD | EV_ONESHOT), 0);
    assert_int_equal(look(), 1);
    assert_int_equal(look(), 0);
    assert_fails(change(ours, EVFILT_WRITE, EV_ENABLE), ENOENT);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ADD | EV_DISPATCH), 0);
    assert_int_equal(look(), 1);
    assert_int_equal(look(), 0);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ENABLE), 0);
    assert_int_equal(look(), 1);
}

static void test_reports_receipts(void **state)
{
    struct kevent changes[3];

    (void)state;
    EV_SET(&changes[0], (uintptr_t)ours, EVFILT_READ, EV_DELETE, 0, 0, NULL);
    EV_SET(&changes[1], (uintptr_t)ours, EVFILT_WRITE, EV_ADD | EV_RECEIPT, 0, 0, NULL);
    EV_SET(&changes[2], (uintptr_t)ours, EVFILT_READ, EV_ADD, 0, 0, NULL);
    assert_int_equal(kevent(kq, changes, 3, seen, ROOM, NULL), 2); /* does not wait */
    assert_int_equal(seen[0].flags & EV_ERROR, EV_ERROR);
    assert_int_equal(seen[0].data, ENOENT);
    assert_int_equal(seen[1].flags & EV_ERROR, EV_ERROR);
    assert_int_equal(seen[1].data, 0);
    assert_int_equal(look(), 1);
}

static void test_reports_end_of_file(void **state)
{
    (void)state;
    assert_int_equal(change(ours, EVFILT_READ, EV_ADD), 0);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ADD), 0);
    assert_int_equal(write(theirs, "abc", 3), 3);
    shutdown(theirs, SHUT_WR);
    assert_int_equal(look(), 2);
    assert_int_equal(find(2, EVFILT_READ).flags & EV_EOF, EV_EOF);
    assert_int_equal(find(2, EVFILT_READ).data,
                     3); /* sent before the end, and still there to read */
    assert_int_equal(find(2, EVFILT_WRITE).flags & EV_EOF, 0);
    close(theirs);
    assert_int_equal(look(), 2);
    assert_int_equal(find(2, EVFILT_WRITE).flags & EV_EOF, EV_EOF);
    assert_int_equal(change(ours, EVFILT_READ, EV_DISABLE), 0);
    assert_int_equal(change(ours, EVFILT_WRITE, EV_DELETE), 0);
    assert_int_equal(look(), 0);
}

static void test_closing_deletes_filters(void **state)
{
    (void)state;
    assert_int_equal(change(ours, EVFILT_READ, EV_ADD), 0);
    assert_int_equal(write(theirs, "abc", 3), 3);
    close(ours);
    assert_int_equal(dup2(theirs, ours), ours); /* the same number again */
    assert_int_equal(look(), 0);
    assert_fails(change(ours, EVFILT_READ, EV_DELETE), ENOENT);
}

static void test_reports_in_turn_if_room_is_short(void **state)
{
    uintptr_t first;

    (void)state;
    assert_int_equal(change(ours, EVFILT_WRITE, EV_ADD), 0);
    assert_int_equal(change(theirs, EVFILT_WRITE, EV_ADD), 0);
    assert_int_equal(kevent(kq, NULL, 0, seen, 1, &at_once), 1);
    first = seen[0].ident;
    assert_int_equal(kevent(kq, NULL, 0, seen, 1, &at_once), 1);
    assert_int_not_equal(seen[0].ident, first);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(reports_each_filter_by_itself),
        TEST(deletes_and_disables),
        TEST(oneshot_and_dispatch_report_once),
        TEST(reports_receipts),
        TEST(reports_end_of_file),
        TEST(closing_deletes_filters),
        TEST(reports_in_turn_if_room_is_short),
    };

    return cmocka_run_group_tests_name("kqueue", tests, NULL, NULL);
}
