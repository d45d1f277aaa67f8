/* lua_world: a Lua state and its world. */
#ifndef SHOAL_LUA_WORLD_H
#define SHOAL_LUA_WORLD_H

#include <lauxlib.h>
#include <lua.h>

#include "world/world.h"

/* The argument's world; raises when it is none, or its world is gone. */
struct shoal_world *lua_check_world(lua_State *L, int index);

/* Push the userdata of a world, the same one each time. Raises (memory). */
void lua_push_world(lua_State *L, struct shoal_world *world);

/* The world is gone: its userdata raises from now on. Everything open in it was closed or abandoned before. */
void lua_forget_world(lua_State *L, struct shoal_world *world);

/* Set the result of require "shoal.core.world".current() in this state. */
void lua_set_current_world(lua_State *L, struct shoal_world *world);

/* Set the hook that makes the current world of a state without one (stock lua5.4). It may raise. */
typedef struct shoal_world *lua_make_world_fn(lua_State *L);
void lua_on_missing_world(lua_make_world_fn *make);

int luaopen_shoal_core_world(lua_State *L);

/* The argument's stream; raises when it is none, or closed. */
struct world_stream *lua_check_stream(lua_State *L, int index);
/* process:stream(fd): pushes the stream, or nil when there is none; returns 1. Raises with nothing taken. */
int lua_push_process_stream(lua_State *L, int world_index, struct world_process *process, int fd);
/* "ip:port" at `index`, or false with `nil, message, code` pushed. Raises when it is no string. */
bool lua_check_address(lua_State *L, int index, const char *what, struct shoal_address *out);
void lua_push_address(lua_State *L, const struct shoal_address *address);

#endif
