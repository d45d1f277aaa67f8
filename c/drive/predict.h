/* predict: what this configuration of core/swim will do in a cluster of this size on such a network, before it is deployed.
 *
 * It runs the members themselves in virtual time: first at rest, where it counts traffic and false suspicions, then through
 * crashes, one at a time, where it measures the time until all live members have declared the crashed one dead. */
#ifndef SHOAL_DRIVE_PREDICT_H
#define SHOAL_DRIVE_PREDICT_H

#include "core/swim.h"
#include "world/sim.h"

enum { PREDICT_MEMBERS_MAX = 5000, PREDICT_CRASHES_MAX = 1000, PREDICT_REST_MAX_S = 3600 };

struct predict_question {
  struct swim_config config;
  struct sim_link link; /* Between any two. */
  uint32_t members;     /* 3 .. PREDICT_MEMBERS_MAX */
  uint32_t crashes;     /* 0 .. PREDICT_CRASHES_MAX, and below half of the members. */
  uint32_t rest_s;      /* 1 .. PREDICT_REST_MAX_S: how long at rest. */
  uint64_t seed;
};
struct predict_times { /* Seconds since the crash; NAN without one. */
  double p50, p99, max;
};
struct predict_answer {
  double bytes_per_s, datagrams_per_s; /* Sent by each member at rest; UDP payload. */
  double false_suspicions_per_hour;    /* At rest, in the whole cluster, by any observer. */
  uint64_t false_deaths;               /* Live members that some observer declared dead, over the whole run. */
  struct predict_times suspected, first_dead, all_dead; /* At the first observer, at the first, at all live ones. */
  uint32_t undecided;  /* Crashes that some observer had not declared dead in time. */
  double virtual_s;
};

/* 0; ERR_CONFIG (out of the limits above, or a config that is refused), ERR_MEMORY. Blocks: ten seconds of a core for 2,000
 * members and 20 crashes. */
int predict(const struct predict_question *question, struct predict_answer *out);

#endif
