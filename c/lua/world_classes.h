/* world_classes: the things that a world can open, one file each. Each function makes the class and adds the world's methods that open
 * it to the table on top of the stack. world.c calls them once a state. They raise (memory). */
#ifndef SHOAL_LUA_WORLD_CLASSES_H
#define SHOAL_LUA_WORLD_CLASSES_H

#include <lua.h>

void lua_world_stream(lua_State *L);  /* connect, listen, stdio */
void lua_world_timer(lua_State *L);   /* timer */
void lua_world_udp(lua_State *L);     /* udp */
void lua_world_lookup(lua_State *L);  /* resolve */
void lua_world_log(lua_State *L);     /* log */
void lua_world_put(lua_State *L);     /* put_later, lock */
void lua_world_process(lua_State *L); /* spawn */

#endif
