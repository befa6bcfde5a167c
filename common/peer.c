#include "peer.h"

#include <arpa/inet.h>
#include <string.h>

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff}; /* ::ffff:0:0/96 */

void peer_from_sockaddr(struct peer *p, const struct sockaddr *address)
{
    memset(p, 0, sizeof *p);
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        memcpy(p->address, mapped, sizeof mapped);
        memcpy(p->address + sizeof mapped, &in->sin_addr, 4);
        p->port = ntohs(in->sin_port);
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        memcpy(p->address, &in6->sin6_addr, 16);
        p->port = ntohs(in6->sin6_port);
    }
}

const char *peer_host(const struct peer *p, char text[PEER_HOST_SIZE])
{
    if (memcmp(p->address, mapped, sizeof mapped) == 0)
        inet_ntop(AF_INET, p->address + sizeof mapped, text, PEER_HOST_SIZE);
    else
        inet_ntop(AF_INET6, p->address, text, PEER_HOST_SIZE);
    return text;
}
