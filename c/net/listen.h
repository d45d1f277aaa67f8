/* listen: accepting connections, up to connections_max.
 *
 * One past it, the connection that has been silent longest since it was accepted makes room, if that is LISTEN_GREETING_MS or more.
 * Else the newcomer gets a BYE with FULL and the time after which to try again; at most LISTEN_GOODBYES_MAX of these are under way,
 * any more are closed without one. All are counted. */
#ifndef SHOAL_NET_LISTEN_H
#define SHOAL_NET_LISTEN_H

#include "net/net.h"

enum { LISTEN_GREETING_MS = 1000, LISTEN_GOODBYES_MAX = 64, LISTEN_RETRY_MS = 1000 };

struct listening {
  struct net *net;
  struct world_listener *listener;
  struct listening *next;
  bool closing;
};

#endif
