/* lease_wheel: which table entries to look at when; for a million entries, of which most are looked at once in a lifetime.
 *
 * A hashed hierarchical timing wheel (Varghese and Lauck, SOSP 1987) of entry numbers. Time is cut into ticks of 2^22 ns (4.2 ms), a
 * tick number into digits of 6 bits; a number stands at the level of the highest digit in which its tick differs from now. Unlike
 * core/wheel.h, a slot is a list of arrays, not a ring through the entries: reading it touches no entry, so that the owner can prefetch
 * them. Nothing is ever removed; the owner writes down, for each entry, the tick that lease_wheel_place() returned, and ignores a number
 * that is taken at another tick. The owner calls lease_wheel_clear() and places its entries anew when too many are to be ignored.
 *
 * Memory: 4.1 bytes a number placed, and at most 448 chunks of 256 bytes. Zeroed memory is an empty wheel at time 0. */
#ifndef SHOAL_LEASE_WHEEL_H
#define SHOAL_LEASE_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  LEASE_WHEEL_TICK_BITS = 22,
  LEASE_WHEEL_LEVELS = 7, /* Of 6 bits: the 42 bits that an instant in ticks can have. */
  LEASE_WHEEL_SLOTS = 64,
  LEASE_WHEEL_CHUNK = 62, /* Numbers in a chunk. */
};

struct lease_wheel_chunk {
  uint32_t next; /* Chunk number + 1; 0: none. */
  uint32_t count;
  uint32_t numbers[LEASE_WHEEL_CHUNK];
};

struct lease_wheel {
  uint64_t now;                                           /* The tick up to which everything was taken. */
  uint64_t used[LEASE_WHEEL_LEVELS];                      /* Which slots have numbers. */
  uint32_t slots[LEASE_WHEEL_LEVELS][LEASE_WHEEL_SLOTS];  /* First chunk + 1. Only a slot's first chunk may be part-full. */
  uint32_t taking;                                        /* The slot being taken: its first chunk + 1. */
  uint32_t taking_tick;
  uint64_t count;                                         /* Numbers placed and not taken. */
  struct lease_wheel_chunk **slabs;
  uint32_t slabs_count, chunks_free, free; /* `free`: first free chunk + 1. */
};

void lease_wheel_free(struct lease_wheel *w);
/* Make room so that `count` numbers in all can be placed. Returns 0 or ERR_MEMORY. */
int lease_wheel_reserve(struct lease_wheel *w, uint64_t count);
/* Place a number so that it is taken at at_ns or up to a tick later, or earlier on the way down from a higher level: the owner then
 * places it again. Returns the low 32 bits of the tick at which it will be taken. Room was reserved. */
uint32_t lease_wheel_place(struct lease_wheel *w, uint32_t number, uint64_t at_ns);
/* Take up to `max` numbers of one slot that is due; all of one call have the same *tick. Returns 0 when nothing is due. */
uint32_t lease_wheel_take(struct lease_wheel *w, uint64_t now_ns, uint32_t *numbers, uint32_t max, uint32_t *tick);
/* When to call lease_wheel_take next; UINT64_MAX when nothing is placed. */
uint64_t lease_wheel_next_ns(const struct lease_wheel *w);
/* Forget all numbers; memory and time are kept. */
void lease_wheel_clear(struct lease_wheel *w);
size_t lease_wheel_bytes(const struct lease_wheel *w);

#endif
