/* Greets each client, one after another, and reads what it sends. The rest is yours. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void stop(int signum)
{
    (void)signum;
    _exit(0);
}

int main(int argc, char *argv[])
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((unsigned short)atoi(argv[argc - 1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    signal(SIGTERM, stop);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) == -1 ||
        listen(listener, 100) == -1) {
        perror("server");
        return 1;
    }
    for (;;) {
        char bytes[4096];
        int client = accept(listener, NULL, NULL);

        send(client, "*", 1, 0);
        while (recv(client, bytes, sizeof bytes, 0) > 0)
            ; /* stage 2: answer them */
        close(client);
    }
}
