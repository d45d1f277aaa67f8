/* vivaldi: network coordinates, which predict the round trip between two nodes that never communicated.
 *
 * Vivaldi (Dabek, Cox, Kaashoek, Morris, SIGCOMM 2004): each node pulls itself, as by springs, to where its distances to others
 * fit the round trips it measured, by steps that shrink as its error does (their section 3.3, ce = cc = 0.25). Three dimensions and a
 * height above them (5.4), which is the way from the node to the core of the network.
 * Coordinates are stored and sent in units of 1/32 ms, so within 1,023 ms; a coordinate outside that range is clamped.
 * Pure values: randomness is used only to separate two nodes at one point. */
#ifndef SHOAL_VIVALDI_H
#define SHOAL_VIVALDI_H

#include <stdint.h>

#include "core/rng.h"

enum { VIVALDI_DIMENSIONS = 3, VIVALDI_UNITS_PER_MS = 32 };

struct vivaldi { /* The stored and sent form. Zeroed: unknown. */
  int16_t at[VIVALDI_DIMENSIONS];
  uint16_t height; /* At most 32767. */
};
struct vivaldi_self { /* A node's own, in milliseconds. */
  double at[VIVALDI_DIMENSIONS], height;
  double error; /* Relative, 0 .. 1; 1 at first. */
};

void vivaldi_open(struct vivaldi_self *v);
/* A round trip to a node with these coordinates and this error (0 .. 255 for 0 .. 1) took rtt_ns. */
void vivaldi_update(struct vivaldi_self *v, const struct vivaldi *other, uint8_t other_error, uint64_t rtt_ns, struct rng *rng);
struct vivaldi vivaldi_pack(const struct vivaldi_self *v, uint8_t *error);
/* The predicted round trip, in nanoseconds. */
uint64_t vivaldi_rtt_ns(const struct vivaldi *a, const struct vivaldi *b);

#endif
