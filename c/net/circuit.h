/* circuit: what a peer's answers and failures do to its breaker and its backoff. */
#ifndef SHOAL_NET_CIRCUIT_H
#define SHOAL_NET_CIRCUIT_H

#include "net/net.h"

void peer_failed(struct net_peer *p, bool trial);
void peer_answered(struct net_peer *p, bool trial); /* Also resets the backoff. Not called while the peer is calm. */
void peer_on_circuit(struct net_peer *p);           /* The circuit's timer. */
/* A node that listens at this address connected to us: if we hold a circuit or a wait against it, try it now. */
void peer_heard(struct net *n, const char *advertise);

#endif
