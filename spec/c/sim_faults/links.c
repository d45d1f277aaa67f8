#include "harness.h"

/* ---- effects of links, clogs and slow receivers on datagrams ---- */

static struct box x, y;

static void open_boxes(const struct sim_link *link) {
  box_open(&x, a);
  box_open(&y, b);
  sim_set_link(sim, a, b, link);
}

static void send_many(uint64_t from, uint64_t to) {
  for (uint64_t i = from; i < to; i++) send_number(&x, "10.0.0.2:7000", i);
}

static bool in_order(void) {
  for (int i = 1; i < y.count; i++)
    if (y.heard[i] <= y.heard[i - 1]) return false;
  return true;
}

static void corruption(void) {
  int by_bits[4] = {0};
  open_boxes(&(struct sim_link){.latency_ns = MS, .corrupt = 0.25});
  for (int i = 0; i < 4000; i++) send_number(&x, "10.0.0.2:7000", 0);
  pass(S);
  SAME(y.count, 4000);
  for (int i = 0; i < y.count; i++) {
    int bits = __builtin_popcountll(y.heard[i]);
    CHECK(bits <= 3);
    if (bits <= 3) by_bits[bits]++;
  }
  for (int bits = 1; bits <= 3; bits++) CHECK(by_bits[bits] > 270 && by_bits[bits] < 400);
  SAME(sim_counted(sim)->corrupted, 4000 - by_bits[0]);
  pair();
  SAME(put(&near_end, 0, 100000), 0); /* A stream's bytes stay whole. */
  pass(S);
  SAME(far_end.received, 100000);
  SAME(far_end.wrong, 0);
}

static void duplication(void) {
  static int times[2000];
  int twice = 0, apart = 0;
  uint64_t first_ns[2000];
  open_boxes(&(struct sim_link){.latency_ns = MS, .jitter_ns = MS, .duplicate = 0.2});
  memset(times, 0, sizeof times);
  send_many(0, 2000);
  pass(S);
  for (int i = 0; i < y.count; i++) {
    uint64_t n = y.heard[i];
    if (times[n]++ == 0) first_ns[n] = y.heard_at_ns[i];
    else twice++, apart += y.heard_at_ns[i] != first_ns[n];
  }
  SAME(y.count, 2000 + twice);
  CHECK(twice > 340 && twice < 460);
  CHECK(apart > twice * 9 / 10); /* The copy has a delay of its own. */
  SAME(sim_counted(sim)->duplicated, twice);
  SAME(sim_counted(sim)->sent, 2000);
  SAME(sim_counted(sim)->delivered, 2000 + twice);
}

static void reordering(void) {
  int late = 0;
  open_boxes(&(struct sim_link){.latency_ns = MS, .reorder = 0.1, .reorder_ns = 50 * MS});
  for (uint64_t i = 0; i < 1000; i++) {
    send_many(i, i + 1);
    pass(MS);
  }
  pass(S);
  SAME(y.count, 1000);
  CHECK(!in_order());
  for (int i = 0; i < y.count; i++) {
    uint64_t took_ns = y.heard_at_ns[i] - y.heard[i] * MS;
    CHECK(took_ns >= MS && took_ns <= 51 * MS);
    late += took_ns > MS;
  }
  CHECK(late > 70 && late < 130);
  SAME(sim_counted(sim)->reordered, late);
}

static void size_cliff(void) {
  open_boxes(&(struct sim_link){.latency_ns = MS, .size_max = 8});
  send_many(0, 10);
  pass(S);
  SAME(y.count, 10);
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = MS, .size_max = 7});
  send_many(10, 20);
  send_number(&y, "10.0.0.1:7000", 1); /* The other way has no cliff. */
  pass(S);
  SAME(y.count, 10);
  SAME(x.count, 1);
  SAME(sim_counted(sim)->too_large, 10);
}

static void rate_limit(void) {
  open_boxes(&(struct sim_link){.latency_ns = MS, .bytes_per_s = 8000, .queue_bytes = 80}); /* A datagram takes 1 ms. */
  send_many(0, 30);
  pass(S);
  SAME(y.count, 10); /* 80 bytes of them; the tail is gone. */
  CHECK(in_order());
  for (int i = 0; i < y.count; i++) SAME(y.heard_at_ns[i], (2 + (uint64_t)i) * MS);
  SAME(sim_counted(sim)->overflowed, 20);
  SAME(sim_counted(sim)->throttled, 9);
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = MS, .bytes_per_s = 8000, .queue_bytes = 1});
  send_many(30, 33);
  pass(S);
  SAME(y.count, 11); /* An empty queue takes any. */
}

static void rate_delays_streams(void) {
  pair();
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = 10 * MS, .bytes_per_s = 100000, .queue_bytes = 1000});
  uint64_t began_ns = sim_now_ns(sim);
  for (size_t i = 0; i < 200; i++) SAME(put(&near_end, i * 1000, 1000), 0); /* Joined on the wire: each counts. */
  while (far_end.received < 200000 && sim_step(sim)) continue;
  SAME(far_end.received, 200000);
  SAME(far_end.wrong, 0);
  CHECK(far_end.read_at_ns - began_ns >= 2 * S && far_end.read_at_ns - began_ns < 2 * S + 100 * MS);
  began_ns = sim_now_ns(sim);
  SAME(put(&near_end, 200000, 3000000), 0); /* 30 s on the wire is not 15 s without an answer. */
  while (far_end.received < 3200000 && sim_step(sim)) continue;
  SAME(far_end.received, 3200000);
  CHECK(sim_now_ns(sim) - began_ns >= 30 * S);
  SAME(near_end.ended + far_end.ended, 0);
}

static void clog_and_flush(void) {
  open_boxes(&(struct sim_link){.latency_ns = 10 * MS, .queue_bytes = 160});
  send_many(0, 5);
  sim_clog(sim, a, b, true); /* They are under way. */
  for (uint64_t i = 5; i < 50; i++) {
    send_many(i, i + 1);
    pass(MS);
  }
  send_number(&y, "10.0.0.1:7000", 1);
  pass(S);
  SAME(y.count, 0);
  SAME(x.count, 1); /* The other way is free. */
  uint64_t now_ns = sim_now_ns(sim);
  sim_clog(sim, a, b, false);
  SAME(y.count, 0); /* Not before the next event. */
  pass(0);
  SAME(y.count, 20); /* 160 bytes of them. */
  CHECK(in_order());
  SAME(y.heard[19], 19);
  SAME(y.heard_at_ns[19], now_ns);
  SAME(sim_counted(sim)->clogged, 20);
  SAME(sim_counted(sim)->clog_dropped, 30);
  send_many(50, 51);
  pass(10 * MS);
  SAME(y.heard[20], 50);
}

static void clog_of_a_node(void) {
  static struct box z;
  open_boxes(NULL);
  box_open(&z, c);
  sim_clog(sim, NULL, b, true);
  sim_clog(sim, b, NULL, true);
  send_many(0, 1);
  send_number(&z, "10.0.0.2:7000", 2);
  send_number(&y, "10.0.0.3:7000", 3);
  send_number(&x, "10.0.0.3:7000", 4);
  pass(S);
  SAME(y.count, 0);
  SAME(z.count, 1);
  sim_clog(sim, NULL, NULL, false);
  pass(0);
  SAME(y.count, 2);
  SAME(z.count, 2);
}

static void clog_of_streams(void) {
  pair();
  sim_clog(sim, a, b, true);
  SAME(put(&near_end, 0, 300000), 0);
  pass(14 * S);
  SAME(far_end.received, 0);
  SAME(world_stream_queued(near_end.stream), 300000 - 256 * 1024); /* As the window allows. */
  uint64_t now_ns = sim_now_ns(sim);
  sim_clog(sim, a, b, false);
  pass(0);
  CHECK(far_end.received > 200000); /* At once, not at the next retransmission. */
  SAME(far_end.read_at_ns, now_ns);
  pass(S);
  SAME(far_end.received, 300000);
  SAME(far_end.wrong, 0);
  sim_clog(sim, a, b, true);
  SAME(put(&near_end, 300000, 10), 0);
  pass(16 * S);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(far_end.end_status, -ECONNRESET);
}

static void clogged_at_the_end(void) {
  open_boxes(NULL);
  sim_clog(sim, a, b, true);
  sim_node_slow(a, 1, 10);
  send_many(0, 10);
  for (int i = 0; i < 5; i++) send_number(&y, "10.0.0.1:7000", 1);
  pass(S); /* And then all is closed as it stands. */
}

static void slow_consumer(void) {
  open_boxes(NULL);
  sim_node_slow(b, 100, 20);
  send_many(0, 50);
  pass(S);
  SAME(y.count, 21); /* One at once, and those that found room. */
  CHECK(in_order());
  for (int i = 0; i < y.count; i++) SAME(y.heard_at_ns[i], (1 + (uint64_t)i) * 10 * MS);
  SAME(sim_counted(sim)->slowed, 20);
  SAME(sim_counted(sim)->slow_dropped, 29);
  send_many(50, 60);
  pass(15 * MS);
  SAME(y.count, 22);
  sim_node_pause(b, true);
  pass(S);
  SAME(y.count, 22);
  sim_node_pause(b, false);
  pass(15 * MS);
  SAME(y.count, 24);
  sim_node_slow(b, 0, 0);
  pass(0);
  SAME(y.count, 31); /* The waiting datagrams arrive now. */
  CHECK(in_order());
  sim_node_slow(b, 1, 0);
  send_many(60, 160);
  pass(20 * MS);
  SAME(sim_counted(sim)->slow_dropped, 29 + 35); /* 64 by default. */
  sim_node_crash(b); /* Its queue goes with it. */
  sim_node_restart(b);
  box_open(&y, b);
  pass(100 * S);
  SAME(y.count, 0);
}

/* Off is off: neither the instants nor the draws of what else there is are moved. */
static void off_draws_nothing(void) {
  static struct box seen[2];
  for (int i = 0; i < 2; i++) {
    sim_close(sim);
    start(5);
    struct sim_link link = {.latency_ns = MS, .jitter_ns = 3 * MS, .loss = 0.2};
    if (i) link.reorder_ns = 7, link.queue_bytes = 1, link.size_max = 8; /* Bounds that nothing meets. */
    open_boxes(&link);
    if (i) sim_clog(sim, c, b, true), sim_node_slow(b, 1000000000, 1000);
    send_many(0, 2000);
    pass(S);
    seen[i] = y;
  }
  SAME(seen[0].count, seen[1].count);
  SAME(memcmp(seen[0].heard, seen[1].heard, sizeof seen[0].heard), 0);
  SAME(memcmp(seen[0].heard_at_ns, seen[1].heard_at_ns, sizeof seen[0].heard_at_ns), 0);
}

const struct test_case links_cases[] = {
    {"corrupt: its share of datagrams comes with 1 to 3 flipped bits; streams stay whole", corruption},
    {"duplicate: its share comes twice, the copy by a way of its own", duplication},
    {"reorder: its share is held back and overtaken", reordering},
    {"size_max: what is larger is gone, what is as large is not", size_cliff},
    {"rate: datagrams leave one behind the other, and the tail of a full queue is gone", rate_limit},
    {"rate: streams take as long as their bytes, and lose nothing", rate_delays_streams},
    {"clog: datagrams wait, bounded, and come at once in order", clog_and_flush},
    {"clog: of a node, and all undone", clog_of_a_node},
    {"clog: segments wait and come at once; 15 s reset the stream", clog_of_streams},
    {"clog: with a slow consumer at the end of everything", clogged_at_the_end},
    {"slow: so many a second, the rest waits, bounded", slow_consumer},
    {"faults that are off draw nothing and move nothing", off_draws_nothing},
    {NULL, NULL},
};
