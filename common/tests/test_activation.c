/* activation.h: a server takes the socket that a service manager passes, and reports that it is
 * ready. */
#include "activation.h"
#include "net.h"
#include "program.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/un.h>

/* What the next child finds in its environment. NULL: unset; OWN: its own process id. */
static const char OWN[] = "own";
static const char *listen_pid, *listen_fds, *notify_socket;
static int (*open_passed)(void); /* what it finds as descriptor 3 */

static void set(const char *name, const char *value)
{
    if (value == NULL)
        unsetenv(name);
    else
        setenv(name, value, 1);
}

static int open_listener(void)
{
    struct net_listener listener;
    const char *why;

    CHECK(net_listen(&listener, "127.0.0.1", "0", &why) == 0);
    close(listener.reserved);
    CHECK(net_set_nonblocking(listener.fd) == 0); /* as the server before may have done */
    fcntl(listener.fd, F_SETFD, 0);
    return listener.fd;
}

static int open_nothing(void)
{
    return -1;
}

static int open_file(void)
{
    return open("/dev/null", O_RDWR);
}

static int open_tcp(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int open_udp(void)
{
    return socket(AF_INET, SOCK_DGRAM, 0);
}

static int open_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static void be_activated(void)
{
    char own[32];

    snprintf(own, sizeof own, "%ld", (long)getpid());
    set("LISTEN_PID", listen_pid == OWN ? own : listen_pid);
    set("LISTEN_FDS", listen_fds);
    set("NOTIFY_SOCKET", notify_socket);
    int passed = open_passed();
    CHECK(passed == -1 || passed == 3);
}

/* Prints which descriptor it listens on, and stops. */
static void run_server(void)
{
    struct net_listener listener;

    be_activated();
    start_server(ARGUMENTS("0"));
    server_listen(&listener);
    CHECK(fcntl(listener.fd, F_GETFD) & FD_CLOEXEC);
    CHECK(!(fcntl(listener.fd, F_GETFL) & O_NONBLOCK));
    CHECK(listener.reserved > 2);
    CHECK(listener.address.port != 0);
    server_ready(&listener.address);
    printf("descriptor %d\n", listener.fd);
    fflush(stdout);
    net_unlisten(&listener);
    exit(server_finish());
}

static int reset(void **state)
{
    (void)state;
    listen_pid = OWN;
    listen_fds = "1";
    notify_socket = NULL;
    open_passed = open_listener;
    return 0;
}

static void it_takes_the_socket_that_was_passed(void **state)
{
    (void)state;
    assert_int_equal(run_program(run_server), 0);
    assert_ptr_equal(strstr(out, "Listening on 127.0.0.1:"), out);
    assert_non_null(strstr(out, "descriptor 3\n"));
    assert_string_equal(err, "");
}

static void expect_socket_of_its_own(const char *pid, const char *fds)
{
    listen_pid = pid;
    listen_fds = fds;
    assert_int_equal(run_program(run_server), 0);
    assert_non_null(strstr(out, "descriptor "));
    assert_null(strstr(out, "descriptor 3\n"));
    assert_string_equal(err, "");
}

static void it_leaves_alone_what_is_for_another_process(void **state)
{
    (void)state;
    expect_socket_of_its_own("1", "1"); /* a parent that does not clear the variables */
    expect_socket_of_its_own("1", "7");
    expect_socket_of_its_own(NULL, "1");
    expect_socket_of_its_own(OWN, NULL);
    expect_socket_of_its_own(OWN, "0");
}

static void expect_no_start(const char *message)
{
    assert_int_equal(run_program(run_server), 1);
    assert_string_equal(err, message);
    assert_string_equal(out, "");
}

static void wrong_variables_are_fatal(void **state)
{
    static const char *const numbers[] = {"", "x", "-1", "1x", " 1", "99999999999999999999"};

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        listen_pid = numbers[i];
        expect_no_start("server: cannot take a socket from the service manager: "
                        "LISTEN_PID is not the number of a process\n");
    }
    listen_pid = OWN;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        listen_fds = numbers[i];
        expect_no_start("server: cannot take a socket from the service manager: "
                        "LISTEN_FDS is not 1: expected one listening socket\n");
    }
    listen_fds = "2";
    expect_no_start("server: cannot take a socket from the service manager: "
                    "LISTEN_FDS is not 1: expected one listening socket\n");
}

static void wrong_descriptors_are_fatal(void **state)
{
    (void)state;
    open_passed = open_nothing;
    expect_no_start(
        "server: cannot listen on descriptor 3 (LISTEN_FDS): Bad file descriptor\n");
    open_passed = open_file;
    expect_no_start("server: cannot listen on descriptor 3 (LISTEN_FDS): "
                    "Socket operation on non-socket\n");
    open_passed = open_unix;
    expect_no_start("server: cannot listen on descriptor 3 (LISTEN_FDS): "
                    "not an internet socket\n");
    open_passed = open_tcp;
    expect_no_start("server: cannot listen on descriptor 3 (LISTEN_FDS): "
                    "not a listening TCP socket\n");
    open_passed = open_udp;
    expect_no_start("server: cannot listen on descriptor 3 (LISTEN_FDS): "
                    "not a listening TCP socket\n");
}

/* Binds the socket of a service manager. name[0] may be '@' for an abstract one. */
static int bind_manager(const char *name)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    memcpy(own.sun_path, name, length);
    if (*name == '@')
        own.sun_path[0] = '\0';
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    assert_return_code(bind(fd, (struct sockaddr *)&own, size), errno);
    return fd;
}

static void expect_ready(const char *name)
{
    char message[100] = "";
    int manager = bind_manager(name);

    notify_socket = name;
    int status = run_program(run_server);
    notify_socket = NULL;
    assert_int_equal(status, 0);
    assert_string_equal(err, "");
    ssize_t n = recv(manager, message, sizeof message - 1, MSG_DONTWAIT);
    assert_int_equal(n, strlen("READY=1"));
    assert_string_equal(message, "READY=1");
    assert_int_equal(recv(manager, message, sizeof message, MSG_DONTWAIT), -1);
    close(manager);
}

static void it_tells_the_manager_when_it_is_ready(void **state)
{
    char folder[] = "/tmp/test_activation.XXXXXX", name[64];

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(name, sizeof name, "%s/notify", folder);
    expect_ready(name);
    unlink(name);
    rmdir(folder);
#ifdef __linux__
    snprintf(name, sizeof name, "@test_activation.%ld", (long)getpid());
    expect_ready(name);
#endif
}

static void expect_warning(const char *name, const char *why)
{
    char expected[300];

    notify_socket = name;
    int status = run_program(run_server);
    notify_socket = NULL;
    assert_int_equal(status, 0);
    snprintf(expected, sizeof expected, "server: cannot notify '%s' (NOTIFY_SOCKET): %s\n",
             name, why);
    assert_string_equal(err, expected);
}

static void a_manager_that_does_not_listen_is_no_obstacle(void **state)
{
    char too_long[150];

    (void)state;
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[0] = '/';
    too_long[sizeof too_long - 1] = '\0';
    expect_warning("/no/such/socket", strerror(ENOENT));
    expect_warning("vsock:2:1", strerror(EAFNOSUPPORT));
    expect_warning("", strerror(EAFNOSUPPORT));
    expect_warning(too_long, strerror(ENAMETOOLONG));
}

#ifdef __linux__
/* Its queue is full, because it reads nothing. */
static void a_manager_that_never_reads_is_no_obstacle(void **state)
{
    char name[64];

    (void)state;
    snprintf(name, sizeof name, "@test_activation.%ld", (long)getpid());
    int manager = bind_manager(name);
    setenv("NOTIFY_SOCKET", name, 1);
    while (activation_notify("READY=1") == 0)
        ;
    assert_int_equal(errno, EAGAIN);
    unsetenv("NOTIFY_SOCKET");
    expect_warning(name, strerror(EAGAIN));
    close(manager);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(it_takes_the_socket_that_was_passed, reset),
        cmocka_unit_test_setup(it_leaves_alone_what_is_for_another_process, reset),
        cmocka_unit_test_setup(wrong_variables_are_fatal, reset),
        cmocka_unit_test_setup(wrong_descriptors_are_fatal, reset),
        cmocka_unit_test_setup(it_tells_the_manager_when_it_is_ready, reset),
        cmocka_unit_test_setup(a_manager_that_does_not_listen_is_no_obstacle, reset),
#ifdef __linux__
        cmocka_unit_test_setup(a_manager_that_never_reads_is_no_obstacle, reset),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
