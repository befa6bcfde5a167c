// Greets each client, one after another, and reads what it sends. The rest is yours.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<unsigned short>(std::atoi(argv[argc - 1])));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    std::signal(SIGTERM, [](int) { _exit(0); });
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, reinterpret_cast<sockaddr *>(&address), sizeof address) == -1 ||
        listen(listener, 100) == -1) {
        std::perror("server");
        return 1;
    }
    for (;;) {
        char bytes[4096];
        int client = accept(listener, nullptr, nullptr);

        send(client, "*", 1, 0);
        while (recv(client, bytes, sizeof bytes, 0) > 0) {
            // stage 2: answer them
        }
        close(client);
    }
}
