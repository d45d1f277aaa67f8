/* watch_place: where the loop's thread stands. The watching thread asks, PLACE_SIGNAL is sent to the loop's thread, and its handler, or
 * the hook that the handler sets, answers. See watch.h. */
#ifndef SHOAL_WATCH_PLACE_H
#define SHOAL_WATCH_PLACE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define PLACE_SIGNAL SIGURG /* By default it does nothing, so one that comes after the end harms nobody. */

struct place {
  char site[96];      /* The innermost that is known. */
  char at[256];       /* SOURCE:LINE of Lua that runs, or that called the C function; "outside of Lua". */
  char function[96];  /* The C function that runs. */
  char within[256];   /* SOURCE:LINE of the operator's function, when `at` is the library's. */
};

enum place_request { PLACE_NONE, PLACE_HOOK, PLACE_LOOK, PLACE_INTERRUPT };

int place_open(void); /* Installs the handler. */
/* ---- the watching thread ---- */
void place_ask(enum place_request request);        /* PLACE_HOOK or PLACE_LOOK: answer at the next instruction of Lua, or at once. */
void place_interrupt(int times, uint64_t stood_ms); /* Raise at so many instructions of Lua in a row. */
bool place_ready(void);
void place_take(struct place *out); /* After place_ready(). */
/* ---- the loop's thread ---- */
void place_over(void);              /* The loop turns: whatever was asked for is over. */
void place_last(struct place *out); /* Takes the place that was found last. */

#endif
