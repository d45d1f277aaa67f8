/* A model of core/detector for its property spec: plain tables, searched from end to end, and its rules written down once more. */
#ifndef SPEC_DETECTOR_MODEL_H
#define SPEC_DETECTOR_MODEL_H

#include <math.h>
#include <string.h>

#include "core/detector.h"
#include "core/errors.h"
#include "must.h"

enum { MODEL_NODES = 14, MODEL_JOBS = 6, MODEL_FLOWS = 3, MODEL_EVENTS = 256 }; /* Job 0 is the machine. */
#define MODEL_MS UINT64_C(1000000)

struct model_suspicion {
  bool on, late;
  uint64_t began_ns, from_ns, min_ns, max_ns, extended_ns, returned_ns, stalled_ns, armed, armed_ns;
  uint32_t accusers[9], confirmed, wanted;
  struct detector_incarnation incarnation;
};
struct model_flow {
  bool on, progressed, graced;
  uint32_t granted;
  uint64_t progress;
};
struct model_extension {
  bool on;
  uint32_t life;
  uint64_t until_ns;
  struct model_flow flows[MODEL_FLOWS];
};
struct model_node {
  bool claimed;
  uint32_t life;
  enum detector_state state;
  struct detector_incarnation incarnation;
  uint64_t changed_ns;
};
struct model_event {
  int kind, why, job, node;
  uint32_t confirmations;
  uint64_t timeout_ns, age_ns;
  struct detector_incarnation incarnation;
};
struct model {
  struct detector_config config;
  struct model_node nodes[MODEL_NODES];
  struct model_suspicion at[MODEL_JOBS][MODEL_NODES];
  struct model_extension more[MODEL_JOBS][MODEL_NODES];
  uint64_t now_ns, beat_ns, stalled_ns, arms;
  struct model_event events[MODEL_EVENTS];
  int count;
};

static inline uint64_t model_timeout(const struct model_suspicion *s) {
  uint64_t ns = s->min_ns;
  if (s->confirmed < s->wanted) {
    double share = log1p(s->confirmed) / log1p(s->wanted);
    ns = s->max_ns - (uint64_t)((double)(s->max_ns - s->min_ns) * share);
  }
  return ns + s->extended_ns;
}
static inline uint64_t model_deadline(const struct model_suspicion *s) { return s->from_ns + model_timeout(s) + s->returned_ns; }

static inline void model_say(struct model *m, int kind, int why, int job, int node) {
  const struct model_suspicion *s = &m->at[job][node];
  MUST(m->count < MODEL_EVENTS);
  m->events[m->count++] = (struct model_event){kind, why, job, node, s->confirmed, model_timeout(s), m->now_ns - s->began_ns, s->incarnation};
}

static inline int model_total(const struct model *m) {
  int total = 0;
  for (int j = 0; j < MODEL_JOBS; j++)
    for (int n = 0; n < MODEL_NODES; n++) total += m->at[j][n].on;
  return total;
}
static inline int model_of_job(const struct model *m, int job) {
  int total = 0;
  for (int n = 0; n < MODEL_NODES; n++) total += m->at[job][n].on;
  return total;
}
static inline bool model_is_known(const struct model *m, int node) {
  bool known = m->nodes[node].claimed;
  for (int j = 0; j < MODEL_JOBS; j++) known = known || m->at[j][node].on || m->more[j][node].on;
  return known;
}
/* A node that nothing refers to is forgotten whole. */
static inline void model_sweep(struct model *m) {
  for (int n = 0; n < MODEL_NODES; n++)
    if (!model_is_known(m, n)) m->nodes[n] = (struct model_node){.life = m->nodes[n].life};
}
static inline bool model_has_room(const struct model *m, int node) {
  uint32_t known = 0;
  for (int n = 0; n < MODEL_NODES; n++) known += model_is_known(m, n);
  return model_is_known(m, node) || known < m->config.nodes_max;
}
static inline void model_first(struct model *m, int node) {
  if (!model_is_known(m, node)) m->nodes[node].changed_ns = m->now_ns;
}

static inline int model_clear(struct model *m, int job, int node, int why) {
  struct model_suspicion *s = &m->at[job][node];
  if (!s->on) return 0;
  s->on = false;
  model_say(m, DETECTOR_CLEARED, why, job, node);
  return 1;
}
static inline int model_clear_all(struct model *m, int node, int why) {
  int cleared = 0;
  for (int j = 0; j < MODEL_JOBS; j++) cleared += model_clear(m, j, node, why);
  return cleared;
}

static inline int model_claim(struct model *m, int node, enum detector_state state, struct detector_incarnation i) {
  struct model_node *n = &m->nodes[node];
  if (!model_has_room(m, node)) return ERR_FULL;
  model_first(m, node);
  uint64_t before = (uint64_t)n->incarnation.generation << 32 | n->incarnation.version, now = (uint64_t)i.generation << 32 | i.version;
  if (n->claimed && now == before && state == n->state) return 0;
  bool released = now == before && n->state == DETECTOR_HELD && state == DETECTOR_ALIVE;
  if (n->claimed && !released && (now < before || (now == before && state < n->state))) return 0;
  bool reborn = n->claimed && i.generation > n->incarnation.generation;
  n->claimed = true, n->incarnation = i, n->state = state, n->changed_ns = m->now_ns;
  if (reborn || state >= DETECTOR_HELD) n->life++;
  if (state == DETECTOR_LEFT) model_clear_all(m, node, DETECTOR_WHY_NODE_LEFT);
  else if (state >= DETECTOR_HELD) model_clear_all(m, node, DETECTOR_WHY_NODE_DEAD);
  else if (reborn) model_clear_all(m, node, DETECTOR_WHY_REJOINED);
  else if (state == DETECTOR_ALIVE) model_clear(m, 0, node, DETECTOR_WHY_REFUTED);
  return 1;
}

static inline int model_confirm(struct model *m, int job, int node, uint32_t accuser) {
  struct model_suspicion *s = &m->at[job][node];
  if (!s->on || s->confirmed >= s->wanted) return 0;
  for (uint32_t i = 0; i <= s->confirmed; i++)
    if (s->accusers[i] == accuser) return 0;
  s->accusers[++s->confirmed] = accuser;
  s->armed = ++m->arms, s->armed_ns = m->now_ns;
  return 1;
}

static inline int model_suspect(struct model *m, int job, int node, uint32_t accuser, uint32_t generation, struct detector_scale scale) {
  struct model_suspicion *s = &m->at[job][node];
  struct model_node *n = &m->nodes[node];
  const struct detector_config *c = &m->config;
  if (model_is_known(m, node) && generation < n->incarnation.generation) return 0;
  if (model_is_known(m, node) && n->state >= DETECTOR_HELD) return 0;
  if (s->on) return model_confirm(m, job, node, accuser);
  if (job > 0 && model_of_job(m, job) >= (int)c->job_suspicions_max) return ERR_FULL;
  if (model_total(m) >= (int)c->suspicions_max || !model_has_room(m, node)) return ERR_FULL;
  model_first(m, node);
  double factor = (scale.members > 10 ? log10(scale.members) : 1) * (1 + scale.health);
  *s = (struct model_suspicion){.on = true, .began_ns = m->now_ns, .from_ns = m->now_ns, .accusers = {accuser},
                                .incarnation = n->incarnation, .stalled_ns = m->stalled_ns, .armed = ++m->arms, .armed_ns = m->now_ns};
  s->min_ns = (uint64_t)((double)((job ? c->job_min_ms : c->node_min_ms) * MODEL_MS) * factor);
  s->max_ns = (uint64_t)((double)((job ? c->job_max_ms : c->node_max_ms) * MODEL_MS) * (job ? 1 : factor));
  if (s->min_ns > s->max_ns) s->min_ns = s->max_ns;
  struct model_extension *x = &m->more[job][node];
  if (x->on && x->life == n->life && x->until_ns > m->now_ns) s->from_ns = x->until_ns;
  s->wanted = c->confirmations;
  uint32_t others = scale.members >= 2 ? scale.members - 2 : 0;
  if (scale.members > 0 && s->wanted > others) s->wanted = others;
  if (job == 0 && n->state == DETECTOR_ALIVE) n->state = DETECTOR_SUSPECT, n->changed_ns = m->now_ns;
  model_say(m, DETECTOR_SUSPECTED, DETECTOR_WHY_SILENT, job, node);
  return 1;
}

static inline int model_progress(struct model *m, int job, int node) {
  struct model_extension *x = &m->more[job][node];
  for (int f = 0; x->on && x->life == m->nodes[node].life && f < MODEL_FLOWS; f++) x->flows[f].progressed = true;
  return model_clear(m, job, node, DETECTOR_WHY_PROGRESS);
}

static inline int model_over(struct model *m, int job, int node) { /* node -1: all */
  int cleared = 0;
  for (int n = 0; n < MODEL_NODES; n++) {
    if (node >= 0 && n != node) continue;
    cleared += model_clear(m, job, n, DETECTOR_WHY_OVER);
    m->more[job][n].on = false;
  }
  return cleared;
}

static inline int model_forget(struct model *m, int node) {
  if (!model_is_known(m, node)) return 0;
  int cleared = model_clear_all(m, node, DETECTOR_WHY_FORGOTTEN);
  m->nodes[node] = (struct model_node){.life = m->nodes[node].life + 1, .changed_ns = m->now_ns};
  return cleared;
}

static inline int model_extend(struct model *m, int job, int node, int flow, uint64_t progress, int *grant, uint32_t *ms) {
  const struct detector_config *c = &m->config;
  *ms = 0, *grant = DETECTOR_NOT_ALIVE;
  if (model_is_known(m, node) && m->nodes[node].state >= DETECTOR_HELD) return 0;
  if (!model_has_room(m, node)) return ERR_FULL;
  uint32_t of_job = 0, all = 0;
  for (int j = 0; j < MODEL_JOBS; j++)
    for (int n = 0; n < MODEL_NODES; n++) all += m->more[j][n].on, of_job += j == job && m->more[j][n].on;
  struct model_extension *x = &m->more[job][node];
  if (!x->on && (of_job >= c->job_suspicions_max || all >= c->suspicions_max)) return ERR_FULL;
  model_first(m, node);
  if (!x->on || x->life != m->nodes[node].life) *x = (struct model_extension){.on = true, .life = m->nodes[node].life};
  struct model_flow *f = &x->flows[flow];
  if (!f->on) *f = (struct model_flow){.on = true, .progress = UINT64_MAX};
  if (f->granted >= c->extensions_max) {
    *grant = DETECTOR_EXHAUSTED;
    if (!f->graced) *ms = c->grace_ms;
    f->graced = true;
  } else {
    bool made = f->progress == UINT64_MAX ? progress > 0 : progress > f->progress;
    if (progress == UINT64_MAX) made = f->progressed || f->granted == 0;
    *grant = made ? DETECTOR_GRANTED : DETECTOR_NO_PROGRESS;
    if (!made) return 0;
    f->granted++, f->progressed = false;
    if (progress != UINT64_MAX) f->progress = progress;
    *ms = (uint32_t)fmax(c->extension_min_ms, floor(c->extension_base_ms / pow(2, f->granted)));
  }
  if (*ms == 0) return 0;
  x->until_ns = (x->until_ns > m->now_ns ? x->until_ns : m->now_ns) + *ms * MODEL_MS;
  struct model_suspicion *s = &m->at[job][node];
  if (s->on) s->extended_ns += *ms * MODEL_MS, s->armed = ++m->arms, s->armed_ns = m->now_ns;
  return 1;
}

static inline uint64_t model_tick_of(uint64_t deadline_ns) { return (deadline_ns + (1 << 20) - 1) >> 20; }

static inline void model_expire(struct model *m, int job, int node) {
  struct model_node *n = &m->nodes[node];
  m->at[job][node].on = false;
  model_say(m, DETECTOR_EXPIRED, DETECTOR_WHY_TIMEOUT, job, node);
  if (job > 0) return;
  n->state = DETECTOR_DEAD, n->changed_ns = m->now_ns, n->claimed = true, n->life++;
  model_clear_all(m, node, DETECTOR_WHY_NODE_DEAD);
}

/* At each call: was this process away? */
static inline void model_advance(struct model *m) {
  uint64_t beat_ns = m->beat_ns + m->config.beat_ms * MODEL_MS;
  if (model_total(m) > 0 && m->now_ns > beat_ns + m->config.stall_ms * MODEL_MS) m->stalled_ns += m->now_ns - beat_ns;
  m->beat_ns = m->now_ns;
}

static inline void model_tick(struct model *m) {
  model_advance(m);
  for (;;) {
    struct model_suspicion *first = NULL;
    int job = 0, node = 0;
    for (int j = 0; j < MODEL_JOBS; j++)
      for (int n = 0; n < MODEL_NODES; n++) {
        struct model_suspicion *s = &m->at[j][n];
        if (!s->on || model_tick_of(model_deadline(s)) > m->now_ns >> 20) continue;
        uint64_t a = model_tick_of(model_deadline(s)), b = first ? model_tick_of(model_deadline(first)) : 0;
        if (!first || a < b || (a == b && s->armed < first->armed)) first = s, job = j, node = n;
      }
    if (!first) break;
    uint64_t deadline_ns = model_deadline(first), owed_ns = m->stalled_ns - first->stalled_ns, timeout_ns = model_timeout(first);
    uint64_t left_ns = timeout_ns > first->returned_ns ? timeout_ns - first->returned_ns : 0;
    first->stalled_ns = m->stalled_ns;
    if (owed_ns > left_ns) owed_ns = left_ns;
    if (deadline_ns + owed_ns > m->now_ns) {
      first->returned_ns += owed_ns, first->armed = ++m->arms, first->armed_ns = m->now_ns;
    } else if (!first->late && m->now_ns > (deadline_ns > first->armed_ns ? deadline_ns : first->armed_ns) + 10 * MODEL_MS) {
      first->late = true, first->returned_ns += m->now_ns + 10 * MODEL_MS - deadline_ns, first->armed = ++m->arms, first->armed_ns = m->now_ns;
    } else {
      model_expire(m, job, node);
    }
  }
}

static inline void model_look(struct model *m) {
  for (int n = 0; n < MODEL_NODES; n++) {
    struct model_node *k = &m->nodes[n];
    if (k->claimed && k->state >= DETECTOR_DEAD && m->now_ns - k->changed_ns >= m->config.dead_kept_ms * MODEL_MS) k->claimed = false;
  }
  for (int j = 0; j < MODEL_JOBS; j++)
    for (int n = 0; n < MODEL_NODES; n++) m->more[j][n].on = m->more[j][n].on && m->more[j][n].life == m->nodes[n].life;
}

#endif
