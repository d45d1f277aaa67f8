/* Events of users under load and faults: storms, loss, partitions, restarts and stalls; the windows, FULL, and the budget. One function
 * a behaviour, as in swim_spec.c. Nothing is ever delivered twice to one life of a node: hear() checks it. */
#include "swim_net.h"

enum { NUMBERS = 4096 };
static struct heard { /* What each node heard of each: a bit a number. */
  uint64_t bits[NODES][NODES][NUMBERS / 64];
  uint64_t total, last_ns;
} heard;

static void hear(struct net *net, uint32_t node, const struct swim_action *a) {
  if (a->event != SWIM_EVENT_USER) return;
  uint32_t from = node_named(a->member.name, a->member.name_length);
  MUST(a->told_number < NUMBERS && from < NODES && from != node && a->told_length >= 4);
  uint64_t *word = &heard.bits[node][from][a->told_number / 64], bit = UINT64_C(1) << a->told_number % 64;
  MUST(!(*word & bit));
  struct reader r = reader_of(a->told, a->told_length);
  MUST(read_u32(&r) == (from << 16 | a->told_number)); /* Its own bytes. */
  *word |= bit;
  heard.total++;
  heard.last_ns = now_ns(net);
}

static uint32_t count_heard(uint32_t node, uint32_t from) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < NUMBERS; i++) count += (uint32_t)(heard.bits[node][from][i / 64] >> i % 64 & 1);
  return count;
}

static int tell_bytes(struct net *net, uint32_t at, size_t length) {
  uint8_t bytes[SWIM_USER_MAX] = {0};
  struct node *n = &net->nodes[at];
  struct writer w = writer_of(bytes, sizeof bytes);
  write_u32(&w, at << 16 | (n->swim->user_number + 1));
  return swim_tell(n->swim, local_ns(net, n), bytes, length);
}

static void tell(struct net *net, uint32_t at, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) MUST(tell_bytes(net, at, 64) == 0);
  settle(net, at);
}

static void begin(struct net *net) {
  memset(&heard, 0, sizeof heard);
  net->on_event = hear;
  memset(net->sent, 0, sizeof net->sent);
  net->bytes = 0;
}

static struct net *listening(uint64_t seed, uint32_t count) {
  struct net *net = cluster(seed, count, "lan");
  run(net, 15 * SECOND);
  begin(net);
  return net;
}

static void set_rate(struct net *net, uint32_t user_bytes_per_s) {
  struct swim_config config = net->config;
  config.user_bytes_per_s = user_bytes_per_s;
  for (uint32_t i = 0; i < net->count; i++)
    MUST(swim_reconfigure(net->nodes[i].swim, local_ns(net, &net->nodes[i]), &config) == 0);
}

/* Until so many were delivered; returns when the last came, since `begin_ns`. */
static uint64_t until_heard(struct net *net, uint64_t total, uint64_t begin_ns, uint64_t limit_ns) {
  while (heard.total < total) {
    if (now_ns(net) - begin_ns >= limit_ns) printf("%llu of %llu\n", (unsigned long long)heard.total, (unsigned long long)total);
    MUST(now_ns(net) - begin_ns < limit_ns);
    run(net, 10 * MILLISECOND);
  }
  MUST(heard.total == total);
  return heard.last_ns - begin_ns;
}

static uint64_t sum_of(const struct net *net, size_t offset) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < net->count; i++)
    if (net->nodes[i].swim) sum += *(const uint64_t *)(const void *)((const char *)swim_counts(net->nodes[i].swim) + offset);
  return sum;
}
#define SUM(net, field) sum_of(net, offsetof(struct swim_counts, field))

/* ---- storms ---- */

static void storm(uint64_t seed, uint32_t tellers, uint32_t each, double loss, uint64_t limit_ns, uint64_t bytes_max) {
  struct net *net = listening(seed, 32);
  set_loss(net, loss);
  uint64_t begin_ns = now_ns(net);
  for (uint32_t i = 0; i < tellers; i++) tell(net, i, each);
  until_heard(net, (uint64_t)tellers * each * 31, begin_ns, limit_ns);
  MUST(SUM(net, user_missed) == 0 && SUM(net, user_dropped) == 0 && (loss > 0 || net->deaths == 0));
  MUST(net->bytes / 32 <= bytes_max);
  net_close(net);
}

static void a_storm_of_a_hundred_reaches_all_within_half_a_second(uint64_t seed) { storm(seed, 1, 100, 0, SECOND / 2, 30000); }
static void a_storm_of_a_thousand_reaches_all_within_three_seconds(uint64_t seed) { storm(seed, 1, 1000, 0, 3 * SECOND, 220000); }
static void a_storm_of_all_at_once_reaches_all(uint64_t seed) { storm(seed, 32, 32, 0, 4 * SECOND, 220000); }
static void a_storm_at_thirty_percent_loss_reaches_all(uint64_t seed) {
  storm(seed, seed % 2 ? 32 : 1, seed % 2 ? 32 : 1000, 0.3, 8 * SECOND, 400000);
}

/* The stores are full then: events are delivered, and come from their tellers. */
static void more_than_all_can_keep_reaches_all(uint64_t seed) {
  struct net *net = listening(seed, 12);
  uint64_t begin_ns = now_ns(net);
  for (uint32_t i = 0; i < 12; i++) tell(net, i, SWIM_USER_WINDOW);
  until_heard(net, 12 * SWIM_USER_WINDOW * 11, begin_ns, 200 * SECOND);
  for (uint32_t i = 0; i < 12; i++) MUST(net->nodes[i].swim->users->kept <= SWIM_USERS_MAX);
  MUST(SUM(net, user_missed) == 0 && SUM(net, user_dropped) == 0 && net->deaths == 0);
  net_close(net);
}

static void at_rest_nobody_asks(uint64_t seed) {
  struct net *net = listening(seed, 16);
  run(net, 5 * SECOND);
  MUST(net->sent[SEEN] == 0);
  tell(net, 3, 10);
  run(net, 130 * SECOND);
  for (uint32_t i = 0; i < 16; i++) MUST(net->nodes[i].swim->users->kept == 0 && net->nodes[i].swim->users->used <= 1);
  MUST(heard.total == 150);
  begin(net);
  run(net, 60 * SECOND);
  MUST(net->sent[SEEN] == 0);
  net_close(net);
}

/* ---- the budget ---- */

static struct spent { uint64_t bytes[NODES]; uint32_t largest; } spent;

static void weigh(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length) {
  struct header header;
  struct record record;
  struct user_event event;
  struct reader r;
  (void)to;
  if (type != GOSSIP && type != SEEN) return; /* Pings carry events too; counted below by what is left of the budget. */
  MUST(swim_wire_open(&net->nodes[from].swim->cluster, bytes, length, &header, &r) == 0);
  if (type == SEEN) spent.bytes[from] += reader_left(&r);
  while (type == GOSSIP && swim_wire_read_record(&r, &record, &event))
    if (!record.name) spent.bytes[from] += swim_wire_user_size(&event);
}

static void no_node_spends_more_than_its_budget(uint64_t seed) {
  struct net *net = listening(seed, 16);
  uint32_t rates[] = {300, 5000, 65536}, rate = rates[seed % 3];
  set_rate(net, rate);
  memset(&spent, 0, sizeof spent);
  net->on_send = weigh;
  for (uint32_t i = 0; i < 16; i++) tell(net, i, 300);
  run(net, 10 * SECOND);
  uint64_t most = 10 * rate + (rate / 8 > SWIM_DATAGRAM_MAX ? rate / 8 : SWIM_DATAGRAM_MAX) + SWIM_DATAGRAM_MAX, sum = 0;
  for (uint32_t i = 0; i < 16; i++) sum += spent.bytes[i], MUST(spent.bytes[i] <= most);
  MUST(sum >= 16 * most / 4); /* And it is used. */
  MUST(net->deaths == 0);
  net_close(net);
}

/* ---- FULL ---- */

static void a_full_window_refuses_and_says_from_when_on_it_will_not(uint64_t seed) {
  struct net *net = listening(seed, 8);
  struct swim *s = net->nodes[2].swim;
  uint64_t begin_ns = now_ns(net);
  tell(net, 2, SWIM_USER_WINDOW);
  MUST(swim_tell_after_ns(s) > local_ns(net, &net->nodes[2]));
  MUST(tell_bytes(net, 2, 64) == ERR_FULL && s->counts.user_full == 1 && s->counts.user_sent == SWIM_USER_WINDOW);
  until_heard(net, 7 * SWIM_USER_WINDOW, begin_ns, 10 * SECOND);
  uint64_t after_ns, here_ns;
  while ((after_ns = swim_tell_after_ns(s)) > (here_ns = local_ns(net, &net->nodes[2]))) {
    MUST(after_ns - here_ns <= 10 * SECOND && now_ns(net) - begin_ns < 25 * SECOND);
    bool far = after_ns - here_ns > 250 * MILLISECOND; /* Nearer than an interval of gossip it is rounded up to that. */
    if (far) run(net, after_ns - here_ns - MILLISECOND);
    MUST(!far || tell_bytes(net, 2, 64) == ERR_FULL);
    run(net, far ? MILLISECOND + 1 : after_ns - here_ns); /* Enough, unless somebody asked for the oldest one meanwhile. */
  }
  tell(net, 2, 1);
  until_heard(net, 7 * (SWIM_USER_WINDOW + 1), begin_ns, 40 * SECOND); /* Nothing was dropped for it. */
  net_close(net);
}

static void what_one_tells_alone_is_full_too_and_then_over(uint64_t seed) {
  struct net *net = net_open(seed, "lan");
  net_add(net);
  begin(net);
  tell(net, 0, SWIM_USER_WINDOW);
  MUST(tell_bytes(net, 0, 64) == ERR_FULL);
  run(net, 11 * SECOND);
  tell(net, 0, SWIM_USER_WINDOW);
  MUST(tell_bytes(net, 0, 64) == ERR_FULL);
  run(net, 62 * SECOND);
  MUST(net->nodes[0].swim->users->kept == 0 && net->nodes[0].swim->users->used == 0);
  net_close(net);
}

static void the_length_of_an_event_is_bounded(uint64_t seed) {
  struct net *net = listening(seed, 2);
  MUST(tell_bytes(net, 0, 0) == ERR_TOO_LARGE && tell_bytes(net, 0, SWIM_USER_MAX + 1) == ERR_TOO_LARGE);
  MUST(tell_bytes(net, 0, SWIM_USER_MAX) == 0);
  settle(net, 0);
  until_heard(net, 1, now_ns(net), SECOND);
  net_close(net);
}

/* ---- windows: what node 0 takes of member 1, whose numbers come as given ---- */

static struct swim *taker;
static uint64_t taken_ns;

static bool offer(uint32_t generation, uint32_t number) {
  uint32_t key = taker->members[1].key;
  uint64_t before = taker->counts.user_heard;
  struct swim_action a;
  taker->now_ns = ++taken_ns;
  swim_merge_user(taker, &(struct user_event){key, generation, number, (const uint8_t *)"four", 4});
  while (swim_next(taker, &a)) continue;
  swim_check(taker);
  return taker->counts.user_heard > before;
}

static struct net *offering(uint64_t seed) {
  struct net *net = cluster(seed, 2, "lan");
  run(net, 90 * SECOND); /* It is no longer young. */
  taker = net->nodes[0].swim;
  taken_ns = taker->now_ns;
  return net;
}

static void a_window_takes_its_numbers_in_any_order_once(uint64_t seed) {
  struct net *net = offering(seed);
  for (uint32_t n = SWIM_USER_WINDOW; n >= 1; n--) MUST(offer(1000, n));
  for (uint32_t n = SWIM_USER_WINDOW; n >= 1; n--) MUST(!offer(1000, n));
  MUST(taker->counts.user_missed == 0 && taker->counts.user_repeated == SWIM_USER_WINDOW);
  MUST(!taker->users->origins[0].seen); /* Without gaps no bits are kept. */
  MUST(offer(1000, 2 * SWIM_USER_WINDOW) && offer(1000, SWIM_USER_WINDOW + 1) && taker->counts.user_missed == 0);
  MUST(offer(1000, 2 * SWIM_USER_WINDOW + 3)); /* Two past it: 1,026 and 1,027 are given up. */
  MUST(taker->counts.user_missed == 2 && !offer(1000, SWIM_USER_WINDOW + 3) && offer(1000, SWIM_USER_WINDOW + 4));
  net_close(net);
}

static void each_life_has_a_window_of_its_own(uint64_t seed) {
  struct net *net = offering(seed);
  MUST(offer(1000, 1) && offer(1000, 2));
  MUST(!offer(1001, 1)); /* Of a life that is not known yet: not marked, it will come again. */
  struct record r = swim_members_record(taker, 1, true);
  r.incarnation.generation = 1001;
  swim_merge(taker, &r, false, false);
  MUST(offer(1001, 1) && !offer(1001, 1));
  MUST(offer(1000, 3) && !offer(1000, 2)); /* The last words of the old one. They are not passed on. */
  MUST(taker->users->kept == 3);
  taken_ns += 200 * SECOND;
  MUST(!offer(999, 1)); /* Too old: others have nothing of it any more. */
  net_close(net);
}

static void the_store_is_bounded_and_what_it_cannot_keep_is_delivered(uint64_t seed) {
  struct net *net = offering(seed);
  for (uint32_t n = 1; n <= SWIM_USERS_MAX; n++) MUST(offer(1000, n));
  MUST(taker->users->kept == SWIM_USERS_MAX);
  MUST(offer(1000, SWIM_USERS_MAX + 1) && taker->users->kept == SWIM_USERS_MAX && taker->users->used == SWIM_USERS_MAX + 1);
  MUST(swim_tell(taker, ++taken_ns, "full", 4) == ERR_FULL && swim_tell_after_ns(taker) > taken_ns);
  for (uint32_t at = 0; at < taker->users->capacity; at++) /* All were pushed long ago: then they make room. */
    while (taker->users->at[at].kept && taker->users->at[at].sent < PUSHES) swim_user_sent(taker, at);
  taken_ns += 11 * SECOND;
  MUST(swim_tell(taker, ++taken_ns, "room", 4) == 0 && taker->users->kept == 1);
  net_close(net);
}

static void gaps_that_nobody_can_fill_are_given_up_and_counted(uint64_t seed) {
  struct net *net = offering(seed);
  MUST(offer(1000, 1) && offer(1000, 4) && offer(1000, 7));
  run(net, 350 * SECOND);
  MUST(taker->counts.user_missed == 0 && taker->users->origins[0].low == 1);
  run(net, 20 * SECOND);
  MUST(taker->counts.user_missed == 2 && taker->users->origins[0].low == 4); /* The first gap; the next has its own time. */
  run(net, 365 * SECOND);
  MUST(taker->counts.user_missed == 4 && taker->users->origins[0].low == 7);
  net_close(net);
}

/* ---- faults ---- */

static void what_was_told_beside_a_partition_arrives_when_it_heals(uint64_t seed) {
  struct net *net = listening(seed, 16);
  for (uint32_t i = 0; i < 8; i++)
    for (uint32_t j = 8; j < 16; j++) cut_both(net, i, j, true);
  tell(net, 0, 100);
  tell(net, 15, 100);
  run(net, 30 * SECOND);
  MUST(heard.total == 200 * 7);
  for (uint32_t i = 0; i < 8; i++)
    for (uint32_t j = 8; j < 16; j++) cut_both(net, i, j, false);
  until_heard(net, 200 * 15, now_ns(net), 40 * SECOND);
  net_close(net);
}

static void a_stalled_node_hears_what_it_slept_through(uint64_t seed) {
  struct net *net = listening(seed, 16);
  pause_node(net, 5, true);
  tell(net, 0, 200);
  run(net, 4 * SECOND);
  pause_node(net, 5, false);
  pause_node(net, 0, true); /* Its teller sleeps when the other wakes. */
  run(net, 4 * SECOND);
  MUST(count_heard(5, 0) == 200);
  pause_node(net, 0, false);
  until_heard(net, 200 * 15, now_ns(net), SECOND);
  net_close(net);
}

/* Whatever one survivor heard of a teller that crashed in the middle of its storm, all hear. */
static void survivors_of_a_teller_agree(uint64_t seed) {
  struct net *net = listening(seed, 16);
  tell(net, 3, 1000);
  run(net, 100 * MILLISECOND + seed * 150 * MILLISECOND);
  crash(net, 3);
  run(net, 60 * SECOND);
  MUST(count_heard(0, 3) > 100);
  for (uint32_t i = 1; i < 16; i++)
    if (i != 3) MUST(memcmp(heard.bits[i][3], heard.bits[0][3], sizeof heard.bits[0][3]) == 0);
  net_close(net);
}

static void a_teller_that_restarts_begins_anew_and_its_old_words_arrive(uint64_t seed) {
  struct net *net = listening(seed, 12);
  tell(net, 3, 300);
  run(net, 700 * MILLISECOND);
  uint64_t before = heard.total;
  MUST(before > 0);
  crash(net, 3);
  start(net, 3, 2000);
  join(net, 3, 0);
  run(net, 20 * SECOND);
  for (uint32_t i = 1; i < 12; i++) MUST(i == 3 || count_heard(i, 3) == count_heard(0, 3));
  begin(net);
  tell(net, 3, 50);
  until_heard(net, 50 * 11, now_ns(net), 5 * SECOND);
  net_close(net);
}

/* A late one gets what is not over, and nothing else; a restart makes a new member. */
static void whoever_joins_late_gets_what_is_not_over(uint64_t seed) {
  struct net *net = listening(seed, 8);
  tell(net, 0, 20);
  run(net, 150 * SECOND);
  for (uint32_t i = 0; i < 8; i++) MUST(net->nodes[i].swim->users->kept == 0);
  tell(net, 0, 30);
  run(net, 5 * SECOND);
  MUST(heard.total == 50 * 7);
  uint32_t late = net_add(net);
  join(net, late, 4);
  until_heard(net, 50 * 7 + 30, now_ns(net), 15 * SECOND);
  tell(net, 1, 10);
  until_heard(net, 50 * 7 + 30 + 80, now_ns(net), 5 * SECOND);
  crash(net, 5);
  memset(heard.bits[5], 0, sizeof heard.bits[5]);
  start(net, 5, 2000);
  join(net, 5, 0);
  until_heard(net, 50 * 7 + 30 + 80 + 40, now_ns(net), 15 * SECOND);
  run(net, 400 * SECOND); /* And it never comes again, though there are new members. */
  MUST(heard.total == 50 * 7 + 30 + 80 + 40 && SUM(net, user_missed) == 0);
  net_close(net);
}

static void what_was_over_before_it_came_is_counted(uint64_t seed) {
  struct net *net = listening(seed, 8);
  tell(net, 0, 5);
  run(net, 100 * SECOND);
  for (uint32_t i = 0; i < 7; i++) cut_both(net, i, 7, true);
  tell(net, 0, 40);
  run(net, 200 * SECOND);
  for (uint32_t i = 0; i < 7; i++) cut_both(net, i, 7, false);
  run(net, 60 * SECOND);
  tell(net, 0, 1);
  run(net, 20 * SECOND);
  MUST(net->nodes[7].swim->counts.user_missed == 40 && SUM(net, user_missed) == 40);
  MUST(count_heard(7, 0) == 6 && count_heard(6, 0) == 46);
  net_close(net);
}

static void random_faults_lose_and_double_nothing(uint64_t seed) {
  struct net *net = listening(seed, 12);
  uint32_t told = 0;
  set_loss(net, 0.05 * (double)rng_below(&net->rng, 5));
  for (int round = 0; round < 20; round++) {
    uint32_t a = (uint32_t)rng_below(&net->rng, 12), b = (uint32_t)rng_below(&net->rng, 12);
    uint32_t count = (uint32_t)rng_below(&net->rng, 60);
    if (a != b) cut_both(net, a, b, round % 2 == 0);
    pause_node(net, b, true);
    tell(net, a, count); /* Perhaps while it is paused itself. */
    told += count;
    run(net, rng_below(&net->rng, 1500) * MILLISECOND);
    pause_node(net, b, false);
  }
  for (uint32_t a = 0; a < 12; a++)
    for (uint32_t b = 0; b < 12; b++)
      if (a != b) cut_one(net, a, b, false);
  until_heard(net, (uint64_t)told * 11, now_ns(net), 40 * SECOND);
  MUST(SUM(net, user_missed) == 0);
  net_close(net);
}

/* One in so many settings that an operator may choose, at their edges too. */
static void every_configuration_delivers(uint64_t seed) {
  struct net *net = listening(seed, 10);
  struct swim_config c;
  MUST(swim_config_profile((const char *[]){"lan", "wan", "local"}[rng_below(&net->rng, 3)], &c) == 0);
  c.datagram_max = rng_below(&net->rng, 2) ? SWIM_DATAGRAM_MIN : SWIM_DATAGRAM_MAX;
  c.gossip_fanout = 1 + (uint32_t)rng_below(&net->rng, 8);
  c.gossip_interval_ms = (uint32_t[]){5, 50, 200, 1000}[rng_below(&net->rng, 4)];
  c.user_bytes_per_s = (uint32_t[]){2000, 8000, 65536, 10000000}[rng_below(&net->rng, 4)];
  for (uint32_t i = 0; i < 10; i++) {
    MUST(swim_reconfigure(net->nodes[i].swim, local_ns(net, &net->nodes[i]), &c) == 0);
    settle(net, i);
  }
  net->config = c;
  set_loss(net, 0.1);
  for (uint32_t i = 0; i < 5; i++) {
    for (uint32_t n = 0; n < 20; n++) MUST(tell_bytes(net, i, n % 2 ? SWIM_USER_MAX : 64) == 0);
    settle(net, i);
  }
  until_heard(net, 100 * 9, now_ns(net), 200 * SECOND);
  net_close(net);
}

/* ---- the wire ---- */

static bool valid(const uint8_t *bytes, size_t length) {
  uint8_t *exact = malloc(length);
  MUST(exact);
  memcpy(exact, bytes, length);
  struct reader r = reader_of(exact, length);
  bool ok = swim_seen_valid(&r);
  free(exact);
  return ok;
}

static size_t window(uint8_t *bytes, uint8_t flags, uint32_t key, uint64_t base, uint64_t more, uint64_t span, size_t bits) {
  struct writer w = writer_of(bytes, 512);
  write_u8(&w, flags);
  write_u32(&w, key);
  write_u32(&w, 1000);
  write_varint(&w, base);
  write_varint(&w, more);
  write_varint(&w, span);
  for (size_t i = 0; i < bits; i++) write_u8(&w, 0xff);
  MUST(!w.failed);
  return (size_t)(w.at - bytes);
}

static void a_seen_is_checked_whole(uint64_t seed) {
  uint8_t bytes[512] = {0};
  (void)seed;
  MUST(valid(bytes, 1)); /* No windows. */
  bytes[0] = 7;
  MUST(valid(bytes, 1));
  bytes[0] = 8;
  MUST(!valid(bytes, 1));
  size_t length = window(bytes, 2, 5, 10, 3, SWIM_USER_WINDOW, SWIM_USER_WINDOW / 8);
  MUST(valid(bytes, length));
  for (size_t cut = 2; cut < length; cut++) MUST(!valid(bytes, cut));
  length = window(bytes, 2, 5, 10, 3, SWIM_USER_WINDOW + 1, SWIM_USER_WINDOW / 8 + 1);
  MUST(!valid(bytes, length));
  length = window(bytes, 2, 0, 10, 3, 0, 0);
  MUST(!valid(bytes, length));
  length = window(bytes, 2, 5, USER_NUMBER_MAX - 8, 0, 8, 1);
  MUST(valid(bytes, length));
  length = window(bytes, 2, 5, USER_NUMBER_MAX - 8, 1, 8, 1);
  MUST(!valid(bytes, length));
  length = window(bytes, 2, 5, 10, UINT64_MAX - 5, 0, 0); /* Around zero. */
  MUST(!valid(bytes, length));
}

static bool readable(uint32_t number) {
  uint8_t bytes[64];
  struct record record;
  struct user_event event;
  struct writer w = writer_of(bytes, sizeof bytes);
  swim_wire_write_user(&w, &(struct user_event){5, 1000, number, (const uint8_t *)"four", 4});
  struct reader r = reader_of(bytes, (size_t)(w.at - bytes));
  return swim_wire_read_record(&r, &record, &event) && event.number == number;
}

static void numbers_end_before_a_window_reaches_around_zero(uint64_t seed) {
  struct net *net = offering(seed);
  MUST(!readable(0) && readable(1) && readable(USER_NUMBER_MAX) && !readable(USER_NUMBER_MAX + 1));
  MUST(offer(1000, USER_NUMBER_MAX) && !offer(1000, USER_NUMBER_MAX) && offer(1000, USER_NUMBER_MAX - SWIM_USER_WINDOW + 1));
  uint8_t bytes[512];
  struct reader r = reader_of(bytes, window(bytes, 0, taker->members[1].key, USER_NUMBER_MAX - 8, 0, 8, 1));
  swim_on_seen(taker, &net->nodes[1].address, 1, &r); /* Its search for what we lack ends at the last number. */
  swim_check(taker);
  MUST(!offer(1000, USER_NUMBER_MAX - 8) && offer(1000, USER_NUMBER_MAX - 1)); /* Up to its base all is over. */
  net_close(net);
}

/* ---- */

static const struct net_spec specs[] = {
    NET_SPEC(a_storm_of_a_hundred_reaches_all_within_half_a_second, 3),
    NET_SPEC(a_storm_of_a_thousand_reaches_all_within_three_seconds, 1),
    NET_SPEC(a_storm_of_all_at_once_reaches_all, 1),
    NET_SPEC(a_storm_at_thirty_percent_loss_reaches_all, 2),
    NET_SPEC(more_than_all_can_keep_reaches_all, 1),
    NET_SPEC(at_rest_nobody_asks, 1),
    NET_SPEC(no_node_spends_more_than_its_budget, 3),
    NET_SPEC(a_full_window_refuses_and_says_from_when_on_it_will_not, 1),
    NET_SPEC(what_one_tells_alone_is_full_too_and_then_over, 1),
    NET_SPEC(the_length_of_an_event_is_bounded, 1),
    NET_SPEC(a_window_takes_its_numbers_in_any_order_once, 1),
    NET_SPEC(each_life_has_a_window_of_its_own, 1),
    NET_SPEC(the_store_is_bounded_and_what_it_cannot_keep_is_delivered, 1),
    NET_SPEC(gaps_that_nobody_can_fill_are_given_up_and_counted, 1),
    NET_SPEC(what_was_told_beside_a_partition_arrives_when_it_heals, 2),
    NET_SPEC(a_stalled_node_hears_what_it_slept_through, 2),
    NET_SPEC(survivors_of_a_teller_agree, 3),
    NET_SPEC(a_teller_that_restarts_begins_anew_and_its_old_words_arrive, 2),
    NET_SPEC(whoever_joins_late_gets_what_is_not_over, 1),
    NET_SPEC(what_was_over_before_it_came_is_counted, 1),
    NET_SPEC(random_faults_lose_and_double_nothing, 3),
    NET_SPEC(every_configuration_delivers, 4),
    NET_SPEC(a_seen_is_checked_whole, 1),
    NET_SPEC(numbers_end_before_a_window_reaches_around_zero, 1),
};

int main(int argc, char **argv) { return net_specs(argc, argv, specs, sizeof specs / sizeof *specs); }
