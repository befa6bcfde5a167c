/* Without the signal send fails with EPIPE, and the server can go on. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    while (send(0, "tick\n", 5, MSG_NOSIGNAL) == 5)
        usleep(1000);
    printf("the client has disconnected; the server goes on\n");
    return 0;
}
