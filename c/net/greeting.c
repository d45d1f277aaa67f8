#include "net/greeting.h"

#include <stdarg.h>
#include <stdio.h>

#include "net/circuit.h"
#include "net/peer.h"
#include "net/turn.h"
#include "net/writer.h"

int greeting_send(struct link *l) {
  uint8_t body[FRAME_HELLO_MAX];
  return writer_frame(l, FRAME_HELLO, body, frame_hello_put(body, &l->net->hello));
}

void greeting_end(struct link *l, const char *name, const char *text) {
  uint8_t body[FRAME_REFUSAL_MAX];
  l->shut = true;
  int rc = writer_frame(l, FRAME_BYE, body, frame_refusal_put(body, name, text, strlen(text)));
  if (rc == 0) rc = world_stream_shutdown(l->stream);
  if (rc < 0) link_lose(l, rc, text, true);
}

void greeting_refuse(struct link *l, int code, const char *name, const char *text) {
  struct net *n = l->net;
  struct net_peer *p = l->peer;
  if (l->greeted) n->counts.connections_lost++;
  else if (l->dialled) n->counts.dials_failed++;
  l->peer = NULL;
  l->state = LINK_DRAINING;
  link_uncount(l);
  net_set_timer(n, &l->timer, net_now(n) + n->options.linger_ms * UINT64_C(1000000));
  if (p) peer_lost(p, l, code, text, false);
  greeting_end(l, name, text);
}

__attribute__((format(printf, 2, 3))) static void refuse(struct link *l, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  l->net->counts.handshakes_refused++;
  greeting_refuse(l, ERR_REFUSED, "REFUSED", text);
}

static void on_hello(struct link *l, const uint8_t *body, size_t length) {
  struct net *n = l->net;
  struct net_peer *p = l->peer;
  struct frame_hello hello;
  if (l->state != LINK_HELLO) {
    link_bad(l, FRAME_FAULT_EARLY);
    return;
  }
  if (!frame_hello_get(body, length, &hello)) {
    link_bad(l, FRAME_FAULT_HELLO);
    return;
  }
  if (hello.major != FRAME_MAJOR) {
    refuse(l, "node \"%.60s\" speaks protocol %d, the other node %d", n->hello.node, FRAME_MAJOR, hello.major);
    return;
  }
  memcpy(p->node, hello.node, sizeof p->node);
  memcpy(p->role, hello.role, sizeof p->role);
  memcpy(p->dc, hello.dc, sizeof p->dc);
  memcpy(p->advertise, hello.advertise, sizeof p->advertise);
  if (strcmp(hello.cluster, n->hello.cluster) != 0) {
    refuse(l, "node \"%.60s\" is of cluster \"%.60s\", node \"%.60s\" of cluster \"%.60s\"", n->hello.node,
           n->hello.cluster, hello.node, hello.cluster);
    return;
  }
  int rc = l->dialled ? 0 : greeting_send(l);
  if (rc < 0) {
    link_fail(l, rc, "the greeting cannot be written: %s", error_text(rc));
    return;
  }
  l->state = LINK_UP;
  l->greeted = true;
  ring_remove(&l->ungreeted);
  if (!l->dialled) peer_heard(n, p->advertise, hello.life);
  peer_greeted(p, hello.life);
  p->keep = true;
  net_set_timer(n, &l->timer, net_now(n) + n->options.keepalive_ms * UINT64_C(1000000));
  p->flush = true;
  net_mark(p);
  net_peer_event(p, NET_UP, 0, "");
}

static void on_bye(struct link *l, const uint8_t *body, size_t length) {
  struct frame_refusal reason;
  if (!frame_refusal_get(body, length, &reason)) {
    link_bad(l, FRAME_FAULT_REFUSAL);
    return;
  }
  int known = error_from_name(reason.name), code = known < 0 ? known : ERR_REFUSED;
  if (l->state == LINK_HELLO) {
    l->net->counts.handshakes_refused++;
    link_fail(l, code, "refused: %.*s", (int)reason.text_length, (const char *)reason.text);
    return;
  }
  char text[FRAME_TEXT_MAX + 1];
  memcpy(text, reason.text, reason.text_length);
  text[reason.text_length] = 0;
  bool closed = code == ERR_CLOSED; /* An everyday end; any other name is reported with its reason. */
  link_lose(l, closed ? ERR_DISCONNECTED : code, text, closed);
}

void greeting_on_frame(struct link *l, const struct frame *f, const uint8_t *body) {
  struct frame_head pong = frame_head(FRAME_PONG, NET_CONTROL, FRAME_LINK, 0);
  switch (f->type) {
  case FRAME_HELLO: on_hello(l, body, f->length); return;
  case FRAME_BYE: on_bye(l, body, f->length); return;
  case FRAME_PONG: return;
  case FRAME_PING:
    if (l->state == LINK_HELLO) link_bad(l, FRAME_FAULT_EARLY);
    else if (l->state == LINK_UP) (void)peer_push(l->peer, NET_CONTROL, pong, NULL, 0, false); /* A full queue has closed the connection. */
    return;
  default: link_bad(l, FRAME_FAULT_LINK);
  }
}

