/* load_report.h - the results of a run of the load client, and the forms of the report. */
#ifndef LOAD_REPORT_H
#define LOAD_REPORT_H

#include <stdio.h>

#include "load_options.h"
#include "load_process.h"
#include "load_worker.h"

struct load_result {
    const struct load_options *options;
    char address[80];      /* of the server, numeric */
    struct tally tally;    /* of all workers; messages and bytes within the window */
    struct hist *latency;  /* from when each message was due */
    struct hist *service;  /* from when it was sent; the same histogram in a closed loop */
    uint64_t unanswered;   /* of the messages due in the window */
    uint64_t least, most;  /* messages answered per connection */
    double opening;        /* seconds until the connections were made */
    double window;         /* seconds measured */
    double client_cpu;     /* seconds of CPU the load client used in them, */
    double client_delay;   /* and seconds it waited for one */
    const char *no_server; /* why there are no figures of the server; NULL: there are */
    double server_cpu;     /* seconds of CPU it used in the window */
    struct process_sight alone, ready, loaded; /* before the first connection, before the
                                                 first message, at the window's end */
    const char *first_error;                   /* in words; empty if there was none */
    bool interrupted;
    uint64_t missing;    /* messages without an answer when the server stopped answering */
    const char *problem; /* why the exit status is not 0; NULL if all is well */
    int status;
};

void report_text(FILE *out, const struct load_result *r);
void report_json(FILE *out, const struct load_result *r);
void report_hgrm(FILE *out, const struct hist *h);
void report_csv_header(FILE *out);
/* Writes a row for the interval that ended `elapsed` seconds into the window: `sum` less
 * `before`. */
void report_csv_row(FILE *out, double elapsed, double seconds, const struct tally *sum,
                    const struct tally *before, const struct hist *recent);

/* Connections, active and idle, that were made but not greeted, or were never tried. */
uint64_t result_waiting(const struct load_result *r);

#endif
