#include "net/link.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/greeting.h"
#include "net/peer.h"
#include "net/reader.h"
#include "net/turn.h"
#include "net/writer.h"

struct link *link_make(struct net *n, struct net_peer *p, bool dialled) {
  struct link *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  l->net = n;
  l->peer = p;
  l->serial = ++n->links_made;
  l->dialled = dialled;
  l->opened_at_ns = l->heard_at_ns = net_now(n);
  l->timer.kind = TIMER_LINK;
  l->next = n->links;
  if (l->next) l->next->previous = l;
  n->links = l;
  return l;
}

void link_free(struct link *l) {
  if (l->next) l->next->previous = l->previous;
  if (l->previous) l->previous->next = l->next;
  else l->net->links = l->next;
  link_uncount(l);
  free(l);
}

/* ---- its end ---- */

void link_uncount(struct link *l) {
  struct net *n = l->net;
  for (int part = 0; part <= NET_LANES; part++) assembly_drop(&l->parts[part]);
  ring_remove(&l->ungreeted);
  n->accepted -= l->counted == LINK_ACCEPTED;
  n->turned_away -= l->counted == LINK_TURNED_AWAY;
  l->counted = LINK_UNCOUNTED;
}

void link_lose(struct link *l, int code, const char *text, bool orderly) {
  if (l->state == LINK_CLOSED) return;
  l->state = LINK_CLOSED;
  wheel_remove(&l->net->wheel, &l->timer);
  link_uncount(l);
  world_stream_close(l->stream);
  struct net_peer *p = l->peer;
  l->peer = NULL;
  if (!p) return;
  if (l->greeted && !orderly) l->net->counts.connections_lost++;
  if (!l->greeted && l->dialled) l->net->counts.dials_failed++;
  peer_lost(p, l, code, text, orderly);
}

void link_fail(struct link *l, int code, const char *format, ...) {
  char text[256], whom[ADDRESS_TEXT_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (l->peer) {
    char full[sizeof text + sizeof whom + 4];
    address_format(&l->peer->address, whom);
    snprintf(full, sizeof full, "%s: %s", whom, text);
    link_lose(l, code, full, false);
  } else {
    link_lose(l, code, text, false);
  }
}

void link_bad(struct link *l, enum frame_fault fault) {
  l->net->counts.faults[fault]++;
  link_fail(l, ERR_MALFORMED, "%s", frame_fault_text(fault));
}

void link_drain(struct link *l) {
  assert(l->state == LINK_UP);
  l->state = LINK_DRAINING;
  for (int lane = 0; lane < NET_LANES; lane++) assembly_drop(&l->parts[lane]);
  net_set_timer(l->net, &l->timer, net_now(l->net) + l->net->options.linger_ms * UINT64_C(1000000));
  l->peer->flush = true;
  net_mark(l->peer);
}

/* ---- the stream's other events, and time ---- */

static void on_open(void *data, int status) {
  struct link *l = data;
  if (l->state == LINK_CLOSED) return;
  if (status < 0) {
    link_fail(l, status, "cannot connect: %s", error_text(status));
    return;
  }
  l->state = LINK_HELLO;
  world_stream_window(l->stream, NET_WINDOW);
  int rc = greeting_send(l);
  if (rc < 0) link_fail(l, rc, "the greeting cannot be written: %s", error_text(rc));
}

static void on_end(void *data, int status) {
  struct link *l = data;
  if (l->state == LINK_DRAINING) link_lose(l, ERR_CLOSED, "closed here", true);
  else if (status == 0) link_fail(l, ERR_DISCONNECTED, "the other side ended the connection");
  else link_fail(l, status, "the connection broke: %s", error_text(status));
}

static void on_drain(void *data) {
  struct link *l = data;
  link_flush(l);
}

static void on_closed(void *data) {
  struct link *l = data;
  struct net *n = l->net;
  link_free(l);
  net_wake(n);
}

static const struct world_stream_events stream_events = {
    .on_open = on_open, .on_read = reader_on_bytes, .on_end = on_end, .on_drain = on_drain, .on_closed = on_closed};

void link_on_timer(struct link *l) {
  struct frame_head ping = frame_head(FRAME_PING, NET_CONTROL, FRAME_LINK, 0);
  struct net *n = l->net;
  uint64_t keepalive_ns = n->options.keepalive_ms * UINT64_C(1000000);
  uint64_t idle_ns = n->options.idle_timeout_ms * UINT64_C(1000000);
  uint64_t now = net_now(n), silent_ns = now - l->heard_at_ns;
  switch (l->state) {
  case LINK_CONNECTING: link_fail(l, ERR_TIMEOUT, "not connected within %u ms", n->options.connect_timeout_ms); return;
  case LINK_HELLO: link_fail(l, ERR_TIMEOUT, "no greeting within %u ms", n->options.connect_timeout_ms); return;
  case LINK_DRAINING: link_lose(l, ERR_CLOSED, "closed here", true); return;
  case LINK_CLOSED: return;
  case LINK_UP:
    if (silent_ns >= idle_ns) {
      n->counts.idle_closed++;
      link_fail(l, ERR_TIMEOUT, "nothing heard for %u ms", n->options.idle_timeout_ms);
      return;
    }
    if (silent_ns < keepalive_ns) {
      net_set_timer(n, &l->timer, l->heard_at_ns + keepalive_ns);
    } else {
      uint64_t next = now + keepalive_ns, end = l->heard_at_ns + idle_ns;
      net_set_timer(n, &l->timer, next < end ? next : end);
      (void)peer_push(l->peer, NET_CONTROL, ping, NULL, 0, false); /* A full queue has closed the connection. */
    }
  }
}

/* ---- its beginning ---- */

int link_dial(struct net_peer *p) {
  struct net *n = p->net;
  struct link *l = link_make(n, p, true);
  if (!l) return ERR_MEMORY;
  int rc = world_connect(n->world, &p->address, &stream_events, l, &l->stream);
  if (rc < 0) {
    n->counts.dials_failed++;
    link_free(l);
    return rc;
  }
  p->link = l;
  net_set_timer(n, &l->timer, l->opened_at_ns + n->options.connect_timeout_ms * UINT64_C(1000000));
  return 0;
}

void link_attach(struct link *l, struct world_stream *stream, enum link_state state, uint32_t timeout_ms) {
  l->stream = stream;
  l->state = state;
  net_set_timer(l->net, &l->timer, l->opened_at_ns + timeout_ms * UINT64_C(1000000));
  world_stream_attach(stream, &stream_events, l);
  world_stream_window(stream, NET_WINDOW);
}
