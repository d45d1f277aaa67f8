/* sealing: what may be bound without keys. One rule for streams and datagrams. */
#ifndef SHOAL_NET_SEALING_H
#define SHOAL_NET_SEALING_H

#include "core/address.h"
#include "world/world.h"

/* NULL when a node without keys may listen at this address: loopback, or anything in a simulated world, which has no outside. Else
 * why not, in words. */
const char *sealing_refusal(struct shoal_world *world, const struct shoal_address *bind);

#endif
