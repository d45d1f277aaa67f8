#include "net/peer.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/circuit.h"
#include "net/link.h"
#include "net/turn.h"

static int index_for(struct net *n, uint32_t *out) {
  for (*out = n->peers_hole; *out < n->peers_count; ++*out) {
    n->peers_hole = *out;
    if (!n->peers[*out]) return 0;
  }
  if (n->peers_count == n->peers_capacity) {
    uint32_t capacity = n->peers_capacity ? 2 * n->peers_capacity : 16;
    struct net_peer **peers = realloc(n->peers, capacity * sizeof(struct net_peer *));
    if (!peers) return ERR_MEMORY;
    n->peers = peers;
    n->peers_capacity = capacity;
  }
  n->peers[n->peers_count++] = NULL;
  return 0;
}

int peer_make(struct net *n, const struct shoal_address *address, bool dialled, struct net_peer **out) {
  uint32_t index;
  int rc = index_for(n, &index);
  if (rc < 0) return rc;
  struct net_peer *p = calloc(1, sizeof *p);
  if (!p) return ERR_MEMORY;
  p->net = n;
  p->index = index;
  p->address = *address;
  p->dialled = dialled;
  p->outstanding.next = p->outstanding.previous = &p->outstanding;
  p->deadline_ns = UINT64_MAX;
  p->deadline.kind = TIMER_DEADLINE;
  p->redial.kind = TIMER_REDIAL;
  p->circuit.kind = TIMER_CIRCUIT;
  for (int lane = 0; lane < NET_LANES; lane++) {
    p->lanes[lane].total = &n->queued;
    p->lanes[lane].messages_max = n->options.lane_queue_max[lane];
    p->lanes[lane].bytes_max = n->options.lane_queue_bytes_max[lane];
  }
  breaker_init(&p->breaker, &n->options.breaker);
  backoff_init(&p->backoff, &n->options.backoff);
  n->peers[index] = p;
  *out = p;
  return 0;
}

int net_peer(struct net *n, const struct shoal_address *address, struct net_peer **out) {
  if (n->closing) return ERR_CLOSED;
  for (uint32_t i = 0; i < n->peers_count; i++) {
    struct net_peer *p = n->peers[i];
    if (p && p->dialled && !p->closing && address_equal(&p->address, address)) {
      *out = p;
      return 0;
    }
  }
  return peer_make(n, address, true, out);
}

void peer_free(struct net_peer *p) {
  wheel_remove(&p->net->wheel, &p->deadline);
  for (int lane = 0; lane < NET_LANES; lane++) queue_free(&p->lanes[lane]);
  p->net->peers[p->index] = NULL;
  if (p->index < p->net->peers_hole) p->net->peers_hole = p->index;
  free(p);
}

/* ---- bounds ---- */

int peer_overflow(struct net_peer *p, enum net_lane lane) {
  struct net *n = p->net;
  n->counts.drops[lane][NET_DROP_FULL]++;
  if (lane != NET_CONTROL) return ERR_FULL;
  n->counts.control_overflows++;
  const char *text = "the control queue is full; the connection is closed, so that senders learn it";
  if (p->link) link_lose(p->link, ERR_FULL, text, false);
  else peer_lost(p, NULL, ERR_FULL, text, false);
  return ERR_FULL;
}

int peer_total_full(struct net_peer *p, enum net_lane lane) {
  p->net->counts.drops[lane][NET_DROP_QUEUED]++;
  return ERR_FULL;
}

/* ---- dialling ---- */

static void redial_at(struct net_peer *p, uint64_t at_ns) {
  p->redial_ns = at_ns;
  net_set_timer(p->net, &p->redial, at_ns);
}

void peer_redial_by(struct net_peer *p, uint64_t at_ns) {
  if (wheel_has(&p->redial) && at_ns < p->redial_ns) redial_at(p, at_ns);
}

void peer_dial(struct net_peer *p) {
  struct net *n = p->net;
  if (!p->dialled || p->closing || p->link || wheel_has(&p->redial)) return;
  if (!p->keep && !p->busy) return;
  if (breaker_state(&p->breaker, net_now(n)) == BREAKER_OPEN && !(p->busy & 1u << NET_CONTROL)) {
    redial_at(p, breaker_deadline(&p->breaker));
    return;
  }
  n->counts.dials++;
  p->dialled_ns = net_now(n);
  int rc = link_dial(p);
  if (rc == 0) return;
  char to[ADDRESS_TEXT_MAX], text[sizeof p->down_text];
  address_format(&p->address, to);
  snprintf(text, sizeof text, "cannot connect to %s: %s", to, error_text(rc));
  peer_lost(p, NULL, rc, text, false);
}

void net_hurry(struct net_peer *p) {
  struct net *n = p->net;
  if (!p->dialled || p->closing || n->closing) return;
  struct link *l = p->link;
  uint64_t now = net_now(n);
  if (l && l->state == LINK_CONNECTING && now - l->opened_at_ns >= NET_HURRY_DIAL_MS * UINT64_C(1000000)) {
    link_fail(l, ERR_TIMEOUT, "not connected within %llu ms; a probe dials again", (unsigned long long)(now - l->opened_at_ns) / 1000000);
  } else if (l && l->unheard >= NET_HURRY_UNHEARD && now - l->heard_at_ns >= NET_HURRY_SILENT_MS * UINT64_C(1000000)) {
    link_fail(l, ERR_TIMEOUT, "nothing heard for %llu ms; a probe dials again", (unsigned long long)(now - l->heard_at_ns) / 1000000);
  } else if (l && l->unheard < NET_HURRY_UNHEARD) {
    l->unheard++;
  }
  peer_redial_by(p, now);
}

/* ---- ending ---- */

void peer_end_all(struct net_peer *p, int code, bool calls_only) {
  if (!calls_only) {
    for (int lane = 0; lane < NET_LANES; lane++) p->sends[lane] = (struct request_line){0};
    p->written = (struct request_line){0};
    p->sends_count = 0;
  }
  for (struct request *r = p->outstanding.next, *next; r != &p->outstanding; r = next) {
    next = r->next;
    if (r->call || !calls_only) request_end(r, code);
  }
}

static bool trial_outstanding(struct net_peer *p) {
  for (struct request *r = p->outstanding.next; r != &p->outstanding; r = r->next)
    if (r->trial) return true;
  return false;
}

static void clear_lanes(struct net_peer *p, enum net_drop reason) {
  for (int lane = 0; lane < NET_LANES; lane++) {
    p->net->counts.drops[lane][reason] += p->lanes[lane].messages;
    queue_clear(&p->lanes[lane]);
  }
  p->busy = 0;
}

void peer_lost(struct net_peer *p, struct link *link, int code, const char *text, bool orderly) {
  struct net *n = p->net;
  uint64_t now = net_now(n);
  bool was_up = link && link->greeted, waited = p->outstanding.next != &p->outstanding;
  p->link = NULL;
  if (link || !p->closing) {
    p->down = true;
    p->down_code = code;
    snprintf(p->down_text, sizeof p->down_text, "%s", text);
  }
  if (!p->closing && (!orderly || waited)) peer_failed(p, trial_outstanding(p));
  peer_end_all(p, p->closing ? ERR_CLOSED : was_up ? ERR_DISCONNECTED : code, false);
  clear_lanes(p, p->closing ? NET_DROP_CLOSED : NET_DROP_DISCONNECTED);
  if (!p->dialled || p->closing) {
    p->closing = p->gone = true;
    p->calm = false;
    wheel_remove(&n->wheel, &p->redial);
    wheel_remove(&n->wheel, &p->circuit);
  } else {
    if (was_up && now - link->opened_at_ns >= n->options.backoff.cap_ns) backoff_reset(&p->backoff);
    p->calm = false;
    redial_at(p, now + backoff_next(&p->backoff, world_random(n->world)));
  }
  net_mark(p);
}

void net_peer_close(struct net_peer *p) {
  if (p->closing) return;
  p->closing = true;
  p->calm = false;
  wheel_remove(&p->net->wheel, &p->redial);
  wheel_remove(&p->net->wheel, &p->circuit);
  struct link *l = p->link;
  if (l && l->state == LINK_UP) {
    peer_end_all(p, ERR_CLOSED, true);
    for (int lane = 0; lane < NET_LANES; lane++) p->lanes[lane].stale = p->lanes[lane].messages > 0;
    link_drain(l);
  } else if (l) {
    link_lose(l, ERR_CLOSED, "closed here", true);
  } else {
    peer_lost(p, NULL, ERR_CLOSED, "closed here", true);
  }
}

/* ---- facts ---- */

void net_peer_info(struct net_peer *p, struct net_peer_info *out) {
  *out = (struct net_peer_info){.address = p->address,
                                .node = p->node,
                                .role = p->role,
                                .dc = p->dc,
                                .advertise = p->advertise,
                                .up = p->link && p->link->state == LINK_UP,
                                .dialled = p->dialled,
                                .circuit = breaker_state(&p->breaker, net_now(p->net))};
  for (int lane = 0; lane < NET_LANES; lane++) {
    out->in_flight += p->in_flight[lane];
    out->queued_bytes += queue_bytes(&p->lanes[lane]);
  }
  if (p->link && p->link->state != LINK_CONNECTING) out->queued_bytes += world_stream_queued(p->link->stream);
}

uint32_t net_peer_index(const struct net_peer *p) { return p->index; }
void net_peer_set_data(struct net_peer *p, void *data) { p->data = data; }
void *net_peer_data(const struct net_peer *p) { return p->data; }
