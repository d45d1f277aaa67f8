/* study lease: at most one holder at any true instant, over random schedules.
 *
 * A schedule is one grantor with a log, three nodes that all want the same two keys, and a network; both cores run as they are, each on a
 * clock of its own: any epoch, a rate within +-`drift` of true time that changes at random, and for a grantor forward jumps. The study
 * knows true time, and nobody else does. Faults, drawn at random: loss, long delays, doubled and reordered messages, cuts, pauses of up
 * to 60 s (of the grantor too; when it wakes, its timers or its messages come first, by chance), crashes of nodes, crashes of the grantor
 * (the log survives, the table does not), releases, transfers, wall clocks that step (nobody asks them).
 *
 * Checked at each instant at which a node begins to hold or prolongs: every other node's time, by its own clock, is over in true time;
 * fences rise strictly over holders. In the last part of a schedule the faults stop; when someone holds, it crashes or releases, and the
 * time until another holds is measured. A grantor hands a freed key to the node that has waited longest, without being asked again:
 * that node acts when its first renewal is answered.
 *
 * --broken=N removes one rule, to show that the study sees it: see `broken`. Then the study wants at least one violation.
 * The seed determines a schedule: --from=SEED --schedules=1 repeats one. */
#include <inttypes.h>

#include "core/lease.h"
#include "core/lease_holder.h"
#include "study.h"

enum { NODES = 3, KEYS = 2, GRANTOR = NODES, PLACES = NODES + 1, QUEUE_MAX = 4096, WAITING_MAX = 8 };

static struct study_option options[] = {
    {"schedules", 20000, "random schedules; the bar of the issue is for 1,000,000"},
    {"from", 1, "the first seed"},
    {"drift", 20000, "clocks are off by at most so many millionths"},
    {"jobs", 2, "processes"},
    {"broken", 0, "1: no drift bound; 2: holders measure from receipt; 3: a grant without a request is held at once; 4: the grantor counts its "
                  "pauses and jumps; 5: a restarted grantor forgets its leases; 6: a doubled grant is taken again; 7: all of them in turn"},
    {"verbose", 0, "print every violation"},
};
enum { SCHEDULES, FROM, DRIFT, JOBS, BROKEN, VERBOSE };
enum { NO_DRIFT_BOUND = 1, FROM_RECEIPT, NO_PENDING, PAUSES_COUNT, NO_LOG, GRANTS_AGAIN, ALL };
static const char *const broken_names[ALL] = {"", "no_drift_bound", "from_receipt", "unasked_grant_held", "jumps_count", "no_log", "grants_again"};

enum kind { REQUEST, GRANTED, RENEW, RENEWED, RELEASE, TRANSFER, TIMER, WANT, WAKE, FAULT };
struct message {
  uint64_t at_ns; /* True time. */
  uint64_t order;
  uint64_t sent_ns, fence; /* sent_ns: by the sender's clock, given back in the answer; LEASE_NOT_SENT: no request. */
  uint32_t life;           /* Of the place that it is for: messages and timers of a former life are dropped. */
  uint32_t count;          /* RENEW, RENEWED. */
  uint8_t kind, from, to, key;
  struct { uint64_t fence; uint8_t key; bool refused; } items[KEYS];
};

struct party {
  double rate;            /* Of its clock, now. */
  uint64_t true_ns;       /* When the rate last changed, */
  double local_ns;        /* and its clock then. */
  uint64_t paused_until_ns;
  uint64_t timer;         /* Number of its one timer; those set before it are void. */
  uint32_t life;
  bool up;
  struct lease_holder holder; /* Of a node. */
};

struct schedule {
  uint64_t seed, now_ns, order;
  struct rng rng;
  int broken;
  uint32_t ttl_ms;
  uint64_t delay_ns, jitter_ns; /* One way. */
  double loss, doubled, late;
  bool cut[NODES];
  bool calm;
  struct party places[PLACES];
  struct leases table;
  struct { uint64_t fence; bool held; uint8_t holder; } log[KEYS]; /* What the grantor's log says. */
  uint64_t index;
  uint8_t waiting[KEYS][WAITING_MAX];
  uint32_t waiting_count[KEYS];
  uint64_t until_ns[NODES][KEYS]; /* True: how long this node may believe to hold it. */
  uint64_t held_fence[NODES][KEYS];
  uint64_t top_fence[KEYS]; /* The greatest that anybody held, */
  uint8_t top_holder[KEYS]; /* and who. */
  uint32_t violations, begun;
  uint64_t began_ns[KEYS]; /* True: when its last holder began. */
  struct message *queue;
  uint32_t queued;
};

struct totals {
  uint64_t schedules, violating, violations, begun, faults, handed, lost, longest_after_crash_ns, released;
  double longest_round_trips;
};

/* ---- clocks ---- */

static uint64_t local_of(const struct party *p, uint64_t true_ns) {
  return (uint64_t)(p->local_ns + (double)(true_ns - p->true_ns) * p->rate);
}
static uint64_t true_of(const struct party *p, uint64_t now_ns, uint64_t local_ns) {
  double ahead = ((double)local_ns - p->local_ns) / p->rate;
  uint64_t at = ahead > 0 ? p->true_ns + (uint64_t)ahead : now_ns;
  while (at < now_ns || local_of(p, at) < local_ns) at = at < now_ns ? now_ns : at + 1;
  return at;
}
static void set_clock(struct schedule *s, struct party *p, double rate, double jump_ns) {
  p->local_ns += (double)(s->now_ns - p->true_ns) * p->rate + jump_ns;
  p->true_ns = s->now_ns;
  p->rate = rate;
}
static double random_rate(struct schedule *s) { return 1 + (2 * rng_unit(&s->rng) - 1) * options[DRIFT].value / 1e6 * 0.9999; }

/* ---- the queue ---- */

static bool before(const struct message *a, const struct message *b) {
  return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}
static void push(struct schedule *s, struct message m) {
  STUDY_NEED(s->queued < QUEUE_MAX);
  m.order = ++s->order;
  uint32_t i = s->queued++;
  for (; i > 0 && before(&m, &s->queue[(i - 1) / 2]); i = (i - 1) / 2) s->queue[i] = s->queue[(i - 1) / 2];
  s->queue[i] = m;
}
static struct message pop(struct schedule *s) {
  struct message first = s->queue[0], last = s->queue[--s->queued];
  uint32_t i = 0;
  for (uint32_t child; (child = 2 * i + 1) < s->queued; i = child) {
    if (child + 1 < s->queued && before(&s->queue[child + 1], &s->queue[child])) child++;
    if (!before(&s->queue[child], &last)) break;
    s->queue[i] = s->queue[child];
  }
  s->queue[i] = last;
  return first;
}

static void after(struct schedule *s, uint64_t delay_ns, struct message m) {
  m.at_ns = s->now_ns + delay_ns;
  m.life = s->places[m.to].life;
  push(s, m);
}

/* Over the network: lost, doubled, late, cut. */
static void send(struct schedule *s, struct message m) {
  uint8_t node = m.from == GRANTOR ? m.to : m.from;
  int copies = s->calm ? 1 : 1 + (rng_unit(&s->rng) < s->doubled);
  for (int i = 0; i < copies; i++) {
    if (s->cut[node] || (!s->calm && rng_unit(&s->rng) < s->loss)) continue;
    uint64_t delay = s->delay_ns;
    if (!s->calm) delay += rng_below(&s->rng, s->jitter_ns + 1);
    if (!s->calm && rng_unit(&s->rng) < s->late) delay += rng_below(&s->rng, 2 * s->ttl_ms * MILLISECOND);
    after(s, delay, m);
  }
}

static void violated(struct schedule *s, const char *what, uint8_t node, uint8_t key) {
  s->violations++;
  if (options[VERBOSE].value > 0)
    printf("seed %" PRIu64 " at %.6f s: node %u, key %u: %s\n", s->seed, (double)s->now_ns / 1e9, (unsigned)node, (unsigned)key, what);
}

static const char *name_of(uint8_t node) { return (const char *[]){"n0", "n1", "n2"}[node]; }
static const char *key_name(uint8_t key) { return key ? "job-b" : "job-a"; }
static uint8_t number_of(const char *text) { return text[4] == 'b'; }
enum { NAME = 2, KEY = 5 };

/* ---- nodes ---- */

static uint64_t clock_of(struct schedule *s, uint8_t place) { return local_of(&s->places[place], s->now_ns); }

static void arm(struct schedule *s, uint8_t place, uint64_t local_ns) {
  struct party *p = &s->places[place];
  p->timer++;
  if (local_ns != UINT64_MAX) after(s, true_of(p, s->now_ns, local_ns) - s->now_ns, (struct message){.kind = TIMER, .to = place, .fence = p->timer});
}

/* What this node believes now; check it against the others. */
static void believe(struct schedule *s, uint8_t node, uint8_t key) {
  struct party *p = &s->places[node];
  struct lease_held_view v;
  uint64_t local = clock_of(s, node);
  if (!lease_holder_holds(&p->holder, local, key_name(key), KEY) || !lease_holder_find(&p->holder, local, key_name(key), KEY, &v)) {
    if (s->until_ns[node][key] > s->now_ns) s->until_ns[node][key] = s->now_ns; /* It gave it up. */
    return;
  }
  /* Its clock may run slower from now on than it does: the slowest that the drift allows. */
  uint64_t until = s->now_ns + (uint64_t)((double)v.left_ns / (1 - options[DRIFT].value / 1e6));
  for (uint8_t other = 0; other < NODES; other++)
    if (other != node && s->until_ns[other][key] > s->now_ns) violated(s, "two holders", node, key);
  if (v.fence != s->held_fence[node][key] || s->until_ns[node][key] <= s->now_ns) {
    if (v.fence < s->top_fence[key] || (v.fence == s->top_fence[key] && s->top_holder[key] != node)) violated(s, "fence", node, key);
    s->began_ns[key] = s->now_ns;
    s->begun++;
  }
  if (v.fence > s->top_fence[key]) s->top_fence[key] = v.fence, s->top_holder[key] = node;
  s->held_fence[node][key] = v.fence;
  s->until_ns[node][key] = until;
}

static void serve_node(struct schedule *s, uint8_t node) {
  struct party *p = &s->places[node];
  uint64_t local = clock_of(s, node);
  lease_holder_tick(&p->holder, local);
  struct lease_holder_event e;
  uint32_t cursor = 0;
  while (lease_holder_peek(&p->holder, &cursor, &e)) continue;
  lease_holder_take(&p->holder, cursor);
  struct lease_held_view v;
  struct message m = {.kind = RENEW, .from = node, .to = GRANTOR, .sent_ns = local};
  while (m.count < KEYS && lease_holder_due(&p->holder, local, 0, &v)) {
    m.items[m.count].key = number_of(v.key);
    m.items[m.count++].fence = v.fence;
  }
  if (m.count) send(s, m);
  for (uint8_t key = 0; key < KEYS; key++) believe(s, node, key);
  arm(s, node, lease_holder_deadline(&p->holder));
}

static void granted(struct schedule *s, const struct message *m) {
  struct party *p = &s->places[m->to];
  uint64_t local = clock_of(s, m->to), sent = m->sent_ns;
  if (s->broken == FROM_RECEIPT && sent != LEASE_NOT_SENT) sent = local;
  if (s->broken == NO_PENDING && sent == LEASE_NOT_SENT) sent = local;
  if (s->broken == GRANTS_AGAIN) sent = sent == LEASE_NOT_SENT ? sent : local, (void)lease_holder_drop(&p->holder, local, key_name(m->key), KEY);
  (void)lease_holder_add(&p->holder, local, key_name(m->key), KEY, m->fence, s->ttl_ms, sent, 0); /* It may be refused: too late, stale. */
}

static void renewed(struct schedule *s, const struct message *m) {
  struct party *p = &s->places[m->to];
  uint64_t local = clock_of(s, m->to), sent = s->broken == FROM_RECEIPT ? local : m->sent_ns;
  for (uint32_t i = 0; i < m->count; i++) {
    const char *key = key_name(m->items[i].key);
    if (m->items[i].refused) (void)lease_holder_refused(&p->holder, local, key, KEY, m->items[i].fence);
    else (void)lease_holder_renewed(&p->holder, local, key, KEY, m->items[i].fence, sent);
  }
}

/* It asks for what it does not hold, and now and then gives up what it holds. */
static void want(struct schedule *s, uint8_t node) {
  struct party *p = &s->places[node];
  uint64_t local = clock_of(s, node);
  for (uint8_t key = 0; key < KEYS; key++) {
    struct lease_held_view v;
    if (!lease_holder_find(&p->holder, local, key_name(key), KEY, &v)) {
      send(s, (struct message){.kind = REQUEST, .from = node, .to = GRANTOR, .key = key, .sent_ns = local});
    } else if (!s->calm && rng_below(&s->rng, 12) == 0) {
      (void)lease_holder_drop(&p->holder, local, key_name(key), KEY);
      bool transfer = rng_below(&s->rng, 3) == 0;
      uint64_t to = (node + 1 + rng_below(&s->rng, NODES - 1)) % NODES;
      send(s, (struct message){.kind = transfer ? TRANSFER : RELEASE, .from = node, .to = GRANTOR, .key = key, .fence = v.fence, .sent_ns = to});
    }
  }
  uint64_t pause = s->calm ? 100 * MILLISECOND : 100 * MILLISECOND + rng_below(&s->rng, 2 * SECOND);
  after(s, pause, (struct message){.kind = WANT, .to = node});
}

/* ---- the grantor ---- */

static void wait_no_more(struct schedule *s, uint8_t key, uint8_t node) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < s->waiting_count[key]; i++)
    if (s->waiting[key][i] != node) s->waiting[key][kept++] = s->waiting[key][i];
  s->waiting_count[key] = kept;
}

static void grant(struct schedule *s, uint8_t key, uint8_t node, uint64_t sent_ns) {
  uint64_t handle, fence = ++s->index;
  int rc = lease_grant(&s->table, clock_of(s, GRANTOR), key_name(key), KEY, name_of(node), NAME, fence, s->ttl_ms, &handle);
  if (rc < 0) return;
  wait_no_more(s, key, node);
  s->log[key].fence = fence, s->log[key].held = true, s->log[key].holder = node; /* In the log before anyone is told. */
  send(s, (struct message){.kind = GRANTED, .from = GRANTOR, .to = node, .key = key, .fence = fence, .sent_ns = sent_ns});
}

/* The key is free: it goes to the node that has waited longest. */
static void freed(struct schedule *s, uint8_t key) {
  s->log[key].held = false;
  s->index++;
  if (s->waiting_count[key] == 0) return;
  uint8_t node = s->waiting[key][0];
  s->waiting_count[key]--;
  memmove(s->waiting[key], s->waiting[key] + 1, s->waiting_count[key]);
  grant(s, key, node, LEASE_NOT_SENT);
}

static void request(struct schedule *s, const struct message *m) {
  if (!s->log[m->key].held) return grant(s, m->key, m->from, m->sent_ns);
  if (s->log[m->key].holder == m->from) return grant(s, m->key, m->from, m->sent_ns); /* It lost its own: again, with a new fence. */
  for (uint32_t i = 0; i < s->waiting_count[m->key]; i++)
    if (s->waiting[m->key][i] == m->from) return;
  if (s->waiting_count[m->key] < WAITING_MAX) s->waiting[m->key][s->waiting_count[m->key]++] = m->from;
}

static void renew(struct schedule *s, const struct message *m) {
  struct message answer = *m;
  answer.kind = RENEWED, answer.from = GRANTOR, answer.to = m->from;
  for (uint32_t i = 0; i < m->count; i++) {
    struct lease_renewal r = {.key = key_name(m->items[i].key), .key_length = KEY, .fence = m->items[i].fence};
    (void)lease_renew(&s->table, clock_of(s, GRANTOR), name_of(m->from), NAME, &r, 1); /* r.code says it. */
    answer.items[i].refused = r.code != 0;
  }
  send(s, answer);
}

static void serve_grantor(struct schedule *s, const struct message *m) {
  uint64_t local = clock_of(s, GRANTOR);
  if (m->kind == REQUEST) request(s, m);
  else if (m->kind == RENEW) renew(s, m);
  else if (m->kind == RELEASE && lease_release(&s->table, local, key_name(m->key), KEY, m->fence) == 0) freed(s, m->key);
  else if (m->kind == TRANSFER) {
    uint8_t node = (uint8_t)m->sent_ns;
    uint64_t fence = ++s->index;
    if (lease_transfer(&s->table, local, key_name(m->key), KEY, m->fence, name_of(node), NAME, fence) == 0) {
      wait_no_more(s, m->key, node);
      s->log[m->key].fence = fence, s->log[m->key].holder = node;
      send(s, (struct message){.kind = GRANTED, .from = GRANTOR, .to = node, .key = m->key, .fence = fence, .sent_ns = LEASE_NOT_SENT});
    }
  } else if (m->kind == TIMER) {
    lease_tick(&s->table, local, 100);
    struct lease_expiry e;
    uint32_t cursor = 0;
    bool expired[KEYS] = {false};
    while (lease_peek(&s->table, &cursor, &e)) expired[number_of(e.lease.key)] = true;
    lease_take(&s->table, cursor);
    for (uint8_t key = 0; key < KEYS; key++)
      if (expired[key]) freed(s, key);
  }
  arm(s, GRANTOR, lease_deadline(&s->table));
}

static uint32_t drift_bound(const struct schedule *s) { return s->broken == NO_DRIFT_BOUND ? 0 : (uint32_t)options[DRIFT].value; }

static void open_grantor(struct schedule *s) {
  struct lease_config config = {.leases_max = 16, .drift_ppm = drift_bound(s), .late_ms = s->broken == PAUSES_COUNT ? 60000 : 100,
                                .catch_up_ms = 1000, .past_ms = 5000, .sweep_ms = 10000};
  STUDY_NEED(leases_init(&s->table, &config, clock_of(s, GRANTOR)) == 0);
  memset(s->waiting_count, 0, sizeof s->waiting_count);
  for (uint8_t key = 0; key < KEYS; key++) {
    uint64_t handle;
    if (s->broken == NO_LOG) s->log[key].held = false;
    if (!s->log[key].held) continue;
    STUDY_NEED(lease_grant(&s->table, clock_of(s, GRANTOR), key_name(key), KEY, name_of(s->log[key].holder), NAME, s->log[key].fence, s->ttl_ms,
                           &handle) == 0);
  }
}

/* ---- faults ---- */

static void start(struct schedule *s, uint8_t place) {
  struct party *p = &s->places[place];
  p->up = true;
  p->life++;
  p->paused_until_ns = s->now_ns;
  if (place == GRANTOR) {
    open_grantor(s);
    serve_grantor(s, &(struct message){.kind = TIMER});
    return;
  }
  struct lease_holder_config config = {.leases_max = 16, .drift_ppm = drift_bound(s)};
  STUDY_NEED(lease_holder_init(&p->holder, &config, clock_of(s, place)) == 0);
  after(s, rng_below(&s->rng, 200 * MILLISECOND), (struct message){.kind = WANT, .to = place});
}

static void crash(struct schedule *s, uint8_t place) {
  struct party *p = &s->places[place];
  if (!p->up) return;
  p->up = false;
  if (place == GRANTOR) {
    leases_free(&s->table);
    return;
  }
  lease_holder_free(&p->holder);
  for (int key = 0; key < KEYS; key++)
    if (s->until_ns[place][key] > s->now_ns) s->until_ns[place][key] = s->now_ns;
}

static void fault(struct schedule *s) {
  uint8_t place = (uint8_t)rng_below(&s->rng, PLACES);
  struct party *p = &s->places[place];
  uint64_t span = rng_below(&s->rng, rng_below(&s->rng, 3) ? 5 * SECOND : 60 * SECOND);
  switch (rng_below(&s->rng, 6)) {
    case 0:
      crash(s, place);
      after(s, span / 4, (struct message){.kind = WAKE, .to = place});
      break;
    case 1:
    case 2:
      p->paused_until_ns = s->now_ns + span;
      break;
    case 3:
      if (place < NODES) s->cut[place] = !s->cut[place];
      break;
    case 4: /* A jump that its grantor must notice; a holder's may be any. */
      set_clock(s, p, random_rate(s), (double)(place == GRANTOR ? 1300 * MILLISECOND + span : span / 8));
      break;
    default:
      set_clock(s, p, random_rate(s), 0);
  }
  /* Timers were set by the old clock: set them anew. */
  if (!p->up) return;
  after(s, 0, (struct message){.kind = TIMER, .to = place});
}

/* ---- a schedule ---- */

static void deliver(struct schedule *s, struct message *m) {
  struct party *p = &s->places[m->to];
  if (m->kind == FAULT) {
    if (!s->calm) fault(s);
    return;
  }
  if (m->kind == WAKE) {
    if (!p->up) start(s, m->to);
    return;
  }
  if (!p->up) return;
  if (m->life != p->life) return; /* A connection, a timer of a former life. */
  if (p->paused_until_ns > s->now_ns) { /* It waits; timers and messages come in any order then. */
    m->at_ns = p->paused_until_ns + rng_below(&s->rng, 1000);
    push(s, *m);
    return;
  }
  if (m->kind == TIMER && m->fence && m->fence != p->timer) return; /* It was set anew. */
  if (m->to == GRANTOR) return serve_grantor(s, m);
  if (m->kind == GRANTED) granted(s, m);
  else if (m->kind == RENEWED) renewed(s, m);
  else if (m->kind == WANT) want(s, m->to);
  serve_node(s, m->to);
}

static void run_until(struct schedule *s, uint64_t until_ns) {
  while (s->queued && s->queue[0].at_ns <= until_ns) {
    struct message m = pop(s);
    if (m.at_ns > s->now_ns) s->now_ns = m.at_ns;
    deliver(s, &m);
  }
  s->now_ns = until_ns;
}

static int holder_now(const struct schedule *s, uint8_t key) {
  for (uint8_t node = 0; node < NODES; node++)
    if (s->until_ns[node][key] > s->now_ns) return node;
  return -1;
}

static void open_schedule(struct schedule *s, uint64_t seed, int broken) {
  struct message *queue = s->queue;
  memset(s, 0, sizeof *s);
  s->queue = queue, s->seed = seed, s->broken = broken, s->now_ns = SECOND;
  rng_seed(&s->rng, seed);
  s->ttl_ms = 500 + (uint32_t)rng_below(&s->rng, 9500);
  s->delay_ns = 100000 + rng_below(&s->rng, 50 * MILLISECOND);
  s->jitter_ns = rng_below(&s->rng, 200 * MILLISECOND);
  s->loss = rng_below(&s->rng, 2) ? 0 : rng_unit(&s->rng) * 0.3;
  s->doubled = rng_below(&s->rng, 2) ? 0 : 0.2;
  s->late = rng_below(&s->rng, 2) ? 0 : 0.1;
  for (uint8_t i = 0; i < PLACES; i++) {
    s->places[i] = (struct party){.rate = random_rate(s), .true_ns = s->now_ns, .local_ns = 1e9 + rng_unit(&s->rng) * 1e15};
    start(s, i);
  }
  for (uint32_t i = (uint32_t)rng_below(&s->rng, 12); i > 0; i--)
    after(s, rng_below(&s->rng, 60 * SECOND), (struct message){.kind = FAULT, .to = GRANTOR});
}

/* Faults stop, everyone runs, and what was on its way arrives. */
static void calm_down(struct schedule *s) {
  s->calm = true;
  static struct message held[QUEUE_MAX];
  uint32_t count = 0;
  while (s->queued) held[count++] = pop(s);
  for (uint32_t i = 0; i < count; i++) {
    if (held[i].kind <= TRANSFER) held[i].at_ns = s->now_ns;
    push(s, held[i]);
  }
  for (uint8_t i = 0; i < PLACES; i++) {
    if (s->places[i].paused_until_ns > s->now_ns) s->places[i].paused_until_ns = s->now_ns;
    if (i < NODES) s->cut[i] = false;
    if (!s->places[i].up) start(s, i);
    else after(s, 0, (struct message){.kind = i == GRANTOR ? TIMER : WANT, .to = i});
  }
  run_until(s, s->now_ns + 4 * s->ttl_ms * MILLISECOND + 5 * SECOND);
}

/* Crash or release what key 0's holder has; how long until another holds it? */
static void hand_over(struct schedule *s, struct totals *t, bool by_crash) {
  int node = holder_now(s, 0);
  if (node < 0) {
    t->lost++; /* Nobody got it although all was calm: a bar of its own. */
    return;
  }
  uint64_t began = s->now_ns, fence = s->held_fence[node][0];
  if (by_crash) {
    crash(s, (uint8_t)node);
  } else {
    STUDY_NEED(lease_holder_drop(&s->places[node].holder, clock_of(s, (uint8_t)node), key_name(0), KEY));
    send(s, (struct message){.kind = RELEASE, .from = (uint8_t)node, .to = GRANTOR, .key = 0, .fence = fence});
    believe(s, (uint8_t)node, 0);
  }
  uint64_t limit = began + 3 * s->ttl_ms * MILLISECOND + 5 * SECOND;
  while (s->now_ns < limit && (holder_now(s, 0) < 0 || holder_now(s, 0) == node)) {
    uint64_t next = s->queued ? s->queue[0].at_ns : limit;
    run_until(s, next < limit ? next : limit);
  }
  if (holder_now(s, 0) < 0) {
    t->lost++;
    return;
  }
  uint64_t took = s->began_ns[0] - began;
  if (by_crash) {
    t->handed++;
    if (options[VERBOSE].value > 0 && took > s->ttl_ms * MILLISECOND + SECOND)
      printf("seed %" PRIu64 ": %.3f s after the crash of node %d, ttl %.3f s, delay %.3f s, late %u\n", s->seed, (double)took / 1e9, node,
             s->ttl_ms / 1e3, (double)s->delay_ns / 1e9, (unsigned)s->table.counts.late);
    uint64_t past = took > s->ttl_ms * MILLISECOND ? took - s->ttl_ms * MILLISECOND : 0;
    if (past > t->longest_after_crash_ns) t->longest_after_crash_ns = past;
  } else {
    t->released++;
    double trips = (double)took / (double)(2 * s->delay_ns);
    if (trips > t->longest_round_trips) t->longest_round_trips = trips;
  }
}

static struct totals *shared; /* One a task. */
static int breaking;
enum { TASK = 500 };

static void work(void *data, uint64_t task) {
  struct schedule s = {.queue = malloc(QUEUE_MAX * sizeof *s.queue)};
  struct totals *t = &shared[task];
  STUDY_NEED(s.queue);
  (void)data;
  for (uint64_t i = 0; i < TASK && task * TASK + i < (uint64_t)options[SCHEDULES].value; i++) {
    open_schedule(&s, (uint64_t)options[FROM].value + task * TASK + i, breaking);
    run_until(&s, 61 * SECOND);
    calm_down(&s);
    hand_over(&s, t, i % 2);
    t->schedules++;
    t->violating += s.violations > 0;
    t->violations += s.violations;
    t->begun += s.begun;
    for (uint8_t place = 0; place < PLACES; place++) crash(&s, place);
  }
  free(s.queue);
}

static struct totals run_all(int broken) {
  uint64_t tasks = ((uint64_t)options[SCHEDULES].value + TASK - 1) / TASK;
  shared = study_share(tasks * sizeof *shared);
  breaking = broken;
  study_each((unsigned)options[JOBS].value, tasks, work, NULL);
  struct totals sum = {0};
  for (uint64_t i = 0; i < tasks; i++) {
    const struct totals *t = &shared[i];
    sum.schedules += t->schedules, sum.violating += t->violating, sum.violations += t->violations, sum.begun += t->begun;
    sum.handed += t->handed, sum.released += t->released, sum.lost += t->lost;
    if (t->longest_after_crash_ns > sum.longest_after_crash_ns) sum.longest_after_crash_ns = t->longest_after_crash_ns;
    if (t->longest_round_trips > sum.longest_round_trips) sum.longest_round_trips = t->longest_round_trips;
  }
  munmap(shared, tasks * sizeof *shared);
  return sum;
}

int main(int argc, char **argv) {
  study_options(argc, argv, options, sizeof options / sizeof *options);
  int broken = (int)options[BROKEN].value;
  STUDY_NEED(broken >= 0 && broken <= ALL);
  for (int b = broken == ALL ? NO_DRIFT_BOUND : broken; b <= (broken == ALL ? GRANTS_AGAIN : broken); b++) {
    struct totals t = run_all(b);
    printf("%" PRIu64 " schedules%s%s: %" PRIu64 " leases begun, %" PRIu64 " violations in %" PRIu64 " schedules\n", t.schedules,
           b ? ", without the rule: " : "", broken_names[b], t.begun, t.violations, t.violating);
    if (b) {
      char name[64];
      (void)snprintf(name, sizeof name, "lease_%s_schedules_caught", broken_names[b]);
      study_bar(name, (double)t.violating, ">=", 1);
      continue;
    }
    printf("hand-over: %" PRIu64 " crashes, at most ttl + %.3f s; %" PRIu64 " releases, at most %.2f round trips; %" PRIu64 " without an end\n",
           t.handed, (double)t.longest_after_crash_ns / 1e9, t.released, t.longest_round_trips, t.lost);
    study_bar("lease_schedules", (double)t.schedules, ">=", options[SCHEDULES].value);
    study_bar("lease_violations", (double)t.violations, "<=", 0);
    study_bar("lease_after_crash_past_ttl_s", (double)t.longest_after_crash_ns / 1e9, "<=", 1);
    study_bar("lease_after_release_round_trips", t.longest_round_trips, "<=", 2);
    study_bar("lease_never_handed_over", (double)t.lost, "<=", 0);
  }
  return study_short;
}
