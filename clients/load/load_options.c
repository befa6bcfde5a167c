/* load_options.c - see load_options.h. */
#include "load_options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const load_mode_names[] = {"echo", "raw", "redis"};

static const char HELP[] =
    "Usage: load-client [OPTION]... HOST PORT\n"
    "       load-client [OPTION]... HOST:PORT | [ADDRESS]:PORT\n"
    "Puts load on an echo server, verifies every byte of its answers, and reports figures.\n"
    "\n"
    "Load\n"
    "  -c, --connections N    connections that send and receive (10)\n"
    "  -d, --duration S       seconds measured (10)\n"
    "  -w, --warmup S         seconds of traffic before that, not measured (1)\n"
    "  -s, --size BYTES       bytes of a message as sent, the ^ and the $ included (32:\n"
    "                         30 bytes of payload, 30 bytes of answer)\n"
    "  -P, --pipeline DEPTH   messages in flight per connection (1)\n"
    "  -r, --rate R           open loop: R messages a second in total, by a schedule that "
    "does\n"
    "                         not wait for the server; latency counts from when each was due\n"
    "                         (default: closed loop, the next message after the answer)\n"
    "      --think-ms MS      closed loop: pause between an answer and the next message (0)\n"
    "  -i, --idle M           more connections, which stay idle (0)\n"
    "      --ramp N           open N connections a second (default: as fast as they go)\n"
    "      --bulk BYTES       one connection streams messages of BYTES in writes of 64 KiB\n"
    "                         without waiting for answers; the result is MB/s\n"
    "  -t, --threads T        threads, an event loop each (1)\n"
    "      --source A,A...    connect from these addresses in turn, such as\n"
    "                         127.0.0.2,127.0.0.3: an address has about 28,000 ports\n"
    "  -m, --mode MODE        echo: the protocol of this course (default); raw: a server that\n"
    "                         sends back what it receives; redis: PING\n"
    "\n"
    "Report\n"
    "      --server-pid PID   report the CPU, memory and threads of this process as well\n"
    "      --json FILE        the report as JSON\n"
    "      --csv FILE         one row per interval\n"
    "      --interval S       seconds of an interval (1)\n"
    "      --hgrm FILE        latency percentiles in the text form of HdrHistogram\n"
    "                         (FILE may be -, standard output, in place of the report)\n"
    "  -h, --help             this text\n"
    "  -V, --version          the version\n"
    "\n"
    "BYTES may end in K, M or G (1024 each), S and MS may have a fraction.\n"
    "Exit status: 0 all answers were right; 1 a byte was wrong, a connection was lost, or\n"
    "answers never came; 2 wrong command line; 3 a connection could not be made or was not\n"
    "greeted.\n";

void usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load-client: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\nTry 'load-client --help'.\n", stderr);
    va_end(arguments);
    exit(EXIT_USAGE);
}

static double number(const char *option, const char *text, double min, double max,
                     const char *expected)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(value) || value < min || value > max)
        usage_error("--%s %s: expected %s", option, text, expected);
    return value;
}

static uint64_t whole(const char *option, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < min || value > max)
        usage_error("--%s %s: expected a whole number from %llu to %llu", option, text,
                    (unsigned long long)min, (unsigned long long)max);
    return value;
}

static uint64_t bytes(const char *option, const char *text)
{
    static const char suffixes[] = "KMG";
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    const char *suffix = *end ? strchr(suffixes, *end) : NULL;
    int shift = suffix ? 10 * (int)(suffix - suffixes + 1) : 0;

    if (*text < '0' || *text > '9' || (*end && (!suffix || end[1])) || errno || value == 0 ||
        value > (UINT64_C(1) << 50 >> shift))
        usage_error("--%s %s: expected a number of bytes from 1 on, such as 32 or 64K", option,
                    text);
    return (uint64_t)value << shift;
}

static enum load_mode mode(const char *text)
{
    for (int i = MODE_ECHO; i <= MODE_REDIS; i++)
        if (strcmp(text, load_mode_names[i]) == 0)
            return (enum load_mode)i;
    usage_error("--mode %s: expected echo, raw or redis", text);
}

/* Takes HOST and PORT, or with port NULL the forms HOST:PORT and [ADDRESS]:PORT. */
static void address(struct load_options *o, char *host, char *port)
{
    char *colon = strchr(host, ':'), *bracket = *host == '[' ? strchr(host, ']') : NULL;

    if (bracket && !(port ? bracket[1] == '\0' : bracket[1] == ':'))
        usage_error("%s: expected [ADDRESS] PORT or [ADDRESS]:PORT", host);
    if (!bracket && port && colon && colon == strrchr(host, ':'))
        usage_error("%s %s: expected one port, got two", host, port);
    if (!bracket && !port && (!colon || colon != strrchr(host, ':')))
        usage_error("%s: expected HOST PORT, HOST:PORT or [ADDRESS]:PORT", host);
    if (!port)
        port = bracket ? bracket + 2 : colon + 1;
    if (bracket) {
        *bracket = '\0';
        host++;
    } else if (colon && colon + 1 == port) {
        *colon = '\0';
    }
    if (!*host)
        usage_error("port %s: expected a host before it", port);
    whole("port", port, 1, 65535);
    o->host = host;
    o->port = port;
}

enum {
    OPT_THINK = 256,
    OPT_RAMP,
    OPT_BULK,
    OPT_SOURCE,
    OPT_PID,
    OPT_JSON,
    OPT_CSV,
    OPT_INTERVAL,
    OPT_HGRM,
};

static const struct option OPTIONS[] = {
    {"connections", required_argument, NULL, 'c'},
    {"duration", required_argument, NULL, 'd'},
    {"warmup", required_argument, NULL, 'w'},
    {"size", required_argument, NULL, 's'},
    {"pipeline", required_argument, NULL, 'P'},
    {"rate", required_argument, NULL, 'r'},
    {"think-ms", required_argument, NULL, OPT_THINK},
    {"idle", required_argument, NULL, 'i'},
    {"ramp", required_argument, NULL, OPT_RAMP},
    {"bulk", required_argument, NULL, OPT_BULK},
    {"threads", required_argument, NULL, 't'},
    {"source", required_argument, NULL, OPT_SOURCE},
    {"mode", required_argument, NULL, 'm'},
    {"server-pid", required_argument, NULL, OPT_PID},
    {"json", required_argument, NULL, OPT_JSON},
    {"csv", required_argument, NULL, OPT_CSV},
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"hgrm", required_argument, NULL, OPT_HGRM},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* Rejects options that contradict each other or the mode. */
static void check_contradictions(const struct load_options *o, const char *size,
                                 const char *pipeline, const char *connections)
{
    if (o->bulk && (size || pipeline))
        usage_error("--bulk gives the size itself and waits for no answer: expected no --%s",
                    size ? "size" : "pipeline");
    if (o->bulk && (o->rate > 0 || o->think > 0))
        usage_error("--bulk streams as fast as it can: expected no --%s",
                    o->rate > 0 ? "rate" : "think-ms");
    if (o->bulk && connections && o->connections > 1)
        usage_error("--bulk uses one connection: expected no --connections");
    if (o->rate > 0 && o->think > 0)
        usage_error(
            "--rate keeps a schedule, which --think-ms would break: expected one of them");
    if (o->mode == MODE_REDIS && (o->bulk || size))
        usage_error("--mode redis always sends the same PING: expected no --%s",
                    o->bulk ? "bulk" : "size");
    if (o->mode == MODE_ECHO && o->size < 3)
        usage_error("--%s %llu: expected at least 3 bytes: the ^, one of payload, the $",
                    o->bulk ? "bulk" : "size", (unsigned long long)o->size);
    if (o->threads > o->connections)
        usage_error("--threads %llu: expected no more than there are connections (%llu)",
                    (unsigned long long)o->threads, (unsigned long long)o->connections);
    const char *files[] = {o->json, o->csv, o->hgrm};
    int to_stdout = 0;
    for (int i = 0; i < 3; i++)
        to_stdout += files[i] && strcmp(files[i], "-") == 0;
    if (to_stdout > 1)
        usage_error("only one of --json, --csv and --hgrm can be - (standard output)");
}

void load_options_parse(struct load_options *o, int argc, char **argv)
{
    const char *size = NULL, *pipeline = NULL, *connections = NULL;
    int letter, index = 0;

    *o = (struct load_options){.connections = 10,
                               .pipeline = 1,
                               .threads = 1,
                               .size = 32,
                               .duration = 10,
                               .warmup = 1,
                               .interval = 1};
    opterr = 0; /* its messages would begin with our path */
    while ((letter = getopt_long(argc, argv, ":c:d:w:s:P:r:i:t:m:hV", OPTIONS, &index)) != -1) {
        switch (letter) {
        case 'c':
            connections = optarg;
            o->connections = whole("connections", optarg, 1, 1000000);
            break;
        case 'd':
            o->duration = number("duration", optarg, 0.001, 1e6, "seconds from 0.001 on");
            break;
        case 'w':
            o->warmup = number("warmup", optarg, 0, 1e6, "seconds from 0 on");
            break;
        case 's':
            size = optarg;
            o->size = bytes("size", optarg);
            break;
        case 'P':
            pipeline = optarg;
            o->pipeline = whole("pipeline", optarg, 1, 65536);
            break;
        case 'r':
            o->rate = number("rate", optarg, 0.001, 1e8, "messages a second from 0.001 on");
            break;
        case OPT_THINK:
            o->think = number("think-ms", optarg, 0, 1e9, "milliseconds from 0 on") / 1000;
            break;
        case 'i':
            o->idle = whole("idle", optarg, 0, 1000000);
            break;
        case OPT_RAMP:
            o->ramp = number("ramp", optarg, 0.001, 1e8, "connections a second from 0.001 on");
            break;
        case OPT_BULK:
            o->bulk = true;
            o->size = bytes("bulk", optarg);
            break;
        case 't':
            o->threads = whole("threads", optarg, 1, THREADS_MAX);
            break;
        case OPT_SOURCE:
            o->sources = optarg;
            break;
        case 'm':
            o->mode = mode(optarg);
            break;
        case OPT_PID:
            o->server_pid = (pid_t)whole("server-pid", optarg, 1, 0x7fffffff);
            break;
        case OPT_JSON:
            o->json = optarg;
            break;
        case OPT_CSV:
            o->csv = optarg;
            break;
        case OPT_INTERVAL:
            o->interval = number("interval", optarg, 0.001, 1e6, "seconds from 0.001 on");
            break;
        case OPT_HGRM:
            o->hgrm = optarg;
            break;
        case 'h':
            fputs(HELP, stdout);
            exit(EXIT_OK);
        case 'V':
            puts("load-client 1.0");
            exit(EXIT_OK);
        case ':':
            usage_error("%s: expected a value", argv[optind - 1]);
        default:
            if (optopt != 0 && strncmp(argv[optind - 1], "--", 2) != 0)
                usage_error("-%c: there is no such option", optopt);
            usage_error("%s: there is no such option, or it takes no value", argv[optind - 1]);
        }
    }
    if (argc - optind != 1 && argc - optind != 2)
        usage_error("expected HOST and PORT, got %d arguments", argc - optind);
    address(o, argv[optind], argv[optind + 1]);
    if (o->bulk && !connections)
        o->connections = 1;
    check_contradictions(o, size, pipeline, connections);
}
