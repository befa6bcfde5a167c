/* bare - the sequential server as tutorials print it: system calls, nothing of common/.
 * Usage: bare PORT. The README beside this file shows which promises it breaks. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void serve_client(int fd)
{
    char bytes[1024];
    int in_message = 0;
    ssize_t n;

    send(fd, "*", 1, 0);
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
        size_t answers = 0;
        for (ssize_t i = 0; i < n; i++)
            if (!in_message)
                in_message = bytes[i] == '^';
            else if (bytes[i] == '$')
                in_message = 0;
            else
                bytes[answers++] = (char)(bytes[i] + 1);
        send(fd, bytes, answers, 0);
    }
}

int main(int argc, char **argv)
{
    uint16_t port = (uint16_t)(argc > 1 ? atoi(argv[1]) : 8080);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener, (struct sockaddr *)&address, sizeof address); /* NOLINT: not checked */
    listen(listener, 10);
    printf("Listening on 127.0.0.1:%u\n", (unsigned)port);
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        serve_client(fd);
        close(fd);
    }
}
