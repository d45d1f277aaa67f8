/* Members that flap. Suspicion and refutation alone let a member with a half broken link alternate between alive and dead for ever, and
 * each change costs all members work. So each observer damps them, as routers damp routes (RFC 2439, route flap damping): trouble with a
 * member gives it points, and points halve every flap_half_life_ms. A member with flap_limit points is held (shown as dead), whatever it
 * claims, until a quarter of the limit is left. The protocol below is unaffected: the member is probed, refutes, and is believed; only
 * the view and the events show it as dead. A new life begins without points.
 *
 *   points:     1 for a suspicion with an accuser, 3 more for a death (the first return of a member that was cut off is free; a
 *               second one within a minute is not)
 *   bound:      twice the limit, so that no member is held longer than three half-lives after its last trouble
 *   outliers:   only a member with at least OUTLIER times the mean score of the others is damped; one below it is released. Else the
 *               network is bad, or we are cut off ourselves. With only two members there is no telling */
#include <math.h>
#include <stdlib.h>

#include "core/swim_private.h"

enum { DEATH_POINTS = 3, OUTLIER = 4 };
static const double CAP = 2, RELEASE = 0.25; /* In limits. */
static const double NOTHING = 1.0 / 16;      /* Points that may be forgotten. */

static double decayed(const struct swim *s, double points, uint64_t since_ns) {
  return points * exp2(-(double)(s->now_ns - since_ns) / (double)ms(s->config.flap_half_life_ms));
}

static struct flap *find(const struct swim *s, uint32_t id) {
  if (!s->members[id].flapped) return NULL;
  struct flap *f = s->flaps;
  while (f->id != id) f++;
  return f;
}

static void forget(struct swim *s, struct flap *f) {
  struct member *m = &s->members[f->id];
  s->held -= m->held;
  m->flapped = m->held = 0;
  *f = s->flaps[--s->flaps_count];
}

static struct flap *add(struct swim *s, uint32_t id) {
  if (s->flaps_count == s->flaps_capacity) {
    struct flap *grown = realloc(s->flaps, (s->flaps_capacity * 2 + 4) * sizeof *grown);
    if (!grown) return NULL; /* Without memory it is not damped. */
    s->flaps = grown;
    s->flaps_capacity = s->flaps_capacity * 2 + 4;
  }
  s->members[id].flapped = 1;
  struct flap *f = &s->flaps[s->flaps_count++];
  *f = (struct flap){.id = id, .at_ns = s->now_ns};
  return f;
}

/* The sum of all points is kept and decays as a whole, including the points of members that were forgotten. */
static bool is_outlier(const struct swim *s, double points) {
  uint32_t others = s->living + s->dead - 1; /* Without this one. */
  double theirs = fmax(0, decayed(s, s->flaps_sum, s->flaps_sum_ns) - points);
  return others > 0 && points * others >= OUTLIER * theirs;
}

static void trouble(struct swim *s, uint32_t id, double more) {
  if (s->config.flap_limit == 0) return;
  struct flap *f = find(s, id);
  if (!f && !(f = add(s, id))) return;
  double limit = s->config.flap_limit, before = decayed(s, f->points, f->at_ns);
  f->points = fmin(before + more, CAP * limit);
  s->flaps_sum = decayed(s, s->flaps_sum, s->flaps_sum_ns) + f->points - before;
  f->at_ns = s->flaps_sum_ns = s->now_ns;
  struct member *m = &s->members[id];
  if (m->held || f->points < limit || !is_outlier(s, f->points)) return;
  if (swim_lives(m)) swim_emit(s, SWIM_EVENT_DEAD, id, m->incarnation, SWIM_DEAD);
  m->held = 1;
  s->held++;
  s->counts.held++;
  swim_fact(s, SWIM_FACT_HELD, id, 0, (uint32_t)(f->points * 16));
}

static double points_of(const struct swim *s, uint32_t id) {
  const struct flap *f = find(s, id);
  return f ? decayed(s, f->points, f->at_ns) : 0;
}

void swim_flap_suspected(struct swim *s, uint32_t id, uint32_t accuser) {
  if (accuser) trouble(s, id, 1); /* Without an accuser it is a death that we doubt. */
}
void swim_flap_died(struct swim *s, uint32_t id) { trouble(s, id, DEATH_POINTS); }

void swim_flap_forget(struct swim *s, uint32_t id) {
  struct flap *f = find(s, id);
  if (f) forget(s, f);
}

/* When many are cut off at once, the first one is an outlier until the others follow. */
static bool may_go(const struct swim *s, const struct flap *f) {
  double points = decayed(s, f->points, f->at_ns);
  if (s->config.flap_limit == 0 || !is_outlier(s, points)) return true;
  return s->members[f->id].state != SWIM_SUSPECT && points <= RELEASE * s->config.flap_limit;
}

/* Check a few of them each period, so that all are forgotten in time. */
static void sweep(struct swim *s) {
  for (int n = 0; n < SWEEP && s->flaps_count > 0; n++) {
    struct flap *f = &s->flaps[s->flaps_at++ % s->flaps_count];
    if (!s->members[f->id].held && decayed(s, f->points, f->at_ns) < NOTHING) forget(s, f);
  }
}

void swim_flap_tick(struct swim *s) {
  int events = 0;
  for (uint32_t i = s->flaps_count; i-- > 0 && s->held > 0 && events < EXPIRE_MAX;) {
    struct flap *f = &s->flaps[i];
    uint32_t id = f->id;
    struct member *m = &s->members[id];
    if (!m->held || !may_go(s, f)) continue;
    m->held = 0;
    s->held--;
    swim_fact(s, SWIM_FACT_RELEASED, id, 0, 0);
    if (!swim_lives(m)) continue; /* It is dead, which is no news. */
    swim_emit(s, SWIM_EVENT_JOIN, id, m->incarnation, SWIM_ALIVE);
    if (m->state == SWIM_SUSPECT) swim_emit(s, SWIM_EVENT_SUSPECT, id, m->incarnation, SWIM_SUSPECT); /* It is under suspicion meanwhile. */
    events++;
  }
  sweep(s);
}

uint32_t swim_flap_held_living(const struct swim *s) {
  uint32_t held = 0;
  for (uint32_t i = 0; i < s->flaps_count && s->held > 0; i++) {
    const struct member *m = &s->members[s->flaps[i].id];
    held += m->held && swim_lives(m);
  }
  return held;
}

void swim_flap_why(const struct swim *s, uint32_t id, double *points, uint64_t *until_ns) {
  *points = points_of(s, id);
  *until_ns = 0;
  if (!s->members[id].held) return;
  double halvings = log2(*points / (RELEASE * s->config.flap_limit));
  *until_ns = s->now_ns + (uint64_t)(fmax(0, halvings) * (double)ms(s->config.flap_half_life_ms));
}
