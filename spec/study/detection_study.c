/* Detection against theory: from a crash to the sending of the first probe that it cannot answer.
 *
 * N members that probe one other a period each, at phases of their own, reach a crashed one after about Exp(1) periods; with rounds
 * the mean is n/(n+1), n = N - 1. In each period it is found with probability 1 - (1 - 1/n)^n, so the number of periods is
 * geometric: a chi-square test at 10^-4 compares them.
 *
 * No member acts on a crash until the first probe goes unanswered, so a crash here is only a mark: the member lives on, one cluster
 * serves for all crashes, and no correction for a share f is needed. (A pause until that probe would not work: a member that resumes
 * takes its phase from its prober, and after some thousand crashes all phases are equal.) */
#include "study.h"

enum { BUCKETS = 6 };
static const double chi_square_1e4 = 25.74; /* The upper 10^-4 point, 5 degrees of freedom. */

struct detection {
  uint64_t *since_ns; /* 0: up. */
  struct study_samples *waits;
  uint32_t down;
};

static void on_send(struct study_cluster *c, uint32_t from, uint32_t to, uint8_t type, size_t length) {
  struct detection *d = c->data;
  (void)from, (void)length;
  if (type != PING || !d->since_ns[to]) return;
  study_add(d->waits, (double)(study_now(c) - d->since_ns[to]) / 1e6 / c->fleet->config.probe_interval_ms);
  d->since_ns[to] = 0;
  d->down--;
}

static void crash(struct study_samples *waits, uint32_t count, size_t crashes, uint64_t seed) {
  struct study_cluster *c = study_preset(seed, count);
  uint32_t at_once = count >= 1000 ? count / 100 : 1;
  struct detection d = {.since_ns = calloc(count, sizeof *d.since_ns), .waits = waits};
  STUDY_NEED(d.since_ns);
  study_run(c, 5 * SECOND);
  c->on_send = on_send, c->data = &d;
  for (size_t crashed = 0; crashed < crashes;) {
    study_run(c, (uint64_t)rng_exponential(&c->rng, 1e9 / at_once));
    uint32_t victim = (uint32_t)rng_below(&c->rng, count);
    if (d.down >= at_once || d.since_ns[victim]) continue;
    d.since_ns[victim] = study_now(c);
    d.down++, crashed++;
  }
  while (d.down > 0) study_run(c, SECOND / 10); /* To the last: those that wait longest count too. */
  free(d.since_ns);
  study_close(c);
}

static void study(uint32_t count, size_t crashes, uint64_t seeds) {
  struct study_samples waits = {0};
  for (uint64_t seed = 1; seed <= seeds; seed++) crash(&waits, count, (crashes + seeds - 1) / seeds, seed);
  double n = count - 1, p = 1 - pow(1 - 1 / n, n), theory = n / (n + 1);
  double mean = study_mean(&waits), total = (double)waits.count, seen[BUCKETS] = {0}, chi = 0;
  for (size_t i = 0; i < waits.count; i++) seen[(size_t)fmin(BUCKETS - 1, floor(waits.at[i]))]++;
  for (int k = 0; k < BUCKETS; k++) {
    double want = total * pow(1 - p, k) * (k < BUCKETS - 1 ? p : 1);
    chi += (seen[k] - want) * (seen[k] - want) / want;
  }
  printf("%-7u %-8zu %-8.4f %-8.4f %-8.4f %-7.2f %.0f %.0f %.0f %.0f %.0f %.0f\n", count, waits.count, mean, theory, p, chi,
         seen[0], seen[1], seen[2], seen[3], seen[4], seen[5]);
  char name[64];
  (void)snprintf(name, sizeof name, "detection_mean_off_%u", count);
  study_bar(name, fabs(mean - theory), "<=", 0.02);
  (void)snprintf(name, sizeof name, "detection_chi_square_%u", count);
  study_bar(name, chi, "<=", chi_square_1e4);
  study_clear(&waits);
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"n", 0, "members; 0: 100, 1,000 and 10,000"}, {"crashes", 33000, "for each size"},
                                   {"seeds", 10, "clusters that share them"}, {"largest", 10000, "leave out the sizes above it"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  printf("members crashes  mean     theory   p        chi2    found in period 1, 2, 3, 4, 5, later\n");
  for (uint32_t count = 100; count <= 10000; count *= 10) {
    uint32_t size = options[0].value > 0 ? (uint32_t)options[0].value : count;
    if (size <= options[3].value) study(size, (size_t)options[1].value, (uint64_t)options[2].value);
    if (options[0].value > 0) break;
  }
  return study_short;
}
