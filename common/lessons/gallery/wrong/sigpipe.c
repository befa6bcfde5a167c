/* The second send after the client has closed raises SIGPIPE, which ends the server. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    while (send(0, "tick\n", 5, 0) == 5)
        usleep(1000);
    printf("the client has disconnected; the server goes on\n");
    return 0;
}
