#include "address.h"

#include <arpa/inet.h>
#include <string.h>

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff}; /* ::ffff:0:0/96 */

void address_from_sockaddr(struct address *a, const struct sockaddr *sockaddr)
{
    memset(a, 0, sizeof *a);
    if (sockaddr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sockaddr;
        memcpy(a->ip, mapped, sizeof mapped);
        memcpy(a->ip + sizeof mapped, &in->sin_addr, 4);
        a->port = ntohs(in->sin_port);
    } else if (sockaddr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)sockaddr;
        memcpy(a->ip, &in6->sin6_addr, 16);
        a->port = ntohs(in6->sin6_port);
    }
}

const char *address_host(const struct address *a, char text[ADDRESS_HOST_SIZE])
{
    if (memcmp(a->ip, mapped, sizeof mapped) == 0)
        inet_ntop(AF_INET, a->ip + sizeof mapped, text, ADDRESS_HOST_SIZE);
    else
        inet_ntop(AF_INET6, a->ip, text, ADDRESS_HOST_SIZE);
    return text;
}
