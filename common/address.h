/* An address as a server logs it: a numeric host and a port. No name, so no DNS and no wait.
 * IPv4 is kept as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2). That makes an address 18
 * bytes, small enough for every connection. The scope of a link-local address is not kept. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

enum { ADDRESS_HOST_SIZE = INET6_ADDRSTRLEN };

struct address {
    unsigned char ip[16]; /* network byte order */
    uint16_t port;        /* host byte order */
};

/* Takes the address out of an AF_INET or AF_INET6 sockaddr. Any other family gives [::]:0. */
void address_from_sockaddr(struct address *a, const struct sockaddr *sockaddr);

/* Writes the numeric host ("127.0.0.1", "::1") to text and returns text. */
const char *address_host(const struct address *a, char text[ADDRESS_HOST_SIZE]);

#endif
