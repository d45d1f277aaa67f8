/* host: what the files of this room share, and the modules it adds to those of c/lua. */
#ifndef SHOAL_HOST_H
#define SHOAL_HOST_H

#include <lauxlib.h>
#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#define HOST_MODULE __attribute__((visibility("default"))) int

/* exit(code), argv, home(), version(), on_signal(name, fn), simulated(), program(), log_sink(line) */
HOST_MODULE luaopen_shoal_core_node(lua_State *L);
/* adopt(): errors in luv's callbacks become incidents, as the host does by itself; release(): luv's own policy again. */
HOST_MODULE luaopen_shoal_core_luv(lua_State *L);
/* The simulator's driver; see sim.c. */
HOST_MODULE luaopen_shoal_core_sim(lua_State *L);

/* Put these and those of c/lua into package.preload. Raises. */
void host_preload(lua_State *L);

/* The folder that holds lua/ and scripts/: $SHOAL_HOME, else share/shoal beside where we are installed, else the source
 * tree we were built from. */
void host_home(char *out, size_t size);

/* The path of the shoal program: this executable, or bin/shoal of the tree from which shoal.so was loaded. */
void host_program(char *out, size_t size);

/* 64 random bits from the system. */
uint64_t host_seed(void);

/* luv's protected call, through the door. */
void host_adopt_luv(lua_State *L);

/* Make a fresh state that of a node: time and chance come from the world. With `simulated`, order does too, and functions that
 * bypass the world raise. Raises. See sandbox.c. */
void host_sandbox(lua_State *L, int simulated);

#endif
