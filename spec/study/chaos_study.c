/* Chaos: under any faults a cluster's invariants hold at every event, and when the faults stop all members agree again without help.
 *
 * Each seed draws a size (3 .. 60), the kinds of faults, and their times. Half of the seeds run with the default values, one in twenty
 * with extreme ones. The invariants at each event are those of spec/c/swim_net.h. At rest, a node that is up is alive in every view, with
 * its own incarnation, address and payload; a node that is gone is dead, has left or is forgotten; there is no more gossip, and an idle
 * node sends no more than its probes.
 *
 * `scripts/study chaos --from=SEED --seeds=1 --verbose=1` repeats a failed seed and prints its faults and events. Each seed is a process
 * of its own, so that a failed assertion fails only that seed.
 *
 * Two nodes (the anchors) never leave for good and keep their addresses: a node that starts has them as its seeds. Without them, seed
 * lists could name only dead nodes, and then no cluster could reunite. */
#include "../c/swim_net.h"
#include "study.h"

enum { ANCHORS = 2, SIZE_MAX_ = 60, REST_S = 15 };

/* ---- the draws of a seed ---- */

#define FAULTS(X)                                                                                                   \
  X(LOSS) X(JITTER) X(CUT_ONE) X(CUT_BOTH) X(ISLAND) X(FLIP) X(PAUSE) X(CRASH) X(GONE) X(HALF) X(EVERYONE) X(SWAP) \
  X(RENAMED) X(TWIN) X(LEAVE) X(PAYLOAD) X(HINT) X(CORRUPT) X(DUPLICATE) X(REORDER) X(RATE) X(CLIFF) X(CLOG) X(DRIFT) X(SLOW)
enum fault {
#define FAULT_ENUM(name) name,
  FAULTS(FAULT_ENUM)
#undef FAULT_ENUM
  FAULTS_COUNT
};
#define FAULT_NAME(name) #name,
static const char *const fault_names[] = {FAULTS(FAULT_NAME)};

enum status { UP, DOWN, OVER }; /* Down: it will start again. Over: it will not. */
struct chaos {
  struct net *net;
  uint32_t size;
  uint32_t kinds; /* A bit for each kind of fault that this seed has. */
  enum status status[NODES];
  bool flips[NODES], flipped[NODES], twin[NODES];
  bool verbose, extreme;
  double loss;
};

static void log_line(const struct chaos *c, const char *what, uint32_t a, uint32_t b) {
  if (c->verbose) printf("%10.3f  %-8s n%u n%u\n", (double)now_ns(c->net) / 1e9, what, a, b);
}

static void log_event(struct net *net, uint32_t node, const struct swim_action *a) {
  printf("%10.3f  %s: %.*s %s (%u, %u)\n", (double)now_ns(net) / 1e9, net->nodes[node].name, (int)a->member.name_length,
         a->member.name, swim_event_name(a->event), a->member.incarnation.generation, a->member.incarnation.version);
}

static bool one_in(struct chaos *c, uint64_t n) { return rng_below(&c->net->rng, n) == 0; }
static uint32_t pick(struct chaos *c) { return (uint32_t)rng_below(&c->net->rng, c->net->count); }
static uint32_t draw(struct chaos *c, uint32_t least, uint32_t most) {
  return least + (uint32_t)rng_below(&c->net->rng, most - least + 1u);
}

static void draw_config(struct chaos *c, uint64_t seed) {
  struct swim_config *config = &c->net->config;
  if (seed % 2 == 0) { /* Other values than the defaults, but sane. */
    config->indirect_probes = draw(c, 1, 5), config->ping_repeats = draw(c, 0, 4), config->gossip_fanout = draw(c, 2, 5);
    config->gossip_interval_ms = draw(c, 50, 500), config->suspicion_multiplier = draw(c, 1, 5), config->suspicion_max = draw(c, 1, 8);
    config->confirmations = draw(c, 0, 4), config->health_max = draw(c, 0, 8), config->sync_interval_ms = draw(c, 2000, 20000);
    config->gossip_bytes_per_s = draw(c, 1000, 20000), config->datagram_max = draw(c, SWIM_DATAGRAM_MIN, SWIM_DATAGRAM_MAX);
    config->flap_limit = one_in(c, 4) ? 0 : draw(c, 2, 12), config->flap_half_life_ms = draw(c, 1000, 60000);
  }
  c->extreme = seed % 20 == 0;
  if (!c->extreme) return;
  config->datagram_max = SWIM_DATAGRAM_MIN, config->confirmations = 0, config->gossip_fanout = 1;
  config->members_max = c->size + 6; /* At most this many names. */
  config->indirect_probes = draw(c, 0, 1), config->ping_repeats = 0, config->health_max = one_in(c, 2) ? 0 : 8;
  config->buddy = draw(c, 0, 1), config->verify_deaths = draw(c, 0, 1), config->retransmit_multiplier = 1, config->suspicion_multiplier = 1, config->suspicion_max = 1;
  config->gossip_bytes_per_s = 300, config->tombstone_ms = draw(c, 5000, 60000);
}

/* ---- single faults ---- */

static void begin_life(struct chaos *c, uint32_t at) {
  start(c->net, at, (uint32_t)(1000 + rng_below(&c->net->rng, 5))); /* Its clock stood still, moved on, or was set back. */
  for (uint32_t i = 0; i < ANCHORS; i++) join(c->net, at, i);
  c->status[at] = UP;
  log_line(c, "start", at, at);
}

static void end_life(struct chaos *c, uint32_t at, enum status status) {
  if (c->status[at] == UP) crash(c->net, at);
  if (c->status[at] != OVER) c->status[at] = status;
  log_line(c, status == OVER ? "over" : "crash", at, at);
}

/* One more node, of this name, on the machine of one that is over or on a new one. */
static void add(struct chaos *c, uint32_t machine_of, uint32_t id) {
  struct net *net = c->net;
  if (net->count == NODES || net->count >= c->size + 6) return;
  uint32_t at = net->count;
  struct node *n = blank_node(net);
  if (id < at) n->id = id, memcpy(n->name, net->nodes[id].name, sizeof n->name), c->twin[at] = true;
  if (machine_of < at) {
    struct node *old = &net->nodes[machine_of];
    n->machine = old->machine, n->address = old->address;
    old->address.port = 1; /* No node has it. */
  } else {
    n->address = address_of(at);
    struct shoal_address machine = n->address;
    char name[16];
    machine.port = 0;
    (void)snprintf(name, sizeof name, "m%u", at);
    MUST(sim_node_add(net->sim, name, &machine, &n->machine) == 0);
    n->world = sim_node_world(n->machine);
  }
  log_line(c, "add", at, n->id);
  begin_life(c, at);
}

static void swap_addresses(struct chaos *c, uint32_t a, uint32_t b) {
  struct node *x = &c->net->nodes[a], *y = &c->net->nodes[b];
  if (c->status[a] != DOWN || c->status[b] != DOWN || a < ANCHORS || b < ANCHORS || a == b) return;
  struct sim_node *machine = x->machine;
  struct shoal_address address = x->address;
  x->machine = y->machine, x->address = y->address;
  y->machine = machine, y->address = address;
  log_line(c, "swap", a, b);
}

static void isolate(struct chaos *c, uint32_t at, bool in, bool out, bool on) {
  for (uint32_t i = 0; i < c->net->count; i++) {
    if (c->net->nodes[i].machine == c->net->nodes[at].machine) continue;
    if (in) cut_one(c->net, i, at, on);
    if (out) cut_one(c->net, at, i, on);
  }
}

static void island(struct chaos *c) { /* Some are cut off from the others, both ways. */
  uint64_t side = rng_next(&c->net->rng);
  for (uint32_t a = 0; a < c->net->count; a++)
    for (uint32_t b = 0; b < a; b++)
      if ((side >> a % 64 & 1) != (side >> b % 64 & 1) && c->net->nodes[a].machine != c->net->nodes[b].machine)
        cut_both(c->net, a, b, true);
}

static void mend_all(struct chaos *c) { sim_cut(c->net->sim, NULL, NULL, false); }

/* Faults of the whole network; each new property of a link (struct sim_link) is drawn here, and ended in `calm`. */
static void weather(struct chaos *c, enum fault kind) {
  struct sim_link *link = &c->net->link;
  double share = (double)rng_below(&c->net->rng, 40) / 100;
  if (kind == LOSS) link->loss = share;
  if (kind == JITTER) link->latency_ns = draw(c, 0, 100) * MILLISECOND, link->jitter_ns = draw(c, 0, 200) * MILLISECOND;
  if (kind == CORRUPT) link->corrupt = share;
  if (kind == DUPLICATE) link->duplicate = share;
  if (kind == REORDER) link->reorder = share, link->reorder_ns = draw(c, 0, 2000) * MILLISECOND;
  if (kind == RATE) link->bytes_per_s = draw(c, 200, 20000), link->queue_bytes = draw(c, 1, 20000); /* A queue of 1 takes one. */
  if (kind == CLIFF) link->size_max = draw(c, 300, SWIM_DATAGRAM_MAX);
  set_link(c->net);
}

/* A node's datagrams to some others wait, and arrive at once: one by one, in another order. */
static void clog_some(struct chaos *c, uint32_t a) {
  bool on = one_in(c, 2);
  for (uint32_t i = 0; i < c->net->count; i++) {
    uint32_t b = pick(c);
    if (c->net->nodes[a].machine != c->net->nodes[b].machine) sim_clog(c->net->sim, c->net->nodes[a].machine, c->net->nodes[b].machine, on);
  }
}
static void calm(struct chaos *c) {
  c->net->link = (struct sim_link){.latency_ns = 500000, .jitter_ns = 500000};
  set_link(c->net);
  mend_all(c);
  sim_clog(c->net->sim, NULL, NULL, false);
  for (uint32_t i = 0; i < c->net->count; i++) sim_node_slow(c->net->nodes[i].machine, 0, 0); /* Drift stays. */
}

static void one_fault(struct chaos *c, enum fault kind) {
  struct net *net = c->net;
  uint32_t a = pick(c), b = pick(c), bytes = (uint32_t)rng_next(&net->rng);
  log_line(c, fault_names[kind], a, b);
  bool same_machine = net->nodes[a].machine == net->nodes[b].machine;
  switch (kind) {
    case LOSS:
    case JITTER:
    case CORRUPT:
    case DUPLICATE:
    case REORDER:
    case RATE:
    case CLIFF: weather(c, kind); break;
    case CLOG: clog_some(c, a); break;
    case DRIFT: MUST(sim_node_drift(net->nodes[a].machine, (int32_t)draw(c, 0, 400) - 200) == 0); break;
    case SLOW: sim_node_slow(net->nodes[a].machine, one_in(c, 2) ? 0 : draw(c, 1, 50), draw(c, 1, 64)); break;
    case CUT_ONE: if (!same_machine) cut_one(net, a, b, true); break;
    case CUT_BOTH: if (!same_machine) cut_both(net, a, b, true); break;
    case ISLAND: island(c); break;
    case FLIP: c->flips[a] = true; break;
    case PAUSE: if (c->status[a] == UP) pause_node(net, a, one_in(c, 2)); break;
    case CRASH: end_life(c, a, DOWN); break;
    case GONE: if (a >= ANCHORS) end_life(c, a, OVER); break;
    case HALF: for (uint32_t i = 0; i < net->count; i++) if (one_in(c, 2)) end_life(c, i, DOWN); break;
    case EVERYONE:
      for (uint32_t i = 0; i < net->count; i++) end_life(c, i, DOWN);
      for (uint32_t i = 0; i < net->count; i++) swap_addresses(c, i, pick(c));
      break;
    case SWAP:
      if (a < ANCHORS || b < ANCHORS) break;
      end_life(c, a, DOWN), end_life(c, b, DOWN);
      swap_addresses(c, a, b);
      break;
    case RENAMED:
      if (a < ANCHORS || c->twin[a]) break;
      end_life(c, a, OVER);
      if (net->nodes[a].address.port != 1) add(c, a, NODES);
      break;
    case TWIN: if (c->status[a] == UP && !c->twin[a]) add(c, NODES, a); break;
    case LEAVE: if (a >= ANCHORS && c->status[a] == UP) leave(net, a); break;
    case PAYLOAD:
      if (c->status[a] != UP) break;
      MUST(swim_set_payload(net->nodes[a].swim, local_ns(net, &net->nodes[a]), &bytes, sizeof bytes) == 0);
      settle(net, a);
      break;
    case HINT:
      if (c->status[a] != UP) break;
      (void)swim_hint(net->nodes[a].swim, local_ns(net, &net->nodes[a]), net->nodes[b].name, strlen(net->nodes[b].name)); /* Decides nothing. */
      settle(net, a);
      break;
    case FAULTS_COUNT: break;
  }
}

/* Changes between the faults: nodes that are down restart, flipping nodes flip, leavers leave. */
static void go_on(struct chaos *c) {
  for (uint32_t i = 0; i < c->net->count; i++) {
    if (c->status[i] == UP && c->net->nodes[i].left_done) end_life(c, i, OVER);
    if (c->status[i] == DOWN && one_in(c, 2)) begin_life(c, i);
    if (c->flips[i] && one_in(c, 3)) isolate(c, i, true, one_in(c, 2), c->flipped[i] = !c->flipped[i]);
  }
  if (one_in(c, 8)) mend_all(c);
}

/* ---- at rest ---- */

static void stop_faults(struct chaos *c) {
  calm(c);
  for (uint32_t i = 0; i < c->net->count; i++) {
    if (c->status[i] == UP) pause_node(c->net, i, false);
    if (c->twin[i]) end_life(c, i, OVER); /* Two nodes with one name can never agree on its owner. */
  }
  for (uint32_t i = 0; i < c->net->count; i++) {
    if (c->status[i] == UP && swim_is_leaving(c->net->nodes[i].swim)) end_life(c, i, OVER);
    if (c->status[i] == DOWN) begin_life(c, i);
  }
  log_line(c, "calm", 0, 0);
}

/* Whether the view of `at` about `subject` is true; `shown`: and also shown, unlike that of a held member (c/core/swim_flap.c). */
static bool right(const struct chaos *c, uint32_t at, uint32_t subject, bool shown) {
  const struct node *n = &c->net->nodes[subject];
  struct swim_member m, self;
  const struct swim *s = c->net->nodes[at].swim;
  bool known = swim_find(s, n->name, strlen(n->name), &m);
  if (known && !shown) m.state = s->members[swim_members_find(s, n->name, strlen(n->name))].state;
  if (c->status[subject] == OVER) return !known || m.state == SWIM_DEAD || m.state == SWIM_LEFT;
  swim_self(n->swim, &self);
  return known && m.state == SWIM_ALIVE && swim_incarnation_compare(m.incarnation, self.incarnation) == 0 &&
         address_equal(&m.address, &n->address) && m.payload_version == self.payload_version &&
         m.payload_length == self.payload_length && memcmp(m.payload, self.payload, m.payload_length) == 0;
}

static bool all_right(const struct chaos *c, bool shown, bool say) {
  bool all = true;
  for (uint32_t at = 0; at < c->net->count; at++) {
    for (uint32_t subject = 0; c->status[at] == UP && subject < c->net->count; subject++) {
      if (c->twin[subject] || right(c, at, subject, shown)) continue;
      all = false;
      if (say) printf("%10.3f  n%u is wrong about n%u: %s\n", (double)now_ns(c->net) / 1e9, at, subject,
                      believes(c->net, at, subject) <= SWIM_LEFT ? swim_state_name(believes(c->net, at, subject)) : "unknown");
      if (!say) return false;
    }
    if (c->status[at] == UP && swim_counts(c->net->nodes[at].swim)->rumours > 0) all = false;
  }
  return all;
}

static double until_rest(struct chaos *c, bool shown, uint64_t limit_ns) {
  uint64_t began_ns = now_ns(c->net);
  while (!all_right(c, shown, false) && now_ns(c->net) - began_ns < limit_ns) run(c->net, 100 * MILLISECOND);
  if (now_ns(c->net) - began_ns >= limit_ns && !all_right(c, shown, c->verbose)) MUST(!"all agree when the faults have stopped");
  return (double)(now_ns(c->net) - began_ns) / 1e9;
}

/* Without gossip: two datagrams a probe, and now and then a try at a dead member or a seed. */
static void check_idle(struct chaos *c) {
  struct net *net = c->net;
  uint32_t up = 0;
  for (uint32_t i = 0; i < net->count; i++) up += c->status[i] == UP;
  uint64_t deaths = net->deaths, all = 0;
  memset(net->sent, 0, sizeof net->sent);
  run(net, REST_S * SECOND);
  MUST(all_right(c, true, c->verbose) && net->deaths == deaths);
  for (int type = 0; type < SWIM_TYPES; type++) all += net->sent[type];
  /* One try a period at the dead and the seeds, by all of them together, and its answer, with a table perhaps. */
  if (c->verbose)
    for (unsigned type = 1; type < SWIM_TYPES; type++) printf("  at rest, %u nodes: %s %llu\n", up, swim_type_name(type), (unsigned long long)net->sent[type]);
  double periods = REST_S * 1000.0 / net->config.probe_interval_ms + 1;
  MUST((double)all <= periods * (2.0 * up + 8));
  MUST(net->sent[GOSSIP] == 0);
}

/* ---- */

struct result {
  bool done;
  double rest_s;
  uint32_t size;
  bool extreme;
};
struct work {
  uint64_t from;
  bool verbose;
  struct result *results;
};

static void one(const struct work *work, uint64_t seed, struct result *result) {
  struct chaos c = {.verbose = work->verbose};
  char context[64];
  (void)snprintf(context, sizeof context, "scripts/study chaos --from=%llu --seeds=1 --verbose=1", (unsigned long long)seed);
  must_context = context;
  c.net = net_open(seed, seed % 7 == 0 ? "local" : "lan");
  if (c.verbose) c.net->on_event = log_event;
  c.size = draw(&c, 3, one_in(&c, 3) ? SIZE_MAX_ : 20);
  c.kinds = (uint32_t)rng_next(&c.net->rng) & (uint32_t)rng_next(&c.net->rng) & ((1u << FAULTS_COUNT) - 1);
  c.kinds |= 1u << rng_below(&c.net->rng, FAULTS_COUNT);
  draw_config(&c, seed);
  MUST(!swim_config_check(&c.net->config));
  for (uint32_t i = 0; i < c.size; i++) net_add(c.net);
  for (uint32_t i = 0; i < c.size; i++)
    for (uint32_t j = 0; j < ANCHORS; j++) join(c.net, i, j);
  if (one_in(&c, 2)) run(c.net, rng_below(&c.net->rng, 10000) * MILLISECOND); /* Else it begins while they join. */
  uint32_t faults = draw(&c, 1, 40);
  for (uint32_t i = 0; i < faults; i++) {
    enum fault kind;
    do kind = (enum fault)rng_below(&c.net->rng, FAULTS_COUNT);
    while (!(c.kinds >> kind & 1));
    one_fault(&c, kind);
    run(c.net, (one_in(&c, 10) ? rng_below(&c.net->rng, 40000) : rng_below(&c.net->rng, 4000)) * MILLISECOND);
    go_on(&c);
  }
  stop_faults(&c);
  result->rest_s = until_rest(&c, false, (c.extreme ? 600 : 120) * SECOND);
  /* A flapping member is released at the latest three half-lives after its last trouble. */
  if (c.net->config.flap_limit > 0) (void)until_rest(&c, true, 4 * c.net->config.flap_half_life_ms * MILLISECOND);
  run(c.net, 3 * (c.net->config.health_max + 1) * c.net->config.probe_interval_ms * MILLISECOND); /* The last probe of that time ends. */
  (void)until_rest(&c, true, 30 * SECOND);
  check_idle(&c);
  result->size = c.size, result->extreme = c.extreme, result->done = true;
  net_close(c.net);
}

static void in_a_child(void *data, uint64_t task) {
  struct work *work = data;
  uint64_t seed = work->from + task;
  fflush(stdout);
  pid_t child = fork();
  STUDY_NEED(child >= 0);
  if (child == 0) {
    one(work, seed, &work->results[task]);
    fflush(stdout);
    _exit(0);
  }
  int status;
  STUDY_NEED(waitpid(child, &status, 0) == child);
  if (status != 0) printf("seed %llu failed: scripts/study chaos --from=%llu --seeds=1 --verbose=1\n", (unsigned long long)seed, (unsigned long long)seed);
  if (status != 0) work->results[task].done = false;
}

int main(int argc, char **argv) {
  struct study_option options[] = {{"seeds", 1000, ""}, {"from", 1, "the first of them"}, {"jobs", 1, "processes"},
                                   {"verbose", 0, "1: the log of faults and events"}};
  study_options(argc, argv, options, sizeof options / sizeof *options);
  uint64_t seeds = (uint64_t)options[0].value, failed = 0;
  struct work work = {.from = (uint64_t)options[1].value, .verbose = options[3].value > 0};
  STUDY_NEED(seeds > 0 && work.from > 0);
  work.results = study_share(seeds * sizeof *work.results);
  study_each((unsigned)options[2].value, seeds, in_a_child, &work);
  struct study_samples normal = {0}, extreme = {0};
  for (uint64_t i = 0; i < seeds; i++) {
    const struct result *r = &work.results[i];
    failed += !r->done;
    if (r->done) study_add(r->extreme ? &extreme : &normal, r->rest_s);
  }
  printf("settings  seeds   at rest after p50  p99      max (s)\n");
  printf("%-9s %-7zu %-18.1f %-8.1f %.1f\n", "usual", normal.count, study_quantile(&normal, 0.5), study_quantile(&normal, 0.99), study_quantile(&normal, 1));
  printf("%-9s %-7zu %-18.1f %-8.1f %.1f\n", "extreme", extreme.count, study_quantile(&extreme, 0.5), study_quantile(&extreme, 0.99), study_quantile(&extreme, 1));
  study_bar("chaos_seeds_failed", (double)failed, "<=", 0);
  study_clear(&normal), study_clear(&extreme);
  return study_short;
}
