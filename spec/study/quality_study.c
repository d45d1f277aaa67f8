/* How good are the two layers of detection? Chen's four numbers, beside a detector with a fixed timeout.
 *
 * The fixed detector declares a subject dead when it has heard no heartbeat for its timeout, and alive at the next one. Its timeout is
 * chosen for the same mean detection time as ours, from crashes before the run. Both see the same losses, delays and stalls. A verdict
 * counts, not a suspicion: only a verdict moves work.
 *
 * Layer one, machines: membership as it is, 20 members, all pairs. Layer two, jobs: core/detector as a leader of jobs drives it
 * (quality_study/jobs.c). What ours has and the fixed one has not: it asks before it judges, others confirm or contradict, and the suspect
 * can refute.
 *
 * lan_stalls has no bar: a member that does not run for 1 to 3 s, about as long as detection takes, looks dead to either detector, and
 * each of the others that says so is a mistake. workers_stalls is the observer's side of this: leaders that do not run for 5 to 15 s.
 * workers_alone is a tier of one, at half the loss: with nobody to ask, a leader gives the least time. At the others' loss it makes a third
 * of the fixed one's mistakes (--loss=0.4).
 *
 * The last rows show what each part is worth: `workers` without asking the suspect, without asking others to ask, without either. Others
 * make detection twice as fast; without them ours is as slow as its greatest timeout, and no better than a fixed one that is as slow. */
#include "quality_study/quality.h"

#include "core/detector.h"

static void row(const char *name, const char *which, struct quality *q, double timeout_s) {
  double recurrence_s = q->mistakes ? q->pairs_s / (double)q->mistakes : INFINITY;
  double duration_s = q->mistakes ? q->wrong_s / (double)q->mistakes : 0;
  printf("%-14s %-6s %-9.2f %-8.2f %-9.0f %-9llu %-14.0f %-9.2f %.7f", name, which, study_mean(&q->detect_s),
         study_quantile(&q->detect_s, 0.99), q->pairs_s / 3600, (unsigned long long)q->mistakes, recurrence_s,
         duration_s, 1 - q->wrong_s / q->pairs_s);
  if (timeout_s > 0) printf("  timeout %.2f s", timeout_s);
  printf("\n");
}

static void bars(const char *profile, const struct quality *ours, const struct quality *fixed) {
  char name[64];
  (void)snprintf(name, sizeof name, "quality_%s_fixed_mistakes", profile);
  study_bar(name, (double)fixed->mistakes, ">=", 100);
  (void)snprintf(name, sizeof name, "quality_%s_mistakes_to_fixed", profile);
  study_bar(name, (double)ours->mistakes / fmax(1, (double)fixed->mistakes), "<=", 0.1);
  (void)snprintf(name, sizeof name, "quality_%s_detection_to_fixed", profile);
  study_bar(name, study_mean(&ours->detect_s) / study_mean(&fixed->detect_s), "<=", 1.05);
  (void)snprintf(name, sizeof name, "quality_%s_missed", profile);
  study_bar(name, (double)(ours->missed + fixed->missed), "<=", 0);
}

static void study(const struct quality_profile *p, const struct quality_size *size) {
  struct quality ours = {0}, fixed = {0};
  double timeout_s = p->swim ? quality_machines(p, size, &ours, &fixed) : quality_jobs(p, size, &ours, &fixed);
  row(p->name, "ours", &ours, 0);
  row(p->name, "fixed", &fixed, timeout_s);
  if (!p->no_bars) bars(p->name, &ours, &fixed);
  study_clear(&ours.detect_s), study_clear(&fixed.detect_s), study_clear(&ours.silent_s), study_clear(&fixed.silent_s);
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"subjects", 20, "members, or workers"}, {"crashes", 100, "or hangs"},
                                   {"beats", 8000, "heartbeats for which accuracy is measured; of layer two, four times as many"}, {"seed", 1, ""},
                                   {"loss", -1, "share of datagrams; -1: as in the profile"}, {"only", -1, "one profile, by its place from 0"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  const struct sim_link near = {.latency_ns = 500000, .jitter_ns = 20 * MILLISECOND}, far = {.latency_ns = 60 * MILLISECOND, .jitter_ns = 100 * MILLISECOND};
  struct quality_profile profiles[] = {
      {.name = "lan", .swim = "lan", .link = near, .loss = 0.25},
      {.name = "lan_stalls", .swim = "lan", .link = near, .loss = 0.1, .stall_every = 300, .stall_beats = 2, .no_bars = true},
      {.name = "wan", .swim = "wan", .link = far, .loss = 0.3},
      {.name = "local", .swim = "local", .link = {.latency_ns = 50000, .jitter_ns = 5 * MILLISECOND}, .loss = 0.3},
      {.name = "workers", .watches = DETECTOR_WORKERS, .beat_ms = 1000, .link = near, .loss = 0.4, .beats = 4},
      {.name = "workers_alone", .watches = DETECTOR_WORKERS, .beat_ms = 1000, .link = near, .loss = 0.2, .beats = 4, .alone = true},
      {.name = "workers_stalls", .watches = DETECTOR_WORKERS, .beat_ms = 1000, .link = near, .loss = 0.1, .stall_every = 300, .stall_beats = 10},
      {.name = "managers", .watches = DETECTOR_MANAGERS, .beat_ms = 1000, .link = near, .loss = 0.4, .beats = 4},
      {.name = "gates", .watches = DETECTOR_GATES, .beat_ms = 2000, .link = far, .loss = 0.45, .beats = 4},
      {.name = "-questions", .watches = DETECTOR_WORKERS, .beat_ms = 1000, .link = near, .loss = 0.4, .beats = 4, .no_bars = true, .no_question = true},
      {.name = "-others", .watches = DETECTOR_WORKERS, .beat_ms = 1000, .link = near, .loss = 0.4, .beats = 4, .no_bars = true, .no_help = true},
      {.name = "-both", .watches = DETECTOR_WORKERS, .beat_ms = 1000, .link = near, .loss = 0.4, .beats = 4, .no_bars = true, .no_question = true,
       .no_help = true},
  };
  struct quality_size size = {(uint32_t)options[0].value, (uint32_t)options[1].value, (uint32_t)options[2].value, (uint32_t)options[3].value};
  printf("profile        by     T_D mean  p99 (s)  pair-h    mistakes  T_MR (s)       T_M (s)   P_A\n");
  for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
    struct quality_profile *p = &profiles[i];
    struct quality_size its = size;
    p->link.loss = options[4].value >= 0 ? options[4].value : p->loss;
    if (p->beats > 0) its.beats *= p->beats;
    if (options[5].value < 0 || (size_t)options[5].value == i) study(p, &its);
  }
  return study_short;
}
