/* lease_wheel: which table entries to look at when; for a million entries, of which most are looked at once in a lifetime.
 *
 * A hashed hierarchical timing wheel (Varghese and Lauck, SOSP 1987) of entry numbers. Time is cut into ticks of 2^21 ns (2.1 ms), a
 * tick number into digits of 6 bits; a number stands at the level of the highest digit in which its tick differs from now. Unlike
 * core/wheel.h, a slot is a list of arrays of (number, tick), not a ring through the entries: a number moves down the levels without
 * its entry being read, and the owner can prefetch those that are due. Nothing is ever removed; the owner writes down, for each entry, the
 * tick that lease_wheel_place() returned, and ignores a number that is taken at another tick. The owner calls lease_wheel_clear() and
 * places its entries anew when too many are to be ignored.
 *
 * Memory: 8.3 bytes a number placed, and at most 512 chunks of 256 bytes. A slot of a higher level moves down at once: some 5 ns a
 * number. Zeroed memory is an empty wheel at time 0. */
#ifndef SHOAL_LEASE_WHEEL_H
#define SHOAL_LEASE_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  LEASE_WHEEL_TICK_BITS = 21,
  LEASE_WHEEL_LEVELS = 8, /* Of 6 bits: more than the 43 that an instant in ticks can have. */
  LEASE_WHEEL_SLOTS = 64,
  LEASE_WHEEL_CHUNK = 31, /* Numbers in a chunk. */
};

struct lease_wheel_chunk {
  uint32_t next; /* Chunk number + 1; 0: none. */
  uint32_t count;
  struct lease_wheel_placed {
    uint32_t number;
    uint32_t tick; /* Its low bits: within 2^31 ticks (52 days) of now. */
  } placed[LEASE_WHEEL_CHUNK];
};

struct lease_wheel {
  uint64_t now;                                           /* The tick up to which everything was taken. */
  uint64_t used[LEASE_WHEEL_LEVELS];                      /* Which slots have numbers. */
  uint32_t slots[LEASE_WHEEL_LEVELS][LEASE_WHEEL_SLOTS];  /* First chunk + 1. Only a slot's first chunk may be part-full. */
  uint32_t taking;                                        /* The slot of level 0 being taken: its first chunk + 1. */
  uint64_t count;                                         /* Numbers placed and not taken. */
  struct lease_wheel_chunk **slabs;
  uint32_t slabs_count, chunks_free, free; /* `free`: first free chunk + 1. */
};

void lease_wheel_free(struct lease_wheel *w);
/* Make room so that `count` numbers in all can be placed. Returns 0 or ERR_MEMORY. */
int lease_wheel_reserve(struct lease_wheel *w, uint64_t count);
/* Place a number so that it is taken at at_ns, or up to a tick later. Returns the low 32 bits of that tick. Room was reserved. */
uint32_t lease_wheel_place(struct lease_wheel *w, uint32_t number, uint64_t at_ns);
/* Take up to `max` numbers of one slot that is due; all of one call have the same *tick. Returns 0 when nothing is due. */
uint32_t lease_wheel_take(struct lease_wheel *w, uint64_t now_ns, uint32_t *numbers, uint32_t max, uint32_t *tick);
/* When to call lease_wheel_take next; UINT64_MAX when nothing is placed. */
uint64_t lease_wheel_next_ns(const struct lease_wheel *w);
/* Forget all numbers; memory and time are kept. */
void lease_wheel_clear(struct lease_wheel *w);
size_t lease_wheel_bytes(const struct lease_wheel *w);

#endif
