#include "net/listen.h"

#include <stdio.h>
#include <stdlib.h>

#include "net/greeting.h"
#include "net/link.h"
#include "net/peer.h"
#include "net/sealing.h"
#include "net/turn.h"

/* ---- admission ---- */

/* Somebody who connected and says nothing makes room for somebody else. */
static bool make_room(struct net *n) {
  struct ring *first = ring_first(&n->ungreeted);
  if (!first) return false;
  struct link *l = OWNER(first, struct link, ungreeted);
  uint64_t silent_ms = (net_now(n) - l->opened_at_ns) / 1000000;
  if (silent_ms < LISTEN_GREETING_MS) return false;
  n->counts.refused[NET_REFUSED_GREETING]++;
  link_fail(l, ERR_FULL, "no greeting for %u ms, and %u connections are open here: it made room for another",
            (unsigned)silent_ms, n->options.connections_max);
  return true;
}

/* The reason leaves with BYE. In a flood not everybody can be told. */
static void turn_away(struct net *n, struct world_stream *stream) {
  char text[128];
  n->counts.refused[NET_REFUSED_CONNECTIONS]++;
  struct link *l = n->turned_away < LISTEN_GOODBYES_MAX ? link_make(n, NULL, false) : NULL;
  if (!l) {
    world_stream_close(stream);
    return;
  }
  l->counted = LINK_TURNED_AWAY;
  n->turned_away++;
  link_attach(l, stream, LINK_DRAINING, n->options.linger_ms);
  snprintf(text, sizeof text, "%u connections are open here, the limit; try again in %d ms", n->options.connections_max,
           LISTEN_RETRY_MS);
  greeting_end(l, "FULL", text);
}

static void on_connection(void *data, struct world_stream *stream) {
  struct net *n = ((struct listening *)data)->net;
  struct shoal_address from = {0};
  struct net_peer *p = NULL;
  struct link *l = NULL;
  if (n->closing) {
    world_stream_close(stream);
    return;
  }
  if (n->accepted >= n->options.connections_max && !make_room(n)) {
    turn_away(n, stream);
    return;
  }
  (void)world_stream_peer(stream, &from); /* False: a stream without an address; it then has none in its info. */
  if (peer_make(n, &from, false, &p) < 0 || !(l = link_make(n, p, false))) {
    n->counts.refused[NET_REFUSED_MEMORY]++;
    if (p) peer_free(p);
    world_stream_close(stream);
    return;
  }
  n->counts.accepted++;
  n->accepted++;
  l->counted = LINK_ACCEPTED;
  p->link = l;
  ring_add(&n->ungreeted, &l->ungreeted);
  link_attach(l, stream, LINK_HELLO, n->options.connect_timeout_ms);
}

/* ---- listening ---- */

static void on_accept_error(void *data, int code) {
  struct listening *g = data;
  (void)code; /* Out of descriptors. It is counted, and counts are watched. */
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
  if (sealing_refusal(n->world, bind)) return ERR_CONFIG;
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

