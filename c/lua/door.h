/* door: the one protected call from C into Lua.
 *
 * Every entry from C into Lua names a site. A Lua error never crosses into C: it becomes one incident (through shoal.errors
 * when that is loaded, else as a line on stderr), it is counted, and the call returns false. lua_pcall and lua_resume stand in
 * door.c and nowhere else.
 *
 * lua/shoal/base/errors.lua keeps `raised = reported + suppressed + handled`. It adds the incidents that C reported by itself,
 * because that module was missing or failed, as site "door.sink". */
#ifndef SHOAL_DOOR_H
#define SHOAL_DOOR_H

#include <lua.h>
#include <stdbool.h>

/* The state's main thread: callbacks from the world run on it, for the coroutine that opened a thing may be dead. */
lua_State *door_main(lua_State *L);

/* Arguments are pushed under protection, for that can fail too: `push` pushes the function and its arguments and
 * returns the number of arguments; `take` (may be NULL) reads `results` results from the top of the stack, also protected.
 * Returns true when all of it ran. The stack is unchanged afterwards. */
typedef int door_push_fn(lua_State *L, void *data);
typedef void door_take_fn(lua_State *L, void *data);
bool door_call(lua_State *L, const char *site, door_push_fn *push, int results, door_take_fn *take, void *data);

/* The same for a function that is already on the stack under its `arguments`, as luv calls back. Pops both. Returns the number
 * of results pushed, or -1 with no results when it failed; the incident is made. */
int door_call_stacked(lua_State *L, const char *site, int arguments, int results);

/* Make an incident of a failure that C itself found, without a Lua error. Never raises. */
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

/* Set the sink of lines that C writes by itself; stderr until set. The line has no newline. Never raises. */
typedef void door_line_fn(void *data, const char *line);
void door_set_lines(lua_State *L, door_line_fn *write, void *data);

/* For Lua: require "shoal.core.door". Lua's own protected calls stand in lua/shoal/base/errors.lua; this module joins the two.
 *   sink(fn)      C reports to fn(site, error value, traceback) from now on; nil removes it
 *   xpcall(site, fn, handler, ...), resume(site, co, ...)   as Lua's own, with the site for door_now(): for errors.lua alone
 *   caught(fn, handler, ...), body(fn), threads()   for bounded code (base/budget.lua, sim/tried.lua): xpcall, whose handler does not see a
 *                        hook's own error; fn for a coroutine, closing its variables within the budget; a coroutine library of those
 *   caller(records, find, failed)   makes errors.call: xpcall with the site's record found, and its failure handed on
 *   line(site, message)   writes the line of an incident that Lua has counted and has no memory to tell; it allocates nothing
 *   trace(co or nil, level)   as debug.traceback, in short time on a deep stack too: then the innermost levels only
 *   incidents()   the number that C reported by itself, because there was no sink or the sink failed */
int luaopen_shoal_core_door(lua_State *L);

#endif
