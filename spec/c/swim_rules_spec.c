/* Rules of core/swim that no other program would miss (spec/study/mutants.lua takes each away in turn): one function a rule, many seeds,
 * the invariants of swim_net.h at every event. An argument runs one of them only. */
#include "swim_net.h"

static void a_seed_is_asked_at_once(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  run(net, 5 * SECOND);
  uint32_t at = net_add(net);
  join(net, at, 0);
  run(net, 100 * MILLISECOND); /* Not a period later. */
  MUST(swim_live(net->nodes[at].swim) == 11 && believes(net, 0, at) == SWIM_ALIVE);
  net_close(net);
}

static void a_newcomer_asks_for_two_more_tables(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  run(net, 40 * SECOND); /* No other member has a question. */
  uint64_t before = net->sent[SYNC];
  uint32_t at = net_add(net);
  join(net, at, 0);
  run(net, 100 * MILLISECOND);
  MUST(net->sent[SYNC] - before == 3);
  net_close(net);
}

static void seeds_are_remembered_after_the_dead_are_forgotten(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  net->config.tombstone_ms = 5000;
  for (uint32_t i = 0; i < 3; i++) net_add(net);
  for (uint32_t i = 1; i < 3; i++) join(net, i, 0);
  until_converged(net, 10 * SECOND);
  crash(net, 0);
  run(net, 60 * SECOND);
  MUST(swim_records(net->nodes[1].swim) == 2 && swim_records(net->nodes[2].swim) == 2);
  start(net, 0, 1001); /* It knows no member. */
  until_converged(net, 60 * SECOND);
  net_close(net);
}

static void old_tombstones_do_not_go_round(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  net->config.tombstone_ms = 60000;
  for (uint32_t i = 0; i < 4; i++) net_add(net);
  for (uint32_t i = 1; i < 4; i++) join(net, i, 0);
  until_converged(net, 10 * SECOND);
  crash(net, 3);
  run(net, 20 * SECOND);
  uint32_t early = net_add(net);
  join(net, early, 0);
  run(net, 2 * SECOND);
  MUST(believes(net, early, 3) == SWIM_DEAD);
  crash(net, early);
  run(net, 20 * SECOND); /* More than half of its time. */
  uint32_t late = net_add(net);
  join(net, late, 0);
  run(net, 2 * SECOND);
  MUST(believes(net, 0, 3) == SWIM_DEAD && believes(net, late, 3) == (enum swim_state)99);
  net_close(net);
}

static void digests_tell_generations_versions_and_payloads_apart(uint64_t seed) {
  struct net *net = cluster(seed, 3, "lan");
  struct swim *s = net->nodes[1].swim;
  struct swim_member self;
  uint32_t first = swim_digest(s);
  MUST(swim_set_payload(s, local_ns(net, &net->nodes[1]), "other", 5) == 0);
  uint32_t second = swim_digest(s);
  swim_self(s, &self);
  MUST(swim_refute(s, self.incarnation, SWIM_SUSPECT)); /* One version more. */
  uint32_t third = swim_digest(s);
  MUST(swim_refute(s, (struct swim_incarnation){self.incarnation.generation + 1, self.incarnation.version + 1}, SWIM_ALIVE));
  uint32_t fourth = swim_digest(s); /* A generation more, version 0. */
  MUST(first != second && second != third && third != fourth && second != fourth && first != third);
  net->nodes[1].highest = (struct swim_incarnation){self.incarnation.generation + 2, 0};
  settle(net, 1);
  net_close(net);
  static struct swim *twins[2]; /* Alike but for the generation. */
  for (uint32_t i = 0; i < 2; i++) {
    struct swim_config config;
    struct swim_identity identity = {.name = "a", .name_length = 1, .cluster = "c", .cluster_length = 1,
                                     .address = address_of(1), .generation = 7 + i};
    MUST(swim_config_profile("lan", &config) == 0 && swim_open(&config, &identity, seed, 0, &twins[i]) == 0);
  }
  MUST(swim_digest(twins[0]) != swim_digest(twins[1]));
  swim_close(twins[0]), swim_close(twins[1]);
}

static void a_doubted_one_that_pings_hears_it_with_the_answer(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  run(net, 30 * SECOND);
  struct swim *s = net->nodes[2].swim;
  uint32_t id = swim_members_find(s, "n6", 2);
  struct swim_member m;
  MUST(swim_find(s, "n6", 2, &m));
  s->now_ns = local_ns(net, &net->nodes[2]);
  swim_suspect(s, id, m.incarnation, swim_wire_key("n2", 2)); /* Out of the blue, */
  swim_rumour_end(s, id);                                     /* and gossiped to no member. */
  settle(net, 2);
  MUST(believes(net, 2, 6) == SWIM_SUSPECT);
  MUST(swim_hint(net->nodes[6].swim, local_ns(net, &net->nodes[6]), "n2", 2));
  settle(net, 6);
  run(net, 15 * MILLISECOND);
  MUST(believes(net, 2, 6) == SWIM_ALIVE && swim_counts(net->nodes[6].swim)->refuted == 1);
  net_close(net);
}

/* Others may know a namesake's address, and prefer it to ours at one incarnation. The next incarnation must bring our address, though
 * they learn of it first from a datagram's header, which has no address. */
static void an_address_comes_with_its_incarnation(uint64_t seed) {
  struct net *net = cluster(seed, 6, "lan");
  run(net, 30 * SECOND);
  struct swim *it = net->nodes[3].swim;
  struct swim_member self, m;
  swim_self(it, &self);
  for (uint32_t i = 0; i < 6; i++) {
    struct shoal_address wrong = address_of(99);
    struct swim *s = net->nodes[i].swim;
    if (i != 3) MUST(swim_set_address(s, swim_members_find(s, "n3", 2), &wrong) == 0);
  }
  MUST(swim_refute(it, self.incarnation, SWIM_SUSPECT));
  net->nodes[3].highest.version = self.incarnation.version + 1;
  for (uint32_t i = 0; i < 6; i++)
    if (i != 3) MUST(swim_hint(it, local_ns(net, &net->nodes[3]), net->nodes[i].name, 2));
  settle(net, 3);
  run(net, 5 * SECOND);
  for (uint32_t i = 0; i < 6; i++)
    MUST(swim_find(net->nodes[i].swim, "n3", 2, &m) && m.state == SWIM_ALIVE && address_equal(&m.address, &net->nodes[3].address));
  MUST(net->deaths == 0);
  net_close(net);
}

static const struct net_spec specs[] = {
    NET_SPEC(a_seed_is_asked_at_once, 10),
    NET_SPEC(a_newcomer_asks_for_two_more_tables, 5),
    NET_SPEC(seeds_are_remembered_after_the_dead_are_forgotten, 5),
    NET_SPEC(old_tombstones_do_not_go_round, 5),
    NET_SPEC(digests_tell_generations_versions_and_payloads_apart, 5),
    NET_SPEC(a_doubted_one_that_pings_hears_it_with_the_answer, 10),
    NET_SPEC(an_address_comes_with_its_incarnation, 10),
};

int main(int argc, char **argv) { return net_specs(argc, argv, specs, sizeof specs / sizeof *specs); }
