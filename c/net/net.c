#include "net/net.h"

#include <stdlib.h>

#include "net/link.h"
#include "net/listen.h"
#include "net/peer.h"
#include "net/request.h"
#include "net/turn.h"

const char *net_lane_name(enum net_lane lane) {
  static const char *const names[] = {"control", "dispatch", "data", "telemetry"};
  return names[lane];
}

const char *net_drop_name(enum net_drop drop) {
  static const char *const names[] = {"full", "queued", "in_flight", "too_large", "circuit", "closed", "disconnected", "expired"};
  static_assert(sizeof names / sizeof *names == NET_DROPS_COUNT, "a name each");
  return names[drop];
}

const char *net_refusal_name(enum net_refusal refusal) {
  static const char *const names[] = {"connections", "greeting", "requests", "assembly", "stuck", "memory"};
  static_assert(sizeof names / sizeof *names == NET_REFUSALS_COUNT, "a name each");
  return names[refusal];
}

/* ---- opening ---- */

static bool set_name(char out[256], const char *text) {
  size_t length = text ? strlen(text) : 0;
  if (length > 255) return false;
  memcpy(out, text ? text : "", length + 1);
  return true;
}

#define DEFAULT(field, value) \
  if (!(field)) (field) = (value)

static void fill_defaults(struct net_options *o) {
  static const uint32_t in_flight[NET_LANES] = {UINT32_MAX, 500, 300, 200};
  static const uint32_t messages[NET_LANES] = {4096, 2048, 2048, 1024};
  static const uint32_t bytes[NET_LANES] = {4 << 20, 4 << 20, 4 << 20, 1 << 20};
  DEFAULT(o->connect_timeout_ms, 5000);
  DEFAULT(o->keepalive_ms, 10000);
  DEFAULT(o->idle_timeout_ms, 30000);
  DEFAULT(o->linger_ms, 2000);
  DEFAULT(o->in_flight_max, 1000);
  DEFAULT(o->unanswered_max, 1000);
  DEFAULT(o->unanswered_all_max, 10000);
  DEFAULT(o->connections_max, 4096);
  DEFAULT(o->assembly_bytes_max, 32 << 20);
  DEFAULT(o->queued_bytes_max, 64 << 20);
  for (int lane = 0; lane < NET_LANES; lane++) {
    DEFAULT(o->lane_in_flight_max[lane], in_flight[lane]);
    DEFAULT(o->lane_queue_max[lane], messages[lane]);
    DEFAULT(o->lane_queue_bytes_max[lane], bytes[lane]);
  }
  if (!o->breaker.failures) o->breaker = (struct breaker_config){3, UINT64_C(30000000000), UINT64_C(10000000000)};
  if (!o->backoff.base_ns) o->backoff = (struct backoff_config){UINT64_C(500000000), UINT64_C(30000000000), 2};
}

static bool options_ok(const struct net_options *o) {
  return o->idle_timeout_ms > o->keepalive_ms && o->breaker.failures <= BREAKER_FAILURES_MAX &&
         o->backoff.cap_ns >= o->backoff.base_ns && o->backoff.factor >= 1 && o->assembly_bytes_max >= FRAME_MESSAGE_MAX &&
         o->queued_bytes_max >= 2 * FRAME_MESSAGE_MAX;
}

int net_open(struct shoal_world *world, const struct net_options *options, const struct net_events *events, void *data,
             struct net **out) {
  struct net *n = calloc(1, sizeof *n);
  if (!n) return ERR_MEMORY;
  n->world = world;
  n->events = *events;
  n->data = data;
  n->options = *options;
  n->armed_at_ns = UINT64_MAX;
  n->turn.run = turn_end;
  n->turn.data = n;
  n->hello.major = FRAME_MAJOR;
  n->hello.minor = FRAME_MINOR;
  /* The seed is another one in each process, the clock in each simulated restart. It takes nothing from the random stream. */
  n->hello.life = world_seed(world) ^ (uint64_t)world_wall_ns(world) * UINT64_C(0x9e3779b97f4a7c15);
  if (n->hello.life == 0) n->hello.life = 1;
  ring_init(&n->ungreeted);
  ring_init(&n->assemblies.open);
  fill_defaults(&n->options);
  n->queued.bytes_max = n->options.queued_bytes_max;
  bool named = set_name(n->hello.cluster, options->cluster) && set_name(n->hello.node, options->node) &&
               set_name(n->hello.role, options->role) && set_name(n->hello.dc, options->dc) &&
               set_name(n->hello.advertise, options->advertise) && n->hello.cluster[0] && n->hello.node[0];
  int rc = named && options_ok(&n->options) ? 0 : ERR_CONFIG;
  if (rc == 0) rc = world_timer_open(world, turn_on_timer, turn_on_timer_closed, n, &n->timer);
  if (rc < 0) {
    free(n);
    return rc;
  }
  wheel_init(&n->wheel, world_now_ns(world));
  *out = n;
  return 0;
}

/* ---- closing ---- */

void net_close(struct net *n) {
  if (n->closing) return;
  n->closing = true;
  for (struct listening *g = n->listeners; g; g = g->next) world_listener_close(g->listener);
  for (uint32_t i = 0; i < n->peers_count; i++)
    if (n->peers[i]) net_peer_close(n->peers[i]);
  net_wake(n);
}

void net_abandon(struct net *n) {
  while (n->links) { /* What still waits for a time is in the wheel, beside others that go later. */
    wheel_remove(&n->wheel, &n->links->timer);
    link_free(n->links);
  }
  while (n->listeners) {
    struct listening *g = n->listeners;
    n->listeners = g->next;
    free(g);
  }
  for (uint32_t i = 0; i < n->peers_count; i++) {
    if (!n->peers[i]) continue;
    wheel_remove(&n->wheel, &n->peers[i]->redial);
    wheel_remove(&n->wheel, &n->peers[i]->circuit);
    peer_free(n->peers[i]);
  }
  turn_free(n);
}

const struct net_counts *net_counts(struct net *n) {
  n->counts.connections_open = n->accepted;
  n->counts.assembly_bytes = n->assemblies.bytes;
  n->counts.queued_bytes = n->queued.bytes;
  n->counts.unanswered = n->unanswered;
  return &n->counts;
}
