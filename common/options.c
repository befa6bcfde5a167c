#include "options.h"
#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEP_OPTIONS_MAX = 4,    /* options of its own that a step may have */
    STEP_OPTION_FIRST = 256, /* their codes for getopt_long begin here */
    HELP_COLUMN = 30,        /* where the texts of --help begin */
};

static struct options chosen = {.bind = "127.0.0.1", .port = "8080", .max_clients = INT_MAX};
const struct options *const options = &chosen;

static const struct option common_options[] = {
    {"port", required_argument, NULL, 'p'},
    {"bind", required_argument, NULL, 'b'},
    {"max-clients", required_argument, NULL, 'm'},
    {"idle-timeout", required_argument, NULL, 'i'},
    {"quiet", no_argument, NULL, 'q'},
    {"stats", required_argument, NULL, 's'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
};
enum { COMMON_OPTIONS = sizeof common_options / sizeof *common_options };

static const struct step_option *step_options;

static void print_usage(FILE *out)
{
    fprintf(out,
            "Usage: %s [OPTION]... [PORT]\n"
            "  -p, --port PORT             port to listen on (default 8080; 0 = any free one)\n"
            "  -b, --bind ADDR             address or name to listen on (default 127.0.0.1)\n"
            "  -m, --max-clients N         serve at most N clients at a time, reject others\n"
            "  -i, --idle-timeout SECONDS  close clients that are idle for this long\n"
            "                              (default 0 = never)\n"
            "  -q, --quiet                 print no line per client\n"
            "  -s, --stats FILE            at exit and on SIGUSR1 write the cost counters\n"
            "                              as JSON (- = stdout)\n"
            "  -h, --help                  print this text\n"
            "  -V, --version               print the version\n",
            log_program());
    for (const struct step_option *o = step_options; o != NULL && o->name != NULL; o++) {
        int width = fprintf(out, "      --%s%s%s", o->name, o->argument ? " " : "",
                            o->argument ? o->argument : "");
        fprintf(out, "%s%*s%s\n", width < HELP_COLUMN ? "" : "\n",
                width < HELP_COLUMN ? HELP_COLUMN - width : HELP_COLUMN, "", o->help);
    }
}

__attribute__((format(printf, 1, 2))) _Noreturn static void usage_error(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s: ", log_program());
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    print_usage(stderr);
    exit(2);
}

/* What the user asked for is on stdout now, or could not be written. */
_Noreturn static void exit_after_output(void)
{
    if (fflush(stdout) != 0)
        log_die("cannot write to standard output: %s", strerror(errno));
    exit(0);
}

static int parse_int(const char *option, const char *value, int min, int max)
{
    char *end;

    errno = 0;
    long n = strtol(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end != '\0' || errno != 0 || n < min || n > max) {
        if (max == INT_MAX)
            usage_error("%s: '%s' is not a whole number of %d or more", option, value, min);
        usage_error("%s: '%s' is not a whole number from %d to %d", option, value, min, max);
    }
    return (int)n;
}

/* Returns the place of the value among words that are separated by '|'. */
static int parse_word(const char *option, const char *value, const char *words)
{
    int place = 0;

    for (const char *word = words;; word++, place++) {
        size_t n = strcspn(word, "|");
        if (n == strlen(value) && strncmp(word, value, n) == 0)
            return place;
        word += n;
        if (*word == '\0')
            usage_error("%s: '%s' is not one of %s", option, value, words);
    }
}

static int parse_seconds(const char *option, const char *value)
{
    enum { MAX_SECONDS = 86400 };
    char *end;
    double seconds = strtod(value, &end);

    if (!isdigit((unsigned char)*value) || value[strspn(value, "0123456789.")] != '\0' ||
        *end != '\0' || !(seconds >= 0 && seconds <= MAX_SECONDS) ||
        (seconds > 0 && seconds < 0.001))
        usage_error("%s: '%s' is not a number of seconds from 0.001 to %d, or 0 for never",
                    option, value, MAX_SECONDS);
    return (int)(seconds * 1000);
}

static void set_port(const char *option, const char *value)
{
    parse_int(option, value, 0, 65535);
    chosen.port = value;
}

static void set_stats(const char *value)
{
    if (*value == '\0')
        usage_error("--stats: the name of the file is empty");
    chosen.stats_path = value;
}

/* Accepts [::1], too, because addresses are printed like that. */
static void set_bind(char *value)
{
    size_t n = strlen(value);

    if (n > 2 && value[0] == '[' && value[n - 1] == ']') {
        value[n - 1] = '\0';
        value++;
    }
    if (*value == '\0')
        usage_error("--bind: the address is empty");
    chosen.bind = value;
}

static void set_step_option(const struct step_option *option, const char *value)
{
    char name[64];

    snprintf(name, sizeof name, "--%s", option->name);
    if (option->argument == NULL)
        *option->value = 1;
    else if (strchr(option->argument, '|') != NULL)
        *option->value = parse_word(name, value, option->argument);
    else
        *option->value = parse_int(name, value, option->min, option->max);
}

/* getopt_long's own messages name neither what was wrong nor what was expected. */
_Noreturn static void bad_option(int code, char **argv, const struct option *known)
{
    const char *word = argv[optind - 1];

    if (code == ':')
        usage_error("option '%s' needs a value", word);
    for (const struct option *o = known; o->name != NULL; o++)
        if (optopt == o->val && strncmp(word, "--", 2) == 0)
            usage_error("option '--%s' takes no value", o->name);
    if (optopt != 0) /* one of several letters; `word` may be the argument after them */
        usage_error("unknown option '-%c'", optopt);
    usage_error("unknown or ambiguous option '%s'", word);
}

void options_parse(int argc, char **argv, const struct step_option *more)
{
    struct option known[COMMON_OPTIONS + STEP_OPTIONS_MAX + 1] = {0};
    int code;

    step_options = more;
    memcpy(known, common_options, sizeof common_options);
    for (int i = 0; i < STEP_OPTIONS_MAX && more != NULL && more[i].name != NULL; i++)
        known[COMMON_OPTIONS + i] =
            (struct option){more[i].name, more[i].argument ? required_argument : no_argument,
                            NULL, STEP_OPTION_FIRST + i};
    opterr = 0;
    while ((code = getopt_long(argc, argv, ":p:b:m:i:qs:hV", known, NULL)) != -1) {
        switch (code) {
        case 'p':
            set_port("--port", optarg);
            break;
        case 'b':
            set_bind(optarg);
            break;
        case 'm':
            chosen.max_clients = parse_int("--max-clients", optarg, 1, INT_MAX);
            break;
        case 'i':
            chosen.idle_timeout_ms = parse_seconds("--idle-timeout", optarg);
            break;
        case 'q':
            chosen.quiet = true;
            break;
        case 's':
            set_stats(optarg);
            break;
        case 'h':
            print_usage(stdout);
            exit_after_output();
        case 'V':
            puts("echo server 1.0");
            exit_after_output();
        default:
            if (code < STEP_OPTION_FIRST || more == NULL)
                bad_option(code, argv, known);
            set_step_option(&more[code - STEP_OPTION_FIRST], optarg);
        }
    }
    if (optind < argc)
        set_port("PORT", argv[optind++]);
    if (optind < argc)
        usage_error("unexpected argument '%s': at most one PORT is expected", argv[optind]);
}
