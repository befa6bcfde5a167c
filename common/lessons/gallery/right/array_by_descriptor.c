/* The place in the array is the index, whatever the descriptor is. */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

enum { MAX_CLIENTS = 10 };

static int bytes_of[MAX_CLIENTS];

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    struct pollfd fds[MAX_CLIENTS + 1] = {{.events = POLLIN}};
    nfds_t count = 1;
    int listener = fds[0].fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&address, sizeof address) == -1 ||
        listen(listener, SOMAXCONN) == -1)
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("Listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    while (poll(fds, count, -1) > 0) {
        for (nfds_t i = 1; i < count; i++) {
            char byte;
            if (fds[i].revents && recv(fds[i].fd, &byte, 1, 0) == 1)
                printf("%d bytes\n", ++bytes_of[i - 1]);
            else if (fds[i].revents)
                return 0;
        }
        if (fds[0].revents && count <= MAX_CLIENTS)
            fds[count++] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
    }
    return 1;
}
