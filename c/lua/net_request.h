/* net_request: requests and one-way messages of peers, as Lua gets and answers them. */
#ifndef SHOAL_LUA_NET_REQUEST_H
#define SHOAL_LUA_NET_REQUEST_H

#include "lua/net_events.h"

void net_on_request(void *data, struct net_peer *peer, const struct net_request *request, const uint8_t *bytes, size_t length);
int net_l_reply(lua_State *L);  /* net:reply(request, bytes) */
int net_l_refuse(lua_State *L); /* net:refuse(request, code, message) */
void net_request_class(lua_State *L);
void net_push_request_class(lua_State *L); /* The metatable. */

#endif
