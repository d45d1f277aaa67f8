#include "core/suspicion.h"

#include <assert.h>
#include <math.h>

void suspicion_start(struct suspicion *s, uint64_t now_ns, uint64_t min_ns, uint64_t max_ns, uint32_t wanted,
                     uint32_t accuser) {
  assert(min_ns <= max_ns);
  *s = (struct suspicion){.started_ns = now_ns, .min_ns = min_ns, .max_ns = max_ns, .accusers = {accuser}};
  s->wanted = (uint8_t)(wanted < SUSPICION_CONFIRMATIONS_MAX ? wanted : SUSPICION_CONFIRMATIONS_MAX);
}

bool suspicion_confirm(struct suspicion *s, uint32_t accuser) {
  if (s->confirmed >= s->wanted) return false;
  if (suspicion_accused_by(s, accuser)) return false;
  uint64_t before = suspicion_deadline(s);
  s->accusers[++s->confirmed] = accuser;
  assert(suspicion_deadline(s) <= before);
  return true;
}

void suspicion_hasten(struct suspicion *s) { s->wanted = s->confirmed; }

uint64_t suspicion_deadline(const struct suspicion *s) {
  if (s->confirmed >= s->wanted) return s->started_ns + s->min_ns;
  double share = log1p(s->confirmed) / log1p(s->wanted); /* 0 .. 1, rising with C. */
  return s->started_ns + s->max_ns - (uint64_t)((double)(s->max_ns - s->min_ns) * share);
}

bool suspicion_accused_by(const struct suspicion *s, uint32_t accuser) {
  for (int i = 0; i <= s->confirmed; i++)
    if (s->accusers[i] == accuser) return true;
  return false;
}

uint32_t suspicion_last_accuser(const struct suspicion *s) { return s->accusers[s->confirmed]; }
