#include "net/turn.h"

#include <assert.h>
#include <stdlib.h>

#include "net/circuit.h"
#include "net/link.h"
#include "net/peer.h"
#include "net/request.h"
#include "net/writer.h"

/* ---- time ---- */

static void arm(struct net *n, uint64_t at_ns) {
  if (at_ns >= n->armed_at_ns || n->ending) return;
  n->armed_at_ns = at_ns;
  world_timer_start(n->timer, at_ns);
}

void net_set_timer(struct net *n, struct wheel_entry *e, uint64_t at_ns) { arm(n, wheel_set(&n->wheel, e, at_ns)); }

void turn_on_timer(void *data) {
  struct net *n = data;
  struct wheel_entry *e;
  n->armed_at_ns = UINT64_MAX;
  while ((e = wheel_pop(&n->wheel, net_now(n)))) { /* None of these runs a callback of the user. */
    switch ((enum timer_kind)e->kind) {
    case TIMER_DEADLINE: request_on_deadline(OWNER(e, struct net_peer, deadline)); break;
    case TIMER_LINK: link_on_timer(OWNER(e, struct link, timer)); break;
    case TIMER_REDIAL: peer_dial(OWNER(e, struct net_peer, redial)); break;
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
  if (p->marked) return; /* It has events to send first. */
  if (!line_empty(&n->ended)) {
    net_mark(p); /* The callbacks of its requests run before its own last event. */
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

void turn_free(struct net *n) {
  request_free_all(n);
  free(n->peers);
  free(n);
}

void turn_on_timer_closed(void *data) {
  struct net *n = data;
  struct net_events events = n->events;
  void *above = n->data;
  turn_free(n);
  if (events.on_closed) events.on_closed(above);
}

static void finish(struct net *n) {
  if (!n->closing || n->ending || n->links || n->listeners || !line_empty(&n->ended) || has_peers(n)) return;
  n->ending = true;
  world_undefer(n->world, &n->turn);
  world_timer_close(n->timer);
}

void turn_end(void *data) {
  struct net *n = data;
  if (!line_empty(&n->ended)) request_deliver(n);
  struct net_peer *last = n->marked_last;
  for (bool end = !last; !end;) {
    struct net_peer *p = take_marked(n);
    end = p == last;
    settle(p);
  }
  if (n->marked_first || !line_empty(&n->ended)) net_wake(n); /* The callbacks made more work. */
  finish(n);
}

