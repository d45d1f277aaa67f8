/* rng: a small, fast, seeded random stream (xoshiro256**, Blackman and Vigna, TOMS 47:4, 2021),
 * seeded through splitmix64. Not for secrets. */
#ifndef SHOAL_RNG_H
#define SHOAL_RNG_H

#include <stdint.h>

struct rng {
  uint64_t state[4];
};

void rng_seed(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
/* Uniform in [0, bound); bound > 0. */
uint64_t rng_below(struct rng *rng, uint64_t bound);
/* Uniform in [0, 1). */
double rng_unit(struct rng *rng);
/* Exponential with this mean (>= 0). */
double rng_exponential(struct rng *rng, double mean);

#endif
