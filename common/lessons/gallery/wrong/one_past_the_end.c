/* A full read leaves no room for the zero byte. */
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    char buffer[64];
    ssize_t n;

    while ((n = recv(0, buffer, sizeof buffer, 0)) > 0) {
        buffer[n] = '\0';
        printf("received: %s\n", buffer);
    }
    return 0;
}
