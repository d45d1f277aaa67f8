/* watch: a thread that notices when the loop of this process does not turn, and reports where it stands.
 *
 *           no turn for 2 s                          hang_ms, then each second
 *   CALM ---------------------> STANDING: reported ---------------------------> the callback is interrupted, where Lua allows it
 *        <---------------------          (again after 10 s, 60 s, and each 60 s)
 *               a turn
 *
 * A loop that waits for events turns when the thread pings it, so only one that stands in a callback does not. A thread that itself was
 * not run in time (a suspended machine, SIGSTOP, a debugger) starts its count anew.
 *
 * Where it stands: a signal to the loop's thread sets a hook on the coroutine that runs (lua_sethook may be called from a signal's
 * handler, not from another thread, for which that coroutine could end meanwhile). The hook runs at the next instruction of Lua and
 * notes its line. When no hook runs within 500 ms a C function does: then the handler itself reads its name and the line of its call,
 * which nothing changes while that function runs.
 *
 * Only code with an operator's function on its stack is interrupted: not from lua/shoal. After hang_ms the hook raises an error
 * there, which passes through the door as any other. Code that catches it is interrupted again each second, the nth time at n
 * instructions in a row, so that n protected calls within each other do not keep it.
 *
 * Signals: a second SIGTERM or SIGINT ends the process when the loop has not turned for 500 ms since the first.
 *
 * One per process: signals are the process's. Lines are written without a lock or memory that the loop's thread could hold. */
#ifndef SHOAL_WATCH_H
#define SHOAL_WATCH_H

#include <stdint.h>
#include <uv.h>

#include "world/world.h"

enum {
  WATCH_STANDING_MS = 2000, /* So long without a turn is reported. */
  WATCH_INSIST_MS = 500,    /* So long after the first signal the second one ends the process. */
};

struct watch_options {
  uv_loop_t *loop;
  void *handle_data; /* For the data of our handles. */
  struct shoal_world *world;
  /* The loop turns again after it was reported: once, on its thread, not from inside Lua. */
  void (*on_turning)(void *data, const char *text);
  void *data;
};

/* Begin to watch the loop of the calling thread, or change what is said in reports. 0, or a code with nothing begun. */
int watch_open(const struct watch_options *options);
/* node: in each line. log: the file that gets them, beside stderr; "" for none. hang_ms: 0 interrupts nothing. */
void watch_set(const char *node, const char *log, uint32_t hang_ms);
/* End the thread and close our handles; the loop must run once more. Harmless when it was never opened. */
void watch_close(void);

#endif
