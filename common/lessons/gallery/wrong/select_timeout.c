/* Linux counts the time-out down in place. After the first one that passes, it is zero. */
#include <stdio.h>
#include <sys/select.h>
#include <unistd.h>

int main(void)
{
    struct timeval limit = {.tv_usec = 50 * 1000};
    char bytes[100];
    int turns = 0;

    for (;;) {
        fd_set set;

        FD_ZERO(&set);
        FD_SET(0, &set);
        turns++;
        if (select(1, &set, NULL, NULL, &limit) > 0 && read(0, bytes, sizeof bytes) <= 0)
            break;
    }
    printf("%d turns\n", turns);
    return 0;
}
