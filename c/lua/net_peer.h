/* net_peer: peers as Lua has them: asking, sending, and the callbacks of both.
 *
 * A callback is put in its place before the transport accepts the request, so that a lack of memory refuses the request and never
 * loses the callback; and an answer that Lua has no memory for ends its callback with MEMORY. */
#ifndef SHOAL_LUA_NET_PEER_H
#define SHOAL_LUA_NET_PEER_H

#include "lua/net_events.h"

extern const struct lua_handle_type net_handle_type; /* net.c's. */

struct lua_peer {
  struct net_peer *peer; /* NULL once it is gone. */
  bool closed;
};

void net_push_peer(lua_State *L, int self, struct net_peer *peer); /* Its userdata; the net's lies at `self`. */
void net_peer_class(lua_State *L);
/* Make a metatable with these methods under __index; once for each state. */
void net_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

#endif
