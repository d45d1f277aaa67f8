#ifndef SHOAL_LUA_SWIM_PREDICT_H
#define SHOAL_LUA_SWIM_PREDICT_H

#include <lua.h>

/* core.predict({ n, crashes, rest_s, seed, latency_ms, jitter_ms, loss, config = {} }) -> answer | nil, message, code */
int swim_l_predict(lua_State *L);

#endif
