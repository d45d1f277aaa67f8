/* handle: shared by all bindings of things that are open in the world: a userdata, the struct behind it, and the rules by which
 * they are freed.
 *
 *   NEW ---lua_handle_pin---> OPEN ---lua_handle_close---> CLOSING ---lua_handle_closed---> CLOSED
 *
 * The struct is malloc'ed and begins with a struct lua_handle; the userdata holds a pointer to it. While OPEN or CLOSING
 * the world may call us, so the userdata is pinned in the registry. The struct is freed when both Lua (by __gc) and the
 * world (by its closed event) have released it, in either order, so that neither ever holds a dangling pointer.
 *
 * Values a handle needs (its functions) are user values of the userdata, from 2 on; 1 is the world's userdata. */
#ifndef SHOAL_LUA_HANDLE_H
#define SHOAL_LUA_HANDLE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world/world.h"

struct lua_handle;

struct lua_handle_type {
  const char *name; /* The metatable's name, "shoal.timer"; __tostring shows what follows the last dot. */
  /* Ask the world to close it; the world's closed event must call lua_handle_closed. Called once, may run outside of Lua. */
  void (*close)(struct lua_handle *h);
  /* The world is gone without a closed event (a simulated crash): free everything inside, call nobody. May be NULL. */
  void (*abandon)(struct lua_handle *h);
};

struct lua_handle {
  const struct lua_handle_type *type;
  lua_State *L; /* The main thread; NULL once the state has been closed. Callbacks must check. */
  struct shoal_world *world;
  struct lua_handle *next, *previous; /* The ring of handles of this state that are OPEN or CLOSING. */
  uint64_t number;                    /* Of this state, for __tostring: addresses would differ from run to run. */
  bool open, closing;
};

/* Make the metatable: methods under __index, and __gc, __close, __tostring. Once per type and state. */
void lua_handle_type(lua_State *L, const struct lua_handle_type *type, const luaL_Reg *methods);

/* A new handle of `size` zeroed bytes with `values` user values beside the world's; pushes its userdata. Raises. */
void *lua_handle_new(lua_State *L, const struct lua_handle_type *type, int world_index, size_t size, int values);

/* The world may call from now on. The userdata lies at `index`. Raises only before anything changed. */
void lua_handle_pin(lua_State *L, struct lua_handle *h, int index);
/* Opening failed half-way with nothing left in the world: undo lua_handle_pin. */
void lua_handle_unpin(struct lua_handle *h);
/* Close: idempotent, callable from anywhere. Nothing else calls type->close for an open handle. */
void lua_handle_close(struct lua_handle *h);
/* The world's closed event, its last one: unpin, and free if Lua has already released it. h may be gone afterwards. */
void lua_handle_closed(struct lua_handle *h);

/* The argument's handle; raises when it is of another type. With `usable`, also when it was closed. */
void *lua_handle_check(lua_State *L, int index, const struct lua_handle_type *type, bool usable);

/* Push the userdata of an OPEN or CLOSING handle. For use within door_call's push. */
void lua_handle_push(lua_State *L, struct lua_handle *h);
/* Push a user value of the userdata at `index` (from 2 on), or keep the value on top there. Returns its type. */
int lua_handle_value(lua_State *L, int index, int value);

/* Close everything that this state has open in this world, or abandon it after a crash. */
void lua_handle_close_all(lua_State *L, struct shoal_world *world);
void lua_handle_abandon_all(lua_State *L, struct shoal_world *world);
/* The number of handles OPEN or CLOSING in this world (NULL: in any). Calls `on_name`, if given, with each one's text. */
size_t lua_handle_count(lua_State *L, struct shoal_world *world, void (*on_name)(void *data, const char *name), void *data);

#endif
