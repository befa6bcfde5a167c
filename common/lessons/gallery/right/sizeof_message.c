/* The format bounds what scanf stores, and strlen says how long the line is. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(void)
{
    char message[100];

    while (scanf("%99[^\n]%*c", message) == 1)
        if (send(1, message, strlen(message), 0) == -1)
            return 1;
    return 0;
}
