/* sim_events: how many events of the simulated world a core runs in a second: 1,000 nodes, each with a timer that rings
 * five times a second, is set again at every datagram, and at each ring sends 60 bytes to another node, which answers.
 *
 *   sim_events [seconds of simulated time]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "world/sim.h"

enum { NODES = 1000, INTERVAL_MS = 200, BYTES = 60 };
#define MS UINT64_C(1000000)

struct member {
  struct shoal_world *world;
  struct world_timer *timer, *timeout;
  struct world_udp *udp;
  struct world_defer defer;
};
static struct member members[NODES];
static struct shoal_address addresses[NODES];
static uint64_t answered;

static void on_deferred(void *data) { /* As a core's drain arms its one timer after each event. */
  struct member *m = data;
  world_timer_start(m->timeout, world_now_ns(m->world) + 50 * MS);
}

static void send_to(struct member *m, const struct shoal_address *to, uint8_t kind) {
  uint8_t bytes[BYTES] = {kind};
  if (world_udp_send(m->udp, to, bytes, sizeof bytes) < 0) abort();
}

static void on_timer(void *data) {
  struct member *m = data;
  world_timer_start(m->timer, world_now_ns(m->world) + INTERVAL_MS * MS);
  send_to(m, &addresses[world_random(m->world) % NODES], 1);
  world_defer(m->world, &m->defer);
}
static void on_timeout(void *data) { (void)data; }

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct member *m = data;
  (void)length;
  if (bytes[0] == 1) send_to(m, from, 2);
  else answered++;
  world_defer(m->world, &m->defer);
}

static double cpu_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 100;
  struct sim_config config = {.seed = 1, .link = {.latency_ns = MS, .jitter_ns = MS / 2, .loss = 0.01}};
  static const struct world_udp_events events = {.on_datagram = on_datagram};
  struct sim *s;
  if (sim_open(&config, &s) < 0) return 2;
  for (int i = 0; i < NODES; i++) {
    struct member *m = &members[i];
    struct sim_node *n;
    char text[64];
    snprintf(text, sizeof text, "10.0.%d.%d:7000", i / 250, i % 250 + 1);
    if (address_parse(text, strlen(text), &addresses[i]) < 0) return 2;
    snprintf(text, sizeof text, "n%d", i);
    if (sim_node_add(s, text, &addresses[i], &n) < 0) return 2;
    m->world = sim_node_world(n);
    m->defer = (struct world_defer){.run = on_deferred, .data = m};
    if (world_udp_open(m->world, &addresses[i], &events, m, &m->udp) < 0) return 2;
    if (world_timer_open(m->world, on_timer, NULL, m, &m->timer) < 0) return 2;
    if (world_timer_open(m->world, on_timeout, NULL, m, &m->timeout) < 0) return 2;
    world_timer_start(m->timer, world_now_ns(m->world) + world_random(m->world) % (INTERVAL_MS * MS));
  }
  uint64_t count = 0;
  double began_s = cpu_s();
  while (sim_next_ns(s) <= seconds * 1000 * MS) count += sim_step(s);
  double took_s = cpu_s() - began_s, rate = (double)count / took_s;
  printf("nodes  simulated  events     answers    cpu_s  events/s    times real time\n");
  printf("%-6d %-10llu %-10llu %-10llu %-6.2f %-11.0f %.0f\n", NODES, (unsigned long long)seconds, (unsigned long long)count,
         (unsigned long long)answered, took_s, rate, (double)seconds / took_s);
  sim_close(s);
  bool ok = rate >= 1e6;
  printf("bar sim_events %.0f want 1000000 %s\n", rate, ok ? "ok" : "short");
  return !ok;
}
