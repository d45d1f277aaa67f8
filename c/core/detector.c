#include "core/detector.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/detector_private.h"
#include "core/errors.h"

const char *detector_state_name(enum detector_state state) {
  static const char *const names[] = {"alive", "suspect", "held", "dead", "left"};
  assert(state < DETECTOR_STATES);
  return names[state];
}

const char *detector_why_text(enum detector_why why) {
  static const char *const texts[] = {
#define TEXT(name, text) text,
      DETECTOR_WHYS(TEXT)
#undef TEXT
  };
  assert(why < DETECTOR_WHYS_COUNT);
  return texts[why];
}

/* ---- configuration ---- */

int detector_config_profile(const char *profile, enum detector_watches watches, struct detector_config *out) {
  uint32_t period_ms = 0;
  if (strcmp(profile, "lan") == 0) period_ms = 1000; /* Membership's: least one period, most six. */
  else if (strcmp(profile, "wan") == 0) period_ms = 5000;
  else if (strcmp(profile, "local") == 0) period_ms = 200;
  else return ERR_CONFIG;
  static const uint32_t least[] = {1000, 2000, 5000}, most[] = {10000, 15000, 30000};
  *out = (struct detector_config){
      .node_min_ms = period_ms, .node_max_ms = 6 * period_ms,
      .job_min_ms = least[watches], .job_max_ms = most[watches], .confirmations = 2,
      .nodes_max = 10000, .job_suspicions_max = 1000, .suspicions_max = 50000,
      .extension_base_ms = 30000, .extension_min_ms = 1000, .extensions_max = 5, .grace_ms = 10000,
      .beat_ms = 100, .stall_ms = 100, .dead_kept_ms = 300000,
  };
  return 0;
}

static bool within(uint32_t value, uint32_t min, uint32_t max) { return value >= min && value <= max; }

const char *detector_config_check(const struct detector_config *c) {
  if (!within(c->job_min_ms, 10, 3600000) || !within(c->node_min_ms, 10, 3600000))
    return "job_min_ms and node_min_ms must lie within 10 .. 3600000";
  if (!within(c->job_max_ms, c->job_min_ms, 3600000)) return "job_max_ms must lie within job_min_ms .. 3600000";
  if (!within(c->node_max_ms, c->node_min_ms, 3600000)) return "node_max_ms must lie within node_min_ms .. 3600000";
  if (c->confirmations > SUSPICION_CONFIRMATIONS_MAX) return "confirmations must lie within 0 .. 7";
  if (!within(c->nodes_max, 1, 10000000)) return "nodes_max must lie within 1 .. 10000000";
  if (!within(c->suspicions_max, 1, 10000000)) return "suspicions_max must lie within 1 .. 10000000";
  if (!within(c->job_suspicions_max, 1, c->suspicions_max)) return "job_suspicions_max must lie within 1 .. suspicions_max";
  if (!within(c->extension_base_ms, 1, 3600000)) return "extension_base_ms must lie within 1 .. 3600000";
  if (!within(c->extension_min_ms, 1, c->extension_base_ms)) return "extension_min_ms must lie within 1 .. extension_base_ms";
  if (c->extensions_max > 20) return "extensions_max must lie within 0 .. 20";
  if (c->grace_ms > 3600000) return "grace_ms must lie within 0 .. 3600000";
  if (!within(c->beat_ms, 10, 60000) || !within(c->stall_ms, 10, 60000)) return "beat_ms and stall_ms must lie within 10 .. 60000";
  if (!within(c->dead_kept_ms, 1000, 86400000)) return "dead_kept_ms must lie within 1000 .. 86400000";
  return NULL;
}

struct detector *detector_new(const struct detector_config *config, uint64_t now_ns) {
  assert(!detector_config_check(config));
  struct detector *d = calloc(1, sizeof *d);
  if (!d) return NULL;
  d->config = *config, d->now_ns = d->beat_ns = now_ns, d->last = &d->first;
  d->node_ring.next = d->node_ring.previous = &d->node_ring;
  d->job_ring.next = d->job_ring.previous = &d->job_ring;
  wheel_init(&d->wheel, now_ns);
  if (!(d->machines = calloc(1, sizeof *d->machines))) return free(d), NULL;
  return d;
}

void detector_free(struct detector *d) {
  if (!d) return;
  for (struct detector_ring *r = d->job_ring.next, *next; r != &d->job_ring; r = next) {
    struct detector_job *j = (struct detector_job *)r;
    next = r->next;
    for (uint32_t i = 0; i < j->extensions.capacity; i++) {
      struct detector_extension *x = j->extensions.slots[i].item;
      if (x) free(x->of), free(x);
    }
    detector_set_free(&j->suspicions), detector_set_free(&j->extensions);
    free(j);
  }
  for (struct detector_ring *r = d->node_ring.next, *next; r != &d->node_ring; r = next)
    next = r->next, free(((struct detector_node *)r)->of), free(r);
  for (struct detector_chunk *c = d->chunks, *next; c; c = next) next = c->next, free(c);
  detector_set_free(&d->nodes), detector_set_free(&d->jobs);
  free(d->machines);
  free(d);
}

int detector_reconfigure(struct detector *d, const struct detector_config *config) {
  if (detector_config_check(config)) return ERR_CONFIG;
  if (config->nodes_max < d->nodes.count || config->suspicions_max < d->records || config->suspicions_max < d->counts.extensions)
    return ERR_FULL;
  for (struct detector_ring *r = d->job_ring.next; r != &d->job_ring; r = r->next) {
    struct detector_job *j = (struct detector_job *)r;
    if (config->job_suspicions_max < j->suspicions.count || config->job_suspicions_max < j->extensions.count) return ERR_FULL;
  }
  d->config = *config;
  return 0;
}

/* ---- the life of a suspicion ---- */

void detector_advance(struct detector *d, uint64_t now_ns) {
  if (now_ns > d->now_ns) d->now_ns = now_ns;
  const struct detector_config *c = &d->config;
  uint64_t beat_ns = d->beat_ns + c->beat_ms * DETECTOR_MS;
  d->beat_ns = d->now_ns;
  if (d->running == 0 || d->now_ns <= beat_ns + c->stall_ms * DETECTOR_MS) return;
  d->counts.stalls++;
  d->stalled_ns += d->now_ns - beat_ns;
  d->counts.stalled_ms = d->stalled_ns / DETECTOR_MS;
}

/* With its confirmations and extensions, from when it began to count. */
static uint64_t timeout_of(const struct detector_record *r) {
  return suspicion_deadline(&r->suspicion) - r->suspicion.started_ns + r->extended_ns;
}

uint64_t detector_record_deadline(const struct detector_record *r) {
  return r->suspicion.started_ns + timeout_of(r) + r->returned_ns;
}

void detector_arm(struct detector *d, struct detector_record *r) {
  r->armed_ns = d->now_ns;
  (void)wheel_set(&d->wheel, &r->due, detector_record_deadline(r)); /* detector_deadline() asks the wheel anew. */
}

static bool is_job(const struct detector_record *r) { return r->job->length > 0; }

static void report(struct detector *d, struct detector_record *r, uint8_t action, enum detector_why why) {
  r->action = action, r->why = (uint8_t)why;
  if (r->waiting) return;
  r->waiting = true, r->queued = NULL;
  *d->last = r, d->last = &r->queued;
}

void detector_end(struct detector *d, struct detector_record *r, enum detector_kind kind, enum detector_why why) {
  assert(r->running && kind != DETECTOR_SUSPECTED);
  wheel_remove(&d->wheel, &r->due);
  r->running = false, r->armed_ns = d->now_ns;
  d->running--;
  if (is_job(r)) d->counts.suspicions--;
  else d->counts.machines--;
  if (kind == DETECTOR_EXPIRED) d->counts.expired[is_job(r)]++;
  else d->counts.cleared[why]++;
  detector_record_detach(r);
  bool untold = r->waiting && kind == DETECTOR_CLEARED; /* Nobody took its beginning: then its end says nothing either. */
  report(d, r, untold ? DETECTOR_NOTHING : (uint8_t)kind, why);
}

bool detector_next(struct detector *d, struct detector_action *out) {
  if (d->taken) detector_record_free(d, d->taken);
  d->taken = NULL;
  while (d->first) {
    struct detector_record *r = d->first;
    d->first = r->queued;
    if (!d->first) d->last = &d->first;
    r->waiting = false;
    if (r->action == DETECTOR_NOTHING) {
      detector_record_free(d, r);
      continue;
    }
    *out = (struct detector_action){
        .kind = r->action, .why = r->why, .incarnation = r->incarnation, .confirmations = r->suspicion.confirmed,
        .job = {r->job->name, r->job->length}, .node = {r->node->name, r->node->length},
        .timeout_ns = timeout_of(r), .age_ns = (r->running ? d->now_ns : r->armed_ns) - r->began_ns,
    };
    if (!r->running) d->taken = r;
    return true;
  }
  return false;
}

static int clear_jobs(struct detector *d, struct detector_node *n, enum detector_why why) {
  int cleared = 0;
  for (struct detector_record *r; (r = detector_node_last(n)); cleared++) detector_end(d, r, DETECTOR_CLEARED, why);
  return cleared;
}

static int clear_all(struct detector *d, struct detector_node *n, enum detector_why why) {
  bool machine = n->machine != NULL;
  if (machine) detector_end(d, n->machine, DETECTOR_CLEARED, why);
  return machine + clear_jobs(d, n, why);
}

/* ---- claims about nodes ---- */

static int compare(struct detector_incarnation a, struct detector_incarnation b) {
  if (a.generation != b.generation) return a.generation < b.generation ? -1 : 1;
  return a.version < b.version ? -1 : a.version > b.version;
}

static void enter(struct detector *d, struct detector_node *n, enum detector_state state) {
  n->state = state, n->changed_ns = d->now_ns;
}

int detector_node(struct detector *d, uint64_t now_ns, struct detector_text node, enum detector_state state,
                  struct detector_incarnation incarnation) {
  assert(state < DETECTOR_STATES);
  detector_advance(d, now_ns);
  struct detector_node *n;
  int rc = detector_node_need(d, node, &n);
  if (rc < 0) return rc;
  int newer = compare(incarnation, n->incarnation);
  if (n->claimed && newer == 0 && state == n->state) return 0;
  bool released = newer == 0 && n->state == DETECTOR_HELD && state == DETECTOR_ALIVE;
  bool greater = newer > 0 || (newer == 0 && state > n->state) || released;
  if (n->claimed && !greater) return d->counts.stale++, 0;
  bool reborn = n->claimed && incarnation.generation > n->incarnation.generation;
  n->claimed = true, n->incarnation = incarnation;
  enter(d, n, state);
  if (reborn || state >= DETECTOR_HELD) n->life++;
  if (state >= DETECTOR_HELD) clear_all(d, n, state == DETECTOR_LEFT ? DETECTOR_WHY_NODE_LEFT : DETECTOR_WHY_NODE_DEAD);
  else if (reborn) clear_all(d, n, DETECTOR_WHY_REJOINED);
  else if (state == DETECTOR_ALIVE && n->machine) detector_end(d, n->machine, DETECTOR_CLEARED, DETECTOR_WHY_REFUTED);
  return 1;
}

int detector_forget(struct detector *d, uint64_t now_ns, struct detector_text node) {
  detector_advance(d, now_ns);
  struct detector_node *n = detector_node_find(d, node);
  if (!n) return 0;
  int cleared = clear_all(d, n, DETECTOR_WHY_FORGOTTEN);
  n->claimed = false, n->life++, n->incarnation = (struct detector_incarnation){0};
  enter(d, n, DETECTOR_ALIVE);
  detector_node_release(d, n);
  return cleared;
}

/* ---- suspicions ---- */

static uint64_t at_most(double ns, uint64_t most_ns) { return ns < (double)most_ns ? (uint64_t)ns : most_ns; }

static void start(struct detector *d, struct detector_record *r, uint32_t accuser, struct detector_scale scale) {
  const struct detector_config *c = &d->config;
  if (scale.health > DETECTOR_HEALTH_MAX) scale.health = DETECTOR_HEALTH_MAX;
  double factor = (scale.members > 10 ? log10(scale.members) : 1) * (1 + scale.health);
  uint64_t least_ns, most_ns, from_ns = d->now_ns;
  if (is_job(r)) { /* Within its bounds whatever the scale, so that a wrong one cannot freeze expiry. */
    most_ns = c->job_max_ms * DETECTOR_MS;
    least_ns = at_most(c->job_min_ms * DETECTOR_MS * factor, most_ns);
    struct detector_extension *x = detector_extension_find(r->job, r->node);
    if (x && x->until_ns > from_ns) from_ns = x->until_ns;
  } else { /* As membership does it. */
    most_ns = (uint64_t)(c->node_max_ms * DETECTOR_MS * factor);
    least_ns = (uint64_t)(c->node_min_ms * DETECTOR_MS * factor);
  }
  uint32_t others = scale.members >= 2 ? scale.members - 2 : 0, wanted = c->confirmations;
  if (scale.members > 0 && wanted > others) wanted = others;
  suspicion_start(&r->suspicion, from_ns, least_ns, most_ns, wanted, accuser);
  d->running++;
  r->began_ns = d->now_ns, r->stalled_ns = d->stalled_ns, r->running = true;
  d->counts.suspected[is_job(r)]++;
  if (is_job(r)) d->counts.suspicions++;
  else d->counts.machines++;
  detector_arm(d, r);
  report(d, r, DETECTOR_SUSPECTED, DETECTOR_WHY_SILENT);
}

static int confirm(struct detector *d, struct detector_record *r, uint32_t accuser) {
  uint64_t before_ns = detector_record_deadline(r);
  if (!suspicion_confirm(&r->suspicion, accuser)) return d->counts.repeated++, 0;
  assert(detector_record_deadline(r) <= before_ns);
  (void)before_ns; /* Only the assertion reads it. */
  d->counts.confirmed[is_job(r)]++;
  detector_arm(d, r);
  return 1;
}

static int full(struct detector *d, const struct detector_job *j) {
  if (j && j->length > 0 && j->suspicions.count >= d->config.job_suspicions_max) return d->counts.full_job++, ERR_FULL;
  if (d->records >= d->config.suspicions_max) return d->counts.full_all++, ERR_FULL;
  return 0;
}

/* What the pair needs, made if it is not there. On failure nothing is left. */
static int need(struct detector *d, struct detector_text job, struct detector_text node, struct detector_job **j, struct detector_node **n) {
  int rc = detector_node_need(d, node, n);
  if (rc < 0) return rc;
  rc = detector_job_need(d, job, j);
  if (rc < 0) detector_node_release(d, *n);
  return rc;
}

static void release(struct detector *d, struct detector_job *j, struct detector_node *n) {
  detector_job_release(d, j);
  detector_node_release(d, n);
}

int detector_suspect(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node, uint32_t accuser,
                     uint32_t generation, struct detector_scale scale) {
  detector_advance(d, now_ns);
  struct detector_job *j = detector_job_find(d, job);
  struct detector_node *n = j ? detector_node_find_for(d, j, node) : detector_node_find(d, node);
  struct detector_record *r = n && j ? detector_record_find(j, n) : NULL;
  if (n && generation < n->incarnation.generation) return d->counts.stale++, 0;
  if (n && n->state >= DETECTOR_HELD) return d->counts.of_dead++, 0;
  if (r) return confirm(d, r, accuser);
  int rc = full(d, j);
  if (rc == 0) rc = need(d, job, node, &j, &n);
  if (rc < 0) return rc;
  rc = detector_record_new(d, j, n, &r);
  if (rc < 0) return release(d, j, n), rc;
  if (!is_job(r) && n->state == DETECTOR_ALIVE) enter(d, n, DETECTOR_SUSPECT);
  start(d, r, accuser, scale);
  return 1;
}

static struct detector_record *find(struct detector *d, struct detector_text job, struct detector_text node) {
  struct detector_job *j = detector_job_find(d, job);
  if (!j || (j->length > 0 && j->suspicions.count == 0)) return NULL;
  struct detector_node *n = detector_node_find_for(d, j, node);
  return n ? detector_record_find(j, n) : NULL;
}

int detector_confirm(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node, uint32_t accuser) {
  detector_advance(d, now_ns);
  struct detector_record *r = find(d, job, node);
  return r ? confirm(d, r, accuser) : (d->counts.unmatched++, 0);
}

int detector_progress(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node) {
  detector_advance(d, now_ns);
  struct detector_job *j = job.length > 0 ? detector_job_find(d, job) : NULL;
  struct detector_node *n = j ? detector_node_find_for(d, j, node) : NULL;
  if (!n) return 0;
  struct detector_extension *x = detector_extension_find(j, n);
  for (uint32_t i = 0; x && i < x->count; i++) x->of[i].progressed = true;
  struct detector_record *r = detector_record_find(j, n);
  if (!r) return 0;
  detector_end(d, r, DETECTOR_CLEARED, DETECTOR_WHY_PROGRESS);
  return 1;
}

int detector_over(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node) {
  detector_advance(d, now_ns);
  struct detector_job *j = job.length > 0 ? detector_job_find(d, job) : NULL;
  struct detector_node *only = node.length > 0 ? detector_node_find(d, node) : NULL;
  int cleared = 0;
  if (!j || (node.length > 0 && !only)) return 0;
  for (uint32_t i = 0; i < j->suspicions.capacity;) { /* A removal closes the gap, so look at the slot again. */
    struct detector_record *r = j->suspicions.slots[i].item;
    if (!r || (only && r->node != only)) i++;
    else detector_end(d, r, DETECTOR_CLEARED, DETECTOR_WHY_OVER), cleared++;
  }
  for (uint32_t i = 0; i < j->extensions.capacity;) {
    struct detector_extension *x = j->extensions.slots[i].item;
    if (!x || (only && x->node != only)) i++;
    else detector_extension_drop(d, j, x);
  }
  detector_job_release(d, j);
  return cleared;
}

/* ---- extensions ---- */

static uint64_t hash_of(struct detector_text name) { /* FNV-1a */
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < name.length; i++) hash = (hash ^ (uint8_t)name.bytes[i]) * UINT64_C(0x100000001b3);
  return hash;
}

static struct detector_grants *grants_of(struct detector_extension *x, uint64_t workflow) {
  for (uint32_t i = 0; i < x->count; i++)
    if (x->of[i].workflow == workflow) return x->last = i, &x->of[i];
  struct detector_grants *grown = realloc(x->of, (x->count + 1) * sizeof *grown);
  if (!grown) return NULL;
  x->of = grown, x->last = x->count++;
  grown[x->last] = (struct detector_grants){.workflow = workflow, .progress = UINT64_MAX};
  return &grown[x->last];
}

static bool made_progress(const struct detector_grants *g, uint64_t progress) {
  if (progress == UINT64_MAX) return g->progressed || g->granted == 0;
  return g->progress == UINT64_MAX ? progress > 0 : progress > g->progress;
}

static enum detector_grant judge(const struct detector_config *c, struct detector_grants *g, uint64_t progress, uint32_t *ms) {
  *ms = 0;
  if (g->granted >= c->extensions_max) {
    if (!g->graced) *ms = c->grace_ms;
    g->graced = true;
    return DETECTOR_EXHAUSTED;
  }
  if (!made_progress(g, progress)) return DETECTOR_NO_PROGRESS;
  g->granted++, g->progressed = false;
  if (progress != UINT64_MAX) g->progress = progress;
  *ms = c->extension_base_ms >> g->granted;
  if (*ms < c->extension_min_ms) *ms = c->extension_min_ms;
  return DETECTOR_GRANTED;
}

int detector_extend(struct detector *d, uint64_t now_ns, struct detector_text job, struct detector_text node,
                    struct detector_text workflow, uint64_t progress, enum detector_grant *grant, uint32_t *granted_ms) {
  detector_advance(d, now_ns);
  assert(job.length > 0);
  struct detector_node *n = detector_node_find(d, node);
  struct detector_job *j;
  struct detector_extension *x;
  *granted_ms = 0, *grant = DETECTOR_NOT_ALIVE;
  if (n && n->state >= DETECTOR_HELD) return 0;
  if (workflow.length > DETECTOR_NAME_MAX) return ERR_TOO_LARGE;
  int rc = need(d, job, node, &j, &n);
  if (rc < 0) return rc;
  rc = detector_extension_need(d, j, n, &x);
  if (rc < 0) return release(d, j, n), rc;
  uint64_t name = hash_of(workflow);
  bool known = false;
  for (uint32_t i = 0; i < x->count; i++) known = known || x->of[i].workflow == name;
  if (!known && x->count == DETECTOR_WORKFLOWS_MAX) return d->counts.full_extensions++, ERR_FULL;
  struct detector_grants *g = grants_of(x, name);
  if (!g) {
    if (x->count == 0) detector_extension_drop(d, j, x), detector_job_release(d, j);
    return ERR_MEMORY;
  }
  *grant = judge(&d->config, g, progress, granted_ms);
  if (*grant == DETECTOR_NO_PROGRESS) d->counts.no_progress++;
  if (*grant == DETECTOR_EXHAUSTED) d->counts.exhausted++, d->counts.graces += *granted_ms > 0;
  if (*grant == DETECTOR_GRANTED) d->counts.extended++;
  if (*granted_ms == 0) return 0;
  uint64_t ns = *granted_ms * DETECTOR_MS;
  d->counts.extended_ms += *granted_ms;
  x->until_ns = (x->until_ns > d->now_ns ? x->until_ns : d->now_ns) + ns;
  struct detector_record *r = detector_record_find(j, n);
  if (r) r->extended_ns += ns, detector_arm(d, r);
  return 1;
}

/* ---- time ---- */

uint64_t detector_deadline(const struct detector *d) {
  if (d->running == 0) return UINT64_MAX;
  uint64_t next_ns = wheel_next_ns(&d->wheel), beat_ns = d->beat_ns + d->config.beat_ms * DETECTOR_MS;
  return next_ns < beat_ns ? next_ns : beat_ns;
}

/* Whether its end waits: for the time in which we did not listen, or for what may wait unread since a late tick. */
static bool postpone(struct detector *d, struct detector_record *r) {
  uint64_t deadline_ns = detector_record_deadline(r), timeout_ns = timeout_of(r), owed_ns = d->stalled_ns - r->stalled_ns;
  r->stalled_ns = d->stalled_ns;
  uint64_t left_ns = timeout_ns > r->returned_ns ? timeout_ns - r->returned_ns : 0;
  if (owed_ns > left_ns) owed_ns = left_ns;
  if (deadline_ns + owed_ns <= d->now_ns) {
    uint64_t due_ns = deadline_ns > r->armed_ns ? deadline_ns : r->armed_ns; /* A confirmation may put it into the past. */
    if (r->late || d->now_ns - due_ns <= DETECTOR_TICK_NS) return false;
    r->late = true, owed_ns = d->now_ns + DETECTOR_TICK_NS - deadline_ns;
  }
  r->returned_ns += owed_ns;
  d->counts.postponed++;
  detector_arm(d, r);
  return true;
}

static void expire(struct detector *d, struct detector_record *r) {
  struct detector_node *n = r->node;
  bool machine = !is_job(r);
  detector_end(d, r, DETECTOR_EXPIRED, DETECTOR_WHY_TIMEOUT);
  if (!machine) return;
  enter(d, n, DETECTOR_DEAD);
  n->claimed = true, n->life++;
  clear_jobs(d, n, DETECTOR_WHY_NODE_DEAD);
}

void detector_tick(struct detector *d, uint64_t now_ns) {
  detector_advance(d, now_ns);
  struct wheel_entry *due;
  while ((due = wheel_pop(&d->wheel, d->now_ns))) {
    struct detector_record *r = (struct detector_record *)due;
    if (!postpone(d, r)) expire(d, r);
  }
}
