/* Without a free descriptor accept fails. The client stays in the queue, and poll returns. */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    struct rlimit few = {8, 8};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct pollfd watched = {.fd = listener, .events = POLLIN};

    if (bind(listener, (struct sockaddr *)&address, sizeof address) == -1 ||
        listen(listener, SOMAXCONN) == -1)
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("Listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    setrlimit(RLIMIT_NOFILE, &few);
    while (poll(&watched, 1, -1) > 0)
        accept(listener, NULL, NULL); /* the clients are idle, and stay */
    return 1;
}
