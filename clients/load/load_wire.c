/* load_wire.c - see load_wire.h for the idea. */
#include "load_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* No buffer size is a multiple of the payload's period, so a chunk that is lost, doubled or out
 * of place always shows as a wrong byte. The payload contains every byte value except '$'. */
enum { PERIOD = 255, STRIDE = 101 };

static const char PING[] = "*1\r\n$4\r\nPING\r\n", PONG[] = "+PONG\r\n";

typedef unsigned char byte_at(uint64_t at, uint64_t length);

static unsigned char payload(uint64_t at, uint64_t length)
{
    (void)length;
    unsigned char byte = (unsigned char)(at % PERIOD * STRIDE % PERIOD);
    return (unsigned char)(byte < '$' ? byte : byte + 1);
}

static unsigned char echo_request(uint64_t at, uint64_t length)
{
    return at == 0 ? '^' : at == length - 1 ? '$' : payload(at, length);
}

static unsigned char echo_answer(uint64_t at, uint64_t length)
{
    return (unsigned char)(payload(at + 1, length) + 1); /* the '^' has no answer */
}

static unsigned char ping(uint64_t at, uint64_t length)
{
    (void)length;
    return (unsigned char)PING[at];
}

static unsigned char pong(uint64_t at, uint64_t length)
{
    (void)length;
    return (unsigned char)PONG[at];
}

static unsigned char *stretch(byte_at *byte, uint64_t length, uint64_t from, size_t n)
{
    unsigned char *bytes = malloc(n);
    for (size_t i = 0; bytes && i < n; i++)
        bytes[i] = byte((from + i) % length, length);
    return bytes;
}

static int build(struct wire *w, byte_at *byte, uint64_t length)
{
    *w = (struct wire){.length = length};
    if (length < 4 * WIRE_WINDOW) {
        w->whole = stretch(byte, length, 0, (size_t)length + WIRE_WINDOW);
    } else {
        w->seam = stretch(byte, length, length - WIRE_WINDOW, (size_t)2 * WIRE_WINDOW);
        w->body = stretch(byte, length, PERIOD, PERIOD + WIRE_WINDOW);
    }
    if (w->whole || (w->seam && w->body))
        return 0;
    wire_free(w);
    errno = ENOMEM;
    return -1;
}

int wire_requests(struct wire *w, enum load_mode mode, uint64_t size)
{
    switch (mode) {
    case MODE_ECHO:
        return build(w, echo_request, size);
    case MODE_RAW:
        return build(w, payload, size);
    case MODE_REDIS:
        break;
    }
    return build(w, ping, sizeof PING - 1);
}

int wire_answers(struct wire *w, enum load_mode mode, uint64_t size)
{
    switch (mode) {
    case MODE_ECHO:
        return build(w, echo_answer, size - 2);
    case MODE_RAW:
        return build(w, payload, size);
    case MODE_REDIS:
        break;
    }
    return build(w, pong, sizeof PONG - 1);
}

void wire_free(struct wire *w)
{
    free(w->whole);
    free(w->seam);
    free(w->body);
    *w = (struct wire){0};
}

const unsigned char *wire_at(const struct wire *w, uint64_t at)
{
    if (w->whole)
        return w->whole + at;
    if (at >= w->length - WIRE_WINDOW)
        return w->seam + (at - (w->length - WIRE_WINDOW));
    return at == 0 ? w->seam + WIRE_WINDOW : w->body + at % PERIOD;
}
