#ifndef SHOAL_LUA_SWIM_REPLAY_H
#define SHOAL_LUA_SWIM_REPLAY_H

#include <lua.h>

/* core.replay(bytes, { until_ms = n | nil, why = { name, ... } | nil }) -> result | nil, message, code */
int swim_l_replay(lua_State *L);

#endif
