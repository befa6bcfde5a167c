/* poll also reports POLLHUP, which nobody asked for. A loop that ignores it spins. */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    struct pollfd watched = {.fd = 0, .events = POLLIN};
    char bytes[100];

    while (poll(&watched, 1, -1) > 0)
        if (watched.revents & POLLIN)
            if (read(0, bytes, sizeof bytes) <= 0)
                break;
    printf("the writer has closed\n");
    return 0;
}
