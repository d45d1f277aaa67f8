/* Flapping members are held dead, and released once they have been stable (c/core/swim_flap.c). The invariants of swim_net.h are
 * checked at every event. */
#include "swim_net.h"

enum { COUNT = 12, IT = 5 };

struct tale { /* The others' events about it. */
  uint32_t dead, joined, suspected, held;
  uint64_t last_join_ns, last_dead_ns;
};

static void listen(struct net *net, uint32_t at, const struct swim_action *a) {
  struct tale *t = net->data;
  if (at == IT || node_named(a->member.name, a->member.name_length) != IT) return;
  t->dead += a->event == SWIM_EVENT_DEAD, t->joined += a->event == SWIM_EVENT_JOIN, t->suspected += a->event == SWIM_EVENT_SUSPECT;
  t->held += a->event == SWIM_EVENT_DEAD && a->member.held;
  if (a->event == SWIM_EVENT_JOIN) t->last_join_ns = now_ns(net);
  if (a->event == SWIM_EVENT_DEAD) t->last_dead_ns = now_ns(net);
}

static struct net *watched(uint64_t seed, struct tale *t) {
  struct net *net = cluster(seed, COUNT, "lan");
  run(net, 20 * SECOND);
  *t = (struct tale){0};
  net->data = t, net->on_event = listen;
  return net;
}

static void cut_off(struct net *net, bool cut) {
  for (uint32_t i = 0; i < COUNT; i++)
    if (i != IT) cut_both(net, i, IT, cut);
}

static void swing(struct net *net, int times) {
  for (int i = 0; i < times; i++) {
    cut_off(net, true);
    run(net, 20 * SECOND);
    cut_off(net, false);
    run(net, 20 * SECOND);
  }
}

static bool all_believe(const struct net *net, enum swim_state state) {
  for (uint32_t i = 0; i < COUNT; i++)
    if (i != IT && believes(net, i, IT) != state) return false;
  return true;
}

static void one_cut_off_once_is_back_at_once(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  cut_off(net, true);
  run(net, 20 * SECOND);
  MUST(all_believe(net, SWIM_DEAD));
  cut_off(net, false);
  MUST(until_converged(net, 15 * SECOND) > 0 && t.held == 0 && t.dead == COUNT - 1 && t.joined == COUNT - 1);
  net_close(net);
}

static void one_that_comes_and_goes_is_held_from_its_second_death_until_it_has_been_well(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  swing(net, 6);
  MUST(all_believe(net, SWIM_DEAD));
  /* Twice dead, once back, and no further event, though below the hold it was suspected and refuted. */
  MUST(t.dead == 2 * (COUNT - 1) && t.joined == COUNT - 1 && t.held == COUNT - 1 && t.suspected <= t.dead);
  MUST(swim_live(net->nodes[0].swim) == COUNT - 1 && net->nodes[0].swim->living == COUNT - 1);
  uint64_t calm_ns = now_ns(net);
  run(net, 40 * SECOND);
  MUST(all_believe(net, SWIM_DEAD));
  run(net, 140 * SECOND); /* Three half-lives from its last trouble. */
  MUST(all_believe(net, SWIM_ALIVE) && converged(net) && t.joined == 2 * (COUNT - 1) && t.last_join_ns > calm_ns + 40 * SECOND);
  run(net, 300 * SECOND);
  for (uint32_t i = 0; i < COUNT; i++) MUST(net->nodes[i].swim->held == 0 && net->nodes[i].swim->flaps_count == 0); /* All forgotten. */
  net_close(net);
}

static void one_that_hears_a_tenth_is_held_though_it_refutes_every_time(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  struct sim_link lossy = net->link;
  lossy.loss = 0.9;
  for (uint32_t i = 0; i < COUNT; i++)
    if (i != IT) sim_set_link(net->sim, net->nodes[i].machine, net->nodes[IT].machine, &lossy);
  run(net, 240 * SECOND);
  MUST(all_believe(net, SWIM_DEAD) && t.held >= COUNT - 1);
  net_close(net);
}

/* While it is cut off it holds all others dead, and gossips that when it is back: in a small cluster no member would be an outlier. */
static void what_it_says_of_others_when_it_is_back_is_no_trouble(uint64_t seed) {
  enum { FEW = 4, LAST = FEW - 1 };
  struct net *net = net_open(seed, "local");
  net->config.flap_half_life_ms = 30000;
  for (uint32_t i = 0; i < FEW; i++) net_add(net);
  for (uint32_t i = 1; i < FEW; i++) join(net, i, 0);
  until_converged(net, 10 * SECOND);
  for (int times = 0; times < 3; times++)
    for (int cut = 1; cut >= 0; cut--) {
      for (uint32_t i = 0; i < LAST; i++) cut_both(net, i, LAST, cut);
      run(net, cut ? 12 * SECOND : 8 * SECOND);
    }
  for (uint32_t i = 0; i < LAST; i++) MUST(believes(net, i, LAST) == SWIM_DEAD && net->nodes[i].swim->held == 1);
  net_close(net);
}

/* Else a member that flapped for long would be held for long. */
static void points_have_a_bound(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  struct swim_why why;
  set_flap_limit(net, 2);
  swing(net, 4);
  for (uint32_t i = 0; i < COUNT; i++)
    MUST(i == IT || (swim_why(net->nodes[i].swim, "n5", 2, &why) && why.flap_points > 2 && why.flap_points <= 4));
  net_close(net);
}

static void a_restart_ends_it(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  swing(net, 3);
  MUST(all_believe(net, SWIM_DEAD) && t.held == COUNT - 1);
  crash(net, IT);
  run(net, SECOND);
  start(net, IT, 1001);
  join(net, IT, 0);
  MUST(until_converged(net, 10 * SECOND) > 0 && all_believe(net, SWIM_ALIVE));
  for (uint32_t i = 0; i < COUNT; i++) MUST(net->nodes[i].swim->held == 0);
  net_close(net);
}

static void one_that_is_held_may_die_or_leave(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  swing(net, 3);
  if (seed % 2) crash(net, IT);
  else leave(net, IT);
  uint32_t told = t.dead + t.joined;
  run(net, 240 * SECOND);
  MUST(all_believe(net, seed % 2 ? SWIM_DEAD : SWIM_LEFT) && t.dead + t.joined == told);
  for (uint32_t i = 0; i < COUNT; i++)
    if (net->nodes[i].swim && i != IT) MUST(net->nodes[i].swim->held == 0);
  net_close(net);
}

/* Many at once are no outliers: it is the network, and when it heals all are members at once, however often it broke. */
static void a_network_that_comes_and_goes_holds_nobody(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  for (int times = 0; times < 5; times++) {
    for (uint32_t a = 0; a < COUNT; a++)
      for (uint32_t b = 0; b < a; b++)
        if (a % 2 != b % 2) cut_both(net, a, b, times % 2 == 0);
    run(net, 20 * SECOND);
  }
  for (uint32_t a = 0; a < COUNT; a++)
    for (uint32_t b = 0; b < a; b++) cut_both(net, a, b, false);
  MUST(until_converged(net, 15 * SECOND) > 0 && t.held == 0 && t.dead > COUNT);
  net_close(net);
}

static void of_two_nobody_is_held(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  for (uint32_t i = 0; i < 2; i++) net_add(net);
  join(net, 1, 0);
  until_converged(net, 10 * SECOND);
  for (int times = 0; times < 3; times++)
    for (int cut = 1; cut >= 0; cut--) {
      cut_both(net, 0, 1, cut);
      run(net, 20 * SECOND);
    }
  MUST(believes(net, 0, 1) == SWIM_ALIVE && believes(net, 1, 0) == SWIM_ALIVE && net->deaths == 6);
  net_close(net);
}

static void others_are_asked_rather_than_one_that_is_held(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  swing(net, 3);
  run(net, 30 * SECOND);
  struct swim *s = net->nodes[0].swim;
  uint32_t it = swim_members_find(s, "n5", 2), ids[FANOUT_MAX];
  MUST(s->members[it].held && s->members[it].state == SWIM_ALIVE); /* It answers, so that this is the only evidence against it. */
  for (int times = 0; times < 1000; times++)
    for (uint32_t i = swim_choose(s, ids, 3, NONE); i-- > 0;) MUST(ids[i] != it);
  net_close(net);
}

static void it_is_off_at_0_and_whoever_was_held_is_let_go(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  swing(net, 3);
  MUST(all_believe(net, SWIM_DEAD));
  set_flap_limit(net, 0);
  run(net, 2 * SECOND); /* A period of theirs. */
  MUST(all_believe(net, SWIM_ALIVE));
  t = (struct tale){0};
  swing(net, 3);
  MUST(t.held == 0 && t.dead == 3 * (COUNT - 1) && t.joined == 3 * (COUNT - 1));
  net_close(net);
}

static void why_tells_points_and_until_when(uint64_t seed) {
  struct tale t;
  struct net *net = watched(seed, &t);
  struct swim_why why;
  swing(net, 2);
  MUST(swim_why(net->nodes[0].swim, "n5", 2, &why) && why.member.held && why.member.state == SWIM_DEAD && why.flap_points > 1.5);
  bool told = false;
  for (uint32_t i = 0; i < why.facts_count; i++)
    told |= why.facts[i].kind == SWIM_FACT_HELD && why.facts[i].value >= 6 * 16 && why.facts[i].value <= 12 * 16;
  MUST(told);
  uint64_t left_ns = why.held_until_ns - local_ns(net, &net->nodes[0]);
  MUST(left_ns > 30 * SECOND && left_ns <= 180 * SECOND);
  run(net, left_ns - SECOND / 10);
  MUST(swim_why(net->nodes[0].swim, "n5", 2, &why) && why.member.held);
  run(net, 2 * SECOND); /* Looked at each period. */
  MUST(swim_why(net->nodes[0].swim, "n5", 2, &why) && !why.member.held && why.member.state == SWIM_ALIVE && why.held_until_ns == 0);
  MUST(why.facts[0].kind == SWIM_FACT_RELEASED);
  net_close(net);
}

static const struct net_spec specs[] = {
    NET_SPEC(one_cut_off_once_is_back_at_once, 10),
    NET_SPEC(one_that_comes_and_goes_is_held_from_its_second_death_until_it_has_been_well, 10),
    NET_SPEC(one_that_hears_a_tenth_is_held_though_it_refutes_every_time, 5),
    NET_SPEC(what_it_says_of_others_when_it_is_back_is_no_trouble, 10),
    NET_SPEC(points_have_a_bound, 2),
    NET_SPEC(a_restart_ends_it, 5),
    NET_SPEC(one_that_is_held_may_die_or_leave, 6),
    NET_SPEC(a_network_that_comes_and_goes_holds_nobody, 5),
    NET_SPEC(of_two_nobody_is_held, 3),
    NET_SPEC(others_are_asked_rather_than_one_that_is_held, 3),
    NET_SPEC(it_is_off_at_0_and_whoever_was_held_is_let_go, 3),
    NET_SPEC(why_tells_points_and_until_when, 5),
};

int main(int argc, char **argv) { return net_specs(argc, argv, specs, sizeof specs / sizeof *specs); }
