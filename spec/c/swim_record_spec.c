/* core/swim_record: three cores speak over a lossy network of this file's own, in virtual time; the first is recorded. */
#include "core/swim_record.h"

#include <string.h>

#include "core/errors.h"
#include "core/rng.h"
#include "must.h"

enum { NODES = 3, RECORDING_MAX = 4 * 1024 * 1024, FLYING_MAX = 4096 };
static const uint64_t MS = 1000000;

static uint8_t recording[RECORDING_MAX];
static size_t recorded;
static struct swim_recorder recorder;

struct flying {
  uint64_t at_ns;
  uint32_t from, to;
  size_t length;
  uint8_t bytes[SWIM_DATAGRAM_MAX];
};
static struct flying flying[FLYING_MAX];
static uint32_t flying_count;
static struct swim *nodes[NODES];
static uint64_t now = 12345678901;
static struct rng rng;
static char log_live[1 << 16], log_replayed[1 << 16];

static struct shoal_address address_of(uint32_t at) {
  return (struct shoal_address){.family = 4, .bytes = {10, 0, 0, (uint8_t)(at + 1)}, .port = 7000};
}

static void record(enum swim_input input, const struct shoal_address *address, const void *bytes, size_t length,
                   const struct swim_config *config) {
  recorded += swim_record_step(&recorder, input, now, address, bytes, length, config, recording + recorded);
  MUST(recorded < RECORDING_MAX - 4096);
}

static void note(char *log, const struct swim_action *a, uint64_t at_ns) {
  size_t used = strlen(log);
  (void)snprintf(log + used, sizeof log_live - used, "%llu %s %.*s\n", (unsigned long long)at_ns, swim_event_name(a->event),
                 (int)a->member.name_length, a->member.name);
}

static void settle(uint32_t at) {
  struct swim_action a;
  while (swim_next(nodes[at], &a)) {
    if (at == 0) swim_record_action(&recorder, &a);
    if (a.kind == SWIM_EVENT && at == 0) note(log_live, &a, now);
    if (a.kind != SWIM_SEND || rng_below(&rng, 10) == 0) continue;
    MUST(flying_count < FLYING_MAX);
    struct flying *f = &flying[flying_count++];
    *f = (struct flying){.at_ns = now + rng_below(&rng, 20 * MS), .from = at, .to = a.to.bytes[3] - 1u, .length = a.length};
    memcpy(f->bytes, a.bytes, a.length);
  }
}

static void land(void) {
  for (uint32_t i = 0; i < flying_count;) {
    if (flying[i].at_ns > now) {
      i++;
      continue;
    }
    struct flying f = flying[i];
    flying[i] = flying[--flying_count];
    if (f.to >= NODES || !nodes[f.to]) continue;
    struct shoal_address from = address_of(f.from);
    if (f.to == 0) record(SWIM_INPUT_RECEIVE, &from, f.bytes, f.length, NULL);
    (void)swim_receive(nodes[f.to], now, &from, f.bytes, f.length);
    settle(f.to);
  }
}

static void run(uint64_t duration_ns) {
  for (uint64_t end = now + duration_ns; now < end; now += MS) {
    land();
    for (uint32_t at = 0; at < NODES; at++) {
      if (!nodes[at] || swim_deadline(nodes[at]) > now) continue;
      if (at == 0) record(SWIM_INPUT_TICK, NULL, NULL, 0, NULL);
      swim_tick(nodes[at], now);
      settle(at);
    }
  }
}

static void live(void) {
  struct swim_config config;
  rng_seed(&rng, 7);
  MUST(swim_config_profile("local", &config) == 0);
  for (uint32_t at = 0; at < NODES; at++) {
    char name[2] = {(char)('a' + at), 0};
    struct swim_identity id = {.name = name, .name_length = 1, .cluster = "c", .cluster_length = 1, .address = address_of(at),
                               .generation = 100, .payload = (const uint8_t *)"payload", .payload_length = 7};
    if (at == 0) recorded = swim_record_begin(&recorder, &config, &id, 99, now, recording);
    MUST(swim_open(&config, &id, at == 0 ? 99 : 100 + at, now, &nodes[at]) == 0);
    struct shoal_address seed = address_of((at + 1) % NODES);
    if (at == 0) record(SWIM_INPUT_JOIN, &seed, NULL, 0, NULL);
    MUST(swim_join(nodes[at], now, &seed) == 0);
    settle(at);
  }
  run(3000 * MS);
  record(SWIM_INPUT_TELL, NULL, "hello", 5, NULL);
  MUST(swim_tell(nodes[0], now, "hello", 5) == 0);
  settle(0);
  MUST(swim_tell(nodes[1], now, "back", 4) == 0);
  settle(1);
  run(1000 * MS);
  record(SWIM_INPUT_PAYLOAD, NULL, "another", 7, NULL);
  MUST(swim_set_payload(nodes[0], now, "another", 7) == 0);
  settle(0);
  config.probe_interval_ms = 100, config.probe_timeout_ms = 40;
  record(SWIM_INPUT_RECONFIGURE, NULL, NULL, 0, &config);
  MUST(swim_reconfigure(nodes[0], now, &config) == 0);
  settle(0);
  swim_close(nodes[2]);
  nodes[2] = NULL;
  run(8000 * MS);
  struct shoal_address seed = address_of(1);
  record(SWIM_INPUT_FORGET, &seed, NULL, 0, NULL);
  MUST(swim_forget(nodes[0], &seed));
  record(SWIM_INPUT_HINT, NULL, "b", 1, NULL);
  MUST(swim_hint(nodes[0], now, "b", 1));
  settle(0);
  run(500 * MS);
  record(SWIM_INPUT_LEAVE, NULL, NULL, 0, NULL);
  swim_leave(nodes[0], now);
  settle(0);
  run(1000 * MS);
}

static int replay(const uint8_t *bytes, size_t length, char *log, struct swim_replay *r) {
  struct swim_action a;
  int rc = swim_replay_open(r, bytes, length);
  if (rc < 0) return rc;
  do {
    while (swim_replay_next(r, &a))
      if (log && a.kind == SWIM_EVENT) note(log, &a, r->now_ns);
  } while ((rc = swim_replay_step(r)) > 0);
  return rc;
}

static void a_replay_comes_to_the_same_decisions_at_the_same_instants(void) {
  struct swim_replay r;
  MUST(strstr(log_live, "dead c") && strstr(log_live, "user b") && strstr(log_live, "join c"));
  MUST(replay(recording, recorded, log_replayed, &r) == 0);
  MUST(r.diverged == 0 && r.steps > 200 && strcmp(log_live, log_replayed) == 0);
  MUST(swim_digest(r.swim) == swim_digest(nodes[0]) && swim_live(r.swim) == swim_live(nodes[0]));
  MUST(memcmp(swim_counts(r.swim), swim_counts(nodes[0]), sizeof(struct swim_counts)) == 0);
  swim_replay_close(&r);
}

static void another_decision_shows_at_its_step(void) {
  static uint8_t bytes[RECORDING_MAX];
  struct swim_replay r;
  memcpy(bytes, recording, recorded);
  uint8_t *told = NULL;
  for (size_t i = 0; i + 5 < recorded && !told; i++)
    if (memcmp(bytes + i, "\5hello", 6) == 0) told = bytes + i + 1;
  MUST(told);
  told[0] = 'j'; /* It then broadcasts something else, and its datagrams differ. */
  MUST(replay(bytes, recorded, NULL, &r) == 0);
  MUST(r.diverged > 10 && r.diverged < r.steps);
  swim_replay_close(&r);
}

static void a_recording_that_is_cut_ends_there(void) {
  struct swim_replay r;
  for (size_t length = recorded - 200; length < recorded; length++) {
    int rc = replay(recording, length, NULL, &r);
    MUST((rc == 0 || rc == ERR_MALFORMED) && r.diverged == 0 && swim_replay_offset(&r) <= length);
    swim_replay_close(&r);
  }
  MUST(replay(recording, 3, NULL, &r) == ERR_MALFORMED);
  swim_replay_close(&r);
}

static void a_jump_of_ages_is_damage(void) {
  static uint8_t bytes[SWIM_RECORD_BEGIN_MAX + SWIM_RECORD_STEP_MAX];
  struct swim_config config;
  struct swim_identity id = {.name = "a", .name_length = 1, .address = address_of(0), .generation = 1};
  MUST(swim_config_profile("local", &config) == 0);
  for (int over = 0; over <= 1; over++) { /* The longest time that is taken, and 1 ns more. */
    struct swim_recorder r;
    struct swim_replay replay;
    size_t length = swim_record_begin(&r, &config, &id, 1, 5, bytes);
    length += swim_record_step(&r, SWIM_INPUT_LEAVE, UINT64_MAX / 2 + (uint64_t)over, NULL, NULL, 0, NULL, bytes + length);
    MUST(swim_replay_open(&replay, bytes, length) == 0);
    MUST(swim_replay_step(&replay) == (over ? ERR_MALFORMED : 1));
    swim_replay_close(&replay);
  }
}

static void any_bytes_are_taken(void) {
  static uint8_t bytes[1 << 16];
  struct swim_replay r;
  size_t length = recorded < sizeof bytes ? recorded : sizeof bytes;
  for (int n = 0; n < 1500; n++) {
    memcpy(bytes, recording, length);
    for (uint64_t i = rng_below(&rng, 20) + 1; i > 0; i--)
      bytes[rng_below(&rng, rng_below(&rng, 2) ? 150 : length)] = (uint8_t)rng_next(&rng);
    (void)replay(bytes, length, NULL, &r);
    swim_replay_close(&r);
  }
}

int main(void) {
  live();
#define RUN(spec) spec(), puts("ok " #spec)
  RUN(a_replay_comes_to_the_same_decisions_at_the_same_instants);
  RUN(another_decision_shows_at_its_step);
  RUN(a_recording_that_is_cut_ends_there);
  RUN(a_jump_of_ages_is_damage);
  RUN(any_bytes_are_taken);
  for (uint32_t at = 0; at < 2; at++) swim_close(nodes[at]);
  return 0;
}
