/* The members of `scripts/bench membership` and `scripts/bench events`: core/swim over the real world on loopback, or a bare loop
 * beside it.
 *
 *   membership_bench ours|bare [--port=20000] [--interval=1000] [--timeout=500] [--n=64]
 *
 * A process holds none, one or many members, as it is told on stdin; member 7 is named n7 and has port + 7. With the end of
 * stdin it ends. All three programs of the bench (this one, membership/memberlist.go, membership/tarantool.lua) speak so:
 *
 *   start 7 0 3     open member 7 and join it to members 0 and 3
 *   join 7 0        try again
 *   table 7         print the members that it holds alive (ours only), to find out which are missing
 *   kill 7          close its socket and forget it, without leaving
 *   tell 7 2 100    tell 100 events of 64 bytes at once: round 2 (ours and memberlist)
 *   heard 7 2       print how many events of round 2 it has, its own included
 *
 * and print events; each line begins with CLOCK_MONOTONIC in ns, which all processes of a machine share:
 *
 *   ready           NS - ready -
 *   member 7 up     NS 7 up 7
 *   killed          NS 7 killed 7
 *   7 thinks of 3   NS 7 join|alive|suspect|dead 3
 *   table           NS 7 holds 3
 *   its tells began NS 7 tells 2
 *   it has them all NS 7 whole 2
 *   heard           NS 7 last NS, when the last event came; NS 7 heard 99
 *
 * Ours is the profile "lan" as shipped. With another interval every duration of it is scaled alike, and the budget of bytes a
 * second inversely, so that it is the same protocol run faster. */
#include "membership_bench/membership_bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/swim.h"
#include "world/uv.h"

struct bench_options bench = {.port = 20000, .interval_ms = 1000, .timeout_ms = 500, .n = 64};
static uv_loop_t *loop;

/* ---- output ---- */

void bench_say(uint32_t at, const char *what, uint32_t about) {
  printf("%llu %u %s %u\n", (unsigned long long)uv_hrtime(), at, what, about);
  fflush(stdout);
}

struct shoal_address bench_address(uint32_t index) {
  return (struct shoal_address){.family = 4, .bytes = {127, 0, 0, 1}, .port = (uint16_t)(bench.port + index)};
}

/* ---- a member of ours ---- */

enum { EVENT_BYTES = 64, EVENTS_ROUND_MAX = 4096, ROUNDS_KEPT = 4 };
struct round { /* Its events that came: their bytes begin with the round, the number from 0, and how many there are. */
  uint32_t number, count;
  uint8_t seen[EVENTS_ROUND_MAX / 8];
};
struct one {
  uint32_t index;
  struct round rounds[ROUNDS_KEPT]; /* By number, modulo. */
  uint64_t last_ns;                 /* When the last event came. */
  struct swim *swim; /* NULL once killed. */
  struct world_udp *udp;
  struct world_timer *timer;
  int parts;
};
static struct shoal_world *world;
static struct swim_config config;
static struct one *ours[BENCH_MEMBERS_MAX];

static uint32_t index_of(const struct swim_member *m) {
  uint32_t index = 0;
  for (size_t i = 1; i < m->name_length; i++) index = 10 * index + (uint32_t)(m->name[i] - '0');
  return index;
}

static uint32_t word_at(const uint8_t *bytes, size_t at) {
  return (uint32_t)bytes[at] << 24 | (uint32_t)bytes[at + 1] << 16 | (uint32_t)bytes[at + 2] << 8 | bytes[at + 3];
}

static void word_put(uint8_t *bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; i++) bytes[at + i] = (uint8_t)(value >> (24 - 8 * i));
}

static void hear(struct one *m, const uint8_t *bytes, size_t length) {
  BENCH_MUST(length == EVENT_BYTES && word_at(bytes, 4) < EVENTS_ROUND_MAX);
  struct round *r = &m->rounds[word_at(bytes, 0) % ROUNDS_KEPT];
  uint32_t at = word_at(bytes, 4);
  if (r->number != word_at(bytes, 0)) *r = (struct round){.number = word_at(bytes, 0)};
  BENCH_MUST(!(r->seen[at / 8] >> at % 8 & 1)); /* Once, not more. */
  r->seen[at / 8] |= (uint8_t)(1u << at % 8);
  m->last_ns = uv_hrtime();
  if (++r->count == word_at(bytes, 8)) bench_say(m->index, "whole", r->number);
}

static void drain(struct one *m) {
  struct swim_action a;
  while (swim_next(m->swim, &a)) {
    switch (a.kind) {
      case SWIM_SEND:
        (void)world_udp_send(m->udp, &a.to, a.bytes, a.length); /* A datagram that the network refuses is lost, as any may be. */
        break;
      case SWIM_EVENT:
        if (a.event == SWIM_EVENT_USER) hear(m, a.told, a.told_length);
        if (a.event <= SWIM_EVENT_DEAD) bench_say(m->index, swim_event_name(a.event), index_of(&a.member));
        break;
      default: break; /* Membership does not need it. */
    }
  }
  uint64_t due_ns = swim_deadline(m->swim);
  if (due_ns == UINT64_MAX) world_timer_stop(m->timer);
  else world_timer_start(m->timer, due_ns);
}

static void on_timer(void *data) {
  struct one *m = data;
  if (!m->swim) return;
  swim_tick(m->swim, world_now_ns(world));
  drain(m);
}

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct one *m = data;
  if (!m->swim) return;
  (void)swim_receive(m->swim, world_now_ns(world), from, bytes, length); /* Counted there. */
  drain(m);
}

static void on_closed(void *data) {
  struct one *m = data;
  if (--m->parts == 0) free(m);
}

static void ours_open(void) {
  struct world_uv_options options = {.loop = loop, .seed = uv_hrtime() ^ (uint64_t)getpid() << 32};
  BENCH_MUST(world_uv_open(&options, &world) == 0);
  BENCH_MUST(swim_config_profile("lan", &config) == 0);
  double scale = bench.interval_ms / (double)config.probe_interval_ms;
  uint32_t *durations[] = {&config.gossip_interval_ms, &config.sync_interval_ms,    &config.join_retry_ms,
                           &config.join_retry_max_ms,  &config.leave_timeout_ms, &config.tombstone_ms};
  for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) *durations[i] = (uint32_t)(*durations[i] * scale);
  config.gossip_bytes_per_s = (uint32_t)(config.gossip_bytes_per_s / scale);
  config.user_bytes_per_s = (uint32_t)(config.user_bytes_per_s / scale);
  config.probe_interval_ms = bench.interval_ms;
  config.probe_timeout_ms = bench.timeout_ms;
  const char *wrong = swim_config_check(&config);
  if (wrong) fprintf(stderr, "membership_bench: %s\n", wrong), exit(2);
}

static void ours_join(uint32_t index, uint32_t seed) {
  struct shoal_address address = bench_address(seed);
  BENCH_MUST(ours[index]);
  int rc = swim_join(ours[index]->swim, world_now_ns(world), &address);
  BENCH_MUST(rc == 0 || rc == ERR_FULL); /* It has enough to try. */
  drain(ours[index]);
}

static void ours_start(uint32_t index) {
  static const struct world_udp_events events = {.on_datagram = on_datagram, .on_closed = on_closed};
  struct one *m = calloc(1, sizeof *m);
  BENCH_MUST(m && !ours[index]);
  m->index = index;
  m->parts = 2;
  struct shoal_address address = bench_address(index);
  char name[16];
  int length = snprintf(name, sizeof name, "n%u", index);
  BENCH_MUST(world_udp_open(world, &address, &events, m, &m->udp) == 0);
  BENCH_MUST(world_timer_open(world, on_timer, on_closed, m, &m->timer) == 0);
  struct swim_identity identity = {.name = name, .name_length = (size_t)length, .cluster = "bench", .cluster_length = 5,
                                   .address = address, .generation = (uint32_t)(world_wall_ns(world) / 1000000000)};
  BENCH_MUST(swim_open(&config, &identity, world_random(world), world_now_ns(world), &m->swim) == 0);
  ours[index] = m;
  drain(m);
  bench_say(index, "up", index);
}

static void ours_kill(uint32_t index) {
  struct one *m = ours[index];
  BENCH_MUST(m);
  ours[index] = NULL;
  swim_close(m->swim);
  m->swim = NULL;
  world_udp_close(m->udp);
  world_timer_close(m->timer);
  bench_say(index, "killed", index);
}

static void ours_table(uint32_t index) {
  BENCH_MUST(ours[index]);
  struct swim_member m;
  for (uint32_t cursor = 0; swim_each(ours[index]->swim, &cursor, &m);)
    if (m.state <= SWIM_SUSPECT) bench_say(index, "holds", index_of(&m));
}

static void ours_tell(uint32_t index, uint32_t round, uint32_t total) {
  struct one *m = ours[index];
  uint8_t bytes[EVENT_BYTES];
  BENCH_MUST(m);
  bench_say(index, "tells", round);
  for (uint32_t i = 0; i < total; i++) {
    for (size_t at = 12; at < sizeof bytes; at += 4) word_put(bytes, at, (uint32_t)world_random(world));
    word_put(bytes, 0, round), word_put(bytes, 4, i), word_put(bytes, 8, total);
    BENCH_MUST(swim_tell(m->swim, world_now_ns(world), bytes, sizeof bytes) == 0);
    hear(m, bytes, sizeof bytes);
  }
  drain(m);
}

static void ours_heard(uint32_t index, uint32_t round) {
  BENCH_MUST(ours[index]);
  const struct round *r = &ours[index]->rounds[round % ROUNDS_KEPT];
  printf("%llu %u last %llu\n", (unsigned long long)uv_hrtime(), index, (unsigned long long)ours[index]->last_ns);
  bench_say(index, "heard", r->number == round ? r->count : 0);
}

static const struct bench_kind kinds[] = {
    {"ours", ours_open, ours_start, ours_join, ours_kill, ours_table},
    {"bare", NULL, bare_start, NULL, bare_kill, NULL},
};
static const struct bench_kind *kind;

/* ---- input ---- */

static void obey(char *line) {
  char *save = NULL, *verb = strtok_r(line, " ", &save), *word = strtok_r(NULL, " ", &save);
  BENCH_MUST(verb && word);
  uint32_t index = (uint32_t)strtoul(word, NULL, 10);
  BENCH_MUST(index < BENCH_MEMBERS_MAX);
  if (strcmp(verb, "kill") == 0) kind->kill(index);
  else if (strcmp(verb, "tell") == 0 || strcmp(verb, "heard") == 0) {
    const char *round = strtok_r(NULL, " ", &save), *total = strtok_r(NULL, " ", &save);
    BENCH_MUST(round && kind->join && (total || verb[0] == 'h'));
    if (total) ours_tell(index, (uint32_t)strtoul(round, NULL, 10), (uint32_t)strtoul(total, NULL, 10));
    else ours_heard(index, (uint32_t)strtoul(round, NULL, 10));
    return;
  } else if (strcmp(verb, "start") == 0) kind->start(index);
  else if (strcmp(verb, "table") == 0 && kind->table) kind->table(index);
  else BENCH_MUST(strcmp(verb, "join") == 0);
  while (kind->join && (word = strtok_r(NULL, " ", &save)) != NULL) kind->join(index, (uint32_t)strtoul(word, NULL, 10));
}

static void on_stdin(uv_poll_t *handle, int status, int events) {
  static char buffer[65536];
  static size_t held;
  (void)handle, (void)events;
  ssize_t n = status < 0 ? 0 : read(0, buffer + held, sizeof buffer - 1 - held);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) exit(0); /* The bench has ended. */
  held += (size_t)n;
  buffer[held] = 0;
  char *from = buffer, *end;
  for (; (end = strchr(from, '\n')) != NULL; from = end + 1) {
    *end = 0;
    obey(from);
  }
  held -= (size_t)(from - buffer);
  memmove(buffer, from, held);
}

static void take_option(const char *text) {
  static const struct { const char *name; uint32_t *value; } known[] = {
      {"--port=", &bench.port}, {"--interval=", &bench.interval_ms}, {"--timeout=", &bench.timeout_ms}, {"--n=", &bench.n}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    size_t length = strlen(known[i].name);
    if (strncmp(text, known[i].name, length) != 0) continue;
    *known[i].value = (uint32_t)strtoul(text + length, NULL, 10);
    return;
  }
  fprintf(stderr, "membership_bench: unknown option %s\n", text);
  exit(2);
}

int main(int argc, char **argv) {
  for (size_t i = 0; argc > 1 && i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(argv[1], kinds[i].name) == 0) kind = &kinds[i];
  if (!kind) return fprintf(stderr, "usage: membership_bench ours|bare [--port=N] [--interval=MS] [--timeout=MS] [--n=N]\n"), 2;
  for (int i = 2; i < argc; i++) take_option(argv[i]);
  BENCH_MUST(bench.n <= BENCH_MEMBERS_MAX && bench.port + bench.n <= 65535 && bench.interval_ms > 0);
  loop = uv_default_loop();
  if (kind->open) kind->open();
  uv_poll_t input;
  BENCH_MUST(uv_poll_init(loop, &input, 0) == 0 && uv_poll_start(&input, UV_READABLE, on_stdin) == 0);
  printf("%llu - ready -\n", (unsigned long long)uv_hrtime());
  fflush(stdout);
  return uv_run(loop, UV_RUN_DEFAULT);
}
