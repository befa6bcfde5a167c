/* Threads that serve clients: how they start and how a stop ends them. */
#ifndef THREADS_H
#define THREADS_H

/* Starts a thread that calls run(argument). Its stack has 256 KiB of addresses (the default
 * reserves 8 MiB for each). It takes no signals, which are for the first thread. Returns 0, or
 * an error number as pthread_create(3) does. */
int threads_start(void (*run)(void *), void *argument);

/* Ends all threads: interrupts the calls in which they sleep (EINTR), again and again, and
 * returns when all have returned from run. Call it after stop_requested, which makes the calls
 * of stream.h give up. */
void threads_stop(void);

#endif
