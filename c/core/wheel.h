/* wheel: many deadlines, each set and removed in constant time (hashed hierarchical timing wheel: Varghese and Lauck,
 * SOSP 1987; the placing by highest differing digit is after Tokio's).
 *
 * Time is cut into ticks of 2^20 ns (1.05 ms), a tick number into digits of 6 bits. A deadline stands at the level of the
 * highest digit in which it differs from now; when now reaches that slot, it moves to a lower level, or is due.
 * So a deadline is never early, and at most one tick late.
 * Pure state: no clock, no allocation. The owner embeds the entries. */
#ifndef SHOAL_WHEEL_H
#define SHOAL_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  WHEEL_TICK_BITS = 20, /* A tick is 2^20 ns. */
  WHEEL_DIGIT_BITS = 6,
  WHEEL_SLOTS = 1 << WHEEL_DIGIT_BITS,
  WHEEL_LEVELS = 8, /* Of 6 bits: more than the 44 that an instant in ticks can have. */
};

struct wheel_entry {
  struct wheel_entry *next, *previous; /* NULL while it stands in no wheel. */
  uint64_t tick;
  uint8_t level, slot;
  uint8_t kind; /* The owner's object in which the entry is embedded. */
};

struct wheel {
  uint64_t now; /* The tick up to which all due entries were taken. */
  uint64_t used[WHEEL_LEVELS]; /* Which slots have entries. */
  struct wheel_entry slots[WHEEL_LEVELS][WHEEL_SLOTS]; /* Heads of rings. */
  struct wheel_entry due; /* The ring of due entries. */
};

void wheel_init(struct wheel *w, uint64_t now_ns);

/* Set the entry's deadline, moving it when it was set already. Returns the instant at which the wheel must be asked
 * next because of it, which may lie before the deadline. */
uint64_t wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t deadline_ns);

void wheel_remove(struct wheel *w, struct wheel_entry *e); /* Remove the entry; does nothing when it is not set. */
static inline bool wheel_has(const struct wheel_entry *e) { return e->next != NULL; }

/* The next entry whose deadline has come, removed; NULL when there is none now. Ask until NULL. */
struct wheel_entry *wheel_pop(struct wheel *w, uint64_t now_ns);

/* When to call wheel_pop next; UINT64_MAX when nothing is set. */
uint64_t wheel_next_ns(const struct wheel *w);

#endif
