/* chunks: where `require` finds a compiled module: in the program itself (bundle.h), or in a cache of an owner of many states, so that each
 * source is parsed once. A module that was read stays unchanged as long as the cache lives. */
#ifndef SHOAL_HOST_CHUNKS_H
#define SHOAL_HOST_CHUNKS_H

#include <lua.h>
#include <stddef.h>

struct chunk {
  struct chunk *next;
  char *path, *bytes;
  size_t length, room;
};
struct chunks {
  struct chunk *first;
};

/* Make require in this state look into the cache first, or without one (NULL) into the program for what lies in home's lua/. The cache
 * outlives the state. Raises. */
void chunks_use(lua_State *L, struct chunks *c, const char *home);
void chunks_free(struct chunks *c);

#endif
