/* Nodes that must not be members together: namesakes and nodes of other clusters; and members that people remove. */
#include "swim_net.h"

/* The node `of` once more, on a machine of its own; not started yet. */
static uint32_t twin(struct net *net, uint32_t of) {
  uint32_t at = net->count;
  struct node *n = blank_node(net);
  char machine_name[16];
  n->id = of;
  n->address = address_of(at);
  memcpy(n->name, net->nodes[of].name, sizeof n->name);
  struct shoal_address machine = n->address;
  machine.port = 0;
  (void)snprintf(machine_name, sizeof machine_name, "m%u", at);
  MUST(sim_node_add(net->sim, machine_name, &machine, &n->machine) == 0);
  n->world = sim_node_world(n->machine);
  return at;
}

static struct net *group_of(const char *profile, uint64_t seed, uint32_t count) {
  struct net *net = net_open(seed, profile);
  for (uint32_t i = 0; i < count; i++) {
    net_add(net);
    if (i > 0) join(net, i, 0);
  }
  (void)until_converged(net, 60 * SECOND);
  return net;
}

static struct net *group(uint64_t seed, uint32_t count) { return group_of("lan", seed, count); }

static bool is_at(const struct net *net, uint32_t observer, uint32_t at) {
  struct swim_member m;
  const char *name = net->nodes[at].name;
  return swim_find(net->nodes[observer].swim, name, strlen(name), &m) && m.state == SWIM_ALIVE &&
         address_equal(&m.address, &net->nodes[at].address);
}

static bool tells(const struct net *net, uint32_t at, uint32_t stays, uint32_t out) {
  const struct swim_notice *n = &net->nodes[at].notice;
  return net->nodes[at].notices[SWIM_NAMESAKE] > 0 && n->kind == SWIM_NAMESAKE && address_equal(&n->one, &net->nodes[stays].address) &&
         address_equal(&n->other, &net->nodes[out].address) && n->name_length == strlen(net->nodes[stays].name);
}

static void a_newcomer_of_a_living_members_name_stays_out_and_nobody_is_disturbed(uint64_t seed) {
  struct net *net = group(seed, 5);
  if (seed % 2) set_loss(net, 0.1);
  uint64_t joins = net->nodes[0].events[SWIM_EVENT_JOIN];
  uint32_t other = twin(net, 3);
  start(net, other, 1000 + (uint32_t)(seed % 3)); /* A generation that is the same, or greater. */
  join(net, other, 0);
  run(net, 60 * SECOND);
  MUST(swim_is_out(net->nodes[other].swim) && !swim_is_out(net->nodes[3].swim));
  MUST(net->deaths == 0 && net->nodes[0].events[SWIM_EVENT_JOIN] == joins);
  for (uint32_t i = 0; i < 5; i++) MUST(i == 3 || is_at(net, i, 3));
  MUST(net->nodes[3].swim->members[SELF].incarnation.generation == 1000);
  MUST(tells(net, other, 3, other) && net->nodes[other].notice.ours && net->nodes[other].notice.out);
  MUST(tells(net, 3, 3, other) && net->nodes[3].notice.ours && !net->nodes[3].notice.out);
  MUST(tells(net, 0, 3, other) && !net->nodes[0].notice.ours);
  /* Each once a minute, and one introduction in ten seconds. */
  MUST(net->nodes[other].notices[SWIM_NAMESAKE] <= 2 && net->nodes[3].notices[SWIM_NAMESAKE] <= 2);
  MUST(net->sent[INTRO] <= 60);
  leave(net, other); /* Its end is no news of the name. */
  run(net, 10 * SECOND);
  MUST(net->nodes[other].left_done && is_at(net, 0, 3) && net->deaths == 0);
  net_close(net);
}

static void it_comes_in_once_its_namesake_has_ended(uint64_t seed) {
  struct net *net = group(seed, 4);
  uint32_t other = twin(net, 2);
  start(net, other, 1005);
  join(net, other, 0);
  run(net, 30 * SECOND);
  MUST(swim_is_out(net->nodes[other].swim));
  if (seed % 2) crash(net, 2);
  else leave(net, 2), run(net, 5 * SECOND), crash(net, 2);
  uint64_t begin_ns = now_ns(net);
  while (!is_at(net, 1, other) || !is_at(net, 0, other)) {
    MUST(now_ns(net) - begin_ns < 20 * SECOND);
    run(net, 100 * MILLISECOND);
  }
  MUST(!swim_is_out(net->nodes[other].swim) && net->nodes[other].notices[SWIM_NAMESAKE_GONE] == 1);
  MUST(until_converged(net, 60 * SECOND) < 60 * SECOND);
  net_close(net);
}

/* kill -9, and start again at another address while everybody still believes the old life. */
static void a_restart_elsewhere_is_no_namesake(uint64_t seed) {
  struct net *net = group(seed, 5);
  uint32_t again = twin(net, 3);
  crash(net, 3);
  run(net, seed % 3 * SECOND);
  start(net, again, 1000 + (uint32_t)(seed % 2));
  join(net, again, 0);
  uint64_t begin_ns = now_ns(net);
  while (!is_at(net, 1, again) || !is_at(net, 4, again)) {
    MUST(now_ns(net) - begin_ns < 6 * SECOND); /* One period to ask the old address. */
    run(net, 50 * MILLISECOND);
  }
  for (uint32_t i = 0; i < net->count; i++) MUST(net->nodes[i].notices[SWIM_NAMESAKE] == 0);
  net_close(net);
}

/* Both became members apart from each other, as on two sides of a partition. */
static void two_members_of_one_name_outbid_each_other_a_few_times_and_the_elder_stays(uint64_t seed) {
  struct net *net = group(seed, 3);
  uint32_t first = net->count;
  for (uint32_t i = 0; i < 3; i++) net_add(net);
  uint32_t other = twin(net, 1);
  start(net, other, seed % 2 ? 1005 : 995);
  join(net, first + 1, first);
  join(net, first + 2, first);
  join(net, other, first);
  run(net, 20 * SECOND);
  MUST(is_at(net, first + 2, other) && is_at(net, 2, 1));
  uint32_t stays = seed % 2 ? 1 : other, out = seed % 2 ? other : 1;
  join(net, first, 0);
  run(net, 60 * SECOND);
  MUST(swim_is_out(net->nodes[out].swim) && !swim_is_out(net->nodes[stays].swim));
  for (uint32_t i = 0; i < net->count; i++) MUST(i == stays || i == out || is_at(net, i, stays));
  MUST(tells(net, stays, stays, out) && tells(net, out, stays, out));
  MUST(net->nodes[stays].swim->members[SELF].incarnation.generation < 1015);
  net_close(net);
}

/* They cannot settle it between themselves: each hears of the other from others only. */
static void namesakes_that_cannot_reach_each_other_outbid_each_other_rarely(uint64_t seed) {
  struct net *net = group_of("local", seed, 3);
  uint32_t first = net->count;
  for (uint32_t i = 0; i < 3; i++) net_add(net);
  uint32_t other = twin(net, 1);
  start(net, other, 1005);
  join(net, first + 1, first);
  join(net, first + 2, first);
  join(net, other, first);
  run(net, 20 * SECOND);
  cut_both(net, 1, other, true);
  join(net, first, 0);
  run(net, 60 * SECOND);
  uint32_t generation = net->nodes[1].highest.generation;
  MUST(generation > 1005 && generation < 1080); /* Without a bound it is hundreds. */
  cut_both(net, 1, other, false);
  run(net, 30 * SECOND);
  MUST(swim_is_out(net->nodes[other].swim) && !swim_is_out(net->nodes[1].swim));
  for (uint32_t i = 0; i < net->count; i++) MUST(i == 1 || i == other || is_at(net, i, 1));
  net_close(net);
}

static void nodes_of_two_clusters_tell_each_other_who_they_are(uint64_t seed) {
  struct net *net = group(seed, 3);
  uint32_t at = net->count;
  struct node *n = blank_node(net);
  n->address = address_of(at);
  n->cluster = "other";
  struct shoal_address machine = n->address;
  machine.port = 0;
  MUST(sim_node_add(net->sim, n->name, &machine, &n->machine) == 0);
  n->world = sim_node_world(n->machine);
  start(net, at, 1000);
  join(net, at, 0);
  run(net, 100 * SECOND);
  const struct swim_notice *here = &net->nodes[at].notice, *there = &net->nodes[0].notice;
  MUST(here->kind == SWIM_FOREIGN && here->cluster_length == 4 && memcmp(here->cluster, "spec", 4) == 0);
  MUST(address_equal(&here->one, &net->nodes[0].address) && here->name_length == 2 && memcmp(here->name, "n0", 2) == 0);
  MUST(there->kind == SWIM_FOREIGN && there->cluster_length == 5 && memcmp(there->cluster, "other", 5) == 0);
  MUST(address_equal(&there->one, &n->address));
  MUST(n->notices[SWIM_FOREIGN] <= 2 && net->nodes[0].notices[SWIM_FOREIGN] <= 2 && net->sent[INTRO] <= 60);
  struct swim_seed seed_now;
  uint32_t cursor = 0;
  MUST(swim_each_seed(n->swim, &cursor, &seed_now) && !seed_now.answered && seed_now.tries > 10);
  MUST(seed_now.refused == SWIM_REFUSED_CLUSTER && !swim_each_seed(n->swim, &cursor, &seed_now));
  MUST(swim_live(n->swim) == 1);
  net_close(net);
}

static void a_ghost_that_is_erased_is_gone_everywhere_and_gossip_does_not_bring_it_back(uint64_t seed) {
  struct net *net = group(seed, 6);
  struct node *n = &net->nodes[0];
  MUST(swim_erase(n->swim, local_ns(net, n), "n4", 2) == ERR_BUSY); /* It is alive. */
  MUST(swim_erase(n->swim, local_ns(net, n), "n0", 2) == ERR_BUSY);
  MUST(swim_erase(n->swim, local_ns(net, n), "n9", 2) == ERR_NOT_FOUND);
  if (seed % 2) leave(net, 4), run(net, 10 * SECOND);
  crash(net, 4);
  run(net, 60 * SECOND);
  MUST(believes(net, 1, 4) == (seed % 2 ? SWIM_LEFT : SWIM_DEAD));
  MUST(swim_erase(n->swim, local_ns(net, n), "n4", 2) == 0);
  MUST(swim_erase(n->swim, local_ns(net, n), "n4", 2) == ERR_NOT_FOUND); /* For people it is gone. */
  settle(net, 0);
  run(net, 60 * SECOND);
  for (uint32_t i = 0; i < 6; i++) MUST(i == 4 || (believes(net, i, 4) == 99 && net->nodes[i].events[SWIM_EVENT_FORGOTTEN] == 1));
  net_add(net); /* One that never knew it gets no ghost from the tables. */
  join(net, 6, 1);
  run(net, 60 * SECOND);
  MUST(believes(net, 6, 4) == 99);
  net->nodes[4].id = 4;
  start(net, 4, 1001); /* A new life is a member. */
  join(net, 4, 2);
  MUST(until_converged(net, 60 * SECOND) < 60 * SECOND);
  MUST(believes(net, 6, 4) == SWIM_ALIVE);
  net_close(net);
}

static void one_that_was_erased_while_it_was_only_cut_off_returns(uint64_t seed) {
  struct net *net = group(seed, 5);
  for (uint32_t i = 0; i < 4; i++) cut_both(net, i, 4, true);
  run(net, 60 * SECOND);
  struct node *n = &net->nodes[0];
  MUST(believes(net, 0, 4) == SWIM_DEAD && swim_erase(n->swim, local_ns(net, n), "n4", 2) == 0);
  settle(net, 0);
  run(net, 20 * SECOND);
  for (uint32_t i = 0; i < 4; i++) cut_both(net, i, 4, false);
  MUST(until_converged(net, 200 * SECOND) < 200 * SECOND);
  net_close(net);
}

static const struct net_spec specs[] = {
    NET_SPEC(a_newcomer_of_a_living_members_name_stays_out_and_nobody_is_disturbed, 6),
    NET_SPEC(it_comes_in_once_its_namesake_has_ended, 4),
    NET_SPEC(a_restart_elsewhere_is_no_namesake, 6),
    NET_SPEC(two_members_of_one_name_outbid_each_other_a_few_times_and_the_elder_stays, 4),
    NET_SPEC(namesakes_that_cannot_reach_each_other_outbid_each_other_rarely, 3),
    NET_SPEC(nodes_of_two_clusters_tell_each_other_who_they_are, 2),
    NET_SPEC(a_ghost_that_is_erased_is_gone_everywhere_and_gossip_does_not_bring_it_back, 4),
    NET_SPEC(one_that_was_erased_while_it_was_only_cut_off_returns, 2),
};

int main(int argc, char **argv) { return net_specs(argc, argv, specs, sizeof specs / sizeof *specs); }
