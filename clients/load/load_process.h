/* load_process.h - what the kernel says about a process: the server's, and our own. */
#ifndef LOAD_PROCESS_H
#define LOAD_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The process and its children added up, for a server may be a process per client. */
struct process_sight {
    uint64_t resident; /* bytes; of a child, only what it does not share */
    uint64_t threads;
    uint64_t processes;
    uint64_t voluntary; /* context switches of all threads that live now */
    uint64_t involuntary;
};

/* Why a process cannot be looked at here, in words; NULL if it can. */
const char *process_obstacle(pid_t pid);

/* The rest gives zeroes where there is no /proc, and once the process is gone. */

/* Seconds of CPU, user and system, since the process began; its children's included. Cheap
 * enough for the edge of a measured window. */
double process_cpu(pid_t pid);
/* Seconds that its threads have waited for a CPU while others were using it. */
double process_delay(pid_t pid);
void process_look(pid_t pid, struct process_sight *sight); /* reads files for each thread */

#endif
