/* backoff: how long to wait before the next try, so that many who failed together do not come back together.
 *
 * The ceiling of the n-th wait is min(cap, base * factor^n); the wait is drawn uniformly from [ceiling / 10, ceiling]:
 * "full jitter" (Brooker, Exponential Backoff and Jitter, 2015) with a floor, so that a short draw causes no busy loop.
 * Pure state: chance enters as a number. */
#ifndef SHOAL_BACKOFF_H
#define SHOAL_BACKOFF_H

#include <stdint.h>

struct backoff_config {
  uint64_t base_ns; /* Ceiling of the first wait; > 0. Default 0.5 s. */
  uint64_t cap_ns;  /* No wait is longer; >= base_ns. Default 30 s. */
  uint32_t factor;  /* >= 1. Default 2. */
};

struct backoff {
  struct backoff_config config;
  uint64_t ceiling_ns; /* Of the next wait. */
  uint32_t attempts;   /* Waits drawn since the last reset. */
};

void backoff_init(struct backoff *b, const struct backoff_config *config);

/* The next wait in nanoseconds; `random` is 64 random bits. */
uint64_t backoff_next(struct backoff *b, uint64_t random);

/* It worked: begin at the base again. */
void backoff_reset(struct backoff *b);

#endif
