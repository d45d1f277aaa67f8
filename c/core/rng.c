#include "core/rng.h"

#include <assert.h>
#include <math.h>

static uint64_t splitmix64(uint64_t *x) {
  uint64_t z = (*x += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

void rng_seed(struct rng *rng, uint64_t seed) {
  for (int i = 0; i < 4; i++) rng->state[i] = splitmix64(&seed);
}

uint64_t rng_next(struct rng *rng) {
  uint64_t *s = rng->state, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate(s[3], 45);
  return result;
}

uint64_t rng_below(struct rng *rng, uint64_t bound) {
  assert(bound > 0);
  uint64_t threshold = (0 - bound) % bound, x; /* Values below it would make the result uneven. */
  do x = rng_next(rng);
  while (x < threshold);
  return x % bound;
}

double rng_unit(struct rng *rng) { return (double)(rng_next(rng) >> 11) * 0x1.0p-53; }

double rng_exponential(struct rng *rng, double mean) { return -mean * log1p(-rng_unit(rng)); }
