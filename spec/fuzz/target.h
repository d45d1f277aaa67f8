/* A fuzz target: one function that takes any bytes, is deterministic, and ends the program when an invariant is broken. libFuzzer
 * drives it (scripts/fuzz), or replay.c. */
#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* In place of spec/c/must.h, for what is included from there too: libFuzzer keeps the input that aborts. */
#define SPEC_MUST_H
#define MUST(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      abort(); \
    } \
  } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* The input, taken from its front; zeros past its end. */
struct input {
  const uint8_t *at, *end;
};

static inline size_t input_left(const struct input *in) { return (size_t)(in->end - in->at); }
static inline uint8_t input_byte(struct input *in) { return in->at < in->end ? *in->at++ : 0; }
static inline uint16_t input_short(struct input *in) {
  uint8_t high = input_byte(in);
  return (uint16_t)(high << 8 | input_byte(in));
}
static inline const uint8_t *input_bytes(struct input *in, size_t length) { /* length <= input_left() */
  const uint8_t *bytes = in->at;
  in->at += length;
  return bytes;
}

#endif
