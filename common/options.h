/* The command line that every server has. A usage error is one line that names the option, the
 * value and what was expected, then the usage, on stderr; the exit status is 2. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>

struct options {
    const char *bind, *port; /* as typed; [::1] without its brackets */
    int max_clients;         /* INT_MAX: no limit of ours */
    int idle_timeout_ms;     /* 0: no limit */
    bool quiet;              /* no line per client */
    const char *stats_path;  /* where to write the JSON report; "-" = stdout; NULL = nowhere */
};

/* What the user chose. options_parse fills it; it does not change after that. */
extern const struct options *const options;

/* An option that only one step has. There are three kinds:
 *   - a flag: argument is NULL, and *value becomes 1
 *   - a choice of words: *value becomes the place of the word, 0 for the first
 *   - a whole number from min to max */
struct step_option {
    const char *name;     /* "interval-ms" */
    const char *argument; /* "N"; or "one|two": the words */
    const char *help;
    int *value;
    int min, max;
};

/* Parses the command line. `more` are the step's own options: at most four, then one with a
 * NULL name; or NULL. Exits for --help, --version (status 0) and usage errors (status 2). */
void options_parse(int argc, char **argv, const struct step_option *more);

#endif
