/* The zero byte has a place of its own. */
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    char buffer[64];
    ssize_t n;

    while ((n = recv(0, buffer, sizeof buffer - 1, 0)) > 0) {
        buffer[n] = '\0';
        printf("received: %s\n", buffer);
    }
    return 0;
}
