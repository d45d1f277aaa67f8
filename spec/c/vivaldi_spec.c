/* core/vivaldi: how far one round trip moves a node, and where many of them lead. */
#include "core/vivaldi.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "must.h"

static const uint64_t MS = 1000000;

static struct vivaldi_self at_origin(double error) {
  struct vivaldi_self v;
  vivaldi_open(&v);
  v.error = error;
  return v;
}

/* How far a node at the origin moves, along the first axis, when one 32 ms away measures 64 ms. */
static double step(double own_error, uint8_t other_error, double *error_after) {
  struct rng rng;
  struct vivaldi_self v = at_origin(own_error);
  struct vivaldi other = {.at = {32 * VIVALDI_UNITS_PER_MS}};
  rng_seed(&rng, 1);
  vivaldi_update(&v, &other, other_error, 64 * MS, &rng);
  if (error_after) *error_after = v.error;
  MUST(v.at[1] == 0 && v.at[2] == 0);
  return -v.at[0];
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-9 + 1e-3 * fabs(b); }

static void the_surer_the_other_side_is_the_further_a_node_moves(void) {
  double sure_error, unsure_error, wrong = (64 - 32 - 1. / 32) / 64, push = 0.25 * (64 - 32 - 1. / 32);
  double sure = step(1, 0, &sure_error), half = step(1, 128, NULL), unsure = step(1, 255, &unsure_error);
  MUST(sure > half && half > unsure && unsure > 0);
  MUST(near(unsure, push / 2));                      /* Its weight is own / (own + theirs): 1 / (1 + 1), */
  MUST(near(half, push / (1 + 128 / 255.)));
  MUST(near(sure, push / 1.01));                     /* and none is believed to be surer than 1 %. */
  MUST(near(unsure_error, wrong * 0.125 + 0.875));   /* The own error, too, follows the sure one faster. */
  MUST(near(sure_error, wrong * 0.25 / 1.01 + 1 - 0.25 / 1.01) && sure_error < unsure_error);
}

static void the_surer_a_node_is_the_less_it_moves(void) {
  double fresh = step(1, 128, NULL), settled = step(0.1, 128, NULL);
  MUST(settled < fresh / 3 && near(settled, 0.25 * (64 - 32 - 1. / 32) * 0.1 / (0.1 + 128 / 255.)));
}

static void two_on_one_spot_part(void) {
  struct rng rng;
  struct vivaldi_self v = at_origin(1);
  struct vivaldi other = {0};
  rng_seed(&rng, 3);
  vivaldi_update(&v, &other, 255, 10 * MS, &rng);
  double moved = sqrt(v.at[0] * v.at[0] + v.at[1] * v.at[1] + v.at[2] * v.at[2]);
  MUST(moved > 1 && moved < 10);
}

static void an_hour_of_round_trips_tells_those_that_nobody_measured(void) {
  enum { NODES = 12 };
  struct vivaldi_self all[NODES];
  struct rng rng;
  rng_seed(&rng, 5);
  for (int i = 0; i < NODES; i++) vivaldi_open(&all[i]);
#define TRUTH(a, b) (2 + 40. * abs((a) % 3 - (b) % 3)) /* Three places on a line. */
  for (int n = 0; n < 3000; n++) {
    int a = (int)rng_below(&rng, NODES), b = (int)rng_below(&rng, NODES);
    uint8_t error;
    if (a == b || (a + b) % 7 == 0) continue; /* Those never speak. */
    struct vivaldi other = vivaldi_pack(&all[b], &error);
    vivaldi_update(&all[a], &other, error, (uint64_t)(TRUTH(a, b) * 1e6), &rng);
  }
  for (int a = 0; a < NODES; a++)
    for (int b = 0; b < NODES; b++) {
      uint8_t error;
      struct vivaldi one = vivaldi_pack(&all[a], &error), other = vivaldi_pack(&all[b], &error);
      if (a == b || a % 3 == b % 3) continue;
      MUST(vivaldi_rtt_ns(&one, &other) == vivaldi_rtt_ns(&other, &one));
      MUST(fabs((double)vivaldi_rtt_ns(&one, &other) / 1e6 - TRUTH(a, b)) < 0.15 * TRUTH(a, b));
      MUST(error < 80); /* And they know that they know it. */
    }
}

static void one_beyond_the_box_stays_at_its_wall(void) {
  struct rng rng;
  uint8_t error;
  struct vivaldi_self v = at_origin(1);
  struct vivaldi other = {.at = {-32767, 0, 0}};
  rng_seed(&rng, 1);
  for (int i = 0; i < 200; i++) vivaldi_update(&v, &other, 0, 3600000 * MS, &rng);
  struct vivaldi packed = vivaldi_pack(&v, &error);
  MUST(packed.at[0] == 32767 && packed.height <= 32767 && packed.height > 32000);
}

int main(void) {
#define RUN(spec) spec(), puts("ok " #spec)
  RUN(the_surer_the_other_side_is_the_further_a_node_moves);
  RUN(the_surer_a_node_is_the_less_it_moves);
  RUN(two_on_one_spot_part);
  RUN(an_hour_of_round_trips_tells_those_that_nobody_measured);
  RUN(one_beyond_the_box_stays_at_its_wall);
  return 0;
}
