#include "harness.h"

/* ---- clocks that drift and jump, machines whose address changes ---- */

struct ring {
  struct world_timer *timer;
  struct shoal_world *world;
  uint64_t shown_ns, true_ns;
};
static void on_ring(void *data) {
  struct ring *r = data;
  r->shown_ns = world_now_ns(r->world);
  r->true_ns = sim_now_ns(sim);
}

static void drift(void) {
  struct shoal_world *fast = sim_node_world(a), *slow = sim_node_world(b);
  uint64_t fast_ns = world_now_ns(fast), slow_ns = world_now_ns(slow);
  int64_t wall_ns = world_wall_ns(fast);
  SAME(sim_node_drift(a, 200), 0);
  SAME(sim_node_drift(b, -200), 0);
  SAME(sim_node_drift(a, 201), -EINVAL);
  SAME(sim_node_drift(a, -201), -EINVAL);
  SAME(world_now_ns(fast), fast_ns); /* It does not jump. */
  pass(1000 * S);
  SAME(world_now_ns(fast) - fast_ns, 1000 * S + 200 * MS);
  SAME(world_now_ns(slow) - slow_ns, 1000 * S - 200 * MS);
  SAME(world_wall_ns(fast) - wall_ns, 1000 * S); /* A time service keeps it. */
  fast_ns = world_now_ns(fast);
  SAME(sim_node_drift(a, 0), 0);
  SAME(world_now_ns(fast), fast_ns);
  pass(S);
  SAME(world_now_ns(fast) - fast_ns, S);
}

static void drift_stays(void) {
  SAME(sim_node_drift(a, 100), 0);
  sim_node_crash(a);
  pass(100 * S);
  struct shoal_world *w = sim_node_restart(a);
  uint64_t now_ns = world_now_ns(w);
  pass(10 * S);
  SAME(world_now_ns(w) - now_ns, 10 * S + MS);
}

static void timers_follow(void) {
  static const int32_t rates[] = {200, -200, 137, -1};
  for (int i = 0; i < 4; i++)
    for (uint64_t after_ns = 1; after_ns < 5000 * S; after_ns = after_ns * 7 + 12345) {
      struct ring r = {.world = sim_node_world(a)};
      SAME(world_timer_open(r.world, on_ring, NULL, &r, &r.timer), 0);
      SAME(sim_node_drift(a, rates[i]), 0);
      uint64_t at_ns = world_now_ns(r.world) + after_ns;
      world_timer_start(r.timer, at_ns);
      if (after_ns > S) { /* Changed while it is set. */
        pass(after_ns / 2);
        SAME(sim_node_drift(a, -rates[i]), 0);
      }
      pass(5000 * S);
      CHECK(r.shown_ns >= at_ns && r.shown_ns <= at_ns + 2000); /* Never early; a turn takes 1 us. */
      world_timer_close(r.timer);
      pass(0);
    }
}

static void wall_steps(void) {
  struct shoal_world *w = sim_node_world(a);
  int64_t wall_ns = world_wall_ns(w);
  uint64_t now_ns = world_now_ns(w);
  sim_node_step_wall(a, -3600 * (int64_t)S);
  SAME(world_wall_ns(w), wall_ns - 3600 * (int64_t)S);
  SAME(world_now_ns(w), now_ns); /* The monotonic clock knows nothing of it. */
  sim_node_step_wall(a, 7200 * (int64_t)S);
  SAME(world_wall_ns(w), wall_ns + 3600 * (int64_t)S);
  sim_node_crash(a);
  SAME(world_wall_ns(sim_node_restart(a)), wall_ns + 3600 * (int64_t)S);
}

/* ---- addresses ---- */

static void addresses_swap(void) {
  static struct box x, y, z;
  struct shoal_address first = at("10.0.0.1:9"), second = at("10.0.0.2:9"), none = {0};
  box_open(&z, c);
  SAME(sim_node_readdress(a, &second), -EBUSY);
  sim_node_crash(a);
  SAME(sim_node_readdress(a, &second), ERR_EXISTS); /* b is up. */
  SAME(sim_node_readdress(a, &none), ERR_MALFORMED);
  SAME(sim_node_readdress(a, &first), 0);
  send_number(&z, "10.0.0.2:7000", 1); /* Under way to b. */
  sim_node_crash(b);
  SAME(sim_node_readdress(a, &second), 0);
  sim_node_restart(a);
  sim_node_restart(b);
  box_open(&x, a);
  box_open(&y, b);
  pass(S);
  SAME(x.count, 1); /* The datagram went where its address now is. */
  SAME(y.count, 0);
  send_number(&z, "10.0.0.1:7000", 2);
  send_number(&z, "10.0.0.2:7000", 3);
  pass(S);
  SAME(y.heard[0], 2);
  SAME(x.heard[1], 3);
  struct world_udp *udp;
  SAME(world_udp_open(sim_node_world(a), &first, &box_events, &x, &udp), -EADDRNOTAVAIL);
  SAME(world_udp_open(sim_node_world(a), &second, &box_events, &x, &udp), 0);
}

static void address_to_another(void) {
  static struct box y, z;
  struct shoal_address old = at("10.0.0.1:0"), fresh = at("10.0.0.9:0"), six = at("[fd00::1]:0");
  box_open(&z, c);
  sim_node_crash(a);
  SAME(sim_node_readdress(a, &fresh), 0);
  send_number(&z, "10.0.0.1:7000", 1); /* No machine has it. */
  pass(S);
  sim_node_restart(a);
  sim_node_crash(b);
  SAME(sim_node_readdress(b, &old), 0); /* The same address, another machine. */
  sim_node_restart(b);
  box_open(&y, b);
  send_number(&z, "10.0.0.1:7000", 2);
  pass(S);
  SAME(y.count, 1);
  SAME(y.heard[0], 2);
  sim_node_crash(b);
  SAME(sim_node_readdress(b, &six), 0);
  CHECK(add("d", "10.0.0.2:0") != NULL); /* A free address can be assigned. */
}

/* Streams to a machine whose address moved: the new holder resets them; a free address does not answer. */
static void streams_go_with_the_address(void) {
  struct shoal_address second = at("10.0.0.2:0"), fresh = at("10.0.0.9:0");
  pair(); /* a to b. */
  sim_node_crash(b);
  sim_node_crash(c);
  SAME(sim_node_readdress(c, &second), 0);
  SAME(put(&near_end, 0, 10), 0);
  sim_node_restart(b); /* With c's address: it does not answer for b's. */
  pass(5 * S);
  SAME(near_end.ended, 0);
  sim_node_restart(c);
  pass(5 * S);
  SAME(near_end.ended, 1);
  SAME(near_end.end_status, -ECONNRESET);
  listen_at(c);
  dial(a, "10.0.0.2:80");
  pass(S);
  SAME(near_end.status, 0);
  SAME(far_end.opened, 1);
  sim_node_crash(c);
  SAME(sim_node_readdress(c, &fresh), 0);
  sim_node_restart(c);
  uint64_t began_ns = sim_now_ns(sim);
  SAME(put(&near_end, 0, 10), 0);
  pass(60 * S);
  SAME(near_end.ended, 1);
  CHECK(near_end.ended_at_ns >= began_ns + 15 * S);
}

const struct test_case clocks_cases[] = {
    {"drift: a clock runs fast or slow by millionths, without a jump, up to 200", drift},
    {"drift: stays over a restart", drift_stays},
    {"drift: timers follow, set before or after, and are never early", timers_follow},
    {"wall: steps forwards and back, at run time, and stays off", wall_steps},
    {"address: two machines that are down swap theirs", addresses_swap},
    {"address: a free one, and one for another machine", address_to_another},
    {"address: the ends of streams go with it", streams_go_with_the_address},
    {NULL, NULL},
};
