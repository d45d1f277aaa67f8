#include "net/circuit.h"

#include "net/peer.h"
#include "net/turn.h"

void peer_heard(struct net *n, const char *advertise) {
  struct shoal_address address;
  if (address_parse(advertise, strlen(advertise), &address) < 0) return; /* It listens nowhere, or says nonsense. */
  for (uint32_t i = 0; i < n->peers_count; i++) {
    struct net_peer *p = n->peers[i];
    if (!p || !p->dialled || p->closing || p->link || !address_equal(&p->address, &address)) continue;
    breaker_heard(&p->breaker);
    if (wheel_has(&p->redial)) net_set_timer(n, &p->redial, net_now(n));
    net_mark(p);
  }
}

void peer_failed(struct net_peer *p, bool trial) {
  struct net *n = p->net;
  p->calm = false;
  breaker_failure(&p->breaker, net_now(n), trial);
  if (p->breaker.status == p->circuit_told) return;
  if (p->breaker.status == BREAKER_OPEN) net_set_timer(n, &p->circuit, breaker_deadline(&p->breaker));
  net_mark(p);
}

void peer_answered(struct net_peer *p, bool trial) {
  breaker_success(&p->breaker, trial);
  if (p->breaker.status != p->circuit_told) net_mark(p);
  backoff_reset(&p->backoff);
  p->calm = !p->closing && p->breaker.status == BREAKER_CLOSED && p->breaker.count == 0;
}

void peer_on_circuit(struct net_peer *p) {
  if (breaker_state(&p->breaker, net_now(p->net)) != p->circuit_told) net_mark(p);
}

