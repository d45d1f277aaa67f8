/* listen: accepting connections. */
#ifndef SHOAL_NET_LISTEN_H
#define SHOAL_NET_LISTEN_H

#include "net/net.h"

struct listening {
  struct net *net;
  struct world_listener *listener;
  struct listening *next;
  bool closing;
};

#endif
