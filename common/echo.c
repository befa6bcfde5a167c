/* The protocol engine. It works on spans, not on bytes. memchr finds the end of a long span
 * faster than any loop of ours. The loop that answers the span then makes no decision, so the
 * compiler turns it into vector instructions. */
#include "echo.h"

#include <string.h>

enum {
    SHORT_SPAN = 16, /* up to here a plain loop beats the call of memchr */
    BLOCK = 64,      /* a whole number of vectors on every machine */
};

/* Writes in[i] + 1 to out[i]. The two may overlap as long as out <= in: each block is read
 * whole before it is written. The constant trip count is what lets gcc vectorise at -O2. */
static inline void answer_block(unsigned char *out, const unsigned char *in, size_t size)
{
    unsigned char block[BLOCK];
    memcpy(block, in, size);
    for (size_t i = 0; i < size; i++)
        block[i] = (unsigned char)(block[i] + 1);
    memcpy(out, block, size);
}

static void answer_span(unsigned char *out, const unsigned char *in, size_t n)
{
    for (; n >= BLOCK; n -= BLOCK, in += BLOCK, out += BLOCK)
        answer_block(out, in, BLOCK);
    for (; n >= BLOCK / 8; n -= BLOCK / 8, in += BLOCK / 8, out += BLOCK / 8)
        answer_block(out, in, BLOCK / 8);
    for (; n > 0; n--)
        *out++ = (unsigned char)(*in++ + 1);
}

void echo_init(struct echo *e)
{
    e->in_message = false;
}

size_t echo_feed(struct echo *e, unsigned char *bytes, size_t n)
{
    const unsigned char *in = bytes, *end = bytes + n;
    unsigned char *out = bytes;
    bool in_message = e->in_message;

    while (in < end) {
        if (!in_message) {
            if (*in != '^' && (in = memchr(in, '^', (size_t)(end - in))) == NULL)
                break;
            in++;
        }
        const unsigned char *near = end - in > SHORT_SPAN ? in + SHORT_SPAN : end;
        while (in < near && *in != '$')
            *out++ = (unsigned char)(*in++ + 1);
        if (in == near && near < end) { /* a long message */
            const unsigned char *dollar = memchr(in, '$', (size_t)(end - in));
            size_t span = (size_t)((dollar ? dollar : end) - in);
            answer_span(out, in, span);
            in += span;
            out += span;
        }
        in_message = in == end; /* or it is on the '$' */
        if (in_message)
            break;
        in++;
    }
    e->in_message = in_message;
    return (size_t)(out - bytes);
}
