#include "net/listen.h"

#include <stdlib.h>

#include "net/link.h"
#include "net/turn.h"

const char net_needs_keys[] =
    "this node has no keys, so whoever reaches its port could command it: bind to 127.0.0.1 or ::1";

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

