/* load_options.h - the command line of the load client. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "load_wire.h"

enum { EXIT_OK = 0, EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_NO_CONNECTION = 3 };

enum { THREADS_MAX = 1024 };

struct load_options {
    const char *host, *port;
    enum load_mode mode;
    uint64_t connections, idle, pipeline, threads;
    uint64_t size;   /* bytes of a message on the wire */
    bool bulk;       /* messages of `size` are streamed */
    double rate;     /* messages a second; 0: closed loop */
    double ramp;     /* connections a second; 0: at once */
    double duration; /* seconds, like the next three */
    double warmup;
    double think;
    double interval;
    char *sources;                 /* ADDR,ADDR... or NULL */
    pid_t server_pid;              /* 0: unknown */
    const char *json, *csv, *hgrm; /* files, "-" for standard output, or NULL */
};

extern const char *const load_mode_names[];

/* Fills in *o, or ends the program: with EXIT_OK after --help and --version, with EXIT_USAGE
 * and a message that names the option, its value and what was expected. */
void load_options_parse(struct load_options *o, int argc, char **argv);

/* Prints what is wrong with the command line and ends the program. */
_Noreturn void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
