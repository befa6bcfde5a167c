/* The same tests of stop.h with a pipe in place of Linux's eventfd, as on other systems. This
 * program has its own copy of the module, so the linker does not take the library's. */
#define STOP_USES_PIPE
/* NOLINTBEGIN(bugprone-suspicious-include) */
#include "../stop.c"
#include "test_stop.c"
/* NOLINTEND(bugprone-suspicious-include) */
