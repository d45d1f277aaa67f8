#include "core/breaker.h"

#include <assert.h>
#include <string.h>

void breaker_init(struct breaker *b, const struct breaker_config *config) {
  assert(config->failures >= 1 && config->failures <= BREAKER_FAILURES_MAX);
  *b = (struct breaker){.config = *config};
}

static void open_circuit(struct breaker *b, uint64_t now_ns) {
  b->status = BREAKER_OPEN;
  b->opened_at_ns = now_ns;
  b->trial = false;
  b->count = 0;
}

enum breaker_status breaker_state(struct breaker *b, uint64_t now_ns) {
  if (b->status == BREAKER_OPEN && now_ns >= breaker_deadline(b)) {
    b->status = BREAKER_HALF_OPEN;
    b->trial = false;
  }
  return b->status;
}

bool breaker_allow(struct breaker *b, uint64_t now_ns, bool *trial) {
  *trial = false;
  switch (breaker_state(b, now_ns)) {
  case BREAKER_CLOSED: return true;
  case BREAKER_OPEN: return false;
  case BREAKER_HALF_OPEN:
    if (b->trial) return false;
    b->trial = *trial = true;
    return true;
  }
  return false;
}

void breaker_success(struct breaker *b, bool trial) {
  if (b->status == BREAKER_CLOSED) b->count = 0;
  if (b->status != BREAKER_HALF_OPEN || !trial) return;
  assert(b->trial);
  b->status = BREAKER_CLOSED;
  b->trial = false;
  b->count = 0;
}

void breaker_failure(struct breaker *b, uint64_t now_ns, bool trial) {
  if (b->status == BREAKER_HALF_OPEN && trial) open_circuit(b, now_ns);
  if (b->status != BREAKER_CLOSED) return;
  uint32_t old = 0; /* Those that fell out of the window. */
  while (old < b->count && now_ns - b->failed_at_ns[old] > b->config.window_ns) old++;
  b->count -= old;
  memmove(b->failed_at_ns, b->failed_at_ns + old, b->count * sizeof *b->failed_at_ns);
  b->failed_at_ns[b->count++] = now_ns;
  assert(b->count <= b->config.failures);
  if (b->count == b->config.failures) open_circuit(b, now_ns);
}

void breaker_heard(struct breaker *b) {
  if (b->status != BREAKER_OPEN) return;
  b->status = BREAKER_HALF_OPEN;
  b->trial = false;
}

void breaker_close(struct breaker *b) {
  b->status = BREAKER_CLOSED;
  b->trial = false;
  b->count = 0;
}

void breaker_release(struct breaker *b) { b->trial = false; }

uint64_t breaker_deadline(const struct breaker *b) {
  return b->status == BREAKER_OPEN ? b->opened_at_ns + b->config.open_ns : UINT64_MAX;
}

const char *breaker_name(enum breaker_status status) {
  switch (status) {
  case BREAKER_CLOSED: return "closed";
  case BREAKER_OPEN: return "open";
  case BREAKER_HALF_OPEN: return "half_open";
  }
  return "?";
}
