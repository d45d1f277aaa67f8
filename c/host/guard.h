/* guard: `shoal guard`, the process of world/guard.h. No Lua and no loop in it: it starts in a millisecond, and then waits. */
#ifndef SHOAL_HOST_GUARD_H
#define SHOAL_HOST_GUARD_H

/* `word`: what its children have as their mark (world/guard.h), "" for none. Returns the exit status. Only an end of stdin, or want of memory, ends it. */
int guard_main(const char *word);

#endif
