#include "harness.h"

/* ---- loss and links ---- */

static void datagrams_are_lost(void) {
  static struct box x, y;
  box_open(&x, a);
  box_open(&y, b);
  sim_set_default_link(sim, &(struct sim_link){.latency_ns = MS, .loss = 0.1});
  for (uint64_t i = 0; i < 4000; i++) send_number(&x, "10.0.0.2:7000", i);
  pass(S);
  CHECK(y.count > 3500 && y.count < 3700);
}

static void loss_delays_streams(void) {
  uint64_t took_ns[2];
  pair();
  for (int i = 0; i < 2; i++) {
    size_t before = far_end.received;
    uint64_t began_ns = sim_now_ns(sim);
    sim_set_default_link(sim, &(struct sim_link){.latency_ns = 10 * MS, .jitter_ns = 5 * MS, .loss = i ? 0.2 : 0});
    for (size_t n = 0; n < 100; n++) {
      SAME(put(&near_end, before + n * 1000, 1000), 0);
      pass(MS);
    }
    while (far_end.received < before + 100000 && sim_step(sim)) continue;
    took_ns[i] = far_end.read_at_ns - began_ns;
  }
  SAME(far_end.received, 200000);
  SAME(far_end.wrong, 0);
  SAME(near_end.ended + far_end.ended, 0);
  CHECK(took_ns[1] > took_ns[0] + 150 * MS);
}

static void hopeless_loss_resets(void) {
  pair();
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = 10 * MS, .loss = 1});
  SAME(put(&near_end, 0, 10), 0);
  pass(60 * S);
  SAME(far_end.received, 0);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(far_end.end_status, -ECONNRESET);
}

static void links_differ(void) {
  static struct box x, y, z;
  box_open(&x, a);
  box_open(&y, b);
  box_open(&z, c);
  sim_set_link(sim, a, b, &(struct sim_link){.latency_ns = 70 * MS});
  send_number(&x, "10.0.0.2:7000", 1);
  send_number(&x, "10.0.0.3:7000", 1);
  send_number(&x, "127.0.0.1:7000", 2);
  pass(S);
  SAME(y.heard_at_ns[0], 70 * MS);
  SAME(z.heard_at_ns[0], 10 * MS);
  SAME(x.heard_at_ns[0], 20000);
  sim_set_link(sim, a, b, NULL);
  send_number(&x, "10.0.0.2:7000", 1);
  pass(S);
  SAME(y.heard_at_ns[1], S + 10 * MS);
}

/* ---- cuts ---- */

static void cut_drops_datagrams(void) {
  static struct box x, y;
  box_open(&x, a);
  box_open(&y, b);
  send_number(&x, "10.0.0.2:7000", 1);
  pass(5 * MS);
  sim_cut(sim, a, b, true); /* 1 is under way. */
  send_number(&x, "10.0.0.2:7000", 2);
  send_number(&y, "10.0.0.1:7000", 3); /* The other way is open. */
  pass(S);
  SAME(y.count, 0);
  SAME(x.count, 1);
  sim_cut(sim, a, b, false);
  send_number(&x, "10.0.0.2:7000", 4);
  pass(S);
  SAME(y.count, 1);
  SAME(y.heard[0], 4);
}

static void cut_of_any_node(void) {
  static struct box x, y, z;
  box_open(&x, a);
  box_open(&y, b);
  box_open(&z, c);
  sim_cut(sim, NULL, b, true);
  send_number(&x, "10.0.0.2:7000", 1);
  send_number(&z, "10.0.0.2:7000", 1);
  send_number(&y, "10.0.0.1:7000", 1);
  send_number(&y, "10.0.0.2:7000", 9); /* To itself. */
  pass(S);
  SAME(y.count, 1);
  SAME(y.heard[0], 9);
  SAME(x.count, 1);
  sim_cut(sim, NULL, NULL, false);
  send_number(&x, "10.0.0.2:7000", 2);
  pass(S);
  SAME(y.count, 2);
}

static void short_cut_delays(void) {
  pair();
  uint64_t began_ns = sim_now_ns(sim);
  cut_both(a, b, true);
  SAME(put(&near_end, 0, 1000), 0);
  pass(14900 * MS);
  SAME(far_end.received, 0);
  cut_both(a, b, false);
  pass(20 * S);
  SAME(far_end.received, 1000);
  SAME(far_end.wrong, 0);
  CHECK(far_end.read_at_ns > began_ns + 14900 * MS); /* At the next retransmission. */
  SAME(near_end.ended + far_end.ended, 0);
}

static void heal_keeps_order(void) {
  pair();
  sim_set_default_link(sim, &(struct sim_link){.latency_ns = 10 * MS, .jitter_ns = 20 * MS});
  cut_both(a, b, true);
  for (size_t i = 0; i < 60; i++) {
    SAME(put(&near_end, i * 500, 500), 0);
    pass(50 * MS);
    if (i % 20 == 10) cut_both(a, b, false);
    if (i % 20 == 15) cut_both(a, b, true);
  }
  cut_both(a, b, false);
  pass(20 * S);
  SAME(far_end.received, 30000);
  SAME(far_end.wrong, 0);
}

static void long_cut_resets(void) {
  pair();
  uint64_t began_ns = sim_now_ns(sim);
  sim_cut(sim, b, a, true); /* One way is enough, and neither end writes. */
  pass(15 * S - 1);
  SAME(near_end.ended + far_end.ended, 0);
  pass(1);
  SAME(near_end.end_status, -ECONNRESET);
  SAME(far_end.end_status, -ECONNRESET);
  SAME(near_end.ended_at_ns, began_ns + 15 * S);
  SAME(far_end.ended_at_ns, began_ns + 15 * S);
  SAME(put(&near_end, 0, 10), -EPIPE);
  pass(60 * S);
  SAME(near_end.ended + far_end.ended, 2);
}

static void one_way_cut(void) {
  pair();
  sim_cut(sim, a, b, true);
  SAME(put(&far_end, 0, 1000), 0); /* b to a is open. */
  SAME(put(&near_end, 0, 1000), 0);
  pass(S);
  SAME(near_end.received, 1000);
  SAME(far_end.received, 0);
}

/* ---- connecting ---- */

static void connect_times_out(void) {
  listen_at(b);
  for (int i = 0; i < 4; i++) {
    if (i == 0) sim_cut(sim, a, b, true);
    if (i == 1) sim_cut(sim, b, a, true); /* The answer does not come back; b must not take it as open. */
    if (i == 3) sim_node_crash(b);
    uint64_t began_ns = sim_now_ns(sim);
    dial(a, "10.0.0.2:80");
    pass(5 * S - 1);
    SAME(near_end.opened, i == 2);
    pass(20 * S);
    SAME(near_end.status, i == 2 ? 0 : -ETIMEDOUT);
    SAME(near_end.opened_at_ns, began_ns + (i == 2 ? 20 * MS : 5 * S));
    SAME(far_end.opened, i >= 2);
    SAME(near_end.ended, 0);
    world_stream_close(near_end.stream);
    cut_both(a, b, false);
  }
}

static void connect_after_heal(void) {
  listen_at(b);
  cut_both(a, b, true);
  dial(a, "10.0.0.2:80");
  pass(2 * S);
  cut_both(a, b, false);
  pass(3 * S - 1);
  SAME(near_end.opened, 1);
  SAME(near_end.status, 0);
  SAME(far_end.opened, 1);
}

static void connect_refused(void) {
  dial(a, "10.0.0.2:80");
  pass(20 * MS - 1);
  SAME(near_end.opened, 0);
  pass(1);
  SAME(near_end.status, -ECONNREFUSED);
}

/* ---- flow ---- */

static void slow_reader_stops_the_writer(void) {
  pair();
  world_stream_read(far_end.stream, false);
  SAME(put(&near_end, 0, 256 * 1024), 0);
  SAME(world_stream_queued(near_end.stream), 0); /* All of it fits the window, */
  SAME(put(&near_end, 256 * 1024, 1), 0);
  SAME(world_stream_queued(near_end.stream), 1); /* and not a byte more. */
  pass(20 * S);
  SAME(world_stream_queued(near_end.stream), 1);
  SAME(near_end.drained, 0);
  world_stream_read(far_end.stream, true);
  pass(S);
  SAME(near_end.drained, 1);
  SAME(world_stream_queued(near_end.stream), 0);
  SAME(far_end.received, 256 * 1024 + 1);
  SAME(far_end.wrong, 0);
}

static void a_window_bounds_the_wire(void) {
  pair();
  world_stream_window(near_end.stream, 16 * 1024);
  SAME(put(&near_end, 0, 160 * 1024), 0);
  SAME(world_stream_queued(near_end.stream), 144 * 1024);
  uint64_t began_ns = sim_now_ns(sim);
  while (far_end.received < 160 * 1024 && sim_step(sim)) continue;
  CHECK(far_end.read_at_ns - began_ns >= 9 * 20 * MS); /* A window a round trip. */
  SAME(far_end.wrong, 0);
}

static void many_streams_in_flight_at_the_end(void) {
  pair();
  SAME(put(&near_end, 0, 3000000), 0);
  SAME(put(&far_end, 0, 3000000), 0);
  cut_both(b, c, true);
  dial(c, "10.0.0.2:80");
  dial(a, "10.0.0.2:81");
  static struct box x;
  box_open(&x, a);
  send_number(&x, "10.0.0.2:7000", 1);
  sim_node_pause(b, true);
  pass(15 * MS); /* And then all is closed as it stands. */
}

const struct test_case network_cases[] = {
    {"loss: a datagram in ten is gone", datagrams_are_lost},
    {"loss: streams lose nothing, and take longer", loss_delays_streams},
    {"loss: of everything resets a stream", hopeless_loss_resets},
    {"links: overridden one way, and restored", links_differ},
    {"cut: datagrams are gone, those under way too, one way only", cut_drops_datagrams},
    {"cut: any node, and all mended", cut_of_any_node},
    {"cut: short of 15 s it only delays a stream", short_cut_delays},
    {"cut: on and off, bytes keep their order", heal_keeps_order},
    {"cut: 15 s one way reset both ends, and not 1 ns sooner", long_cut_resets},
    {"cut: one way, bytes still go the other", one_way_cut},
    {"connect: to a cut or dead node times out after 5 s", connect_times_out},
    {"connect: goes on when the cut ends in time", connect_after_heal},
    {"connect: without a listener is refused after a round trip", connect_refused},
    {"flow: a reader who pauses stops the writer", slow_reader_stops_the_writer},
    {"flow: a window bounds what is on the wire", a_window_bounds_the_wire},
    {"end: everything may still be under way", many_streams_in_flight_at_the_end},
    {NULL, NULL},
};
