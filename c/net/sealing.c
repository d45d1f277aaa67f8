#include "net/sealing.h"

const char *sealing_refusal(struct shoal_world *world, const struct shoal_address *bind) {
  if (address_is_loopback(bind) || world_is_simulated(world)) return NULL;
  return "this node has no keys, and without keys whoever reaches its port could command it: bind to 127.0.0.1 or ::1";
}
