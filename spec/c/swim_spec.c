/* core/swim on a virtual network: one function a behaviour, many seeds each, the invariants of swim_net.h at every event.
 * Prints a line for each; the first that fails ends the run with status 1. An argument runs one of them only. */
#include "swim_net.h"

/* ---- joining ---- */

static void F01_all_meet_through_one_seed(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  run(net, 5 * SECOND);
  MUST(converged(net) && net->deaths == 0);
  for (uint32_t i = 0; i < 20; i++)
    MUST(net->nodes[i].events[SWIM_EVENT_JOIN] == 19 && net->nodes[i].events[SWIM_EVENT_SUSPECT] == 0);
  net_close(net);
}

static void F01_a_seed_that_never_answers_is_no_member_and_no_death(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  uint32_t a = net_add(net), b = net_add(net);
  crash(net, b);
  join(net, a, b);
  run(net, 60 * SECOND);
  MUST(swim_records(net->nodes[a].swim) == 1 && net->deaths == 0 && net->nodes[a].events[SWIM_EVENT_SUSPECT] == 0);
  MUST(net->sent[SYNC] >= 12 && net->sent[SYNC] < 80); /* Tried on and on, with backoff to 5 s. */
  start(net, b, 1000);
  until_converged(net, 6 * SECOND);
  net_close(net);
}

static void F01_a_seed_forgotten_is_tried_no_more(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  uint32_t a = net_add(net), b = net_add(net);
  crash(net, b);
  join(net, a, b);
  run(net, 10 * SECOND);
  MUST(swim_forget(net->nodes[a].swim, &net->nodes[b].address) && !swim_forget(net->nodes[a].swim, &net->nodes[b].address));
  uint64_t before = net->sent[SYNC];
  run(net, 60 * SECOND);
  MUST(net->sent[SYNC] == before);
  net_close(net);
}

static void joins_while_datagrams_are_lost(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  set_loss(net, 0.3);
  for (uint32_t i = 0; i < 30; i++) net_add(net);
  for (uint32_t i = 1; i < 30; i++) join(net, i, i / 2);
  run(net, 30 * SECOND);
  set_loss(net, 0);
  until_converged(net, 60 * SECOND);
  net_close(net);
}

/* ---- detecting ---- */

static void F12_a_crash_is_found_by_all(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  run(net, 3 * SECOND);
  crash(net, 7);
  uint64_t took = until_converged(net, 20 * SECOND);
  MUST(net->deaths == 19 && took > 1 * SECOND);
  for (uint32_t i = 0; i < 20; i++)
    if (i != 7) MUST(believes(net, i, 7) == SWIM_DEAD && net->nodes[i].events[SWIM_EVENT_DEAD] == 1);
  net_close(net);
}

struct watch { /* The path of one suspicion: ping, indirect pings, then suspicion, at the times they should. */
  uint32_t victim, prober;
  uint64_t pinged_ns, asked_ns, suspected_ns;
  uint32_t asked[NODES], asked_count;
  bool armed;
};

static void watch_send(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length) {
  struct watch *w = net->data;
  struct header header;
  struct claim claim;
  struct reader r;
  if (!w->armed || (type != PING && type != PING_REQ)) return;
  MUST(swim_wire_open(&net->nodes[from].swim->cluster, bytes, length, &header, &r) == 0);
  (void)read_u32(&r);
  swim_wire_read_claim(&r, &claim);
  if (claim.key != swim_wire_key(net->nodes[w->victim].name, strlen(net->nodes[w->victim].name))) return;
  if (type == PING && to == w->victim && w->pinged_ns == 0) w->pinged_ns = now_ns(net), w->prober = from;
  if (type == PING_REQ && from == w->prober) {
    MUST(w->suspected_ns == 0 && to != w->victim); /* Before the suspicion. */
    for (uint32_t i = 0; i < w->asked_count; i++) MUST(w->asked[i] != to);
    w->asked_ns = now_ns(net);
    w->asked[w->asked_count++] = to;
  }
}

static void watch_event(struct net *net, uint32_t node, const struct swim_action *a) {
  struct watch *w = net->data;
  (void)node;
  if (w->armed && a->event == SWIM_EVENT_SUSPECT && w->suspected_ns == 0) w->suspected_ns = now_ns(net);
}

static void suspicion_comes_after_exactly_k_indirect_probes(uint64_t seed) {
  for (uint32_t k = 0; k <= 8; k += 2) {
    struct net *net = cluster(seed, 20, "lan");
    struct watch w = {.victim = 5, .armed = true};
    for (uint32_t i = 0; i < 20; i++) net->nodes[i].swim->config.indirect_probes = k;
    run(net, 3 * SECOND);
    net->on_send = watch_send, net->on_event = watch_event, net->data = &w;
    crash(net, 5);
    run(net, 10 * SECOND);
    MUST(w.asked_count == k && w.suspected_ns > 0);
    if (k > 0) MUST(w.asked_ns - w.pinged_ns == 500 * MILLISECOND);
    MUST(w.suspected_ns - w.pinged_ns == SECOND);
    net_close(net);
  }
}

struct pings { /* Of one prober to one victim, since the crash. */
  uint32_t victim, prober, count;
  uint64_t at_ns[8];
};

static void watch_pings(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length) {
  struct pings *p = net->data;
  (void)bytes, (void)length;
  if (type != PING || to != p->victim) return;
  if (p->count == 0) p->prober = from;
  if (from == p->prober && p->count < 8) p->at_ns[p->count++] = now_ns(net);
}

static void an_unanswered_ping_is_sent_again_evenly_until_the_probe_ends(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  struct pings p = {.victim = 5};
  for (uint32_t i = 0; i < 20; i++) net->nodes[i].swim->config.indirect_probes = 0; /* None but its own. */
  run(net, 3 * SECOND);
  net->on_send = watch_pings, net->data = &p;
  crash(net, 5);
  while (p.count == 0) run(net, 10 * MILLISECOND);
  uint64_t first_ns = p.at_ns[0];
  run(net, first_ns + SECOND - 1 - now_ns(net));
  MUST(p.count == 4);
  for (uint32_t i = 1; i < 4; i++) MUST(p.at_ns[i] - first_ns == i * 250 * MILLISECOND);
  net_close(net);
}

static void tally_rumours(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length) {
  uint64_t *told = net->data;
  (void)to, (void)bytes;
  if (type == GOSSIP || type == PING || type == ACK || type == PING_REQ) told[from] += length;
}

static void a_storm_of_deaths_keeps_to_its_budget_of_bytes(uint64_t seed) {
  struct net *net = cluster(seed, 100, "lan");
  uint64_t told[NODES] = {0};
  run(net, 15 * SECOND); /* Past its youth. */
  for (uint32_t i = 0; i < 40; i++) crash(net, i);
  net->on_send = tally_rumours, net->data = told;
  for (int second = 0; second < 20; second++) {
    memset(told, 0, sizeof told);
    run(net, SECOND);
    /* The rate, a bucket saved up, and what a second's probes and refutations may cost beside. */
    for (uint32_t i = 40; i < 100; i++) MUST(net->nodes[i].swim->counts.stalls == 0); /* Haste is no lateness. */
    for (uint32_t i = 40; i < 100; i++) MUST(told[i] < net->config.gossip_bytes_per_s + net->config.datagram_max + 2000);
  }
  net->on_send = NULL;
  until_converged(net, 40 * SECOND);
  net_close(net);
}

static void F12_indirect_probes_see_past_a_one_way_cut(uint64_t seed) {
  for (int direction = 0; direction < 2; direction++) {
    struct net *net = cluster(seed, 10, "lan");
    run(net, 2 * SECOND);
    cut_one(net, direction ? 3 : 4, direction ? 4 : 3, true);
    run(net, 120 * SECOND);
    MUST(net->deaths == 0);
    for (uint32_t i = 0; i < 10; i++) MUST(net->nodes[i].events[SWIM_EVENT_SUSPECT] == 0);
    MUST(net->nodes[3].swim->counts.indirect > 0);
    net_close(net);
  }
}

/* ---- local health ---- */

static void a_true_death_costs_no_healthy_prober_its_health(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  run(net, 3 * SECOND);
  crash(net, 7);
  for (int i = 0; i < 150; i++) {
    run(net, 100 * MILLISECOND);
    for (uint32_t at = 0; at < 20; at++)
      if (at != 7) MUST(net->nodes[at].swim->health == 0);
  }
  MUST(net->sent[NACK] > 0 && net->sent[NACK] == net->sent[PING_REQ]); /* Each in time, or health would have gone. */
  net_close(net);
}

static void a_node_that_hears_badly_probes_slowly_and_recovers(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  for (uint32_t i = 1; i < 20; i++) cut_one(net, i, 0, true); /* It sends, and receives nothing. */
  run(net, 30 * SECOND);
  const struct swim *s = net->nodes[0].swim;
  MUST(s->health == 8);
  uint64_t before = s->counts.probes;
  run(net, 90 * SECOND);
  MUST(s->counts.probes - before <= 2 + 90 / 9 + 19 * 3); /* A probe takes nine periods; hints come on top. */
  for (uint32_t i = 1; i < 20; i++) cut_one(net, i, 0, false);
  run(net, 60 * SECOND);
  MUST(s->health == 0 && converged(net));
  net_close(net);
}

static void a_suspicion_that_one_must_refute_costs_health_and_a_probe_answered_gives_it_back(uint64_t seed) {
  struct net *net = cluster(seed, 5, "lan");
  run(net, 5 * SECOND);
  struct swim *s = net->nodes[1].swim;
  uint32_t id = swim_members_find(s, "n2", 2);
  swim_suspect(s, id, s->members[id].incarnation, s->members[SELF].key);
  settle(net, 1);
  for (int i = 0; i < 500 && net->nodes[2].swim->counts.refuted == 0; i++) run(net, MILLISECOND);
  MUST(net->nodes[2].swim->counts.refuted == 1 && net->nodes[2].swim->health == 1);
  run(net, 4 * SECOND);
  MUST(net->nodes[2].swim->health == 0);
  net_close(net);
}

static void a_restart_within_the_second_takes_its_payload_with_it(uint64_t seed) {
  struct net *net = cluster(seed, 8, "lan");
  for (uint32_t i = 0; i < 3; i++)
    MUST(swim_set_payload(net->nodes[4].swim, local_ns(net, &net->nodes[4]), "old, much louder", 16) == 0), settle(net, 4);
  run(net, 10 * SECOND);
  crash(net, 4);
  start(net, 4, 1000); /* The same generation, a payload of version 1: the others remember a newer one. */
  for (uint32_t i = 0; i < 8; i++)
    if (i != 4) join(net, i, 4); /* It gets a request for its table before it has received one. */
  run(net, 30 * SECOND);
  MUST(converged(net));
  for (uint32_t i = 0; i < 8; i++) {
    struct swim_member m;
    MUST(swim_find(net->nodes[i].swim, "n4", 2, &m) && m.payload_length == 2 && memcmp(m.payload, "n4", 2) == 0);
  }
  net_close(net);
}

static void without_indirect_probes_the_same_cut_raises_suspicions_that_are_refuted(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  for (uint32_t i = 0; i < 10; i++) net->nodes[i].swim->config.indirect_probes = 0;
  cut_one(net, 3, 4, true);
  run(net, 60 * SECOND);
  MUST(net->nodes[3].events[SWIM_EVENT_SUSPECT] > 0 && net->nodes[3].events[SWIM_EVENT_ALIVE] > 0 && net->deaths == 0);
  MUST(net->nodes[4].swim->counts.refuted > 0);
  net_close(net);
}

static void F12_no_false_death_under_loss(uint64_t seed) {
  static const double losses[] = {0.01, 0.05, 0.10};
  for (int i = 0; i < 3; i++) {
    struct net *net = cluster(seed, 20, "lan");
    set_loss(net, losses[i]);
    run(net, 600 * SECOND);
    MUST(net->deaths == 0);
    set_loss(net, 0);
    until_converged(net, 60 * SECOND);
    net_close(net);
  }
}

static void F12_no_false_death_in_jitter_or_a_blackout(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  net->link.latency_ns = 50 * MILLISECOND, net->link.jitter_ns = 75 * MILLISECOND;
  set_link(net);
  run(net, 120 * SECOND);
  set_loss(net, 1);
  run(net, 200 * MILLISECOND);
  set_loss(net, 0);
  run(net, 30 * SECOND);
  MUST(net->deaths == 0);
  net_close(net);
}

static void F12_one_that_was_cut_off_harms_nobody_when_it_is_back(uint64_t seed) {
  enum { COUNT = 100, FAULTY = 2 };
  struct net *net = cluster(seed, COUNT, "lan");
  run(net, 5 * SECOND);
  for (int flip = 0; flip < 3; flip++) /* Outgoing, or both ways: they declare others dead, and then gossip it. */
    for (int cut = 1; cut >= 0; cut--) {
      for (uint32_t a = 0; a < FAULTY; a++)
        for (uint32_t i = FAULTY; i < COUNT; i++) {
          cut_one(net, a, i, cut);
          if (seed % 2) cut_one(net, i, a, cut);
        }
      run(net, 20 * SECOND);
    }
  set_flap_limit(net, 0);
  run(net, 20 * SECOND);
  MUST(converged(net));
  for (uint32_t i = FAULTY; i < COUNT; i++) /* No member believed them. */
    MUST(net->nodes[i].events[SWIM_EVENT_DEAD] <= 3 * FAULTY);
  net_close(net);
}

static void F12_a_paused_node_accuses_nobody_when_it_wakes(uint64_t seed) {
  struct net *net = cluster(seed, 12, "lan");
  run(net, 2 * SECOND);
  pause_node(net, 3, true);
  run(net, 60 * SECOND);
  MUST(net->deaths == 11); /* It was dead to all others, rightly. */
  pause_node(net, 3, false);
  uint64_t deaths = net->deaths;
  until_converged(net, 20 * SECOND);
  MUST(net->deaths == deaths && net->nodes[3].swim->counts.stalls == 1);
  for (uint32_t i = 0; i < 12; i++)
    if (i != 3) MUST(net->nodes[i].events[SWIM_EVENT_JOIN] == 12);
  net_close(net);
}

static void a_short_pause_harms_nobody(uint64_t seed) {
  struct net *net = cluster(seed, 12, "lan");
  for (int i = 0; i < 20; i++) {
    pause_node(net, 3, true);
    run(net, 700 * MILLISECOND + rng_below(&net->rng, SECOND));
    pause_node(net, 3, false);
    run(net, 4 * SECOND);
  }
  MUST(net->deaths == 0);
  until_converged(net, 20 * SECOND);
  net_close(net);
}

static void half_of_them_crash_at_once(uint64_t seed) {
  struct net *net = cluster(seed, 40, "lan");
  run(net, 2 * SECOND);
  for (uint32_t i = 0; i < 20; i++) crash(net, 2 * i);
  until_converged(net, 90 * SECOND);
  MUST(net->deaths == 20 * 20);
  net_close(net);
}

static void a_hint_probes_at_once_and_decides_nothing(uint64_t seed) {
  struct net *net = cluster(seed, 5, "lan");
  MUST(swim_hint(net->nodes[0].swim, local_ns(net, &net->nodes[0]), "n3", 2));
  MUST(!swim_hint(net->nodes[0].swim, local_ns(net, &net->nodes[0]), "n9", 2));
  MUST(!swim_hint(net->nodes[0].swim, local_ns(net, &net->nodes[0]), "n0", 2));
  settle(net, 0);
  run(net, 10 * SECOND);
  MUST(net->nodes[0].events[SWIM_EVENT_SUSPECT] == 0 && net->deaths == 0);
  net_close(net);
}

/* ---- refuting, leaving, changing, coming back ---- */

static void a_falsely_suspected_node_refutes_with_its_first_answer(uint64_t seed) {
  struct net *net = cluster(seed, 8, "lan");
  struct swim_member m;
  run(net, 2 * SECOND);
  struct swim *s = net->nodes[2].swim;
  uint32_t id = swim_members_find(s, "n6", 2);
  s->now_ns = local_ns(net, &net->nodes[2]);
  swim_suspect(s, id, s->members[id].incarnation, s->members[SELF].key); /* Out of the blue. */
  MUST(swim_probe_start(s, id, FOR_HINT));
  settle(net, 2);
  run(net, 20 * MILLISECOND);
  MUST(believes(net, 2, 6) == SWIM_ALIVE && net->nodes[6].swim->counts.refuted == 1);
  swim_self(net->nodes[6].swim, &m);
  MUST(m.incarnation.generation == 1000 && m.incarnation.version == 1);
  until_converged(net, 5 * SECOND);
  MUST(net->deaths == 0);
  net_close(net);
}

static void leaving_is_heard_and_is_no_death(uint64_t seed) {
  struct net *net = cluster(seed, 12, "lan");
  set_loss(net, 0.1);
  leave(net, 4);
  MUST(!net->nodes[4].left_done);
  for (int i = 0; i < 400 && !net->nodes[4].left_done; i++) run(net, 10 * MILLISECOND);
  MUST(net->nodes[4].left_done && net->nodes[4].heard == 3);
  crash(net, 4);
  until_converged(net, 20 * SECOND);
  MUST(net->deaths == 0);
  for (uint32_t i = 0; i < 12; i++)
    if (i != 4) MUST(believes(net, i, 4) == SWIM_LEFT && net->nodes[i].events[SWIM_EVENT_LEFT] == 1);
  net_close(net);
}

static void leaving_alone_or_unheard_ends_too(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  uint32_t a = net_add(net), b = net_add(net), c = net_add(net);
  leave(net, a);
  MUST(net->nodes[a].left_done && net->nodes[a].heard == 0);
  join(net, c, b);
  run(net, 2 * SECOND);
  MUST(believes(net, c, b) == SWIM_ALIVE);
  cut_both(net, b, c, true);
  leave(net, b);
  run(net, 2900 * MILLISECOND);
  MUST(!net->nodes[b].left_done);
  run(net, 200 * MILLISECOND);
  MUST(net->nodes[b].left_done && net->nodes[b].heard == 0);
  net_close(net);
}

static void payloads_reach_all_and_the_newest_wins(uint64_t seed) {
  struct net *net = cluster(seed, 16, "lan");
  uint8_t bytes[SWIM_PAYLOAD_MAX + 1];
  struct swim_member m;
  set_loss(net, 0.1);
  for (uint32_t version = 2; version < 30; version++) {
    memset(bytes, (int)version, sizeof bytes);
    struct node *n = &net->nodes[5];
    size_t length = version % 3 == 0 ? SWIM_PAYLOAD_MAX : version;
    MUST(swim_set_payload(n->swim, local_ns(net, n), bytes, length) == 0);
    MUST(swim_set_payload(n->swim, local_ns(net, n), bytes, SWIM_PAYLOAD_MAX + 1) == ERR_TOO_LARGE);
    settle(net, 5);
    run(net, rng_below(&net->rng, 300) * MILLISECOND);
  }
  until_converged(net, 60 * SECOND);
  for (uint32_t i = 0; i < 16; i++) {
    MUST(swim_find(net->nodes[i].swim, "n5", 2, &m) && m.payload_version == 29 && m.payload_length == 29);
    for (size_t j = 0; j < m.payload_length; j++) MUST(m.payload[j] == 29);
    if (i != 5) MUST(net->nodes[i].events[SWIM_EVENT_UPDATE] > 0);
  }
  MUST(net->deaths == 0);
  net_close(net);
}

static void F10_a_restarted_node_rises_above_its_old_life(uint64_t seed) {
  /* Its clock has moved on, stands still, or was set back. */
  static const uint32_t generations[] = {2000, 1000, 3};
  for (int i = 0; i < 3; i++) {
    struct net *net = cluster(seed, 8, "lan");
    struct swim_member before, after;
    run(net, 2 * SECOND);
    swim_self(net->nodes[3].swim, &before);
    crash(net, 3);
    run(net, i == 2 ? 30 * SECOND : 100 * MILLISECOND); /* Before and after the old life was found dead. */
    start(net, 3, generations[i]);
    join(net, 3, 0);
    run(net, 2 * SECOND);
    until_converged(net, 20 * SECOND);
    swim_self(net->nodes[3].swim, &after);
    MUST(swim_incarnation_compare(after.incarnation, before.incarnation) > 0);
    MUST(after.incarnation.generation > before.incarnation.generation);
    for (uint32_t n = 0; n < 8; n++)
      if (n != 3) MUST(net->nodes[n].events[SWIM_EVENT_JOIN] == 8 && net->nodes[n].events[SWIM_EVENT_DEAD] == 1);
    net_close(net);
  }
}

static void everyone_restarts_at_once(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  run(net, 2 * SECOND);
  for (uint32_t i = 0; i < 10; i++) crash(net, i);
  run(net, SECOND);
  for (uint32_t i = 0; i < 10; i++) start(net, i, 1001);
  for (uint32_t i = 0; i < 10; i++) join(net, i, (i + 1) % 10);
  until_converged(net, 20 * SECOND);
  MUST(net->deaths == 0);
  net_close(net);
}

static void a_partition_heals_with_nobodys_help(uint64_t seed) {
  static const uint32_t sides[] = {1, 5, 10};
  for (int i = 0; i < 3; i++) {
    struct net *net = cluster(seed, 20, "lan");
    run(net, 2 * SECOND);
    for (uint32_t a = 0; a < sides[i]; a++)
      for (uint32_t b = sides[i]; b < 20; b++) cut_both(net, a, b, true);
    run(net, 600 * SECOND);
    MUST(swim_live(net->nodes[0].swim) == sides[i] && swim_live(net->nodes[19].swim) == 20 - sides[i]);
    for (uint32_t a = 0; a < sides[i]; a++)
      for (uint32_t b = sides[i]; b < 20; b++) cut_both(net, a, b, false);
    uint64_t deaths = net->deaths;
    until_converged(net, 20 * SECOND);
    MUST(net->deaths == deaths); /* No member dies at the reunion. */
    net_close(net);
  }
}

static void F11_the_dead_are_reaped_and_may_come_back(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  net->config.tombstone_ms = 30000;
  for (uint32_t i = 0; i < 6; i++) net_add(net);
  for (uint32_t i = 1; i < 6; i++) join(net, i, 0);
  until_converged(net, 10 * SECOND);
  crash(net, 5);
  until_converged(net, 20 * SECOND);
  for (uint32_t i = 0; i < 5; i++) MUST(swim_records(net->nodes[i].swim) == 6);
  run(net, 25 * SECOND);
  for (uint32_t i = 0; i < 5; i++) MUST(swim_records(net->nodes[i].swim) == 6 && believes(net, i, 5) == SWIM_DEAD);
  run(net, 30 * SECOND);
  for (uint32_t i = 0; i < 5; i++) {
    MUST(swim_records(net->nodes[i].swim) == 5 && net->nodes[i].swim->members_count == 6);
    net->nodes[i].beliefs[5].known = false; /* Forgotten: it may begin anew. */
  }
  start(net, 5, 1001);
  join(net, 5, 0);
  until_converged(net, 10 * SECOND);
  for (uint32_t i = 0; i < 5; i++) MUST(net->nodes[i].swim->members_count == 6 && net->nodes[i].events[SWIM_EVENT_JOIN] == 6);
  net_close(net);
}

static void another_name_at_the_old_address_is_another_member(uint64_t seed) {
  struct net *net = cluster(seed, 6, "lan");
  run(net, 2 * SECOND);
  crash(net, 5);
  uint32_t other = net->count;
  struct node *n = blank_node(net);
  n->machine = net->nodes[5].machine; /* The same one, with another process on it. */
  n->address = net->nodes[5].address;
  net->nodes[5].address = address_of(99);
  start(net, other, 1000);
  join(net, other, 0);
  until_converged(net, 30 * SECOND);
  for (uint32_t i = 0; i < 5; i++) MUST(believes(net, i, 5) == SWIM_DEAD && believes(net, i, other) == SWIM_ALIVE);
  MUST(n->swim->counts.refused[SWIM_REFUSED_MISDIRECTED] > 0);
  net_close(net);
}

static void two_clusters_do_not_mix(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  uint32_t a = net_add(net), b = net_add(net);
  net->nodes[b].swim->cluster.crc ^= 1;
  join(net, a, b);
  join(net, b, a);
  run(net, 20 * SECOND);
  MUST(swim_live(net->nodes[a].swim) == 1 && swim_live(net->nodes[b].swim) == 1);
  MUST(net->nodes[a].swim->counts.refused[SWIM_REFUSED_CLUSTER] > 0);
  net_close(net);
}

/* ---- cost ---- */

static void an_idle_cluster_sends_two_small_datagrams_a_period(uint64_t seed) {
  struct net *net = cluster(seed, 50, "lan");
  run(net, 60 * SECOND); /* The last rumours end. */
  memset(net->sent, 0, sizeof net->sent);
  net->bytes = 0;
  run(net, 100 * SECOND);
  MUST(net->sent[PING] >= 49 * 100 && net->sent[PING] <= 51 * 100 + 300 && net->sent[ACK] + 5 >= net->sent[PING] &&
       net->sent[ACK] <= net->sent[PING] + 5);
  MUST(net->sent[GOSSIP] == 0 && net->sent[SYNC] <= 300 && net->sent[TABLE] <= 300 && net->sent[PING_REQ] == 0);
  MUST(net->bytes <= 50 * 100 * 62);
  net_close(net);
}

static uint32_t gaps[NODES][NODES];
static uint64_t gap_worst;
static void gap_send(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length) {
  (void)bytes, (void)length;
  if (type != PING || to >= NODES) return;
  for (uint32_t i = 0; i < net->count; i++) gaps[from][i]++;
  if (gaps[from][to] > gap_worst) gap_worst = gaps[from][to];
  gaps[from][to] = 0;
}

static void each_member_is_probed_within_two_rounds(uint64_t seed) {
  struct net *net = cluster(seed, 12, "lan");
  run(net, 5 * SECOND);
  memset(gaps, 0, sizeof gaps);
  gap_worst = 0;
  net->on_send = gap_send;
  run(net, 400 * SECOND);
  MUST(gap_worst <= 2 * 11 - 1 && gap_worst > 11); /* And it is no fixed round. */
  net_close(net);
}

/* ---- everything at once ---- */

static void one_fault(struct net *net, bool *running) {
  uint32_t a = (uint32_t)rng_below(&net->rng, net->count), b = (uint32_t)rng_below(&net->rng, net->count);
  struct node *n = &net->nodes[a];
  switch (rng_below(&net->rng, 9)) {
    case 0:
      if (running[a]) crash(net, a), running[a] = false;
      break;
    case 1:
    case 2: /* Its clock stood still, moved on, or was set back. */
      if (running[a]) break;
      start(net, a, (uint32_t)(1000 + rng_below(&net->rng, 5)));
      join(net, a, (a + 1) % net->count);
      join(net, a, (a + 5) % net->count);
      running[a] = true;
      break;
    case 3:
      if (a != b) cut_one(net, a, b, true);
      break;
    case 4:
      if (a != b) cut_both(net, a, b, true);
      break;
    case 5: set_loss(net, (double)rng_below(&net->rng, 40) / 100); break;
    case 6:
      if (running[a]) pause_node(net, a, rng_below(&net->rng, 3) == 0);
      break;
    case 7:
      if (running[a]) MUST(swim_set_payload(n->swim, local_ns(net, n), &a, sizeof a) == 0), settle(net, a);
      break;
    default:
      for (uint32_t i = 0; i < net->count; i++)
        if (i != a) cut_both(net, a, i, rng_below(&net->rng, 2)); /* Half cut off, or mended. */
  }
}

static void whatever_happened_all_agree_in_the_end(uint64_t seed) {
  enum { COUNT = 12 };
  struct net *net = cluster(seed, COUNT, seed % 2 ? "lan" : "local");
  bool running[COUNT];
  memset(running, true, sizeof running);
  for (int fault = 0; fault < 60; fault++) {
    one_fault(net, running);
    run(net, rng_below(&net->rng, 4000) * MILLISECOND);
  }
  set_loss(net, 0);
  for (uint32_t a = 0; a < COUNT; a++) {
    for (uint32_t b = a + 1; b < COUNT; b++) cut_both(net, a, b, false);
    if (!running[a]) start(net, a, 2000), join(net, a, (a + 1) % COUNT);
    else pause_node(net, a, false);
  }
  set_flap_limit(net, 0);
  until_converged(net, 60 * SECOND);
  run(net, 20 * SECOND);
  MUST(converged(net));
  net_close(net);
}

/* ---- */

static const struct net_spec specs[] = {
    NET_SPEC(F01_all_meet_through_one_seed, 10),
    NET_SPEC(F01_a_seed_that_never_answers_is_no_member_and_no_death, 5),
    NET_SPEC(F01_a_seed_forgotten_is_tried_no_more, 2),
    NET_SPEC(joins_while_datagrams_are_lost, 10),
    NET_SPEC(F12_a_crash_is_found_by_all, 20),
    NET_SPEC(suspicion_comes_after_exactly_k_indirect_probes, 3),
    NET_SPEC(an_unanswered_ping_is_sent_again_evenly_until_the_probe_ends, 5),
    NET_SPEC(a_storm_of_deaths_keeps_to_its_budget_of_bytes, 2),
    NET_SPEC(F12_indirect_probes_see_past_a_one_way_cut, 5),
    NET_SPEC(a_true_death_costs_no_healthy_prober_its_health, 10),
    NET_SPEC(a_node_that_hears_badly_probes_slowly_and_recovers, 3),
    NET_SPEC(a_suspicion_that_one_must_refute_costs_health_and_a_probe_answered_gives_it_back, 5),
    NET_SPEC(a_restart_within_the_second_takes_its_payload_with_it, 5),
    NET_SPEC(without_indirect_probes_the_same_cut_raises_suspicions_that_are_refuted, 3),
    NET_SPEC(F12_no_false_death_under_loss, 4),
    NET_SPEC(F12_no_false_death_in_jitter_or_a_blackout, 3),
    NET_SPEC(F12_one_that_was_cut_off_harms_nobody_when_it_is_back, 2),
    NET_SPEC(F12_a_paused_node_accuses_nobody_when_it_wakes, 10),
    NET_SPEC(a_short_pause_harms_nobody, 5),
    NET_SPEC(half_of_them_crash_at_once, 5),
    NET_SPEC(a_hint_probes_at_once_and_decides_nothing, 2),
    NET_SPEC(a_falsely_suspected_node_refutes_with_its_first_answer, 5),
    NET_SPEC(leaving_is_heard_and_is_no_death, 10),
    NET_SPEC(leaving_alone_or_unheard_ends_too, 3),
    NET_SPEC(payloads_reach_all_and_the_newest_wins, 5),
    NET_SPEC(F10_a_restarted_node_rises_above_its_old_life, 10),
    NET_SPEC(everyone_restarts_at_once, 10),
    NET_SPEC(a_partition_heals_with_nobodys_help, 5),
    NET_SPEC(F11_the_dead_are_reaped_and_may_come_back, 5),
    NET_SPEC(another_name_at_the_old_address_is_another_member, 5),
    NET_SPEC(two_clusters_do_not_mix, 2),
    NET_SPEC(an_idle_cluster_sends_two_small_datagrams_a_period, 2),
    NET_SPEC(each_member_is_probed_within_two_rounds, 3),
    NET_SPEC(whatever_happened_all_agree_in_the_end, 40),
};

int main(int argc, char **argv) { return net_specs(argc, argv, specs, sizeof specs / sizeof *specs); }
