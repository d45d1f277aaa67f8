/* Round trips, and coordinates computed from them. */
#include <math.h>
#include <stdlib.h>

#include "core/swim_private.h"

/* A round trip is kept in 16 bits: 12 of mantissa, 4 of exponent, in units of 2^10 ns: to 1/2048, up to 137 s. */
enum { NEAR_MS = 5 }; /* In a local network no member announces coordinates: all are near. */
enum { RTT_UNIT_BITS = 10, RTT_MANTISSA_BITS = 12, RTT_EXPONENT_MAX = 15 };

uint64_t swim_rtt_ns(uint16_t kept) {
  return (uint64_t)(kept & ((1u << RTT_MANTISSA_BITS) - 1)) << (kept >> RTT_MANTISSA_BITS) << RTT_UNIT_BITS;
}

static uint16_t pack_rtt(uint64_t rtt_ns) {
  uint64_t mantissa = rtt_ns >> RTT_UNIT_BITS;
  unsigned exponent = 0;
  while (mantissa >> RTT_MANTISSA_BITS && exponent < RTT_EXPONENT_MAX) mantissa >>= 1, exponent++;
  if (mantissa >> RTT_MANTISSA_BITS) mantissa = (1u << RTT_MANTISSA_BITS) - 1;
  if (mantissa == 0) mantissa = 1; /* 0 means not known. */
  return (uint16_t)(exponent << RTT_MANTISSA_BITS | mantissa);
}

static uint64_t smooth(uint64_t known_ns, uint64_t rtt_ns) { /* With RFC 6298's gain. */
  return known_ns ? known_ns - known_ns / 8 + rtt_ns / 8 : rtt_ns;
}

struct place swim_place(const struct member *m) {
  return (struct place){.at = m->at, .version = m->place_version, .error = m->place_error};
}

static void set_place(struct member *m, const struct place *place) {
  m->at = place->at;
  m->place_version = place->version & PLACE_VERSION_MAX;
  m->place_error = place->error;
}

void swim_merge_place(struct swim *s, uint32_t id, const struct place *place) {
  struct member *m = &s->members[id];
  if (id != SELF && place->version > m->place_version) set_place(m, place);
}

/* Announce our coordinates when we have moved by more than NEAR and a tenth of the announced distance, so that jitter is no news. */
static void announce(struct swim *s) {
  struct member *self = &s->members[SELF];
  uint8_t error;
  struct vivaldi now = vivaldi_pack(&s->place, &error);
  double moved = 0, far = 0;
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
    double by = now.at[i] - self->at.at[i];
    moved += by * by, far += (double)self->at.at[i] * self->at.at[i];
  }
  moved = sqrt(moved) + abs(now.height - self->at.height), far = sqrt(far) + self->at.height;
  if (moved <= NEAR_MS * VIVALDI_UNITS_PER_MS + far / 10 || s->now_ns < s->place_ns || self->place_version == PLACE_VERSION_MAX) return;
  s->place_ns = s->now_ns + PLACE_PERIODS * ms(s->config.probe_interval_ms);
  set_place(self, &(struct place){.at = now, .version = self->place_version + 1, .error = error});
}

void swim_heard(struct swim *s, uint32_t id, uint64_t rtt_ns) {
  struct member *m = &s->members[id];
  uint16_t second = (uint16_t)(s->now_ns / 1000 / NS_PER_MS);
  m->heard = second ? second : 1;
  if (rtt_ns == 0) return;
  uint64_t known_ns = swim_rtt_ns(m->rtt);
  m->rtt = pack_rtt(smooth(known_ns, rtt_ns));
  s->counts.rtt_ns = smooth(s->counts.rtt_ns, rtt_ns);
  if (known_ns && rtt_ns > 2 * known_ns) rtt_ns = 2 * known_ns; /* A queue on the way, not a distance. */
  vivaldi_update(&s->place, &m->at, m->place_version ? m->place_error : UINT8_MAX, rtt_ns, &s->rng);
  announce(s);
}

uint64_t swim_distance_ns(const struct swim *s, const char *a, size_t a_length, const char *b, size_t b_length) {
  uint32_t one = swim_members_find(s, a, a_length), other = swim_members_find(s, b, b_length);
  if (one == NONE || other == NONE || one == other) return 0;
  if (s->members[one].place_version == 0 || s->members[other].place_version == 0) return 0;
  return vivaldi_rtt_ns(&s->members[one].at, &s->members[other].at);
}
