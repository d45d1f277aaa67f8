#include "net/circuit.h"

#include "net/peer.h"
#include "net/turn.h"

void peer_failed(struct net_peer *p, bool trial) {
  struct net *n = p->net;
  p->calm = false;
  breaker_failure(&p->breaker, net_now(n), trial);
  if (p->breaker.status == p->circuit_told) return;
  if (p->breaker.status == BREAKER_OPEN) net_set_timer(n, &p->circuit, breaker_deadline(&p->breaker));
  net_mark(p);
}

/* From here on no outstanding request decides about the circuit. */
static void close_circuit(struct net_peer *p) {
  breaker_close(&p->breaker);
  for (struct request *r = p->outstanding.next; r != &p->outstanding; r = r->next) r->trial = r->passed = false;
}

void peer_answered(struct net_peer *p, const struct request *r) {
  if (r->passed) close_circuit(p);
  else breaker_success(&p->breaker, r->trial);
  if (p->breaker.status != p->circuit_told) net_mark(p);
  backoff_reset(&p->backoff);
  p->calm = !p->closing && p->breaker.status == BREAKER_CLOSED && p->breaker.count == 0;
}

void peer_on_circuit(struct net_peer *p) {
  if (breaker_state(&p->breaker, net_now(p->net)) != p->circuit_told) net_mark(p);
}

/* Whether it is another life than the last one. Each is remembered, so that one life changes this once. */
static bool begins_life(struct net_peer *p, uint64_t life) {
  if (life == 0 || life == p->life) return false;
  p->life = life;
  close_circuit(p);
  backoff_reset(&p->backoff);
  if (p->breaker.status != p->circuit_told) net_mark(p);
  return true;
}

void peer_greeted(struct net_peer *p, uint64_t life) {
  (void)begins_life(p, life); /* It is connected already: there is nothing to dial. */
}

void peer_heard(struct net *n, const char *advertise, uint64_t life) {
  struct shoal_address address;
  if (address_parse(advertise, strlen(advertise), &address) < 0) return; /* It listens nowhere, or the text is no address. */
  for (uint32_t i = 0; i < n->peers_count; i++) {
    struct net_peer *p = n->peers[i];
    if (!p || !p->dialled || p->closing || p->link || !address_equal(&p->address, &address)) continue;
    if (!begins_life(p, life)) breaker_heard(&p->breaker);
    peer_redial_by(p, net_now(n));
    net_mark(p);
  }
}
