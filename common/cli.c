#include "cli.h"
#include "stats.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_SIZE = 512, /* longest log line: PIPE_BUF is no less (POSIX), see write_now */
    REPORT_SIZE = 4096,
    LOW_DESCRIPTORS = 1024, /* below this the number of clients is worth a word */
    MORE_MAX = 4,           /* options of its own a step may have */
    MORE_FIRST = 256,       /* their codes for getopt_long begin here */
};

struct cli cli = {.bind = "127.0.0.1", .port = "8080", .max_clients = INT_MAX};

static const char *program = "server";
static const char *stats_path;
static int stats_fd = -1;

static const struct option long_options[] = {
    {"port", required_argument, NULL, 'p'},
    {"bind", required_argument, NULL, 'b'},
    {"max-clients", required_argument, NULL, 'm'},
    {"idle-timeout", required_argument, NULL, 'i'},
    {"quiet", no_argument, NULL, 'q'},
    {"stats", required_argument, NULL, 's'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
};
enum { COMMON_OPTIONS = sizeof long_options / sizeof *long_options };

/* ---- Words to the user ------------------------------------------------------------------- */

static void print_usage(FILE *out, const struct cli_option *more)
{
    fprintf(
        out,
        "Usage: %s [OPTION]... [PORT]\n"
        "  -p, --port PORT             port to listen on (default 8080; 0 = any free one)\n"
        "  -b, --bind ADDR             address or name to listen on (default 127.0.0.1)\n"
        "  -m, --max-clients N         refuse clients beyond N at a time\n"
        "  -i, --idle-timeout SECONDS  close clients silent for so long (0 = never, default)\n"
        "  -q, --quiet                 no line per client\n"
        "  -s, --stats FILE            at exit and on SIGUSR1 write the cost counters\n"
        "                              as JSON (- = stdout)\n"
        "  -h, --help                  this text\n"
        "  -V, --version               the version\n",
        program);
    for (; more != NULL && more->name != NULL; more++) {
        const char *space = more->argument ? " " : "", *argument = more->argument;
        int width = 21 - (int)strlen(more->name) - (int)strlen(space);
        fprintf(out, "      --%s%s%-*s %s\n", more->name, space, width > 0 ? width : 0,
                argument ? argument : "", more->help);
    }
}

static void complain(const char *format, va_list arguments)
{
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

static const struct cli_option *step_options; /* for the usage behind an error */

__attribute__((format(printf, 1, 2))) _Noreturn static void die_usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    print_usage(stderr, step_options);
    exit(2);
}

void cli_die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    exit(1);
}

/* What was asked for is on stdout, or could not be written. */
_Noreturn static void exit_told(void)
{
    if (fflush(stdout) != 0)
        cli_die("cannot write to standard output: %s", strerror(errno));
    exit(0);
}

/* ---- Options ----------------------------------------------------------------------------- */

static int parse_int(const char *option, const char *value, int min, int max)
{
    char *end;

    errno = 0;
    long n = strtol(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end != '\0' || errno != 0 || n < min || n > max) {
        if (max == INT_MAX)
            die_usage("%s: '%s' is not a whole number of %d or more", option, value, min);
        die_usage("%s: '%s' is not a whole number from %d to %d", option, value, min, max);
    }
    return (int)n;
}

static int parse_seconds(const char *option, const char *value)
{
    enum { MAX_SECONDS = 86400 };
    char *end;
    double seconds = strtod(value, &end);

    if (!isdigit((unsigned char)*value) || value[strspn(value, "0123456789.")] != '\0' ||
        *end != '\0' || !(seconds >= 0 && seconds <= MAX_SECONDS) ||
        (seconds > 0 && seconds < 0.001))
        die_usage("%s: '%s' is not a number of seconds from 0.001 to %d, or 0 for never",
                  option, value, MAX_SECONDS);
    return (int)(seconds * 1000);
}

static void set_port(const char *option, const char *value)
{
    parse_int(option, value, 0, 65535);
    cli.port = value;
}

static void set_stats(const char *value)
{
    if (*value == '\0')
        die_usage("--stats: the name of the file is empty");
    stats_path = value;
}

/* Takes "[::1]" too: that is how addresses are printed. */
static void set_bind(char *value)
{
    size_t n = strlen(value);

    if (n > 2 && value[0] == '[' && value[n - 1] == ']') {
        value[n - 1] = '\0';
        value++;
    }
    if (*value == '\0')
        die_usage("--bind: the address is empty");
    cli.bind = value;
}

static void set_more(const struct cli_option *option, const char *value)
{
    char name[64];

    snprintf(name, sizeof name, "--%s", option->name);
    *option->value = option->argument ? parse_int(name, value, option->min, option->max) : 1;
}

/* getopt_long's own messages name neither what was wrong nor what was expected. */
_Noreturn static void die_bad_option(int code, char **argv, const struct option *options)
{
    const char *word = argv[optind - 1];

    if (code == ':')
        die_usage("option '%s' needs a value", word);
    for (const struct option *o = options; o->name != NULL; o++)
        if (optopt == o->val && strncmp(word, "--", 2) == 0)
            die_usage("option '--%s' takes no value", o->name);
    if (optopt != 0) /* perhaps one of several letters, and `word` is the one before them */
        die_usage("unknown option '-%c'", optopt);
    die_usage("unknown or ambiguous option '%s'", word);
}

static void parse_options(int argc, char **argv, const struct cli_option *more)
{
    struct option options[COMMON_OPTIONS + MORE_MAX + 1] = {0};
    int code;

    memcpy(options, long_options, sizeof long_options);
    for (int i = 0; i < MORE_MAX && more != NULL && more[i].name != NULL; i++)
        options[COMMON_OPTIONS + i] =
            (struct option){more[i].name, more[i].argument ? required_argument : no_argument,
                            NULL, MORE_FIRST + i};
    opterr = 0;
    while ((code = getopt_long(argc, argv, ":p:b:m:i:qs:hV", options, NULL)) != -1) {
        switch (code) {
        case 'p':
            set_port("--port", optarg);
            break;
        case 'b':
            set_bind(optarg);
            break;
        case 'm':
            cli.max_clients = parse_int("--max-clients", optarg, 1, INT_MAX);
            break;
        case 'i':
            cli.idle_timeout_ms = parse_seconds("--idle-timeout", optarg);
            break;
        case 'q':
            cli.quiet = true;
            break;
        case 's':
            set_stats(optarg);
            break;
        case 'h':
            print_usage(stdout, more);
            exit_told();
        case 'V':
            puts("echo server 1.0");
            exit_told();
        default:
            if (code < MORE_FIRST || more == NULL)
                die_bad_option(code, argv, options);
            set_more(&more[code - MORE_FIRST], optarg);
        }
    }
    if (optind < argc)
        set_port("PORT", argv[optind++]);
    if (optind < argc)
        die_usage("unexpected argument '%s': at most one PORT is expected", argv[optind]);
}

/* ---- Signals ----------------------------------------------------------------------------- */

/* Lock-free atomics may be used in handlers (C11, 7.14.1.1), and other threads ask for them. */
_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2, "a handler must not wait for a lock");
atomic_bool cli_time_is_up;
static atomic_bool stop_wanted, report_wanted;
static atomic_bool listening; /* started: from here on a stop is in good order */
static void (*_Atomic second_interrupt)(int) = SIG_DFL;
static pthread_t first_thread;
static int wakeup[2] = {-1, -1}; /* the self-pipe: read end, write end */

static void wake_up(void)
{
    int error = errno; /* we are in a signal handler: whoever was interrupted may need it */

    ssize_t ignored = wakeup[1] == -1 ? 0 : write(wakeup[1], "", 1);
    (void)ignored; /* a full pipe wakes the reader just as well */
    errno = error;
}

static void on_stop(int signal_number)
{
    if (!listening) {
        signal(signal_number, SIG_DFL);
        raise(signal_number); /* when we return */
        return;
    }
    signal(SIGINT, second_interrupt);
    if (!atomic_exchange(&stop_wanted, true))
        alarm(CLI_GRACE_MS / 1000); /* a second SIGTERM must not put it off */
    wake_up();
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
    if (!stop_wanted)
        return; /* not our alarm: exec hands down one that was set before */
    cli_time_is_up = true;
    alarm(CLI_GRACE_MS / 1000); /* and knock again, in case nobody was asleep to hear it */
    wake_up();
}

static void on_report(int signal_number)
{
    (void)signal_number;
    report_wanted = true;
    wake_up();
}

void cli_second_interrupt(void (*handler)(int))
{
    second_interrupt = handler;
}

void cli_catch(int signal_number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler}; /* no SA_RESTART: calls are to return */
    sigset_t set;

    sigemptyset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
    sigemptyset(&set); /* whoever started us may have blocked it */
    sigaddset(&set, signal_number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void on_interrupt(int signal_number)
{
    (void)signal_number; /* that the call returned is all that was wanted */
}

void cli_interrupt_on(int signal_number)
{
    cli_catch(signal_number, on_interrupt);
}

bool cli_stopping(void)
{
    char drain[16];

    while (report_wanted && pthread_equal(pthread_self(), first_thread)) {
        report_wanted = false; /* and perhaps true again before the report is out */
        cli_report();
        while (wakeup[0] != -1 && !stop_wanted && read(wakeup[0], drain, sizeof drain) > 0)
            ;
    }
    return stop_wanted;
}

int cli_wakeup_fd(void)
{
    if (wakeup[0] == -1) {
        int ends[2];
        if (pipe(ends) == -1 || net_set_nonblocking(ends[0]) == -1 ||
            net_set_nonblocking(ends[1]) == -1)
            cli_die("cannot make a pipe: %s", strerror(errno));
        for (int i = 0; i < 2; i++)
            fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        wakeup[0] = ends[0];
        wakeup[1] = ends[1];
        if (stop_wanted || report_wanted)
            wake_up(); /* it came before there was a pipe to write to */
    }
    return wakeup[0];
}

/* ---- The log ----------------------------------------------------------------------------- */

/* poll calls a pipe writable when PIPE_BUF bytes fit, so that a write of no more cannot block.
 * The lock keeps two threads from both seeing the same room. Returns whether all was written;
 * if not, errno is EAGAIN where that would have taken longer than ms milliseconds. */
static bool write_now(int fd, const char *text, size_t n, int ms)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct pollfd out = {.fd = fd, .events = POLLOUT};
    ssize_t written = 1;

    pthread_mutex_lock(&lock);
    while (n > 0 && written > 0) {
        errno = EAGAIN;
        written = poll(&out, 1, ms) == 1 ? write(fd, text, n < LINE_SIZE ? n : LINE_SIZE) : 0;
        text += written > 0 ? written : 0;
        n -= written > 0 ? (size_t)written : 0;
    }
    pthread_mutex_unlock(&lock);
    return n == 0;
}

static void write_line(int fd, const char *format, va_list arguments)
{
    char line[LINE_SIZE];
    int n = vsnprintf(line, sizeof line, format, arguments);

    if (n > 0)
        write_now(fd, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1, 0);
}

void cli_log(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(STDOUT_FILENO, format, arguments);
    va_end(arguments);
}

/* On stderr, for a server that goes on: it must not wait for that to be read, either. */
__attribute__((format(printf, 1, 2))) static void warn(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_line(STDERR_FILENO, format, arguments);
    va_end(arguments);
}

/* A terminal with room for a byte is called writable, and then the rest of the line blocks. So
 * we open it again for ourselves: what we were given is the shell's, too, as O_NONBLOCK on it
 * would be. */
static void open_terminal_again(int fd)
{
    char name[64];

    int own = ttyname_r(fd, name, sizeof name) == 0
                  ? open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
                  : -1;
    if (own != -1) {
        dup2(own, fd);
        close(own);
    }
}

static void log_peer(const struct peer *peer, const char *what)
{
    char host[PEER_HOST_SIZE];

    cli_log("peer (%s, %u) %s\n", peer_host(peer, host), (unsigned)peer->port, what);
}

void cli_connected(const struct peer *peer)
{
    stats_client_begin();
    if (!cli.quiet)
        log_peer(peer, "connected");
}

void cli_disconnected(const struct peer *peer)
{
    stats_client_end();
    if (!cli.quiet)
        log_peer(peer, "disconnected");
}

/* A flood of refusals must not become a flood of lines. */
void cli_refused(const struct peer *peer, const char *why)
{
    static time_t last;
    static unsigned unsaid;
    struct timespec now;
    char what[LINE_SIZE / 2];

    stats_add(&stats.clients_refused, 1);
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (last != 0 && now.tv_sec == last) {
        unsaid++;
        return;
    }
    int n = snprintf(what, sizeof what, "refused: %s", why);
    if (unsaid > 0 && n > 0 && (size_t)n < sizeof what)
        snprintf(what + n, sizeof what - (size_t)n, " (and %u more before)", unsaid);
    log_peer(peer, what);
    last = now.tv_sec;
    unsaid = 0;
}

bool cli_full(void)
{
    return stats_clients() >= cli.max_clients;
}

int cli_admit(int fd, const struct peer *peer)
{
    if (fd == -1 && !net_is_full(errno))
        return CLI_NOBODY;
    if (fd != -1 && !cli_full())
        return fd;
    cli_refused(peer, fd == -1 ? strerror(errno) : "--max-clients reached");
    if (fd != -1)
        close(fd);
    return CLI_REFUSED;
}

/* ---- Start and end ----------------------------------------------------------------------- */

/* Started with descriptor 1 closed, say, the listener would become "stdout", and log lines
 * would be sent to it. */
static void open_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

void cli_start(int argc, char **argv, const struct cli_option *more)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;

    open_standard_descriptors();
    if (argc > 0)
        program = slash ? slash + 1 : argv[0];
    step_options = more;
    parse_options(argc, argv, more);
    if (stats_path != NULL && strcmp(stats_path, "-") != 0) {
        stats_fd =
            open(stats_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
        if (stats_fd == -1)
            cli_die("cannot write '%s': %s", stats_path, strerror(errno));
    }
    open_terminal_again(STDOUT_FILENO);
    open_terminal_again(STDERR_FILENO);
    first_thread = pthread_self();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log that may not grow is no reason to die either */
    cli_catch(SIGINT, on_stop);
    cli_catch(SIGTERM, on_stop);
    cli_catch(SIGALRM, on_alarm);
    cli_catch(SIGUSR1, on_report);
}

void cli_cannot_listen(const char *why)
{
    bool ipv6 = strchr(cli.bind, ':') != NULL;

    cli_die("cannot listen on %s%s%s:%s: %s", ipv6 ? "[" : "", cli.bind, ipv6 ? "]" : "",
            cli.port, why);
}

void cli_listening(const struct peer *address)
{
    char host[PEER_HOST_SIZE];
    bool ipv6 = strchr(peer_host(address, host), ':') != NULL;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < LOW_DESCRIPTORS)
        warn(
            "%s: room for fewer than %d clients: as many descriptors are allowed (ulimit -n)\n",
            program, (int)limit.rlim_cur);
    listening = true;
    cli_log("Listening on %s%s%s:%u\n", ipv6 ? "[" : "", host, ipv6 ? "]" : "",
            (unsigned)address->port);
}

void cli_listen(struct net_listener *listener)
{
    const char *why;

    if (net_listen(listener, cli.bind, cli.port, &why) == -1)
        cli_cannot_listen(why);
}

static bool write_all(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, text, n);
        if (written == -1 && errno != EINTR)
            return false;
        text += written > 0 ? written : 0;
        n -= written > 0 ? (size_t)written : 0;
    }
    return true;
}

static bool write_stats(const char *json, size_t n, int ms)
{
    if (stats_path == NULL)
        return true;
    if (stats_fd == -1)
        return write_now(STDOUT_FILENO, json, n, ms);
    /* A second report replaces the first, where there is something to replace, and whoever
     * looks meanwhile does not find nothing. */
    lseek(stats_fd, 0, SEEK_SET);
    return write_all(stats_fd, json, n) &&
           (ftruncate(stats_fd, (off_t)n) == 0 || errno == EINVAL);
}

/* Of what goes to standard output, the JSON may have been asked for, and may then wait for its
 * reader so many milliseconds; the text is a part of the log. */
static bool report(int ms)
{
    char text[REPORT_SIZE];

    write_now(STDOUT_FILENO, text, (size_t)stats_text(text, sizeof text), 0);
    if (write_stats(text, (size_t)stats_json(text, sizeof text), ms))
        return true;
    warn("%s: cannot write '%s': %s\n", program,
         stats_fd == -1 ? "standard output" : stats_path, strerror(errno));
    return false;
}

bool cli_report(void)
{
    return report(0);
}

int cli_finish(void)
{
    alarm(0); /* which would cut the waiting short */
    return report(CLI_GRACE_MS) ? 0 : 1;
}
