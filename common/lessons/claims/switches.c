/* switches - what a context switch costs: two processes wake each other in turn.
 *
 *     taskset -c 0 switches KILOBYTES      microseconds for one switch
 *
 * After each switch a process reads this much memory of its own. How long the reading takes
 * without a switch is measured first, and subtracted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 64, STEP = 5501, ROUNDS = 50, TRIES = 60 };

/* The lines of the memory, in an order that no processor foresees: each names the next. */
struct line {
    size_t next;
    char rest[LINE - sizeof(size_t)];
};
static struct line *memory;
static size_t lines;
static volatile size_t at;

static void use_memory(void)
{
    size_t here = at;

    for (size_t i = 0; i < lines; i++)
        here = memory[here].next;
    at = here;
}

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Each turn reads one byte, uses the memory, and passes the byte on. */
static void turns(int from, int to)
{
    char byte;

    for (int i = 0; i < ROUNDS; i++) {
        if (read(from, &byte, 1) != 1)
            _exit(1);
        use_memory();
        if (write(to, &byte, 1) != 1)
            _exit(1);
    }
}

/* After fork both processes have the same memory, until one of them writes to it. */
static void own_memory(void)
{
    for (size_t i = 0; i < lines; i++)
        memory[i].rest[0] = 1;
}

static double round_trips(void)
{
    int there[2], back[2];
    char byte;

    if (pipe(there) == -1 || pipe(back) == -1)
        return -1;
    pid_t child = fork();
    if (child == 0) {
        own_memory();
        if (write(back[1], "xx", 2) != 2) /* ready, and the first turn */
            _exit(1);
        turns(there[0], back[1]);
        _exit(0);
    }
    if (read(back[0], &byte, 1) != 1)
        return -1;
    double began = now_us();
    turns(back[0], there[1]);
    double ended = now_us();
    waitpid(child, NULL, 0);
    close(there[0]), close(there[1]), close(back[0]), close(back[1]);
    return (ended - began) / (2 * ROUNDS);
}

static double reading_alone(void)
{
    double began = now_us();

    for (int i = 0; i < ROUNDS; i++)
        use_memory();
    return (now_us() - began) / ROUNDS;
}

int main(int argc, char **argv)
{
    double alone = 1e9, switched = 1e9;

    lines = argc == 2 ? strtoul(argv[1], NULL, 10) * 1024 / sizeof *memory : 0;
    memory = calloc(lines + 1, sizeof *memory);
    if (memory == NULL)
        return 1;
    for (size_t i = 0; i < lines; i++)
        memory[i].next = (i + STEP) % lines;
    for (int i = 0; i < TRIES; i++) {
        double again = reading_alone();
        alone = again < alone ? again : alone;
        again = round_trips();
        switched = again < switched ? again : switched;
    }
    printf("%.2f microseconds a switch, with %zu lines of memory\n", switched - alone, lines);
    return 0;
}
