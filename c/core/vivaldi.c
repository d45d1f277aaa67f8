#include "core/vivaldi.h"

#include <math.h>

static const double GAIN = 0.25;        /* cc and ce of the paper. */
static const double HEIGHT_MIN = 1. / VIVALDI_UNITS_PER_MS;
static const double NS_PER_UNIT = 1e6 / VIVALDI_UNITS_PER_MS;

void vivaldi_open(struct vivaldi_self *v) { *v = (struct vivaldi_self){.height = HEIGHT_MIN, .error = 1}; }

static double limit(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

void vivaldi_update(struct vivaldi_self *v, const struct vivaldi *other, uint8_t other_error, uint64_t rtt_ns, struct rng *rng) {
  double rtt = limit((double)rtt_ns / 1e6, HEIGHT_MIN, 1e6), away[VIVALDI_DIMENSIONS], flat = 0;
  double height = other->height / (double)VIVALDI_UNITS_PER_MS;
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) {
    away[i] = v->at[i] - other->at[i] / (double)VIVALDI_UNITS_PER_MS;
    flat += away[i] * away[i];
  }
  flat = sqrt(flat);
  double distance = flat + v->height + height, theirs = limit(other_error / 255., 0.01, 1);
  double weight = v->error / (v->error + theirs), wrong = fabs(distance - rtt) / rtt;
  v->error = limit(wrong * GAIN * weight + v->error * (1 - GAIN * weight), 0.01, 1);
  double push = GAIN * weight * (rtt - distance), length = 0;
  if (flat < HEIGHT_MIN) { /* Both are at one point: choose a random direction. */
    for (int i = 0; i < VIVALDI_DIMENSIONS; i++) away[i] = rng_unit(rng) - 0.5, length += away[i] * away[i];
    flat = sqrt(length) + 1e-9;
  }
  double most = INT16_MAX / (double)VIVALDI_UNITS_PER_MS;
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) v->at[i] = limit(v->at[i] + push * away[i] / flat, -most, most);
  v->height = limit(v->height + push * (v->height + height) / (distance + 1e-9), HEIGHT_MIN, most);
}

struct vivaldi vivaldi_pack(const struct vivaldi_self *v, uint8_t *error) {
  struct vivaldi packed = {.height = (uint16_t)(v->height * VIVALDI_UNITS_PER_MS)};
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) packed.at[i] = (int16_t)lrint(v->at[i] * VIVALDI_UNITS_PER_MS);
  *error = (uint8_t)(v->error * 255);
  return packed;
}

uint64_t vivaldi_rtt_ns(const struct vivaldi *a, const struct vivaldi *b) {
  double flat = 0;
  for (int i = 0; i < VIVALDI_DIMENSIONS; i++) flat += (double)(a->at[i] - b->at[i]) * (a->at[i] - b->at[i]);
  return (uint64_t)((sqrt(flat) + a->height + b->height) * NS_PER_UNIT);
}
