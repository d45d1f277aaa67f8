/* The parts of membership one by one: merging in any order, rumours, the heap, suspicion. Prints one line a property. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/errors.h"
#include "core/swim_private.h"

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

/* ---- one core, and datagrams from strangers ---- */

static const struct shoal_address home = {.family = 4, .bytes = {10, 0, 0, 1}, .port = 7000};
static const struct shoal_address stranger = {.family = 4, .bytes = {10, 9, 9, 9}, .port = 7000};

static struct swim *open_swim(const char *name, uint32_t datagram_max) {
  struct swim_config config;
  struct swim *s;
  MUST(swim_config_profile("lan", &config) == 0);
  if (datagram_max) config.datagram_max = datagram_max;
  struct swim_identity id = {.name = name, .name_length = strlen(name), .address = home, .generation = 10};
  MUST(swim_open(&config, &id, 1, 1000, &s) == 0);
  return s;
}

static void tell(struct swim *s, uint64_t now_ns, const struct record *records, size_t count) {
  uint8_t bytes[SWIM_DATAGRAM_MAX];
  struct writer w = writer_of(bytes, sizeof bytes);
  swim_wire_header(&w, &s->cluster, &(struct header){GOSSIP, 0x51515151, {1, 0}});
  for (size_t i = 0; i < count; i++) swim_wire_write_record(&w, &records[i]);
  MUST(!w.failed);
  swim_wire_seal(bytes, (size_t)(w.at - bytes), &s->cluster);
  MUST(swim_receive(s, now_ns, &stranger, bytes, (size_t)(w.at - bytes)) == 0);
}

static void ignore_actions(struct swim *s) {
  struct swim_action a;
  while (swim_next(s, &a)) continue;
  swim_check(s);
}

/* ---- merging ---- */

enum { NAMES = 6, CLAIMS = 40 };
static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f"};

static uint8_t payloads[8][16];

static struct record any_record(struct rng *rng) {
  const char *name = names[rng_below(rng, NAMES)];
  struct record r = {.name = name, .name_length = 1, .address = {.family = 4, .bytes = {10, 0, 1}, .port = 1}};
  r.address.bytes[3] = (uint8_t)rng_below(rng, 3);
  r.incarnation.generation = 1 + (uint32_t)rng_below(rng, 3);
  r.incarnation.version = (uint32_t)rng_below(rng, 3);
  r.state = (uint8_t)rng_below(rng, 4);
  r.accuser = (uint32_t)rng_below(rng, 5);
  if (rng_below(rng, 2)) {
    r.payload_version = 1 + (uint32_t)rng_below(rng, 3);
    r.payload = payloads[rng_below(rng, 8)];
    r.payload_length = rng_below(rng, sizeof payloads[0]);
  }
  return r;
}

static size_t print_view(const struct swim *s, char *out, size_t room) {
  size_t at = 0;
  for (int i = 0; i < NAMES; i++) {
    struct swim_member m;
    if (!swim_find(s, names[i], 1, &m)) continue;
    char address[ADDRESS_TEXT_MAX];
    address_format(&m.address, address);
    at += (size_t)snprintf(out + at, room - at, "%s %d %u.%u %s %u:", names[i], m.state, m.incarnation.generation,
                           m.incarnation.version, address, m.payload_version);
    for (size_t j = 0; j < m.payload_length; j++) at += (size_t)snprintf(out + at, room - at, "%02x", m.payload[j]);
    at += (size_t)snprintf(out + at, room - at, "\n");
  }
  return at;
}

/* Let suspicions end, and nothing else happen: a gossiped death of a member that is alive here is a suspicion until then. */
static void run_out(struct swim *s) {
  for (int i = 0; i < 100 && s->suspects.count > 0; i++) {
    s->now_ns += 100 * UINT64_C(1000000000);
    swim_expire(s);
    ignore_actions(s);
  }
  MUST(s->suspects.count == 0);
}

static void merging_is_order_free(struct rng *rng) {
  static char first[4096], again[4096];
  for (int run = 0; run < 2000; run++) {
    struct record claims[CLAIMS];
    for (int i = 0; i < CLAIMS; i++) claims[i] = any_record(rng);
    for (int order = 0; order < 4; order++) {
      struct swim *s = open_swim("self", 0);
      for (int i = CLAIMS - 1; i > 0; i--) { /* Another order, */
        uint64_t j = rng_below(rng, (uint64_t)i + 1);
        struct record swapped = claims[i];
        claims[i] = claims[j], claims[j] = swapped;
      }
      for (int i = 0; i < CLAIMS; i++) {
        tell(s, 2000, &claims[i], 1);
        ignore_actions(s);
        if (rng_below(rng, 3)) continue;
        tell(s, 2000, &claims[rng_below(rng, (uint64_t)i + 1)], 1); /* some of it twice. */
        ignore_actions(s);
      }
      run_out(s);
      size_t length = print_view(s, order ? again : first, sizeof first);
      MUST(length > 0);
      if (order) MUST(strcmp(first, again) == 0);
      swim_close(s);
    }
  }
  printf("ok merging claims is order-free, commutative and idempotent\n");
}

static void one_life_has_one_end(struct rng *rng) {
  for (int run = 0; run < 500; run++) {
    struct swim *s = open_swim("self", 0);
    bool member[NAMES] = {false};
    struct swim_incarnation died[NAMES] = {{0, 0}};
    for (int i = 0; i < 300; i++) {
      struct record r = any_record(rng);
      tell(s, 2000 + (uint64_t)i, &r, 1);
      struct swim_action a;
      while (swim_next(s, &a)) {
        if (a.kind != SWIM_EVENT) continue;
        int who = a.member.name[0] - 'a';
        bool ends = a.event == SWIM_EVENT_DEAD || a.event == SWIM_EVENT_LEFT;
        MUST(member[who] == (a.event != SWIM_EVENT_JOIN));
        if (a.event == SWIM_EVENT_JOIN) member[who] = true;
        if (!ends) continue;
        member[who] = false;
        MUST(swim_incarnation_compare(a.member.incarnation, died[who]) > 0); /* Once for each incarnation, and rising. */
        died[who] = a.member.incarnation;
      }
    }
    swim_close(s);
  }
  printf("ok each join has one end, and no incarnation ends twice\n");
}

/* ---- rumours ---- */

struct tally {
  char name[8];
  uint32_t sent;
};

static void add_members(struct swim *s, uint32_t count, size_t payload_length, struct tally *tallies) {
  static uint8_t payload[SWIM_PAYLOAD_MAX];
  for (uint32_t i = 0; i < count; i++) {
    struct record r = {.name = tallies[i].name,
                       .address = {.family = 4, .bytes = {10, 1, (uint8_t)(i >> 8), (uint8_t)i}, .port = 7000}};
    (void)snprintf(tallies[i].name, sizeof tallies[i].name, "m%u", i);
    r.name_length = strlen(r.name);
    r.incarnation.generation = 1;
    r.payload = payload, r.payload_length = payload_length, r.payload_version = 1;
    tell(s, s->now_ns, &r, 1);
  }
  for (uint32_t i = 0; i < count; i++) tallies[i].sent = 0;
}

/* Take the datagrams and count the rumours by subject. Returns how many datagrams carried one. */
static uint32_t count_told(struct swim *s, struct tally *tallies, uint32_t count) {
  struct swim_action a;
  uint32_t datagrams = 0;
  while (swim_next(s, &a)) {
    if (a.kind != SWIM_SEND || (a.bytes[2] & 15) != GOSSIP) continue;
    struct header header;
    struct reader r;
    struct record record;
    MUST(swim_wire_open(&s->cluster, a.bytes, a.length, &header, &r) == 0);
    datagrams++;
    uint32_t in_this[256] = {0};
    while (swim_wire_read_record(&r, &record, &(struct user_event){0})) {
      if (record.name[0] != 'm') continue;
      uint32_t who = (uint32_t)strtoul(record.name + 1, NULL, 10);
      MUST(who < count && in_this[who]++ == 0); /* Not twice in one datagram. */
      tallies[who].sent++;
    }
    MUST(!r.failed);
  }
  return datagrams;
}

static void least_sent_go_first_and_each_its_number_of_times(void) {
  static const size_t lengths[] = {0, 30, 200, SWIM_PAYLOAD_MAX};
  static struct tally tallies[120];
  for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
    for (uint32_t count = 1; count <= 120; count += 17) {
      struct swim *s = open_swim("self", lengths[l] == 200 ? SWIM_DATAGRAM_MIN : 0);
      add_members(s, count, lengths[l], tallies);
      ignore_actions(s);
      uint32_t limit = 4 * (uint32_t)ceil(log10(count + 2)); /* N + 1 of N = count and ourselves. */
      MUST(swim_rumour_limit(s) == limit);
      uint64_t rounds = 0;
      for (; s->rumours_count > 0; rounds++) {
        MUST(rounds < 100000);
        swim_probe_forgive(s); /* Only gossip is under study. */
        s->probe_ns = UINT64_MAX;
        swim_tick(s, swim_deadline(s));
        count_told(s, tallies, count);
        uint32_t least = UINT32_MAX, most = 0;
        for (uint32_t i = 0; i < count; i++) {
          if (tallies[i].sent < least) least = tallies[i].sent;
          if (tallies[i].sent > most) most = tallies[i].sent;
        }
        MUST(most - least <= 1); /* None waits while another is sent again. */
      }
      for (uint32_t i = 0; i < count; i++) MUST(tallies[i].sent == limit);
      MUST(swim_deadline(s) >= s->now_ns);
      swim_close(s);
    }
  }
  printf("ok rumours go out least-sent first, each 4 * ceil(log10(N + 1)) times, those that did not fit uncounted\n");
}

static void the_limit_steps_with_powers_of_ten(void) {
  static struct tally tallies[128];
  struct swim *s = open_swim("self", 0);
  MUST(swim_rumour_limit(s) == 4); /* N = 1: ceil(log10(2)) = 1. */
  add_members(s, 8, 0, tallies);
  MUST(swim_live(s) == 9 && swim_rumour_limit(s) == 4); /* log10(10) = 1 */
  add_members(s, 9, 0, tallies);
  MUST(swim_live(s) == 10 && swim_rumour_limit(s) == 8);
  add_members(s, 98, 0, tallies);
  MUST(swim_live(s) == 99 && swim_rumour_limit(s) == 8);
  add_members(s, 99, 0, tallies);
  MUST(swim_live(s) == 100 && swim_rumour_limit(s) == 12);
  swim_close(s);
  printf("ok the number of transmissions steps at N + 1 = 10^k + 1\n");
}

static void members_max_is_a_limit(void) {
  static struct tally tallies[64];
  struct swim *s = open_swim("self", 0);
  s->config.members_max = 33;
  add_members(s, 32, 0, tallies);
  MUST(swim_records(s) == 33 && s->counts.refused[SWIM_REFUSED_FULL] == 0);
  add_members(s, 40, 0, tallies);
  MUST(swim_records(s) == 33 && s->counts.refused[SWIM_REFUSED_FULL] == 8);
  ignore_actions(s);
  swim_close(s);
  printf("ok a record past members_max is refused and counted\n");
}

static void seeds_have_a_limit(void) {
  struct swim *s = open_swim("self", 0);
  for (uint32_t i = 0; i < SWIM_SEEDS_MAX; i++) {
    struct shoal_address a = {.family = 4, .bytes = {10, 2, 0, (uint8_t)i}, .port = 1};
    MUST(swim_join(s, 2000, &a) == 0 && swim_join(s, 2000, &a) == 0);
  }
  struct shoal_address more = {.family = 4, .bytes = {10, 3}, .port = 1};
  MUST(swim_join(s, 2000, &more) == ERR_FULL);
  MUST(swim_join(s, 2000, &home) == 0 && s->seeds_count == SWIM_SEEDS_MAX); /* Ourselves: nothing to ask. */
  swim_close(s);
  printf("ok there is room for 32 seeds\n");
}

/* ---- the heap and suspicion ---- */

static void heap_is_a_sorted_set_with_handles(struct rng *rng) {
  enum { SLOTS = 300 };
  struct { bool used; uint64_t at; uint32_t handle; } model[SLOTS] = {{0}};
  struct heap h = {0};
  MUST(!heap_first(&h) && heap_deadline(&h) == UINT64_MAX);
  for (int step = 0; step < 200000; step++) {
    uint32_t key = (uint32_t)rng_below(rng, SLOTS);
    uint64_t at = rng_below(rng, 50), kind = rng_below(rng, 16);
    if (!model[key].used) {
      MUST(heap_add(&h, at, key, &model[key].handle) == 0);
      model[key].used = true, model[key].at = at;
    } else if (kind < 8) {
      heap_move(&h, model[key].handle, at);
      model[key].at = at;
    } else if (kind < 15) {
      heap_remove(&h, model[key].handle);
      model[key].used = false;
    } else if (rng_below(rng, 50) == 0) {
      heap_defer(&h, at);
      for (int i = 0; i < SLOTS; i++)
        if (model[i].used && model[i].at < at) model[i].at = at;
    }
    uint32_t count = 0, first = SLOTS;
    for (uint32_t i = 0; i < SLOTS; i++) {
      if (!model[i].used) continue;
      count++;
      if (step % 64 == 0) MUST(heap_at(&h, model[i].handle) == model[i].at);
      if (first == SLOTS || model[i].at < model[first].at) first = i; /* By rising key among equals. */
    }
    MUST(count == h.count);
    if (count > 0) MUST(heap_first(&h)->key == first && heap_deadline(&h) == model[first].at);
  }
  heap_free(&h);
  printf("ok the heap is a sorted set with stable handles\n");
}

static void confirmations_only_bring_it_nearer(struct rng *rng) {
  struct suspicion s;
  for (int run = 0; run < 20000; run++) {
    uint64_t now = rng_next(rng) >> 2, min = rng_below(rng, 1u << 30), max = min + rng_below(rng, UINT64_C(1) << 40);
    uint32_t wanted = (uint32_t)rng_below(rng, SUSPICION_CONFIRMATIONS_MAX + 3), counted = 0;
    uint32_t most = wanted < SUSPICION_CONFIRMATIONS_MAX ? wanted : SUSPICION_CONFIRMATIONS_MAX;
    suspicion_start(&s, now, min, max, wanted, 100);
    MUST(suspicion_deadline(&s) == now + (wanted ? max : min));
    MUST(!suspicion_confirm(&s, 100)); /* The first accuser is no confirmation. */
    for (int i = 0; i < 30; i++) {
      uint64_t before = suspicion_deadline(&s);
      bool news = suspicion_confirm(&s, 101 + (uint32_t)rng_below(rng, 12));
      counted += news;
      MUST(suspicion_deadline(&s) <= before && suspicion_deadline(&s) >= now + min &&
           (news || suspicion_deadline(&s) == before));
    }
    MUST(counted == s.confirmed && counted <= most);
    if (counted == most) MUST(suspicion_deadline(&s) == now + min);
  }
  suspicion_start(&s, 0, 1000, 6000, 2, 1); /* The figures of Lifeguard's formula, K = 2. */
  MUST(suspicion_confirm(&s, 2) && llabs((long long)suspicion_deadline(&s) - 2845) <= 1);
  MUST(suspicion_confirm(&s, 3) && suspicion_deadline(&s) == 1000 && !suspicion_confirm(&s, 4));
  printf("ok a confirmation only brings the deadline nearer, an accuser counts once\n");
}

/* ---- single rules, datagram by datagram ---- */

static const uint32_t STRANGER_KEY = 0x51515151;

static void begin_datagram(struct swim *s, uint8_t *bytes, struct writer *w, enum type type, uint32_t key,
                           uint32_t generation) {
  *w = writer_of(bytes, SWIM_DATAGRAM_MAX);
  swim_wire_header(w, &s->cluster, &(struct header){(uint8_t)type, key, {generation, 0}});
}

static int deliver(struct swim *s, uint64_t now_ns, uint8_t *bytes, struct writer *w) {
  MUST(!w->failed);
  swim_wire_seal(bytes, (size_t)(w->at - bytes), &s->cluster);
  return swim_receive(s, now_ns, &stranger, bytes, (size_t)(w->at - bytes));
}

/* The next datagram of this type, its body skipped; false when actions end first. */
static bool next_of(struct swim *s, enum type type, struct swim_action *a, struct header *header, struct reader *r) {
  while (swim_next(s, a)) {
    if (a->kind != SWIM_SEND || (a->bytes[2] & 15) != type) continue;
    MUST(swim_wire_open(&s->cluster, a->bytes, a->length, header, r) == 0);
    struct claim claim;
    if (type != GOSSIP) (void)read_u32(r);
    if (type == PING) swim_wire_read_claim(r, &claim);
    if (type == SYNC || type == TABLE) (void)read_u8(r);
    if (type == ACK || type == SYNC || type == TABLE) (void)read_u32(r);
    return true;
  }
  return false;
}

static void a_ping_that_doubts_us_is_answered_with_more_than_it_knew(void) {
  static const struct claim doubts[] = {
      {0, {10, 0}, SWIM_SUSPECT, 0}, {0, {10, 4}, SWIM_DEAD, 0}, {0, {12, 7}, SWIM_DEAD, 0}, {0, {10, 0}, SWIM_ALIVE, 0}};
  static const struct swim_incarnation answers[] = {{10, 1}, {10, 5}, {13, 0}, {10, 0}};
  for (int i = 0; i < 4; i++) {
    struct swim *s = open_swim("self", 0);
    struct claim claim = doubts[i];
    uint8_t bytes[SWIM_DATAGRAM_MAX];
    struct writer w;
    struct swim_action a;
    struct header header;
    struct reader r;
    struct record record;
    s->joined = true;
    swim_rumour_end(s, SELF);
    claim.key = s->members[SELF].key;
    begin_datagram(s, bytes, &w, PING, STRANGER_KEY, 1);
    write_u32(&w, 77);
    swim_wire_write_claim(&w, &claim);
    MUST(deliver(s, 2000, bytes, &w) == 0);
    MUST(next_of(s, ACK, &a, &header, &r));
    bool told = swim_wire_read_record(&r, &record, &(struct user_event){0});
    MUST(told == (i < 3)); /* A member with the true state needs no record. */
    if (told)
      MUST(record.name_length == 4 && swim_incarnation_compare(record.incarnation, answers[i]) == 0 &&
           record.state == SWIM_ALIVE);
    MUST(swim_incarnation_compare(header.incarnation, answers[i]) == 0);
    swim_close(s);
  }
  printf("ok a ping that doubts us is answered at once with a greater incarnation\n");
}

static void hearsay(struct swim *s, const char *name, enum swim_state state, uint32_t accuser) {
  struct record r = {.name = name, .name_length = strlen(name), .address = {.family = 4, .bytes = {10, 1, 0, 9}, .port = 7000},
                     .incarnation = {1, 0}, .state = (uint8_t)state, .accuser = accuser};
  tell(s, s->now_ns, &r, 1);
}

static void quieten(struct swim *s) { /* Only suspicions are under study. */
  swim_probe_forgive(s);
  s->probe_ns = UINT64_MAX;
}

static void a_suspect_by_hearsay_is_pinged_before_it_is_dead(void) {
  struct swim *s = open_swim("self", 0);
  struct swim_action a;
  struct header header;
  struct reader r;
  struct swim_member m;
  hearsay(s, "x", SWIM_SUSPECT, 5);
  ignore_actions(s);
  quieten(s);
  MUST(s->suspects.count == 1);
  uint64_t deadline = heap_deadline(&s->suspects);
  while (s->now_ns < deadline) {
    swim_tick(s, swim_deadline(s) < deadline ? swim_deadline(s) : deadline);
    if (s->now_ns < deadline) ignore_actions(s);
    quieten(s);
  }
  MUST(next_of(s, PING, &a, &header, &r));
  ignore_actions(s);
  MUST(swim_find(s, "x", 1, &m) && m.state == SWIM_SUSPECT && heap_deadline(&s->suspects) == deadline + 500 * NS_PER_MS);
  quieten(s);
  swim_tick(s, deadline + 500 * NS_PER_MS - 1);
  ignore_actions(s);
  MUST(swim_find(s, "x", 1, &m) && m.state == SWIM_SUSPECT);
  swim_tick(s, deadline + 500 * NS_PER_MS);
  MUST(swim_find(s, "x", 1, &m) && m.state == SWIM_DEAD);
  ignore_actions(s);
  swim_close(s);
  printf("ok a suspect known from hearsay is pinged before it is called dead\n");
}

static void deaths_are_believed_when_heard_where_they_are_not_verified(void) {
  for (uint32_t verify = 0; verify <= 1; verify++) {
    struct swim *s = open_swim("self", 0);
    struct swim_member m;
    struct swim_config config;
    MUST(swim_config_profile("lan", &config) == 0);
    config.verify_deaths = verify;
    MUST(swim_reconfigure(s, s->now_ns, &config) == 0);
    hearsay(s, "x", SWIM_ALIVE, 0);
    hearsay(s, "y", SWIM_SUSPECT, 5);
    ignore_actions(s);
    hearsay(s, "x", SWIM_DEAD, 0);
    MUST(swim_find(s, "x", 1, &m) && m.state == (verify ? SWIM_SUSPECT : SWIM_DEAD));
    ignore_actions(s);
    uint64_t deadline = heap_deadline(&s->suspects); /* Of y, or of x too, which has as long. */
    while (s->now_ns < deadline) {
      quieten(s);
      swim_tick(s, swim_deadline(s) < deadline ? swim_deadline(s) : deadline);
      ignore_actions(s);
    }
    MUST(swim_find(s, "y", 1, &m) && m.state == (verify ? SWIM_SUSPECT : SWIM_DEAD)); /* It is pinged first, or was not. */
    swim_close(s);
  }
  printf("ok a death is believed when heard, and a suspicion that ran out unasked, where deaths are not verified\n");
}

static void periods_begin_in_step_with_the_clock(void) {
  const uint64_t step_ns = 250 * NS_PER_MS, now_ns = 12345678901;
  unsigned phases = 0;
  for (uint64_t seed = 1; seed <= 40; seed++) { /* Members of one process, begun a little after each other. */
    struct swim_config config;
    struct swim *s;
    static struct tally tallies[4];
    MUST(swim_config_profile("lan", &config) == 0);
    struct swim_identity id = {.name = "self", .name_length = 4, .address = home, .generation = 10};
    MUST(swim_open(&config, &id, seed, now_ns + seed, &s) == 0);
    MUST(s->probe_ns >= s->now_ns && s->probe_ns < s->now_ns + 5 * step_ns);
    phases |= 1u << s->probe_ns / step_ns % 4;
    add_members(s, 3, 0, tallies);
    ignore_actions(s);
    for (int pause = 0; pause < 3; pause++) {
      uint64_t due = s->probe_ns, probes = s->counts.probes;
      MUST(due % step_ns == 0);
      swim_tick(s, due + (pause == 1 ? 7777 * NS_PER_MS : 0)); /* Late once, and then in step again. */
      MUST(s->counts.probes == probes + 1);
      ignore_actions(s);
      MUST(s->probe_ns > s->now_ns && s->probe_ns <= s->now_ns + (s->health + 1) * 4 * step_ns + step_ns);
    }
    swim_close(s);
  }
  MUST(phases == 15);
  printf("ok periods begin at one of four instants of a period of the clock, after a pause too\n");
}

static void who_was_stalled_accuses_nobody(void) {
  for (int late = 0; late < 2; late++) {
    static struct tally tallies[4];
    struct swim *s = open_swim("self", 0);
    struct swim_member m;
    add_members(s, 3, 0, tallies);
    hearsay(s, "x", SWIM_SUSPECT, s->members[SELF].key); /* As if we had accused it. */
    ignore_actions(s);
    while (s->counts.probes == 0) {
      swim_tick(s, swim_deadline(s));
      ignore_actions(s);
    }
    uint64_t due = swim_deadline(s), at = due + 500 * NS_PER_MS + (late ? 60000 * NS_PER_MS : 0);
    swim_tick(s, at);
    MUST(s->counts.stalls == (late ? 1 : 0));
    ignore_actions(s);
    if (late) {
      MUST(s->counts.suspicions == 1); /* None but the old one, */
      MUST(swim_find(s, "x", 1, &m) && m.state == SWIM_SUSPECT &&
           heap_deadline(&s->suspects) == at + 1000 * NS_PER_MS); /* which waits. */
    }
    swim_close(s);
  }
  printf("ok whoever was stalled for more than a probe's timeout accuses nobody for a period\n");
}

static void every_damaged_bit_is_found(void) {
  struct swim *s = open_swim("self", 0);
  uint8_t bytes[SWIM_DATAGRAM_MAX];
  struct writer w;
  begin_datagram(s, bytes, &w, GOSSIP, STRANGER_KEY, 1);
  struct record r = {.name = "victim",
                     .name_length = 6,
                     .address = {.family = 4, .bytes = {10, 1, 0, 9}, .port = 7000},
                     .incarnation = {1, 0}};
  swim_wire_write_record(&w, &r);
  size_t length = (size_t)(w.at - bytes);
  swim_wire_seal(bytes, length, &s->cluster);
  for (size_t bit = 0; bit < 8 * length; bit++) {
    bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    MUST(swim_receive(s, 2000, &stranger, bytes, length) == ERR_MALFORMED);
    bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  MUST(swim_records(s) == 1 && s->counts.refused[SWIM_REFUSED_CHECKSUM] > 0);
  MUST(swim_receive(s, 2000, &stranger, bytes, length) == 0 && swim_records(s) == 2);
  for (size_t cut = 0; cut < length; cut++) MUST(swim_receive(s, 2000, &stranger, bytes, cut) == ERR_MALFORMED);
  ignore_actions(s);
  swim_close(s);
  printf("ok each flipped bit and each cut of a datagram is refused\n");
}

static void a_payload_outlives_the_rumour_that_replaces_it(void) {
  static struct tally tallies[4];
  struct swim *s = open_swim("self", 0);
  struct swim_action a;
  struct header header;
  struct reader r;
  struct record record;
  bool payload = false;
  add_members(s, 3, 40, tallies);
  ignore_actions(s);
  struct record claim = {.name = "m1", .name_length = 2, .address = {.family = 4, .bytes = {10, 1, 0, 1}, .port = 7000},
                         .incarnation = {1, 0}, .state = SWIM_SUSPECT, .accuser = 3};
  tell(s, s->now_ns, &claim, 1);
  ignore_actions(s);
  quieten(s);
  swim_tick(s, swim_deadline(s));
  MUST(next_of(s, GOSSIP, &a, &header, &r));
  while (swim_wire_read_record(&r, &record, &(struct user_event){0}))
    if (memcmp(record.name, "m1", 2) == 0) payload = record.state == SWIM_SUSPECT && record.payload_length == 40;
  MUST(payload);
  ignore_actions(s);
  swim_close(s);
  printf("ok a payload that was being told goes on being told\n");
}

static void a_new_node_hears_first_what_is_remembered_of_it(void) {
  static struct tally tallies[120];
  struct swim *s = open_swim("self", 0);
  uint8_t bytes[SWIM_DATAGRAM_MAX];
  struct writer w;
  struct swim_action a;
  struct header header;
  struct reader r;
  struct record record;
  uint32_t pieces = 0, records = 0;
  add_members(s, 120, 300, tallies);
  ignore_actions(s);
  begin_datagram(s, bytes, &w, SYNC, swim_wire_key("m77", 3), 2000);
  write_u32(&w, 99);
  write_u8(&w, SYNC_NEW);
  write_u32(&w, 0);
  MUST(deliver(s, s->now_ns, bytes, &w) == 0);
  for (int turn = 0; turn < 100; turn++) {
    uint32_t burst = 0;
    while (next_of(s, TABLE, &a, &header, &r)) {
      if (pieces++ == 0) {
        MUST(swim_wire_read_record(&r, &record, &(struct user_event){0}) && record.name_length == 3 && memcmp(record.name, "m77", 3) == 0);
        records++;
      }
      while (swim_wire_read_record(&r, &record, &(struct user_event){0})) records++;
      MUST(++burst <= TABLE_BURST);
    }
    quieten(s);
    s->gossip_ns = UINT64_MAX;
    if (swim_deadline(s) == UINT64_MAX) break;
    swim_tick(s, swim_deadline(s));
  }
  MUST(pieces >= 120 / 4 && records == 1 + 1 + 120); /* It twice, ourselves, and all others; paced. */
  swim_close(s);
  printf("ok a new node hears first what is remembered of it, then the table, in paced pieces\n");
}

int main(void) {
  struct rng rng;
  rng_seed(&rng, 3);
  for (size_t i = 0; i < sizeof payloads; i++) payloads[i / 16][i % 16] = (uint8_t)rng_below(&rng, 3);
  merging_is_order_free(&rng);
  one_life_has_one_end(&rng);
  least_sent_go_first_and_each_its_number_of_times();
  the_limit_steps_with_powers_of_ten();
  members_max_is_a_limit();
  seeds_have_a_limit();
  heap_is_a_sorted_set_with_handles(&rng);
  confirmations_only_bring_it_nearer(&rng);
  a_ping_that_doubts_us_is_answered_with_more_than_it_knew();
  a_suspect_by_hearsay_is_pinged_before_it_is_dead();
  deaths_are_believed_when_heard_where_they_are_not_verified();
  periods_begin_in_step_with_the_clock();
  who_was_stalled_accuses_nobody();
  every_damaged_bit_is_found();
  a_payload_outlives_the_rumour_that_replaces_it();
  a_new_node_hears_first_what_is_remembered_of_it();
  return 0;
}
