/* net_options: the transport's tables: options in, counts and info out. */
#ifndef SHOAL_LUA_NET_OPTIONS_H
#define SHOAL_LUA_NET_OPTIONS_H

#include <lua.h>

#include "net/net.h"

/* Read the table at `index`. Raises on a value of a wrong type or out of range. Its strings stay the table's. */
void net_check_options(lua_State *L, int index, struct net_options *out);

/* Push one table. Raises (memory). */
void net_push_counts(lua_State *L, const struct net_counts *counts);
void net_push_info(lua_State *L, struct net_peer *peer);

#endif
