/* Shared by the parts of the study of detection quality: Chen's numbers, and the detector with a fixed timeout.
 *
 * Chen, Toueg, Aguilera (IEEE Transactions on Computers 51:5, 2002), of each pair (observer, subject):
 *   detection time T_D           from a crash to the verdict that is not taken back
 *   mistake recurrence T_MR      from one wrong verdict to the next, in the pair's time
 *   mistake duration T_M         from a wrong verdict to its end
 *   query accuracy P_A           the share of the time in which a question about a living subject is answered rightly */
#ifndef QUALITY_H
#define QUALITY_H

#include "../study.h"

struct quality {
  uint64_t mistakes, missed;  /* missed: crashes that got no verdict within the limit. */
  double pairs_s, wrong_s;    /* Of living subjects: observed, and wrongly judged. */
  struct study_samples detect_s;
  struct study_samples silent_s; /* At a crash: for how long the fixed detector had heard nothing. Its timeout follows from it. */
};
/* A verdict of one detector about one pair. */
struct quality_pair {
  bool dead;
  uint64_t since_ns; /* Of a wrong verdict. */
};

static inline void quality_judge(struct quality *q, struct quality_pair *p, bool dead, bool lives, uint64_t now_ns) {
  if (p->dead == dead) return;
  p->dead = dead;
  if (dead && lives) q->mistakes++, p->since_ns = now_ns;
  if (!dead && p->since_ns) q->wrong_s += (double)(now_ns - p->since_ns) / 1e9, p->since_ns = 0;
}
/* The end of an observation: a mistake that lasts is counted up to here. */
static inline void quality_end(struct quality *q, struct quality_pair *p, uint64_t now_ns) {
  if (p->since_ns) q->wrong_s += (double)(now_ns - p->since_ns) / 1e9;
  p->since_ns = 0;
}

struct quality_profile {
  const char *name;
  const char *swim;    /* Layer one: a profile of membership. NULL: layer two: */
  int watches;         /* an enum detector_watches, */
  uint32_t beat_ms;    /* with a heartbeat, which is progress, of this. */
  struct sim_link link;
  double loss;
  uint32_t beats;        /* So many times as long as others. 0: 1. */
  bool no_bars;
  bool no_question, no_help; /* Layer two without asking the worker; without asking its peers. */
  bool alone;                /* A tier of one: there are no peers, and the detector knows it. */
  double stall_every, stall_beats; /* An observer does not run for about so many heartbeats, once in so many; 0: never. */
};

struct quality_size {
  uint32_t subjects, crashes, beats, seed; /* beats: how long accuracy is measured. */
};

/* Run one profile: `ours` and `fixed`, whose timeout is chosen for the same mean detection time. Returns that timeout in seconds. */
double quality_machines(const struct quality_profile *p, const struct quality_size *size, struct quality *ours, struct quality *fixed);
double quality_jobs(const struct quality_profile *p, const struct quality_size *size, struct quality *ours, struct quality *fixed);

/* The mean age of what was last heard, plus the timeout, is the mean detection time. */
static inline double quality_timeout_s(const struct quality *ours, const struct quality *fixed) {
  return study_mean(&ours->detect_s) + study_mean(&fixed->silent_s);
}

#endif
