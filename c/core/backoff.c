#include "core/backoff.h"

#include <assert.h>

void backoff_init(struct backoff *b, const struct backoff_config *config) {
  assert(config->base_ns > 0 && config->cap_ns >= config->base_ns && config->factor >= 1);
  *b = (struct backoff){.config = *config, .ceiling_ns = config->base_ns};
}

uint64_t backoff_next(struct backoff *b, uint64_t random) {
  uint64_t ceiling = b->ceiling_ns, floor = ceiling / 10;
  uint64_t wait = floor + (uint64_t)(((unsigned __int128)random * (ceiling - floor + 1)) >> 64);
  b->ceiling_ns = ceiling > b->config.cap_ns / b->config.factor ? b->config.cap_ns : ceiling * b->config.factor;
  b->attempts++;
  assert(wait >= floor && wait <= ceiling && b->ceiling_ns <= b->config.cap_ns);
  return wait;
}

void backoff_reset(struct backoff *b) {
  b->ceiling_ns = b->config.base_ns;
  b->attempts = 0;
}
