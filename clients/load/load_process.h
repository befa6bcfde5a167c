/* load_process.h - the kernel's figures about a process: the server, and this client. */
#ifndef LOAD_PROCESS_H
#define LOAD_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The sum over the process and its children: a server may fork for each client. */
struct process_sight {
    uint64_t resident; /* bytes; of a child, only what it does not share */
    uint64_t threads;
    uint64_t processes;
    uint64_t voluntary; /* context switches of all threads that live now */
    uint64_t involuntary;
};

/* Why the figures of a process are not available, in words; NULL if they are. */
const char *process_obstacle(pid_t pid);

/* The functions below return zeroes without /proc, and after the process has ended. */

/* Seconds of CPU, user and system, since the process began, with those of its children. Cheap
 * enough for the begin and the end of a measured window. */
double process_cpu(pid_t pid);
/* Seconds that its threads have waited for a CPU while others were using it. */
double process_delay(pid_t pid);
void process_look(pid_t pid, struct process_sight *sight); /* reads files for each thread */

#endif
