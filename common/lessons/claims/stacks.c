/* stacks - THREADS threads: each touches BYTES bytes of its stack, and sleeps.
 *
 *     stacks THREADS BYTES      writes how many there are, and sleeps until it is ended
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static size_t touched;
static pthread_barrier_t all;

static void *use_stack(void *unused)
{
    volatile char bytes[touched];

    (void)bytes;
    for (size_t at = 0; at < touched; at += 1024)
        bytes[at] = 1;
    pthread_barrier_wait(&all);
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv)
{
    long threads = argc == 3 ? strtol(argv[1], NULL, 10) : 0;
    pthread_t thread;
    long started = 0;

    if (threads <= 0)
        return 2;
    touched = strtoul(argv[2], NULL, 10);
    pthread_barrier_init(&all, NULL, (unsigned)threads + 1);
    while (started < threads && pthread_create(&thread, NULL, use_stack, NULL) == 0)
        started++;
    if (started == threads)
        pthread_barrier_wait(&all);
    printf("%ld threads\n", started);
    fflush(stdout);
    for (;;)
        pause();
}
