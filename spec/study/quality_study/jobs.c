/* Layer two: nodes that hang for one job while their machine lives. The core is core/detector, driven as a leader of jobs drives it.
 *
 * LEADERS nodes of one tier each lead a job on all workers. A worker sends progress of each job to its leader every heartbeat. Without a
 * sign for ASK heartbeats the leader asks the worker, each heartbeat; without an answer for SUSPECT heartbeats it suspects it, and asks
 * its peers to ask. A peer that gets no answer within ANSWER heartbeats confirms; else it passes the answer on. Datagrams all, and any may
 * be lost. A worker that hangs for a job sends nothing and answers nothing about it, and goes on with the others.
 * The fixed detector has the progress alone. */
#include "core/detector.h"

#include "quality.h"

enum { LEADERS = 3, ASK = 2, SUSPECT = 4, ANSWER = 2, WORKERS_MAX = 250, PORT = 7200 };
enum kind { PROGRESS, QUESTION, REPLY, HELP, LIVES, CONFIRM };

struct jobs;
struct worker {
  struct jobs *all;
  struct shoal_world *world;
  struct world_udp *socket;
  struct world_timer *beat;
  bool hangs[LEADERS];
};
struct watched { /* A worker, at a leader of one job. */
  uint64_t heard_ns, asked_ns, helped_ns;
  bool suspected;
  struct quality_pair pair;
  uint64_t progress_ns; /* The fixed detector's. */
  struct quality_pair fixed;
};
struct inquiry { /* For a peer that leads job j. */
  uint64_t until_ns; /* 0: none. */
};
struct leader {
  struct jobs *all;
  struct sim_node *machine;
  struct shoal_world *world;
  struct world_udp *socket;
  struct world_timer *look, *due, *fixed_due;
  struct detector *core;
  uint64_t looked_ns;
  struct watched at[WORKERS_MAX];
  struct inquiry for_peer[LEADERS][WORKERS_MAX];
};
struct jobs {
  const struct quality_profile *profile;
  struct sim *sim;
  struct rng rng;
  uint32_t count;
  struct leader leaders[LEADERS];
  struct worker workers[WORKERS_MAX];
  uint64_t beat_ns, timeout_ns, hung_ns;
  struct quality *ours, *theirs;
  bool counting;
};

static uint32_t place(const struct leader *l) { return (uint32_t)(l - l->all->leaders); }
static struct shoal_address leader_at(uint32_t i) { return (struct shoal_address){.family = 4, .port = PORT, .bytes = {10, 1, 0, (uint8_t)(i + 1)}}; }
static struct shoal_address worker_at(uint32_t i) { return (struct shoal_address){.family = 4, .port = PORT, .bytes = {10, 2, 0, (uint8_t)(i + 1)}}; }

static void say(struct world_udp *socket, struct shoal_address to, enum kind kind, uint32_t job, uint32_t worker) {
  uint8_t bytes[3] = {(uint8_t)kind, (uint8_t)job, (uint8_t)worker};
  (void)world_udp_send(socket, &to, bytes, sizeof bytes); /* One that is lost is the subject of the study. */
}

static struct detector_text name_of(char *room, char kind, uint32_t index) {
  return (struct detector_text){room, (size_t)snprintf(room, 8, "%c%u", kind, index)};
}

static void judge(struct leader *l, struct quality *q, struct quality_pair *p, uint32_t worker, bool dead) {
  struct jobs *a = l->all;
  bool lives = !a->workers[worker].hangs[place(l)];
  if (a->counting) quality_judge(q, p, dead, lives, sim_now_ns(a->sim));
  else if (dead && !p->dead && !lives) study_add(&q->detect_s, (double)(sim_now_ns(a->sim) - a->hung_ns) / 1e9);
  p->dead = dead;
}

static uint32_t index_in(struct detector_text name) { /* It is not terminated. */
  uint32_t index = 0;
  for (size_t i = 1; i < name.length; i++) index = 10 * index + (uint32_t)(name.bytes[i] - '0');
  return index;
}

/* ---- workers ---- */

static void on_beat(void *data) {
  struct worker *w = data;
  for (uint32_t j = 0; j < LEADERS; j++)
    if (!w->hangs[j]) say(w->socket, leader_at(j), PROGRESS, j, (uint32_t)(w - w->all->workers));
  world_timer_start(w->beat, world_now_ns(w->world) + w->all->beat_ns);
}

static void at_worker(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct worker *w = data;
  (void)length;
  if (bytes[0] == QUESTION && !w->hangs[bytes[1]]) say(w->socket, *from, REPLY, bytes[1], bytes[2]);
}

/* ---- leaders: ours ---- */

static void settle(struct leader *l) {
  struct detector_action a;
  while (detector_next(l->core, &a)) {
    uint32_t worker = index_in(a.node);
    l->at[worker].suspected = a.kind == DETECTOR_SUSPECTED;
    if (a.kind == DETECTOR_EXPIRED) judge(l, l->all->ours, &l->at[worker].pair, worker, true);
  }
  uint64_t at_ns = detector_deadline(l->core);
  if (at_ns < UINT64_MAX) world_timer_start(l->due, at_ns);
}

static void on_due(void *data) {
  struct leader *l = data;
  detector_tick(l->core, world_now_ns(l->world));
  settle(l);
}

static void suspect(struct leader *l, uint32_t i) {
  char job[8], node[8];
  uint64_t now_ns = world_now_ns(l->world);
  if (!l->at[i].suspected)
    STUDY_NEED(detector_suspect(l->core, now_ns, name_of(job, 'j', place(l)), name_of(node, 'w', i), place(l), UINT32_MAX,
                                (struct detector_scale){l->all->profile->alone ? 2 : LEADERS + 1, 0}) == 1);
  l->at[i].helped_ns = now_ns;
  for (uint32_t peer = 0; peer < LEADERS && !l->all->profile->no_help && !l->all->profile->alone; peer++)
    if (peer != place(l)) say(l->socket, leader_at(peer), HELP, place(l), i);
  settle(l);
}

static void sign(struct leader *l, uint32_t i) {
  char job[8], node[8];
  l->at[i].heard_ns = world_now_ns(l->world);
  judge(l, l->all->ours, &l->at[i].pair, i, false);
  if (detector_progress(l->core, l->at[i].heard_ns, name_of(job, 'j', place(l)), name_of(node, 'w', i)) > 0) settle(l);
}

/* Silence in which this process did not run is not the workers'. */
static void excuse(struct leader *l, uint64_t now_ns, uint64_t interval_ns) {
  uint64_t late_ns = now_ns - l->looked_ns > 2 * interval_ns ? now_ns - l->looked_ns - interval_ns : 0;
  l->looked_ns = now_ns;
  for (uint32_t i = 0; i < l->all->count && late_ns > 0; i++) {
    uint64_t heard_ns = l->at[i].heard_ns + late_ns;
    l->at[i].heard_ns = heard_ns < now_ns ? heard_ns : now_ns;
  }
}

static void inquire(struct leader *l, uint64_t now_ns) {
  for (uint32_t j = 0; j < LEADERS; j++) {
    for (uint32_t i = 0; i < l->all->count; i++) {
      struct inquiry *q = &l->for_peer[j][i];
      if (q->until_ns == 0) continue;
      if (now_ns < q->until_ns) say(l->socket, worker_at(i), QUESTION, j, i);
      else q->until_ns = 0, say(l->socket, leader_at(j), CONFIRM, j, i);
    }
  }
}

static void on_look(void *data) {
  struct leader *l = data;
  uint64_t now_ns = world_now_ns(l->world), beat_ns = l->all->beat_ns, interval_ns = beat_ns / 4;
  excuse(l, now_ns, interval_ns);
  for (uint32_t i = 0; i < l->all->count; i++) {
    struct watched *w = &l->at[i];
    if (!l->all->profile->no_question && now_ns - w->heard_ns >= ASK * beat_ns && now_ns - w->asked_ns >= beat_ns)
      w->asked_ns = now_ns, say(l->socket, worker_at(i), QUESTION, place(l), i);
    if (now_ns - w->heard_ns >= SUSPECT * beat_ns && !w->pair.dead && (!w->suspected || now_ns - w->helped_ns >= beat_ns)) suspect(l, i);
  }
  inquire(l, now_ns);
  world_timer_start(l->look, now_ns + interval_ns);
}

/* ---- leaders: the fixed one ---- */

static void arm(struct leader *l) {
  uint64_t next_ns = UINT64_MAX;
  for (uint32_t i = 0; i < l->all->count; i++)
    if (!l->at[i].fixed.dead && l->at[i].progress_ns < next_ns) next_ns = l->at[i].progress_ns;
  if (next_ns < UINT64_MAX && l->all->timeout_ns > 0) world_timer_start(l->fixed_due, next_ns + l->all->timeout_ns);
}

static void on_fixed_due(void *data) {
  struct leader *l = data;
  uint64_t now_ns = world_now_ns(l->world);
  for (uint32_t i = 0; i < l->all->count; i++)
    if (now_ns >= l->at[i].progress_ns + l->all->timeout_ns) judge(l, l->all->theirs, &l->at[i].fixed, i, true);
  arm(l);
}

static void at_leader(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct leader *l = data;
  uint32_t job = bytes[1], worker = bytes[2];
  char job_room[8], node_room[8];
  uint64_t now_ns = world_now_ns(l->world);
  (void)length;
  switch (bytes[0]) {
    case PROGRESS:
      l->at[worker].progress_ns = now_ns;
      judge(l, l->all->theirs, &l->at[worker].fixed, worker, false);
      arm(l);
      sign(l, worker);
      return;
    case REPLY:
      if (job == place(l)) sign(l, worker);
      if (job != place(l) && l->for_peer[job][worker].until_ns)
        l->for_peer[job][worker].until_ns = 0, say(l->socket, leader_at(job), LIVES, job, worker);
      return;
    case HELP:
      if (!l->for_peer[job][worker].until_ns) {
        l->for_peer[job][worker].until_ns = now_ns + ANSWER * l->all->beat_ns;
        say(l->socket, worker_at(worker), QUESTION, job, worker);
      }
      return;
    case LIVES: sign(l, worker); return;
    default:
      if (detector_confirm(l->core, now_ns, name_of(job_room, 'j', job), name_of(node_room, 'w', worker), from->bytes[3] - 1U) > 0) settle(l);
  }
}

/* ---- runs ---- */

static void open_leader(struct jobs *a, uint32_t i, const struct quality_profile *p) {
  static const struct world_udp_events events = {.on_datagram = at_leader};
  struct leader *l = &a->leaders[i];
  struct shoal_address address = leader_at(i), machine = address;
  struct detector_config config;
  char name[8];
  machine.port = 0;
  l->all = a;
  (void)name_of(name, 'm', i);
  STUDY_NEED(sim_node_add(a->sim, name, &machine, &l->machine) == 0);
  l->world = sim_node_world(l->machine);
  STUDY_NEED(world_udp_open(l->world, &address, &events, l, &l->socket) == 0);
  STUDY_NEED(world_timer_open(l->world, on_look, NULL, l, &l->look) == 0 && world_timer_open(l->world, on_due, NULL, l, &l->due) == 0);
  STUDY_NEED(world_timer_open(l->world, on_fixed_due, NULL, l, &l->fixed_due) == 0);
  STUDY_NEED(detector_config_profile("lan", (enum detector_watches)p->watches, &config) == 0);
  uint64_t now_ns = world_now_ns(l->world);
  STUDY_NEED((l->core = detector_new(&config, now_ns)));
  for (uint32_t w = 0; w < a->count; w++) l->at[w].heard_ns = l->at[w].progress_ns = now_ns;
  l->looked_ns = now_ns;
  world_timer_start(l->look, now_ns + rng_below(&a->rng, a->beat_ns / 4));
  arm(l);
}

static void open_worker(struct jobs *a, uint32_t i) {
  static const struct world_udp_events events = {.on_datagram = at_worker};
  struct worker *w = &a->workers[i];
  struct shoal_address address = worker_at(i), machine = address;
  struct sim_node *node;
  char name[8];
  machine.port = 0;
  w->all = a;
  (void)name_of(name, 'w', i);
  STUDY_NEED(sim_node_add(a->sim, name, &machine, &node) == 0);
  w->world = sim_node_world(node);
  STUDY_NEED(world_udp_open(w->world, &address, &events, w, &w->socket) == 0 && world_timer_open(w->world, on_beat, NULL, w, &w->beat) == 0);
  world_timer_start(w->beat, world_now_ns(w->world) + rng_below(&a->rng, a->beat_ns));
}

static struct jobs *begin(const struct quality_profile *p, uint64_t seed, uint32_t count, double timeout_s, struct quality *ours,
                          struct quality *fixed) {
  struct jobs *a = calloc(1, sizeof *a);
  STUDY_NEED(a && count > 0 && count <= WORKERS_MAX);
  rng_seed(&a->rng, seed);
  STUDY_NEED(sim_open(&(struct sim_config){.seed = seed, .link = p->link}, &a->sim) == 0);
  a->profile = p, a->count = count, a->beat_ns = p->beat_ms * MILLISECOND, a->timeout_ns = (uint64_t)(timeout_s * 1e9), a->ours = ours, a->theirs = fixed;
  for (uint32_t i = 0; i < LEADERS; i++) open_leader(a, i, p);
  for (uint32_t i = 0; i < count; i++) open_worker(a, i);
  return a;
}

static void run(struct jobs *a, uint64_t duration_ns) { sim_run_until(a->sim, sim_now_ns(a->sim) + duration_ns); }

static void finish(struct jobs *a) {
  for (uint32_t i = 0; i < LEADERS; i++) detector_free(a->leaders[i].core);
  sim_close(a->sim);
  free(a);
}

/* A worker hangs for a job, another one for each of the others, and later they go on. */
static void hangs(const struct quality_profile *p, const struct quality_size *size, uint64_t seed, double timeout_s, struct quality *ours,
                  struct quality *fixed) {
  struct jobs *a = begin(p, seed, size->subjects, timeout_s, ours, fixed);
  for (uint32_t k = 0; k < size->crashes; k++) {
    run(a, 12 * a->beat_ns + rng_below(&a->rng, a->beat_ns));
    uint32_t first = (uint32_t)rng_below(&a->rng, a->count);
    a->hung_ns = sim_now_ns(a->sim);
    for (uint32_t j = 0; j < LEADERS; j++) {
      struct watched *w = &a->leaders[j].at[(first + j) % a->count];
      a->workers[(first + j) % a->count].hangs[j] = true;
      study_add(&fixed->silent_s, (double)(world_now_ns(a->leaders[j].world) - w->progress_ns) / 1e9);
    }
    run(a, 40 * SECOND + 20 * a->beat_ns);
    for (uint32_t j = 0; j < LEADERS; j++) {
      ours->missed += !a->leaders[j].at[(first + j) % a->count].pair.dead;
      a->workers[(first + j) % a->count].hangs[j] = false;
    }
  }
  finish(a);
}

static void accuracy(const struct quality_profile *p, const struct quality_size *size, uint64_t seed, double timeout_s, struct quality *ours,
                     struct quality *fixed) {
  struct jobs *a = begin(p, seed, size->subjects, timeout_s, ours, fixed);
  run(a, 10 * a->beat_ns);
  a->counting = true;
  for (uint32_t j = 0; j < LEADERS; j++)
    for (uint32_t i = 0; i < a->count; i++) a->leaders[j].at[i].pair.since_ns = a->leaders[j].at[i].fixed.since_ns = 0;
  uint64_t began_ns = sim_now_ns(a->sim), end_ns = began_ns + size->beats * a->beat_ns;
  while (sim_now_ns(a->sim) < end_ns) {
    double beats = p->stall_every > 0 ? fmin(rng_exponential(&a->rng, p->stall_every / LEADERS), size->beats) : size->beats;
    uint64_t until_ns = sim_now_ns(a->sim) + (uint64_t)(beats * (double)a->beat_ns) + 1;
    sim_run_until(a->sim, until_ns < end_ns ? until_ns : end_ns);
    if (p->stall_every > 0)
      sim_node_stall(a->leaders[rng_below(&a->rng, LEADERS)].machine, (uint64_t)(p->stall_beats * (0.5 + rng_unit(&a->rng)) * (double)a->beat_ns));
  }
  double pairs_s = (double)(sim_now_ns(a->sim) - began_ns) / 1e9 * LEADERS * a->count;
  ours->pairs_s += pairs_s, fixed->pairs_s += pairs_s;
  for (uint32_t j = 0; j < LEADERS; j++)
    for (uint32_t i = 0; i < a->count; i++)
      quality_end(ours, &a->leaders[j].at[i].pair, sim_now_ns(a->sim)), quality_end(fixed, &a->leaders[j].at[i].fixed, sim_now_ns(a->sim));
  finish(a);
}

double quality_jobs(const struct quality_profile *p, const struct quality_size *size, struct quality *ours, struct quality *fixed) {
  struct quality first[2] = {{0}};
  hangs(p, size, size->seed, 0, &first[0], &first[1]);
  double timeout_s = quality_timeout_s(&first[0], &first[1]);
  study_clear(&first[0].detect_s), study_clear(&first[1].silent_s);
  hangs(p, size, size->seed, timeout_s, ours, fixed); /* The same again, now with the timeout that gives the same mean. */
  accuracy(p, size, size->seed + 1, timeout_s, ours, fixed);
  return timeout_s;
}
