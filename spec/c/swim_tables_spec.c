/* Tables over streams: core/swim, drive/tables and the simulated world's streams together, on drive/fleet. */
#include <string.h>

#include "core/swim_private.h"
#include "must.h"
#include "drive/fleet.h"

static const uint64_t SECOND = 1000000000;

static struct fleet *open_fleet(uint64_t seed, uint32_t count, double loss, uint32_t stream_bytes, bool acquainted) {
  struct fleet *f;
  struct swim_config config;
  struct sim_link link = {.latency_ns = 500000, .jitter_ns = 500000, .loss = loss};
  MUST(swim_config_profile("lan", &config) == 0);
  config.stream_bytes = stream_bytes;
  MUST(fleet_open(seed, count, &config, &link, acquainted, &f) == 0);
  return f;
}

static bool agree(const struct fleet *f) {
  for (uint32_t i = 0; i < f->count; i++)
    if (f->nodes[i].swim && (swim_live(f->nodes[i].swim) != f->count || swim_digest(f->nodes[i].swim) != swim_digest(f->nodes[0].swim)))
      return false;
  return true;
}

static void close_fleet(struct fleet *f) {
  MUST(f->error == 0);
  fleet_close(f);
}

static void whoever_joins_fetches_a_long_table_whole(uint64_t seed) {
  struct fleet *f = open_fleet(seed, 900, seed % 2 ? 0.2 : 0, 22400, true);
  fleet_run(f, SECOND);
  fleet_crash(f, 7);
  fleet_run(f, 30 * SECOND); /* It is dead, and its second life knows no member. */
  MUST(fleet_restart(f, 7) == 0 && fleet_join(f, 7, 3) == 0);
  uint64_t limit = 0;
  while (swim_live(f->nodes[7].swim) < f->count && limit++ < 500) fleet_run(f, SECOND / 100);
  MUST(swim_counts(f->nodes[7].swim)->streams >= 1);
  MUST(swim_live(f->nodes[7].swim) == f->count); /* Within 5 s, whatever is lost. */
  close_fleet(f);
}

static void tables_that_differ_are_evened_out_both_ways_over_streams(uint64_t seed) {
  struct fleet *f = open_fleet(seed, 20, 0, 0, false); /* Each table is too long for datagrams. */
  for (uint32_t i = 1; i < 20; i++) MUST(fleet_join(f, i, i - 1) == 0);
  fleet_run(f, 20 * SECOND);
  MUST(agree(f));
  uint64_t streams = 0, failures = 0;
  for (uint32_t i = 0; i < 20; i++) {
    streams += swim_counts(f->nodes[i].swim)->streams;
    failures += swim_counts(f->nodes[i].swim)->stream_failures;
  }
  MUST(streams >= 19 && failures == 0);
  for (uint32_t i = 0; i < 20; i++) /* And at rest none is left. */
    for (int c = 0; c < CONNS_MAX; c++) MUST(f->nodes[i].swim->conns[c].channel == 0);
  close_fleet(f);
}

static void where_no_stream_can_be_had_datagrams_do(uint64_t seed) {
  struct fleet *f = open_fleet(seed, 20, 0, 0, false);
  for (uint32_t i = 0; i < 20; i++) swim_streams(f->nodes[i].swim, 1); /* No listener is there. */
  for (uint32_t i = 1; i < 20; i++) MUST(fleet_join(f, i, i - 1) == 0);
  fleet_run(f, 30 * SECOND);
  MUST(agree(f));
  uint64_t failures = 0;
  for (uint32_t i = 0; i < 20; i++) failures += swim_counts(f->nodes[i].swim)->stream_failures;
  MUST(failures >= 19);
  close_fleet(f);
}

static void one_that_dies_while_it_tells_its_table_is_no_loss(uint64_t seed) {
  struct fleet *f = open_fleet(seed, 300, 0, 0, true);
  fleet_run(f, SECOND);
  fleet_crash(f, 7);
  fleet_run(f, 20 * SECOND);
  MUST(fleet_restart(f, 7) == 0 && fleet_join(f, 7, 3) == 0 && fleet_join(f, 7, 4) == 0);
  fleet_run(f, seed * SECOND / 2000); /* Half a millisecond each: somewhere between SYNC and the last TABLE. */
  fleet_crash(f, 3);
  fleet_run(f, 40 * SECOND);
  MUST(swim_live(f->nodes[7].swim) == f->count - 1);
  close_fleet(f);
}

/* Two cores without a network: the bytes of a stream one by one, and bytes that are ignored. */
static void a_stream_is_held_to_what_belongs_on_it(uint64_t seed) {
  struct swim *s;
  struct swim_config config;
  struct swim_identity id = {.name = "a", .name_length = 1, .address = {.family = 4, .bytes = {10, 0, 0, 1}, .port = 7000}, .generation = 1};
  struct shoal_address other = {.family = 4, .bytes = {10, 0, 0, 2}, .port = 9};
  struct swim_action a;
  MUST(swim_config_profile("lan", &config) == 0 && swim_open(&config, &id, seed, 1000, &s) == 0);
  swim_streams(s, 7001);
  static const struct { const char *bytes; size_t length; } bad[] = {
      {"\0\0", 2}, {"\xff\xff", 2}, {"\0\3abc", 5}, {"\0\50SW\23aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 42}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    uint32_t stream = swim_stream_accepted(s, 1000, &other);
    MUST(stream > 0);
    bool closed = false;
    for (size_t at = 0; at < bad[i].length; at++) swim_stream_received(s, 1000, stream, bad[i].bytes + at, 1);
    while (swim_next(s, &a)) closed |= a.kind == SWIM_STREAM_CLOSE && a.stream == stream;
    MUST(closed);
    swim_stream_received(s, 1000, stream, "x", 1); /* Late bytes of a stream that is no more. */
    swim_stream_ended(s, 1000, stream);
  }
  for (int i = 0; i < CONNS_MAX / 2; i++) MUST(swim_stream_accepted(s, 1000, &other) > 0);
  MUST(swim_stream_accepted(s, 1000, &other) == 0 && swim_counts(s)->streams_refused == 1); /* No more at once. */
  uint64_t now = 1000 + 10 * SECOND;
  swim_tick(s, now); /* Silent ones are not waited for. */
  int closed = 0;
  while (swim_next(s, &a)) closed += a.kind == SWIM_STREAM_CLOSE;
  MUST(closed == CONNS_MAX / 2 && swim_stream_accepted(s, now, &other) > 0);
  swim_close(s);
}

int main(void) {
#define RUN(spec, seeds) do { for (uint64_t seed = 1; seed <= seeds; seed++) spec(seed); puts("ok " #spec); fflush(stdout); } while (0)
  RUN(whoever_joins_fetches_a_long_table_whole, 2);
  RUN(tables_that_differ_are_evened_out_both_ways_over_streams, 5);
  RUN(where_no_stream_can_be_had_datagrams_do, 3);
  RUN(one_that_dies_while_it_tells_its_table_is_no_loss, 8);
  RUN(a_stream_is_held_to_what_belongs_on_it, 1);
  return 0;
}
