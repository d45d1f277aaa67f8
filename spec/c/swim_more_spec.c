/* core/swim beside plain membership: coordinates, events of users, evidence, reconfiguration. One function a behaviour, as in
 * swim_spec.c, on the same network with the same invariants at every event. */
#include <math.h>

#include "swim_net.h"

/* ---- coordinates ---- */

/* Three places on a line, 40 ms of one-way latency a step; nodes i % 3 at place i % 3. */
static struct net *far_apart(uint64_t seed, uint32_t count, const char *profile) {
  struct net *net = cluster(seed, count, profile);
  for (uint32_t i = 0; i < count; i++)
    for (uint32_t j = 0; j < count; j++) {
      uint32_t steps = i % 3 > j % 3 ? i % 3 - j % 3 : j % 3 - i % 3;
      struct sim_link link = {.latency_ns = 500000 + steps * 40 * MILLISECOND, .jitter_ns = 500000};
      if (i != j) sim_set_link(net->sim, net->nodes[i].machine, net->nodes[j].machine, &link);
    }
  return net;
}

static uint64_t distance(const struct net *net, uint32_t at, uint32_t a, uint32_t b) {
  const char *one = net->nodes[a].name, *other = net->nodes[b].name;
  return swim_distance_ns(net->nodes[at].swim, one, strlen(one), other, strlen(other));
}

static void coordinates_tell_round_trips_that_nobody_measured(uint64_t seed) {
  struct net *net = far_apart(seed, 30, "lan");
  run(net, 600 * SECOND);
  MUST(net->deaths == 0);
  double worst = 0, sum = 0;
  uint32_t count = 0;
  for (uint32_t a = 1; a < 30; a++)
    for (uint32_t b = a + 1; b < 30; b++) { /* Node 0 judges pairs that it is no part of. */
      uint32_t steps = a % 3 > b % 3 ? a % 3 - b % 3 : b % 3 - a % 3;
      if (steps == 0) continue;
      double truth = 2. * (1 + steps * 40.), told = (double)distance(net, 0, a, b) / 1e6, off = fabs(told - truth) / truth;
      sum += off, count++;
      if (off > worst) worst = off;
    }
  if (sum / count > 0.1 || worst > 0.35) printf("mean %.3f worst %.3f\n", sum / count, worst);
  MUST(sum / count <= 0.1 && worst <= 0.35);
  net_close(net);
}

/* How far one answered probe moves node 0, whose coordinates are new, when the other side is of such an error; UINT8_MAX + 1: it has
 * told no coordinates. */
static double moved_by(struct swim *s, uint32_t id, unsigned error) {
  struct member *m = &s->members[id];
  vivaldi_open(&s->place);
  m->at = (struct vivaldi){.at = {0, 100 * VIVALDI_UNITS_PER_MS}, .height = 0};
  m->place_version = error <= UINT8_MAX, m->place_error = (uint8_t)error, m->rtt = 0;
  swim_heard(s, id, 200 * MILLISECOND);
  return -s->place.at[1];
}

static void whoever_is_sure_of_its_place_moves_others_further(uint64_t seed) {
  struct net *net = cluster(seed, 2, "lan");
  struct swim *s = net->nodes[0].swim;
  uint32_t id = swim_members_find(s, "n1", 2);
  double sure = moved_by(s, id, 0), unsure = moved_by(s, id, UINT8_MAX), untold = moved_by(s, id, UINT8_MAX + 1);
  MUST(sure > 1.5 * unsure && unsure > 1 && untold == unsure);
  net_close(net);
}

static void a_round_trip_is_smoothed_and_one_that_waited_in_a_queue_is_no_distance(uint64_t seed) {
  struct net *net = cluster(seed, 2, "lan");
  struct swim *s = net->nodes[0].swim;
  uint32_t id = swim_members_find(s, "n1", 2);
  struct member *m = &s->members[id];
  m->rtt = 0;
  swim_heard(s, id, 80 * MILLISECOND);
  uint64_t first = swim_rtt_ns(m->rtt);
  MUST(first > 79 * MILLISECOND && first <= 80 * MILLISECOND);
  swim_heard(s, id, 160 * MILLISECOND);
  uint64_t second = swim_rtt_ns(m->rtt);
  MUST(second > 89 * MILLISECOND && second < 91 * MILLISECOND); /* By an eighth of the difference. */
  m->place_version = 0, m->at = (struct vivaldi){0};
  vivaldi_open(&s->place), s->place.height = 90; /* Where the round trip says. */
  swim_heard(s, id, 20000 * MILLISECOND);
  MUST(s->place.height < 120 && s->place.height > 90); /* As if it had taken twice as long as usual. */
  MUST(swim_rtt_ns(m->rtt) > 2000 * MILLISECOND);
  net_close(net);
}

static void older_coordinates_change_nothing(uint64_t seed) {
  struct net *net = cluster(seed, 2, "lan");
  struct swim *s = net->nodes[0].swim;
  uint32_t id = swim_members_find(s, "n1", 2);
  struct place newer = {.at = {.at = {7}}, .version = 9, .error = 3}, older = {.at = {.at = {5}}, .version = 8, .error = 1};
  swim_merge_place(s, id, &newer);
  swim_merge_place(s, id, &older);
  struct place kept = swim_place(&s->members[id]);
  MUST(kept.version == 9 && kept.at.at[0] == 7 && kept.error == 3);
  net_close(net);
}

static void settled_coordinates_cost_nothing(uint64_t seed) {
  struct net *net = far_apart(seed, 30, "lan");
  run(net, 900 * SECOND);
  memset(net->sent, 0, sizeof net->sent);
  net->bytes = 0;
  run(net, 100 * SECOND);
  MUST(net->sent[ACK_AT] <= 30 * 100 / 10); /* The last of the settling. */
  MUST(net->bytes <= 30 * 100 * 62);
  net_close(net);
}

static void one_far_away_is_given_the_time_its_answers_take(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  struct sim_link slow = {.latency_ns = 190 * MILLISECOND, .jitter_ns = 20 * MILLISECOND}; /* 0.4 s of the 0.5 s timeout. */
  for (uint32_t i = 1; i < 10; i++) {
    sim_set_link(net->sim, net->nodes[i].machine, net->nodes[0].machine, &slow);
    sim_set_link(net->sim, net->nodes[0].machine, net->nodes[i].machine, &slow);
  }
  run(net, 60 * SECOND);
  memset(net->sent, 0, sizeof net->sent);
  run(net, 60 * SECOND);
  MUST(net->sent[PING_REQ] == 0 && net->deaths == 0);
  struct swim_member m;
  MUST(swim_find(net->nodes[3].swim, "n0", 2, &m) && m.rtt_ns > 380 * MILLISECOND && m.rtt_ns < 520 * MILLISECOND);
  net_close(net);
}

/* ---- events of users ---- */

struct told {
  uint32_t from, number, count[NODES];
  uint32_t total, wrong;
};

static void hear(struct net *net, uint32_t node, const struct swim_action *a) {
  struct told *t = net->data;
  if (a->event != SWIM_EVENT_USER) return;
  uint32_t from = node_named(a->member.name, a->member.name_length);
  char expected[32];
  int length = snprintf(expected, sizeof expected, "%u says %u", from, a->told_number);
  t->wrong += a->told_length != (size_t)length || memcmp(a->told, expected, (size_t)length) != 0;
  t->count[node]++;
  t->total++;
}

static void say(struct net *net, uint32_t at) {
  char text[32];
  struct node *n = &net->nodes[at];
  int length = snprintf(text, sizeof text, "%u says %u", at, n->swim->user_number + 1);
  MUST(swim_tell(n->swim, local_ns(net, n), text, (size_t)length) == 0);
  settle(net, at);
}

static void what_one_tells_all_hear_once(uint64_t seed) {
  struct net *net = cluster(seed, 40, "lan");
  struct told told = {0};
  net->on_event = hear, net->data = &told;
  run(net, 5 * SECOND);
  set_loss(net, seed % 2 ? 0.1 : 0);
  for (uint32_t i = 0; i < 20; i++) {
    say(net, i % 5);
    run(net, 300 * MILLISECOND);
  }
  run(net, 20 * SECOND);
  MUST(told.wrong == 0 && told.total == 20 * 39);
  for (uint32_t i = 0; i < 40; i++) MUST(told.count[i] == (i < 5 ? 16 : 20) && !swim_users_waiting(net->nodes[i].swim));
  net_close(net);
}

static void a_restart_begins_its_numbers_anew_and_is_heard(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  struct told told = {0};
  net->on_event = hear, net->data = &told;
  run(net, 5 * SECOND);
  for (int i = 0; i < 3; i++) say(net, 3);
  run(net, 10 * SECOND);
  crash(net, 3);
  start(net, 3, 2000);
  join(net, 3, 0);
  run(net, 10 * SECOND);
  say(net, 3);
  run(net, 10 * SECOND);
  MUST(told.wrong == 0 && told.total == 4 * 9);
  net_close(net);
}

static void a_flood_of_events_neither_starves_membership_nor_is_starved(uint64_t seed) {
  struct net *net = cluster(seed, 40, "lan");
  struct told told = {0};
  net->on_event = hear, net->data = &told;
  struct swim_config config = net->config;
  config.user_bytes_per_s = 1300;
  for (uint32_t i = 0; i < 40; i++) MUST(swim_reconfigure(net->nodes[i].swim, local_ns(net, &net->nodes[i]), &config) == 0);
  run(net, 5 * SECOND);
  uint64_t began_ns = now_ns(net), death_ns = 0, before = net->bytes;
  crash(net, 30);
  for (int i = 0; i < 200; i++) { /* More than may be sent: 10 a second of 256 bytes. */
    uint8_t bytes[SWIM_USER_MAX] = {0};
    struct node *n = &net->nodes[i % 10];
    int rc = swim_tell(n->swim, local_ns(net, n), bytes, sizeof bytes);
    MUST(rc == 0 || rc == ERR_FULL);
    settle(net, (uint32_t)i % 10);
    run(net, 100 * MILLISECOND);
    if (!death_ns && converged(net)) death_ns = now_ns(net) - began_ns;
  }
  MUST(death_ns > 0 && death_ns < 15 * SECOND && net->deaths == 39);
  MUST(told.total > 39 * 20); /* And it goes on the while: at 1,300 B a second and member. */
  MUST((net->bytes - before) / 20 / 39 <= 1300 + 2600 + 300);
  net_close(net);
}

/* ---- evidence ---- */

static bool has_fact(const struct swim_why *why, enum swim_fact_kind kind) {
  for (uint32_t i = 0; i < why->facts_count; i++)
    if (why->facts[i].kind == kind) return true;
  return false;
}

static void why_tells_who_accuses_whom_since_when_and_what_came_of_it(uint64_t seed) {
  struct net *net = cluster(seed, 20, "lan");
  run(net, 30 * SECOND);
  struct swim_why why;
  MUST(swim_why(net->nodes[1].swim, "n7", 2, &why) && why.member.state == SWIM_ALIVE && why.answered && why.heard_s <= 40 &&
       why.member.rtt_ns > 0 && why.accusers_count == 0);
  MUST(!swim_why(net->nodes[1].swim, "nobody", 6, &why));
  crash(net, 7);
  while (believes(net, 1, 7) == SWIM_ALIVE) run(net, 10 * MILLISECOND);
  uint64_t now = local_ns(net, &net->nodes[1]);
  MUST(swim_why(net->nodes[1].swim, "n7", 2, &why) && why.member.state == SWIM_SUSPECT && why.accusers_count >= 1);
  MUST(why.accusers[0] && node_named(why.accusers[0], why.accusers_length[0]) != 7);
  MUST(why.suspected_ns <= now && why.deadline_ns > now && why.least_ns <= why.deadline_ns && why.deadline_ns <= why.most_ns);
  MUST(has_fact(&why, SWIM_FACT_SUSPECTED) && why.wanted == 2);
  until_converged(net, 20 * SECOND);
  MUST(swim_why(net->nodes[1].swim, "n7", 2, &why) && why.member.state == SWIM_DEAD);
  MUST(has_fact(&why, SWIM_FACT_TIMED_OUT) || has_fact(&why, SWIM_FACT_DEAD));
  for (uint32_t i = 1; i < why.facts_count; i++) MUST(why.facts[i].at_ns <= why.facts[i - 1].at_ns); /* The newest first. */
  MUST(swim_why(net->nodes[1].swim, "n8", 2, &why) && has_fact(&why, SWIM_FACT_JOINED)); /* None of it appears in another member's evidence. */
  MUST(!has_fact(&why, SWIM_FACT_TIMED_OUT) && !has_fact(&why, SWIM_FACT_DEAD) && !has_fact(&why, SWIM_FACT_SUSPECTED));
  uint32_t unanswered = 0;
  for (uint32_t i = 0; i < 20; i++)
    if (i != 7 && swim_why(net->nodes[i].swim, "n7", 2, &why)) unanswered += has_fact(&why, SWIM_FACT_UNANSWERED);
  MUST(unanswered >= 1);
  net_close(net);
}

/* ---- reconfiguration ---- */

static void other_values_are_taken_while_it_runs(uint64_t seed) {
  struct net *net = cluster(seed, 10, "lan");
  run(net, 60 * SECOND);
  struct swim_config local, bad, tight;
  MUST(swim_config_profile("local", &local) == 0);
  bad = tight = net->config;
  bad.probe_timeout_ms = bad.probe_interval_ms;
  tight.members_max = 5;
  for (uint32_t i = 0; i < 10; i++) {
    struct swim *s = net->nodes[i].swim;
    MUST(swim_reconfigure(s, local_ns(net, &net->nodes[i]), &bad) == ERR_CONFIG);
    MUST(swim_reconfigure(s, local_ns(net, &net->nodes[i]), &tight) == ERR_FULL);
    MUST(s->config.probe_interval_ms == 1000);
    MUST(swim_reconfigure(s, local_ns(net, &net->nodes[i]), &local) == 0);
    settle(net, i);
  }
  memset(net->sent, 0, sizeof net->sent);
  run(net, 20 * SECOND);
  MUST(net->sent[PING] >= 10 * 20 * 5 - 20 && net->sent[PING] <= 10 * 20 * 5 + 20 && net->deaths == 0);
  crash(net, 3);
  MUST(until_converged(net, 10 * SECOND) < 5 * SECOND);
  net_close(net);
}

/* ---- */

static const struct net_spec specs[] = {
    NET_SPEC(coordinates_tell_round_trips_that_nobody_measured, 3),
    NET_SPEC(whoever_is_sure_of_its_place_moves_others_further, 1),
    NET_SPEC(a_round_trip_is_smoothed_and_one_that_waited_in_a_queue_is_no_distance, 1),
    NET_SPEC(older_coordinates_change_nothing, 1),
    NET_SPEC(settled_coordinates_cost_nothing, 2),
    NET_SPEC(one_far_away_is_given_the_time_its_answers_take, 2),
    NET_SPEC(what_one_tells_all_hear_once, 4),
    NET_SPEC(a_restart_begins_its_numbers_anew_and_is_heard, 3),
    NET_SPEC(a_flood_of_events_neither_starves_membership_nor_is_starved, 2),
    NET_SPEC(why_tells_who_accuses_whom_since_when_and_what_came_of_it, 5),
    NET_SPEC(other_values_are_taken_while_it_runs, 2),
};

int main(int argc, char **argv) { return net_specs(argc, argv, specs, sizeof specs / sizeof *specs); }
