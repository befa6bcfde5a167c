/* default_stacks - this step's server with the system's default stack size for each thread. For
 * demos/idle_threads.py, which shows what the size changes. */
#include <pthread.h>

#define pthread_attr_setstacksize(attributes, size) ((void)(attributes), (void)(size))
#include "../../common/threads.c" /* NOLINT(bugprone-suspicious-include): it sets the size */
#include "../server.c"            /* NOLINT(bugprone-suspicious-include) */
