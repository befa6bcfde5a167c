/* default_stacks - this step's server with STACK_SIZE left out: each thread's stack is as large
 * as the system's default. For demos/idle_threads.py, which shows what that changes. */
#include <pthread.h>

#define pthread_attr_setstacksize(attributes, size) ((void)(attributes), (void)(size))
#include "../server.c" /* NOLINT(bugprone-suspicious-include): the same server, but for this */
