/* A core among five members, created anew for each input, and its invariants after each event:
 *  - the tables agree (swim_check), every refusal is counted, and nothing that is to be sent was dropped;
 *  - its datagrams are within the limit, not to itself, and its own decoder accepts them;
 *  - its view of a member never goes back, while it remembers the member. */
#ifndef FUZZ_SWIM_TARGET_H
#define FUZZ_SWIM_TARGET_H

#include <string.h>

#include "core/errors.h"
#include "core/swim_private.h"
#include "target.h"

#define MILLISECOND UINT64_C(1000000)
enum { RECORDS_MAX = 12, NEIGHBOURS = 5, ACTIONS_MAX = 1000 };

static struct core {
  struct swim *swim;
  uint64_t now_ns;
  uint32_t sequence; /* The sequence of its last ping, ping_req or sync, which an answer must carry. */
  struct { uint32_t key; struct swim_incarnation incarnation; uint8_t state; } beliefs[RECORDS_MAX];
  size_t beliefs_count;
} core;

static const struct shoal_address home = {.family = 4, .bytes = {10, 0, 9, 9}, .port = 7000};

static inline struct shoal_address address_of(uint8_t index) {
  return (struct shoal_address){.family = 4, .bytes = {10, 0, 0, index}, .port = 7000};
}

static inline uint32_t key_of(uint8_t index) { return swim_wire_key((char[]){'n', (char)('0' + index)}, 2); }

static inline void check_beliefs(void) {
  struct swim_member m;
  uint32_t cursor = 0;
  size_t count = 0;
  typeof(core.beliefs) now;
  while (swim_each(core.swim, &cursor, &m)) {
    MUST(count < RECORDS_MAX);
    uint32_t key = swim_wire_key(m.name, m.name_length);
    for (size_t i = 0; i < core.beliefs_count; i++) {
      if (core.beliefs[i].key != key) continue;
      int order = swim_incarnation_compare(m.incarnation, core.beliefs[i].incarnation);
      MUST(order > 0 || (order == 0 && m.state >= core.beliefs[i].state));
    }
    now[count].key = key, now[count].incarnation = m.incarnation, now[count].state = (uint8_t)m.state;
    count++;
  }
  memcpy(core.beliefs, now, sizeof now);
  core.beliefs_count = count;
}

/* Take and check all its actions. */
static inline void settle(void) {
  struct swim_action a;
  unsigned taken = 0;
  while (swim_next(core.swim, &a)) {
    struct header header;
    struct reader r;
    MUST(++taken < ACTIONS_MAX);
    if (a.kind != SWIM_SEND) continue;
    MUST(a.length <= SWIM_DATAGRAM_MAX && !address_equal(&a.to, &home));
    MUST(swim_wire_open(&core.swim->cluster, a.bytes, a.length, &header, &r) == 0);
    if (header.type == PING || header.type == PING_REQ || header.type == SYNC) core.sequence = read_u32(&r);
  }
  swim_check(core.swim);
  MUST(core.swim->counts.dropped == 0);
  check_beliefs();
}

static inline uint64_t refusals(void) {
  uint64_t sum = 0;
  for (int i = 0; i < SWIM_REFUSALS_COUNT; i++) sum += i == SWIM_REFUSED_FULL ? 0 : core.swim->counts.refused[i];
  return sum;
}

static inline void receive(uint8_t from, const uint8_t *bytes, size_t length) {
  struct shoal_address sender = address_of(from);
  uint8_t *exact = malloc(length + !length); /* A read past its end is one past an allocation. */
  MUST(exact);
  if (length) memcpy(exact, bytes, length);
  uint64_t before = refusals();
  int rc = swim_receive(core.swim, core.now_ns, &sender, exact, length);
  MUST(rc == 0 || rc == ERR_MALFORMED || rc == ERR_REFUSED);
  MUST(refusals() - before == (rc != 0));
  free(exact);
  settle();
}

static inline void pass(uint64_t ms) {
  core.now_ns += ms * MILLISECOND;
  swim_tick(core.swim, core.now_ns);
  settle();
}

/* Its own name is n7, its generation 1000; it knows n1 to n5, which began at 1000 too. */
static inline void core_open(void) {
  uint8_t bytes[SWIM_DATAGRAM_MAX];
  struct swim_config config;
  MUST(swim_config_profile("lan", &config) == 0);
  config.members_max = RECORDS_MAX; /* Many names are made up: the limit is met, too. */
  config.tombstone_ms = 20000;
  struct swim_identity id = {.name = "n7", .name_length = 2, .cluster = "spec", .cluster_length = 4, .address = home,
                             .generation = 1000, .payload = (const uint8_t *)"seven", .payload_length = 5};
  memset(&core, 0, sizeof core);
  core.now_ns = 1000 * 1000 * MILLISECOND;
  MUST(swim_open(&config, &id, 5, core.now_ns, &core.swim) == 0);
  struct writer w = writer_of(bytes, sizeof bytes);
  swim_wire_header(&w, &core.swim->cluster, &(struct header){GOSSIP, key_of(1), {1000, 0}});
  for (uint8_t i = 1; i <= NEIGHBOURS; i++) {
    char name[] = {'n', (char)('0' + i)};
    swim_wire_write_record(&w, &(struct record){.name = name, .name_length = 2, .address = address_of(i), .incarnation = {1000, 0},
                                                .payload = (const uint8_t *)name, .payload_length = 2, .payload_version = 1});
  }
  swim_wire_seal(bytes, (size_t)(w.at - bytes), &core.swim->cluster);
  receive(1, bytes, (size_t)(w.at - bytes));
  MUST(swim_live(core.swim) == 1 + NEIGHBOURS);
}

static inline void core_close(void) {
  swim_close(core.swim);
  core.swim = NULL;
}

#endif
