/* baseline.c - the lower bound for every echo server: the smallest level-triggered epoll loop
 * that sends back what it receives. It has no protocol, no state per client and no back
 * pressure, so it costs what the kernel costs. The benchmark states the servers' cost as a
 * multiple of this. Like them it takes a port (0: any free one) and prints where it listens. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_on(const char *port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t length = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    addr.sin_port = htons((unsigned short)atoi(port));
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&addr, sizeof addr) || listen(fd, SOMAXCONN) ||
        getsockname(fd, (struct sockaddr *)&addr, &length)) {
        perror("baseline");
        exit(1);
    }
    printf("Listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    static struct epoll_event events[512];
    static char bytes[65536];

    if (argc > 2 || (argc == 2 && strspn(argv[1], "0123456789") != strlen(argv[1]))) {
        bool help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: baseline [PORT]\n");
        return help ? EXIT_SUCCESS : 2;
    }
    int on = 1, listener = listen_on(argc > 1 ? argv[1] : "8080"), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};

    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                event.data.fd = accept(listener, NULL, NULL);
                setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
            } else {
                ssize_t got = recv(fd, bytes, sizeof bytes, 0);
                if (got <= 0 || send(fd, bytes, (size_t)got, MSG_NOSIGNAL) < 0)
                    close(fd);
            }
        }
    }
}
