/* door: the one protected call from C into Lua.
 *
 * Every entry from C into Lua names a site. An error on the other side never crosses into C: it becomes one incident
 * (through shoal.errors, when that is loaded; else the built-in fallback: a line on stderr), it is counted, and the
 * caller is told. lua_pcall and lua_resume stand in door.c and nowhere else.
 *
 * The fallback counts too: `raised = reported + suppressed + handled` is kept by lua/shoal/base/errors.lua; what C had to
 * report by itself because that module was missing or failed is added as site "door.sink". */
#ifndef SHOAL_DOOR_H
#define SHOAL_DOOR_H

#include <lua.h>
#include <stdbool.h>

/* The state's main thread: callbacks from the world run on it, for the coroutine that opened a thing may be dead. */
lua_State *door_main(lua_State *L);

/* Arguments are pushed inside the protection, for pushing can fail too: `push` pushes the function and its arguments and
 * returns the number of arguments; `take` (may be NULL) reads `results` results from the top of the stack, also protected.
 * Returns true when all of it ran. The stack is left as it was found. */
typedef int door_push_fn(lua_State *L, void *data);
typedef void door_take_fn(lua_State *L, void *data);
bool door_call(lua_State *L, const char *site, door_push_fn *push, int results, door_take_fn *take, void *data);

/* The same for a function that already lies on the stack under its `arguments` (how luv calls back). All of it is
 * popped. Returns the number of results it left, or -1 when it failed: then the incident is made and nothing is left. */
int door_call_stacked(lua_State *L, const char *site, int arguments, int results);

/* A failure C itself found, with no Lua error behind it: make it an incident. Never raises. */
void door_report(lua_State *L, const char *site, const char *message);

/* ---- what runs now: for a watchdog that finds the loop standing ---- */

/* One call from C into Lua, or one resume, that is going on. The innermost is door_now(): of this thread, so that a signal's handler on
 * it finds it; two stores a call. */
struct door_frame {
  lua_State *L;     /* The state or coroutine whose code runs. */
  const char *site; /* The innermost site in it that is known; NULL: none. Valid while the frame is. */
  struct door_frame *up;
};
const struct door_frame *door_now(void); /* NULL: no Lua runs. */

/* Let coroutine.resume and coroutine.wrap of this state keep door_now(); they are Lua's own in all else. Raises (memory). */
void door_adopt_coroutines(lua_State *L);

/* Where the lines go that C has to write by itself; stderr until set. The line has no newline. Never raises. */
typedef void door_line_fn(void *data, const char *line);
void door_set_lines(lua_State *L, door_line_fn *write, void *data);

/* For Lua: require "shoal.core.door". Lua's own protected calls stand in lua/shoal/base/errors.lua; this is what joins the two.
 *   sink(fn)      set what C reports to: fn(site, error value, traceback); nil takes it away
 *   xpcall(site, fn, handler, ...), resume(site, co, ...)   as Lua's own, with the site for door_now(): for errors.lua alone
 *   incidents()   how many C had to report by itself, because there was no sink or the sink failed */
int luaopen_shoal_core_door(lua_State *L);

#endif
