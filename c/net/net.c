#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#include "net/inside.h"

const char net_needs_keys[] =
    "this node has no keys, so whoever reaches its port could command it: bind to 127.0.0.1 or ::1";

const char *net_lane_name(enum net_lane lane) {
  static const char *const names[] = {"control", "dispatch", "data", "telemetry"};
  return names[lane];
}

const char *net_drop_name(enum net_drop drop) {
  static const char *const names[] = {"full",   "in_flight",    "too_large", "circuit",
                                      "closed", "disconnected", "expired",   "merged"};
  static_assert(sizeof names / sizeof *names == NET_DROPS_COUNT, "a name each");
  return names[drop];
}

/* ---- time ---- */

static void arm(struct net *n, uint64_t at_ns) {
  if (at_ns >= n->armed_at_ns || n->ending) return;
  n->armed_at_ns = at_ns;
  world_timer_start(n->timer, at_ns);
}

void net_set_timer(struct net *n, struct wheel_entry *e, uint64_t at_ns) { arm(n, wheel_set(&n->wheel, e, at_ns)); }

#define OWNER(entry, type, member) ((type *)(void *)((char *)(entry) - offsetof(type, member)))

static void on_timer(void *data) {
  struct net *n = data;
  struct wheel_entry *e;
  n->armed_at_ns = UINT64_MAX;
  while ((e = wheel_pop(&n->wheel, net_now(n)))) { /* None of these runs code from above. */
    switch ((enum timer_kind)e->kind) {
    case TIMER_DEADLINE: request_on_deadline(OWNER(e, struct net_peer, deadline)); break;
    case TIMER_LINK: link_on_timer(OWNER(e, struct link, timer)); break;
    case TIMER_REDIAL: peer_on_redial(OWNER(e, struct net_peer, redial)); break;
    case TIMER_CIRCUIT: peer_on_circuit(OWNER(e, struct net_peer, circuit)); break;
    }
  }
  uint64_t next = wheel_next_ns(&n->wheel);
  if (next != UINT64_MAX) arm(n, next);
}

/* ---- the end of a turn ---- */

void net_wake(struct net *n) {
  if (!n->ending) world_defer(n->world, &n->turn);
}

void net_mark(struct net_peer *p) {
  struct net *n = p->net;
  if (p->marked) return;
  p->marked = true;
  p->mark_next = NULL;
  if (n->marked_last) n->marked_last->mark_next = p;
  else n->marked_first = p;
  n->marked_last = p;
  net_wake(n);
}

static struct net_peer *take_marked(struct net *n) {
  struct net_peer *p = n->marked_first;
  n->marked_first = p->mark_next;
  if (!n->marked_first) n->marked_last = NULL;
  p->marked = false;
  return p;
}

void net_peer_event(struct net_peer *p, enum net_peer_event event, int code, const char *text) {
  struct net *n = p->net;
  if (n->events.on_peer) n->events.on_peer(n->data, p, event, code, text);
}

static void tell(struct net_peer *p) {
  struct net *n = p->net;
  if (p->down) {
    p->down = false;
    net_peer_event(p, NET_DOWN, p->down_code, p->down_text);
  }
  if (p->circuit_told != p->breaker.status) {
    p->circuit_told = p->breaker.status;
    if (n->events.on_circuit) n->events.on_circuit(n->data, p, p->circuit_told);
  }
}

static void settle(struct net_peer *p) {
  struct net *n = p->net;
  tell(p);
  if (p->flush) {
    p->flush = false;
    if (p->link) link_flush(p->link);
    else peer_dial(p);
  }
  if (!p->gone) return;
  if (p->marked) return; /* More to tell first. */
  if (!line_empty(&n->ended)) {
    net_mark(p); /* Its requests' ends are told before its own. */
    return;
  }
  net_peer_event(p, NET_GONE, 0, "");
  assert(!p->link && p->outstanding.next == &p->outstanding);
  assert(!p->marked);
  peer_free(p);
}

static bool has_peers(const struct net *n) {
  for (uint32_t i = 0; i < n->peers_count; i++)
    if (n->peers[i]) return true;
  return false;
}

static void free_net(struct net *n) {
  request_free_all(n);
  free(n->peers);
  free(n);
}

static void on_timer_closed(void *data) {
  struct net *n = data;
  struct net_events events = n->events;
  void *above = n->data;
  free_net(n);
  if (events.on_closed) events.on_closed(above);
}

static void finish(struct net *n) {
  if (!n->closing || n->ending || n->links || n->listeners || !line_empty(&n->ended) || has_peers(n)) return;
  n->ending = true;
  world_undefer(n->world, &n->turn);
  world_timer_close(n->timer);
}

static void on_turn(void *data) {
  struct net *n = data;
  if (!line_empty(&n->ended)) request_deliver(n);
  struct net_peer *last = n->marked_last;
  for (bool end = !last; !end;) {
    struct net_peer *p = take_marked(n);
    end = p == last;
    settle(p);
  }
  if (n->marked_first || !line_empty(&n->ended)) net_wake(n); /* What this gave rise to. */
  finish(n);
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
         o->backoff.cap_ns >= o->backoff.base_ns && o->backoff.factor >= 1;
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
  n->turn.run = on_turn;
  n->turn.data = n;
  n->hello.major = FRAME_MAJOR;
  n->hello.minor = FRAME_MINOR;
  fill_defaults(&n->options);
  bool named = set_name(n->hello.cluster, options->cluster) && set_name(n->hello.node, options->node) &&
               set_name(n->hello.role, options->role) && set_name(n->hello.dc, options->dc) &&
               set_name(n->hello.advertise, options->advertise) && n->hello.cluster[0] && n->hello.node[0];
  int rc = named && options_ok(&n->options) ? 0 : ERR_CONFIG;
  if (rc == 0) rc = world_timer_open(world, on_timer, on_timer_closed, n, &n->timer);
  if (rc < 0) {
    free(n);
    return rc;
  }
  wheel_init(&n->wheel, world_now_ns(world));
  *out = n;
  return 0;
}

/* ---- listening ---- */

static void on_connection(void *data, struct world_stream *stream) {
  struct listening *g = data;
  link_accept(g->net, stream);
}

static void on_accept_error(void *data, int code) {
  struct listening *g = data;
  (void)code; /* Out of descriptors; which it was matters less than that it is seen: it is counted. */
  g->net->counts.accept_errors++;
}

static void on_listener_closed(void *data) {
  struct listening *g = data;
  struct net *n = g->net;
  struct listening **at = &n->listeners;
  while (*at != g) at = &(*at)->next;
  *at = g->next;
  free(g);
  net_wake(n);
}

int net_listen(struct net *n, const struct shoal_address *bind, struct shoal_address *bound) {
  static const struct world_listener_events events = {
      .on_connection = on_connection, .on_error = on_accept_error, .on_closed = on_listener_closed};
  if (n->closing) return ERR_CLOSED;
  if (!address_is_loopback(bind) && !world_is_simulated(n->world)) return ERR_CONFIG;
  struct listening *g = calloc(1, sizeof *g);
  if (!g) return ERR_MEMORY;
  g->net = n;
  int rc = world_listen(n->world, bind, &events, g, &g->listener);
  if (rc < 0) {
    free(g);
    return rc;
  }
  g->next = n->listeners;
  n->listeners = g;
  struct shoal_address at;
  world_listener_address(g->listener, &at);
  if (!n->hello.advertise[0]) address_format(&at, n->hello.advertise); /* Where those we dial can reach us. */
  if (bound) *bound = at;
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
  free_net(n);
}

const struct net_counts *net_counts(const struct net *n) { return &n->counts; }
struct shoal_world *net_world(const struct net *n) { return n->world; }
