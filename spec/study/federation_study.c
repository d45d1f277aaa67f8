/* Probes of datacenters over a wide-area network: is one that lives ever suspected, and are the bounds of the others what the settings
 * imply?
 *
 * One gate drives core/federation over the simulated world, a datagram a probe; each datacenter is a machine that answers. A round trip
 * takes 200 ms, and 50 to 200 ms of jitter at the machine, where one answer in a hundred, and every answer of 3 s in each minute, comes
 * 500 ms later. */
#include "core/federation.h"

#include <inttypes.h>

#include "study.h"
#include "world/world.h"

enum { DCS_MAX = 64 };

struct question { /* On the wire; both ends are this program. */
  uint32_t dc, seq;
  uint64_t incarnation;
};

struct site {
  struct rig *rig;
  uint32_t index, dc;
  struct sim_node *machine;
  struct shoal_address address;
  struct world_udp *udp;
  bool erring;           /* Probes of it fail at the gate. */
  uint64_t due_ns;       /* When its next probe is due, in true time; 0: not known. */
  uint64_t suspected_ns, unreachable_ns, reachable_ns; /* In true time; of the last change. */
  uint64_t answered_ns;  /* When the last answered probe was sent. */
  uint64_t sent_ns[16];
};

struct response { /* Under way in a machine. */
  struct site *site;
  struct question probe;
  struct world_timer *timer;
};

struct rig {
  struct sim *sim;
  struct rng rng;
  struct sim_node *machine;
  struct shoal_world *world;
  struct world_udp *udp;
  struct world_timer *timer;
  struct shoal_address address;
  struct federation f;
  struct site sites[DCS_MAX];
  uint32_t count;
  uint64_t suspicions, probes, latest_ns; /* latest: how much later than due a probe of a site that does not err went out. */
};

static void ignore(void *data) { (void)data; }

static void answer_now(void *data) {
  struct response *a = data;
  struct site *s = a->site;
  (void)world_udp_send(s->udp, &s->rig->address, &a->probe, sizeof a->probe); /* Lost, if it must be. */
  world_timer_close(a->timer);
}

static void on_asked(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct site *s = data;
  struct rig *r = s->rig;
  (void)from;
  STUDY_NEED(length == sizeof(struct question));
  struct response *a = calloc(1, sizeof *a);
  STUDY_NEED(a);
  a->site = s;
  memcpy(&a->probe, bytes, sizeof a->probe);
  uint64_t delay_ns = 50 * MILLISECOND + rng_below(&r->rng, 150 * MILLISECOND);
  if (rng_below(&r->rng, 100) == 0 || sim_now_ns(r->sim) % (60 * SECOND) < 3 * SECOND) delay_ns += 500 * MILLISECOND;
  struct shoal_world *w = sim_node_world(s->machine);
  STUDY_NEED(world_timer_open(w, answer_now, free, a, &a->timer) == 0);
  world_timer_start(a->timer, world_now_ns(w) + delay_ns);
}

static void take(struct rig *r, const struct federation_action *a) {
  struct site *s = &r->sites[a->dc];
  uint64_t now_ns = world_now_ns(r->world), true_ns = sim_now_ns(r->sim);
  if (a->kind == FEDERATION_STATE) {
    if (a->to == FEDERATION_SUSPECTED) r->suspicions++, s->suspected_ns = true_ns;
    if (a->to == FEDERATION_UNREACHABLE) s->unreachable_ns = true_ns;
    if (a->to == FEDERATION_REACHABLE) s->reachable_ns = true_ns;
  }
  if (a->kind != FEDERATION_PROBE) return;
  r->probes++;
  if (s->due_ns && !s->erring && true_ns > s->due_ns && true_ns - s->due_ns > r->latest_ns) r->latest_ns = true_ns - s->due_ns;
  s->due_ns = true_ns + r->f.config.interval_ns;
  s->sent_ns[a->seq % 16] = true_ns;
  if (s->erring) {
    uint64_t delay_ns;
    uint32_t errors;
    STUDY_NEED(federation_fail(&r->f, now_ns, a->dc, a->seq, true, &delay_ns, &errors) == 0);
    s->due_ns = 0;
    return;
  }
  struct question p = {.dc = a->dc, .seq = a->seq, .incarnation = a->incarnation};
  (void)world_udp_send(r->udp, &s->address, &p, sizeof p); /* The same. */
}

static void drive(struct rig *r) {
  struct federation_action a;
  while (federation_next(&r->f, world_now_ns(r->world), &a)) take(r, &a);
  world_timer_start(r->timer, federation_deadline(&r->f));
}

static void on_timer(void *data) { drive(data); }

static void on_answer(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct rig *r = data;
  struct question p;
  (void)from;
  STUDY_NEED(length == sizeof p);
  memcpy(&p, bytes, sizeof p);
  if (federation_ack(&r->f, world_now_ns(r->world), p.dc, p.seq, p.incarnation, 1) == 0) {
    struct site *s = &r->sites[p.dc];
    if (s->sent_ns[p.seq % 16] > s->answered_ns) s->answered_ns = s->sent_ns[p.seq % 16];
  }
  drive(r);
}

static const struct world_udp_events gate_events = {.on_datagram = on_answer, .on_closed = ignore};
static const struct world_udp_events site_events = {.on_datagram = on_asked, .on_closed = ignore};

static struct shoal_address address_of(uint32_t index, uint16_t port) {
  return (struct shoal_address){.family = 4, .bytes = {10, 0, (uint8_t)(index >> 8), (uint8_t)index}, .port = port};
}

static struct rig *open_rig(uint64_t seed, uint32_t count, double loss) {
  struct rig *r = calloc(1, sizeof *r);
  STUDY_NEED(r && count <= DCS_MAX);
  rng_seed(&r->rng, seed);
  struct sim_config config = {.seed = seed, .link = {.latency_ns = 100 * MILLISECOND, .loss = loss}};
  STUDY_NEED(sim_open(&config, &r->sim) == 0);
  struct federation_config c;
  federation_config_default(&c);
  c.seed = seed;
  struct shoal_address machine = address_of(1, 0);
  STUDY_NEED(sim_node_add(r->sim, "gate", &machine, &r->machine) == 0);
  r->world = sim_node_world(r->machine), r->address = address_of(1, 7000), r->count = count;
  STUDY_NEED(world_udp_open(r->world, &r->address, &gate_events, r, &r->udp) == 0);
  STUDY_NEED(world_timer_open(r->world, on_timer, ignore, r, &r->timer) == 0);
  federation_init(&r->f, &c, world_now_ns(r->world));
  for (uint32_t i = 0; i < count; i++) {
    struct site *s = &r->sites[i];
    char name[16];
    (void)snprintf(name, sizeof name, "dc%u", i);
    *s = (struct site){.rig = r, .index = i, .address = address_of(i + 2, 7000)};
    machine = address_of(i + 2, 0);
    STUDY_NEED(sim_node_add(r->sim, name, &machine, &s->machine) == 0);
    STUDY_NEED(world_udp_open(sim_node_world(s->machine), &s->address, &site_events, s, &s->udp) == 0);
    STUDY_NEED(federation_know(&r->f, world_now_ns(r->world), 1, &s->dc) == 0 && s->dc == i);
  }
  drive(r);
  return r;
}

static void close_rig(struct rig *r) {
  federation_check(&r->f);
  world_timer_close(r->timer);
  sim_cut(r->sim, NULL, NULL, true);
  sim_run_until(r->sim, sim_now_ns(r->sim) + 10 * SECOND); /* Responses under way are sent, and reach nobody. */
  world_udp_close(r->udp);
  for (uint32_t i = 0; i < r->count; i++) world_udp_close(r->sites[i].udp);
  sim_run_until(r->sim, sim_now_ns(r->sim) + SECOND);
  federation_free(&r->f);
  sim_close(r->sim);
  free(r);
}

static void run(struct rig *r, uint64_t ns) { sim_run_until(r->sim, sim_now_ns(r->sim) + ns); }

static void cut(struct rig *r, struct site *s, unsigned ways, bool on) {
  if (ways & 1) sim_cut(r->sim, r->machine, s->machine, on);
  if (ways & 2) sim_cut(r->sim, s->machine, r->machine, on);
}

/* Nothing is wrong but the network's length. */
static void at_rest(uint32_t dcs, double hours, double loss) {
  struct rig *r = open_rig(1, dcs, loss);
  run(r, (uint64_t)(hours * 3600) * SECOND);
  struct federation_counts n = federation_count(&r->f);
  struct federation_view v;
  federation_view(&r->f, world_now_ns(r->world), 0, &v);
  printf("%u datacenters, %.0f h: %" PRIu64 " probes, %" PRIu64 " without an answer (%.2f %% loss each way), smoothed round trip %.0f ms, "
         "timeout %.1f s, %" PRIu64 " suspicions\n", dcs, hours, n.probes, n.probes - n.acks, 100 * loss, (double)v.srtt_ns / 1e6,
         (double)v.timeout_ns / 1e9, n.suspected);
  study_bar("federation_suspicions_at_rest", (double)n.suspected, "<=", 0);
  study_bar("federation_all_reachable", (double)n.in_state[FEDERATION_REACHABLE], ">=", dcs);
  close_rig(r);
}

/* One of them is cut off, in one direction or both, for 60 to 120 s, at any moment. */
static void cut_off(uint32_t cuts) {
  double late_suspect = -1e9, early_suspect = -1e9, late_unreachable = -1e9, healed = 0, healed_less_trip = 0;
  uint64_t others = 0;
  for (uint32_t i = 0; i < cuts; i++) {
    struct rig *r = open_rig(1000 + i, 4, 0);
    struct site *s = &r->sites[i % 4];
    run(r, 60 * SECOND + rng_below(&r->rng, 10 * SECOND));
    struct federation_view v;
    federation_view(&r->f, world_now_ns(r->world), s->dc, &v);
    uint64_t suspect_ns = federation_suspect_ns(&r->f.config, v.timeout_ns);
    uint64_t unreachable_ns = federation_unreachable_ns(&r->f.config, v.timeout_ns);
    unsigned ways = 1 + i % 3;
    uint64_t cut_ns = sim_now_ns(r->sim);
    cut(r, s, ways, true);
    run(r, 60 * SECOND + rng_below(&r->rng, 60 * SECOND));
    uint64_t healed_ns = sim_now_ns(r->sim);
    cut(r, s, ways, false);
    run(r, 10 * SECOND);
    STUDY_NEED(s->suspected_ns > cut_ns && s->unreachable_ns > s->suspected_ns && s->reachable_ns > healed_ns);
    double suspected = (double)(s->suspected_ns - cut_ns) / 1e9, unreachable = (double)(s->unreachable_ns - cut_ns) / 1e9;
    double bound = (double)suspect_ns / 1e9;
    late_suspect = fmax(late_suspect, suspected - bound);
    early_suspect = fmax(early_suspect, bound - suspected);
    late_unreachable = fmax(late_unreachable, unreachable - (double)unreachable_ns / 1e9);
    healed = fmax(healed, (double)(s->reachable_ns - healed_ns) / 1e9);
    uint64_t first_ns = 0; /* Of the probes that were sent after healing, or were under way at it, the one that told. */
    for (int k = 0; k < 16; k++)
      if (s->sent_ns[k] <= s->reachable_ns && s->sent_ns[k] > first_ns && s->sent_ns[k] + 150 * MILLISECOND <= s->reachable_ns) first_ns = s->sent_ns[k];
    if (first_ns > healed_ns) healed_less_trip = fmax(healed_less_trip, (double)(first_ns - healed_ns) / 1e9);
    others += r->suspicions - 1;
    close_rig(r);
  }
  printf("%u cuts: suspected at most %.3f s after the bound and %.3f s before it, unreachable at most %.3f s after its bound,\n"
         "reachable at most %.3f s after healing, by a probe sent at most %.3f s after it; %" PRIu64 " others suspected\n",
         cuts, late_suspect, early_suspect, late_unreachable, healed, healed_less_trip, others);
  study_bar("federation_suspected_after_bound_s", late_suspect, "<=", 0.002);
  study_bar("federation_suspected_before_bound_s", early_suspect, "<=", 2.0 + 0.9); /* An interval and the longest round trip. */
  study_bar("federation_unreachable_after_bound_s", late_unreachable, "<=", 0.002);
  study_bar("federation_healing_probe_s", healed_less_trip, "<=", 2.0);
  study_bar("federation_healed_s", healed, "<=", 2.0 + 0.9);
  study_bar("federation_others_suspected", (double)others, "<=", 0);
}

/* Our own errors, for half of the datacenters, beginning and ending at any moment. */
static void own_errors(double hours) {
  struct rig *r = open_rig(7, 8, 0);
  run(r, 10 * SECOND);
  uint64_t until_ns = sim_now_ns(r->sim) + (uint64_t)(hours * 3600) * SECOND;
  double late = 0;
  uint64_t verdicts = 0;
  while (sim_now_ns(r->sim) < until_ns) {
    struct site *s = &r->sites[rng_below(&r->rng, 4)];
    struct federation_view v;
    federation_view(&r->f, world_now_ns(r->world), s->dc, &v);
    if (v.state != FEDERATION_REACHABLE) {
      run(r, SECOND);
      continue;
    }
    uint64_t last_ns = s->answered_ns, bound_ns = federation_suspect_ns(&r->f.config, v.timeout_ns);
    s->erring = true, s->suspected_ns = 0;
    run(r, 2 * SECOND); /* A probe under way may be answered yet. */
    last_ns = s->answered_ns;
    federation_view(&r->f, world_now_ns(r->world), s->dc, &v);
    bound_ns = federation_suspect_ns(&r->f.config, v.timeout_ns);
    run(r, 18 * SECOND + rng_below(&r->rng, 60 * SECOND));
    if (s->suspected_ns) late = fmax(late, fabs((double)s->suspected_ns - (double)(last_ns + bound_ns)) / 1e9), verdicts++;
    else late = 1e9;
    s->erring = false, s->due_ns = 0;
    run(r, 45 * SECOND); /* At most 36 s to its next probe. */
    federation_view(&r->f, world_now_ns(r->world), s->dc, &v);
    STUDY_NEED(v.state == FEDERATION_REACHABLE);
  }
  struct federation_counts n = federation_count(&r->f);
  uint64_t innocent = 0;
  for (int i = 4; i < 8; i++) innocent += r->sites[i].suspected_ns > 0;
  printf("%.0f h with %" PRIu64 " errors of our own: another datacenter's probe was at most %.3f s late, %" PRIu64 " verdicts off by at most "
         "%.3f s\n", hours, n.own_errors, (double)r->latest_ns / 1e9, verdicts, late);
  study_bar("federation_other_probe_late_s", (double)r->latest_ns / 1e9, "<=", 2);
  study_bar("federation_verdict_off_s", late, "<=", 0.002);
  study_bar("federation_innocent_suspected", (double)innocent, "<=", 0);
  close_rig(r);
}

int main(int argc, char **argv) {
  struct study_option options[] = {
      {"hours", 24, "simulated, of the run at rest"},
      {"dcs", 8, "datacenters of it"},
      {"loss", 0.01, "share of its datagrams"},
      {"cuts", 300, "of one datacenter, each in a run of its own"},
      {"error_hours", 4, "simulated, of the run with own errors"},
  };
  study_options(argc, argv, options, sizeof options / sizeof *options);
  at_rest((uint32_t)options[1].value, options[0].value, options[2].value);
  cut_off((uint32_t)options[3].value);
  own_errors(options[4].value);
  return study_short;
}
