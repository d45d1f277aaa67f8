/* Layer one: machines. Ours is membership (core/swim), each member an observer of all others. The fixed detector gets a heartbeat of
 * every member at each member once a probe interval, over the same links: about ten times as many datagrams. */
#include "quality.h"

enum { PORT = 7100 };

struct machines;
struct fixed {
  struct machines *all;
  struct shoal_world *world;
  struct world_udp *socket;
  struct world_timer *beat, *due;
  uint64_t *heard_ns; /* By subject; this machine's clock. */
};
struct machines {
  struct study_cluster *c;
  struct fixed *fixed;
  uint64_t beat_ns, timeout_ns; /* timeout_ns 0: it judges nothing. */
  struct quality *ours, *theirs;
  struct quality_pair *by_us, *by_them; /* By observer * count + subject. */
  uint64_t crashed_ns; /* Of `victim`. 0: none is down. */
  uint32_t victim;
  bool counting;
};

static uint64_t pair(const struct machines *m, uint32_t at, uint32_t subject) { return (uint64_t)at * m->c->count + subject; }
static uint32_t place(const struct fixed *f) { return (uint32_t)(f - f->all->fixed); }
static bool lives(const struct machines *m, uint32_t at) { return !(m->crashed_ns && m->victim == at); }

static void judge(struct machines *m, struct quality *q, struct quality_pair *pairs, uint32_t at, uint32_t subject, bool dead) {
  struct quality_pair *p = &pairs[pair(m, at, subject)];
  uint64_t now_ns = study_now(m->c);
  if (m->counting) quality_judge(q, p, dead, lives(m, subject), now_ns);
  else if (dead && !p->dead && !lives(m, subject)) study_add(&q->detect_s, (double)(now_ns - m->crashed_ns) / 1e9);
  p->dead = dead;
}

/* ---- the fixed detector ---- */

static void arm(struct fixed *f) {
  uint64_t next_ns = UINT64_MAX;
  for (uint32_t i = 0; i < f->all->c->count; i++)
    if (i != place(f) && !f->all->by_them[pair(f->all, place(f), i)].dead && f->heard_ns[i] < next_ns) next_ns = f->heard_ns[i];
  if (next_ns < UINT64_MAX && f->all->timeout_ns > 0) world_timer_start(f->due, next_ns + f->all->timeout_ns);
}

static void on_due(void *data) {
  struct fixed *f = data;
  uint64_t now_ns = world_now_ns(f->world);
  for (uint32_t i = 0; i < f->all->c->count; i++)
    if (i != place(f) && now_ns >= f->heard_ns[i] + f->all->timeout_ns) judge(f->all, f->all->theirs, f->all->by_them, place(f), i, true);
  arm(f);
}

static void on_beat(void *data) {
  struct fixed *f = data;
  for (uint32_t i = 0; i < f->all->c->count; i++) {
    struct shoal_address to = f->all->c->nodes[i].address;
    to.port = PORT;
    if (i != place(f)) (void)world_udp_send(f->socket, &to, "beat", 4); /* One that is lost is the subject of the study. */
  }
  world_timer_start(f->beat, world_now_ns(f->world) + f->all->beat_ns);
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct fixed *f = data;
  uint32_t subject = ((uint32_t)from->bytes[1] << 16 | (uint32_t)from->bytes[2] << 8 | from->bytes[3]) - 1;
  (void)bytes, (void)length;
  f->heard_ns[subject] = world_now_ns(f->world);
  judge(f->all, f->all->theirs, f->all->by_them, place(f), subject, false);
  arm(f);
}

static void start(struct machines *m, uint32_t at) {
  static const struct world_udp_events events = {.on_datagram = on_datagram};
  struct fixed *f = &m->fixed[at];
  struct shoal_address bind = m->c->nodes[at].address;
  bind.port = PORT;
  f->all = m, f->world = m->c->nodes[at].world;
  STUDY_NEED(world_udp_open(f->world, &bind, &events, f, &f->socket) == 0);
  STUDY_NEED(world_timer_open(f->world, on_beat, NULL, f, &f->beat) == 0 && world_timer_open(f->world, on_due, NULL, f, &f->due) == 0);
  for (uint32_t i = 0; i < m->c->count; i++) f->heard_ns[i] = world_now_ns(f->world);
  world_timer_start(f->beat, world_now_ns(f->world) + rng_below(&m->c->rng, m->beat_ns));
  arm(f);
}

/* ---- ours ---- */

static void on_event(struct study_cluster *c, uint32_t at, enum swim_event event, uint32_t subject) {
  struct machines *m = c->data;
  if (event == SWIM_EVENT_DEAD) judge(m, m->ours, m->by_us, at, subject, true);
  if (event == SWIM_EVENT_JOIN) judge(m, m->ours, m->by_us, at, subject, false);
}

/* ---- runs ---- */

static void configure(void *data, struct swim_config *config) {
  const struct quality_profile *p = data;
  STUDY_NEED(swim_config_profile(p->swim, config) == 0);
}

static struct machines *begin(const struct quality_profile *p, uint64_t seed, uint32_t count, double timeout_s) {
  struct machines *m = calloc(1, sizeof *m);
  STUDY_NEED(m);
  study_configure = configure, study_configure_data = (void *)(uintptr_t)p;
  m->c = study_preset(seed, count);
  study_configure = NULL;
  m->beat_ns = m->c->fleet->config.probe_interval_ms * MILLISECOND;
  m->timeout_ns = (uint64_t)(timeout_s * 1e9);
  m->fixed = calloc(count, sizeof *m->fixed);
  m->by_us = calloc((size_t)count * count, sizeof *m->by_us), m->by_them = calloc((size_t)count * count, sizeof *m->by_them);
  STUDY_NEED(m->fixed && m->by_us && m->by_them);
  for (uint32_t i = 0; i < count; i++) {
    STUDY_NEED((m->fixed[i].heard_ns = calloc(count, sizeof(uint64_t))));
    start(m, i);
  }
  sim_set_default_link(m->c->sim, &p->link);
  study_run(m->c, 10 * m->beat_ns);
  m->c->data = m, m->c->on_event = on_event;
  return m;
}

static void finish(struct machines *m) {
  m->c->on_event = NULL;
  for (uint32_t i = 0; i < m->c->count; i++) free(m->fixed[i].heard_ns);
  study_close(m->c);
  free(m->fixed), free(m->by_us), free(m->by_them), free(m);
}

/* One machine after the other crashes and is started again. */
static void crashes(const struct quality_profile *p, const struct quality_size *size, uint64_t seed, double timeout_s, struct quality *ours,
                    struct quality *fixed) {
  struct machines *m = begin(p, seed, size->subjects, timeout_s);
  m->ours = ours, m->theirs = fixed;
  for (uint32_t k = 0; k < size->crashes; k++) {
    m->victim = (uint32_t)rng_below(&m->c->rng, m->c->count);
    study_run(m->c, rng_below(&m->c->rng, m->beat_ns)); /* At any phase. */
    m->crashed_ns = study_now(m->c);
    study_crash(m->c, m->victim);
    study_run(m->c, m->beat_ns / 4); /* Messages under way arrive. */
    for (uint32_t i = 0; i < m->c->count; i++) {
      struct fixed *f = &m->fixed[i];
      if (i == m->victim) continue;
      double heard_s = (double)(world_now_ns(f->world) - f->heard_ns[m->victim]) / 1e9;
      study_add(&fixed->silent_s, heard_s - (double)(study_now(m->c) - m->crashed_ns) / 1e9);
    }
    study_run(m->c, 60 * m->beat_ns);
    for (uint32_t i = 0; i < m->c->count; i++) ours->missed += i != m->victim && !m->by_us[pair(m, i, m->victim)].dead;
    study_start(m->c, m->victim);
    m->crashed_ns = 0;
    start(m, m->victim);
    memset(&m->by_us[pair(m, m->victim, 0)], 0, m->c->count * sizeof *m->by_us); /* It trusts all anew. */
    memset(&m->by_them[pair(m, m->victim, 0)], 0, m->c->count * sizeof *m->by_them);
    study_join(m->c, m->victim, (m->victim + 1) % m->c->count);
    study_run(m->c, 20 * m->beat_ns);
  }
  finish(m);
}

static void accuracy(const struct quality_profile *p, const struct quality_size *size, uint64_t seed, double timeout_s, struct quality *ours,
                     struct quality *fixed) {
  struct machines *m = begin(p, seed, size->subjects, timeout_s);
  m->ours = ours, m->theirs = fixed, m->counting = true;
  uint32_t count = m->c->count;
  memset(m->by_us, 0, (size_t)count * count * sizeof *m->by_us), memset(m->by_them, 0, (size_t)count * count * sizeof *m->by_them);
  uint64_t began_ns = study_now(m->c), end_ns = began_ns + size->beats * m->beat_ns;
  while (study_now(m->c) < end_ns) {
    double gap = p->stall_every > 0 ? p->stall_every / count : 1e9;
    uint64_t wait_ns = (uint64_t)(fmin(rng_exponential(&m->c->rng, gap), 1e6) * (double)m->beat_ns);
    if (study_now(m->c) + wait_ns >= end_ns) wait_ns = end_ns - study_now(m->c);
    study_run(m->c, wait_ns + 1);
    if (p->stall_every > 0)
      sim_node_stall(m->c->nodes[rng_below(&m->c->rng, count)].machine,
                     (uint64_t)(p->stall_beats * (0.5 + rng_unit(&m->c->rng)) * (double)m->beat_ns));
  }
  double pairs_s = (double)(study_now(m->c) - began_ns) / 1e9 * count * (count - 1);
  ours->pairs_s += pairs_s, fixed->pairs_s += pairs_s;
  for (uint32_t i = 0; i < count * count; i++) quality_end(ours, &m->by_us[i], study_now(m->c)), quality_end(fixed, &m->by_them[i], study_now(m->c));
  finish(m);
}

double quality_machines(const struct quality_profile *p, const struct quality_size *size, struct quality *ours, struct quality *fixed) {
  struct quality first[2] = {{0}};
  crashes(p, size, size->seed, 0, &first[0], &first[1]);
  double timeout_s = quality_timeout_s(&first[0], &first[1]);
  study_clear(&first[0].detect_s), study_clear(&first[1].silent_s);
  crashes(p, size, size->seed, timeout_s, ours, fixed); /* The same again, now with the timeout that gives the same mean. */
  accuracy(p, size, size->seed + 1, timeout_s, ours, fixed);
  return timeout_s;
}
