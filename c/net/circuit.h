/* circuit: what a peer's answers and failures do to its breaker and its backoff.
 *
 * Control messages pass whatever the circuit says: a cancel must reach a peer exactly when it is too slow for the rest. Their
 * answers close it. So does another process at the peer's address: the failures were those of the one before. */
#ifndef SHOAL_NET_CIRCUIT_H
#define SHOAL_NET_CIRCUIT_H

#include "net/request.h"

void peer_failed(struct net_peer *p, bool trial);
void peer_answered(struct net_peer *p, const struct request *r); /* Also resets the backoff. Not called while the peer is calm. */
void peer_on_circuit(struct net_peer *p);           /* The circuit's timer. */
void peer_greeted(struct net_peer *p, uint64_t life); /* The life that the other side's hello carried. */
/* A node that says it listens at this address connected to us: if we hold a circuit or a wait against it, try it now. */
void peer_heard(struct net *n, const char *advertise, uint64_t life);

#endif
