#include "world/sim_private.h"

/* Clocks, each with an epoch, a rate and a wall clock of its own, and the timers by them. */

enum {
  EPOCH_MIN_S = 3600,          /* No node's clock starts near zero, */
  EPOCH_SPAN_S = 3600 * 1000,  /* nor near another's. */
};
#define WALL_START_NS INT64_C(1767225600000000000) /* 2026-01-01T00:00:00Z */

/* ---- clocks ---- */

static int64_t gained_ns(const struct sim_node *n, uint64_t true_ns) {
  if (n->drift_ppm == 0) return 0;
  return (int64_t)((__int128)(true_ns - n->drift_from_ns) * n->drift_ppm / 1000000);
}

static uint64_t local_time(const struct sim_node *n, uint64_t true_ns) {
  return n->epoch_ns + true_ns + (uint64_t)gained_ns(n, true_ns);
}

/* The first instant, from now on, when the node's clock shows at_ns or more. */
static uint64_t true_time(const struct sim_node *n, uint64_t at_ns) {
  uint64_t now_ns = n->sim->now_ns, shown_ns = local_time(n, now_ns);
  if (at_ns <= shown_ns) return now_ns;
  uint64_t true_ns = now_ns + (at_ns - shown_ns);
  if (n->drift_ppm == 0) return true_ns;
  true_ns = now_ns + (uint64_t)((unsigned __int128)(at_ns - shown_ns) * 1000000 / (unsigned)(1000000 + n->drift_ppm));
  while (true_ns > now_ns && local_time(n, true_ns - 1) >= at_ns) true_ns--; /* Divisions round. */
  while (local_time(n, true_ns) < at_ns) true_ns++;
  return true_ns;
}

uint64_t sim_clock_now_ns(struct shoal_world *w) {
  const struct sim_node *n = sim_world_of(w)->node;
  return local_time(n, n->sim->now_ns);
}

int64_t sim_clock_wall_ns(struct shoal_world *w) {
  const struct sim_node *n = sim_world_of(w)->node;
  return WALL_START_NS + n->wall_offset_ns + (int64_t)n->sim->now_ns;
}

void sim_clock_boot(struct sim_node *n) {
  n->epoch_ns = (EPOCH_MIN_S + sim_derive(n->sim->seed, n->name, n->boot * UINT64_C(8) + 1) % EPOCH_SPAN_S) * SIM_S +
                sim_derive(n->sim->seed, n->name, n->boot * UINT64_C(8) + 2) % SIM_S;
  n->drift_from_ns = n->sim->now_ns;
}

int sim_node_drift(struct sim_node *n, int32_t ppm) {
  if (ppm > SIM_DRIFT_PPM_MAX || ppm < -SIM_DRIFT_PPM_MAX) return -EINVAL;
  SIM_NOTE(n->sim, "drift %s %d", n->name, ppm);
  n->epoch_ns += (uint64_t)gained_ns(n, n->sim->now_ns);
  n->drift_from_ns = n->sim->now_ns;
  n->drift_ppm = ppm;
  if (n->world) sim_world_retime(n->world);
  sim_processes_retime(n);
  return 0;
}

void sim_node_step_wall(struct sim_node *n, int64_t by_ns) {
  SIM_NOTE(n->sim, "step_wall %s %lld", n->name, (long long)by_ns);
  n->wall_offset_ns += by_ns;
}

/* ---- timers ---- */

struct sim_timer {
  union {
    struct world_timer base;
    struct sim_thing thing;
  };
  struct sim_event fire;
  uint64_t at_ns; /* By the node's clock. */
  void (*on_timer)(void *data);
};

static void on_fire(struct sim *s, struct sim_event *e) {
  struct sim_timer *t = SIM_AROUND(struct sim_timer, fire, e);
  SIM_NOTE(s, "timer %s", e->world->name);
  sim_enter(e->world);
  t->on_timer(t->thing.data);
}

bool sim_event_is_timer(const struct sim_event *e) { return e->run == on_fire; }

static void timer_drop(struct sim_thing *thing) {
  struct sim_timer *t = SIM_AROUND(struct sim_timer, thing, thing);
  struct sim *s = sim_of(thing);
  sim_event_cancel(s, &t->fire);
  sim_thing_leave(thing);
  sim_give(s, t, sizeof *t);
}

int sim_timer_open(struct shoal_world *base, void (*on_timer)(void *data), world_closed_fn *closed, void *data,
                   struct world_timer **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim_timer *t = sim_take(w->node->sim, sizeof *t);
  *t = (struct sim_timer){.fire = {.run = on_fire, .world = w}, .on_timer = on_timer};
  sim_thing_open(w, &t->thing, timer_drop, closed, data);
  *out = &t->base;
  return 0;
}

void sim_timer_start(struct world_timer *base, uint64_t at_ns) {
  struct sim_timer *t = (struct sim_timer *)(void *)base;
  struct sim_node *n = t->fire.world->node;
  uint64_t true_ns = true_time(n, at_ns);
  t->at_ns = at_ns;
  if (true_ns <= n->sim->now_ns) true_ns = n->sim->now_ns + SIM_TURN_NS;
  if (!sim_event_is_at(n->sim, &t->fire, true_ns)) sim_event_at(n->sim, &t->fire, true_ns);
}

void sim_timer_stop(struct world_timer *base) {
  struct sim_timer *t = (struct sim_timer *)(void *)base;
  sim_event_cancel(t->fire.world->node->sim, &t->fire);
}

void sim_timer_close(struct world_timer *base) {
  sim_timer_stop(base);
  sim_thing_close(&((struct sim_timer *)(void *)base)->thing);
}

void sim_world_retime(struct sim_world *w) {
  for (struct sim_thing *t = w->things.next; t != &w->things; t = t->next) {
    struct sim_timer *timer = (struct sim_timer *)(void *)t;
    if (t->drop == timer_drop && timer->fire.slot) sim_timer_start(&timer->base, timer->at_ns);
  }
}
