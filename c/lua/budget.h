/* budget: bounds for code that an operator gives to a living process: a line of the REPL, a file that is checked.
 *
 *            enter                    a limit is passed
 *   IDLE ------------> RUNNING ----------------------------> OVER: it raises at each further step of the operator's code
 *        <------------         <----------------------------
 *            leave                        leave
 *
 * Steps and time: a count hook looks each LOOK_STEPS instructions. A coroutine that hooked code makes inherits the hook (lua_newthread),
 * one that it resumes gets it (door.c), so coroutines of an earlier line are bounded too. Once it is over, code of lua/shoal is left
 * alone, so that it can put things in order; before that, code of lua/shoal gets GRACE times the limit.
 *
 * Memory: an allocator around the state's own refuses what would make the state larger by more than `bytes` since `new`: Lua raises "not
 * enough memory" there, out of C functions too.
 *
 * Neither reaches a finalizer (Lua runs no hook in one) or a C function that computes without allocating: base/budget.lua gives
 * libraries without either. Nor does it reach what an error out of the hook itself calls: message handlers, and the to-be-closed
 * variables of a coroutine that ends with it. `caught`, `body` and `threads` of door.h are without those.
 *
 * shoal.core.budget
 *   new(world, { steps, ms, bytes }) -> budget
 *   budget:enter()        its code runs from now on, with all its steps and time; budgets nest
 *   budget:leave()        of the budget that was entered last
 *   budget:watch(co?)     set the hook on co, or on the running coroutine; false when that has another hook
 *   budget:unwatch(co?)   remove it
 *   budget:over() -> nil | "steps" | "ms" | "bytes"    since enter */
#ifndef SHOAL_BUDGET_H
#define SHOAL_BUDGET_H

#include <lua.h>
#include <stdbool.h>

/* `to` is about to be resumed by `from`: if that is bounded, so is `to`. */
void budget_pass(lua_State *from, lua_State *to);
/* A limit was passed, and the hook raised here or will at the next step. */
bool budget_raised(lua_State *L);

#endif
