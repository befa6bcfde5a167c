/* What the fuzz targets share. A target is a function that libFuzzer calls: `make fuzz` links
 * it with clang's -fsanitize=fuzzer, which makes inputs. `make check` links it with replay.c,
 * which tries only the inputs in corpus/. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An assert that no build leaves out. libFuzzer reports the abort as a finding. */
#define MUST(condition)    \
    ((condition) ? (void)0 \
                 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

/* The protocol exactly as it is defined, one byte at a time. Returns how many answers. */
static inline size_t naive_answer(bool *in_message, const uint8_t *in, size_t n, uint8_t *out)
{
    size_t answers = 0;

    for (size_t i = 0; i < n; i++)
        if (!*in_message)
            *in_message = in[i] == '^';
        else if (in[i] == '$')
            *in_message = false;
        else
            out[answers++] = (uint8_t)((in[i] + 1) & 0xff);
    return answers;
}

#endif
