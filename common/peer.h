/* An address as a server logs it: numeric host and port, never a name, so no DNS and no wait.
 * IPv4 is kept as IPv6 (RFC 4291, 2.5.5.2), which makes a peer 18 bytes: small enough to live
 * in every connection. The scope of a link-local address is not kept. */
#ifndef PEER_H
#define PEER_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

enum { PEER_HOST_SIZE = INET6_ADDRSTRLEN };

struct peer {
    unsigned char address[16]; /* network byte order */
    uint16_t port;             /* host byte order */
};

/* Takes the address out of an AF_INET or AF_INET6 sockaddr; any other family gives [::]:0. */
void peer_from_sockaddr(struct peer *p, const struct sockaddr *address);

/* Writes the numeric host ("127.0.0.1", "::1") to text and returns text. */
const char *peer_host(const struct peer *p, char text[PEER_HOST_SIZE]);

#endif
