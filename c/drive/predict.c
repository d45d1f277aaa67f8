#include "drive/predict.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/rng.h"
#include "drive/fleet.h"

static const uint64_t SECOND = 1000000000, WARM_NS = 5 * UINT64_C(1000000000), STEP_NS = 20000000;

struct watch { /* The crash in progress, and the errors of the run. */
  struct rng rng;
  uint32_t victim; /* UINT32_MAX: none. */
  uint64_t crashed_ns, suspected_ns, first_dead_ns;
  uint32_t told;   /* Observers that have declared it dead. */
  uint64_t false_suspicions, false_deaths;
  bool *down, *wronged;
};

static uint64_t since(const struct fleet *f, const struct watch *w) { return sim_now_ns(f->sim) - w->crashed_ns + 1; }

static void on_event(struct fleet *f, uint32_t at, const struct swim_action *a, uint32_t subject) {
  struct watch *w = f->data;
  (void)at; /* All observers count alike. */
  if (subject == w->victim) {
    if (a->event == SWIM_EVENT_SUSPECT && w->suspected_ns == 0) w->suspected_ns = since(f, w);
    if (a->event != SWIM_EVENT_DEAD) return;
    if (w->first_dead_ns == 0) w->first_dead_ns = since(f, w);
    w->told++;
  } else if (!w->down[subject]) {
    w->false_suspicions += a->event == SWIM_EVENT_SUSPECT;
    if (a->event == SWIM_EVENT_DEAD && !w->wronged[subject]) w->wronged[subject] = true, w->false_deaths++;
  }
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static struct predict_times times_of(double *at, uint32_t count) {
  if (count == 0) return (struct predict_times){NAN, NAN, NAN};
  qsort(at, count, sizeof *at, compare);
  uint32_t p50 = (uint32_t)ceil(0.5 * count), p99 = (uint32_t)ceil(0.99 * count); /* Nearest rank. */
  return (struct predict_times){at[p50 - 1], at[p99 - 1], at[count - 1]};
}

struct samples {
  double *suspected, *first_dead, *all_dead;
  uint32_t count;
};

/* Crash one more member. All must know within the longest suspicion and the rounds that spread its news. */
static void crash_one(struct fleet *f, struct watch *w, struct samples *s, uint32_t alive, uint32_t *undecided) {
  do w->victim = (uint32_t)rng_below(&w->rng, f->count);
  while (w->down[w->victim]);
  w->crashed_ns = sim_now_ns(f->sim);
  w->suspected_ns = w->first_dead_ns = w->told = 0;
  w->down[w->victim] = true;
  fleet_crash(f, w->victim);
  const struct swim_config *c = &f->config;
  double longest_ms = c->probe_interval_ms * (20 + c->suspicion_multiplier * fmax(1, log10(f->count)) * c->suspicion_max);
  uint64_t limit_ns = (uint64_t)longest_ms * 1000000;
  while (w->told < alive && since(f, w) < limit_ns) fleet_run(f, STEP_NS);
  if (w->told < alive || w->suspected_ns == 0) {
    ++*undecided;
    return;
  }
  s->suspected[s->count] = (double)w->suspected_ns / 1e9;
  s->first_dead[s->count] = (double)w->first_dead_ns / 1e9;
  s->all_dead[s->count++] = (double)since(f, w) / 1e9;
}

static bool fits(const struct predict_question *q) {
  return q->members >= 3 && q->members <= PREDICT_MEMBERS_MAX && q->crashes <= PREDICT_CRASHES_MAX &&
         q->crashes * 2 < q->members && q->rest_s >= 1 && q->rest_s <= PREDICT_REST_MAX_S && q->link.loss >= 0 && q->link.loss < 1;
}

static void run(struct fleet *f, const struct predict_question *q, struct watch *w, struct samples *s, struct predict_answer *out) {
  fleet_run(f, WARM_NS);
  w->false_suspicions = 0;
  uint64_t bytes = f->bytes, datagrams = f->datagrams, rest_ns = q->rest_s * SECOND;
  fleet_run(f, rest_ns);
  double member_seconds = (double)q->members * q->rest_s;
  out->bytes_per_s = (double)(f->bytes - bytes) / member_seconds;
  out->datagrams_per_s = (double)(f->datagrams - datagrams) / member_seconds;
  out->false_suspicions_per_hour = (double)w->false_suspicions * 3600 / q->rest_s;
  for (uint32_t i = 0; i < q->crashes; i++) {
    crash_one(f, w, s, q->members - i - 1, &out->undecided);
    w->victim = UINT32_MAX;
    fleet_run(f, SECOND * 2 + rng_below(&w->rng, SECOND)); /* So that the next crash has no fixed phase to this one. */
  }
  out->false_deaths = w->false_deaths;
  out->suspected = times_of(s->suspected, s->count);
  out->first_dead = times_of(s->first_dead, s->count);
  out->all_dead = times_of(s->all_dead, s->count);
  out->virtual_s = (double)sim_now_ns(f->sim) / 1e9;
}

int predict(const struct predict_question *q, struct predict_answer *out) {
  struct fleet *f = NULL;
  *out = (struct predict_answer){0};
  if (!fits(q)) return ERR_CONFIG;
  uint32_t crashes = q->crashes ? q->crashes : 1;
  struct watch w = {.victim = UINT32_MAX, .down = calloc(q->members, sizeof *w.down), .wronged = calloc(q->members, sizeof *w.wronged)};
  struct samples s = {.suspected = calloc(crashes, sizeof(double)), .first_dead = calloc(crashes, sizeof(double)),
                      .all_dead = calloc(crashes, sizeof(double))};
  int rc = w.down && w.wronged && s.suspected && s.first_dead && s.all_dead ? 0 : ERR_MEMORY;
  rng_seed(&w.rng, q->seed);
  if (rc == 0) rc = fleet_open(q->seed, q->members, &q->config, &q->link, true, &f);
  if (rc == 0) {
    f->data = &w, f->on_event = on_event;
    run(f, q, &w, &s, out);
    rc = f->error;
    fleet_close(f);
  }
  free(w.down), free(w.wronged), free(s.suspected), free(s.first_dead), free(s.all_dead);
  return rc;
}
