/* load_wire.h - the bytes on the wire: one message, repeated for ever, and the answers to it.
 *
 * Both are known before the first byte is sent, so sending copies nothing and verifying is a
 * memcmp. A short message is stored repeatedly, so that a window of bytes from any position is
 * contiguous, whatever number of messages it covers. For a long one only the seam (its end and
 * its beginning) and one period of its body are stored. So a message of 64 GiB needs as little
 * memory as one of 256 KiB.
 */
#ifndef LOAD_WIRE_H
#define LOAD_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum load_mode { MODE_ECHO, MODE_RAW, MODE_REDIS };

enum { WIRE_WINDOW = 65536 }; /* the most bytes that are sent or verified at a time */

struct wire {
    uint64_t length;      /* of one message */
    unsigned char *whole; /* a short message, repeated: length + WIRE_WINDOW bytes; or NULL */
    unsigned char *seam;  /* of a long one: its last and its first WIRE_WINDOW bytes */
    unsigned char *body;  /* the bytes between them, from a multiple of the period on */
};

/* Prepares the messages of `size` bytes on the wire, and the answers to them. In mode redis the
 * size is given by the protocol. Returns -1 with errno ENOMEM without memory. */
int wire_requests(struct wire *w, enum load_mode mode, uint64_t size);
int wire_answers(struct wire *w, enum load_mode mode, uint64_t size);
void wire_free(struct wire *w);

/* The next WIRE_WINDOW bytes of the endless repetition from position `at` (< length) on. */
const unsigned char *wire_at(const struct wire *w, uint64_t at);

#endif
