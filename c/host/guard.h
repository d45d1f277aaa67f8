/* guard: `shoal guard`, the process of world/guard.h. No Lua and no loop in it: it starts in a millisecond, and then waits. */
#ifndef SHOAL_HOST_GUARD_H
#define SHOAL_HOST_GUARD_H

/* Returns the exit status. Only an end of stdin, or want of memory, ends it. */
int guard_main(void);

#endif
