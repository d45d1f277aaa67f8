/* event: call the Lua function of an open thing. For bindings whose handle has one or two functions, each called with a few
 * values. The functions are the user values from LUA_EVENT_FUNCTION on. */
#ifndef SHOAL_LUA_EVENT_H
#define SHOAL_LUA_EVENT_H

#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#include "lua/handle.h"

enum { LUA_EVENT_FUNCTION = 2 };

struct lua_event {
  struct lua_handle *handle;
  int value; /* The user value with the function. */
  /* Push the arguments and return their number. The handle is on top: use it as the first argument, or pop it. */
  int (*push)(lua_State *L, struct lua_event *e);
  int status;
  const void *bytes;
  size_t length; /* Of bytes, or a count. */
  const struct shoal_address *address;
  int64_t number;
};

/* Call the function through the door, unless the state has gone or the handle is closing. */
void lua_event_fire(const char *site, struct lua_event *e);

/* Push "what: text", "CODE" as arguments; returns 2. */
int lua_event_error(lua_State *L, const char *what, int code);

/* The function at `index` becomes user value `value` of the userdata on top. Without one, an error becomes an incident. */
void lua_event_function(lua_State *L, int index, int value);

/* The world's closed event of a handle. */
void lua_event_closed(void *data);

/* Opening failed with nothing left in the world: unpin, and return nil, message, code. */
int lua_event_refused(lua_State *L, struct lua_handle *h, const char *what, int code);

#endif
