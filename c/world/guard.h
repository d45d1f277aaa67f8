/* guard: a process that outlives us by a moment, to kill what we had started.
 *
 *      0        4        8
 *     +--------+--------+
 *     | id     | started|      both u32, little-endian; started: 1, or 0 when the group has ended
 *     +--------+--------+
 *
 * It reads these records from its stdin, whose other end only we hold. A child that is to die with us writes its own record before it
 * becomes the program, so that at no instant a program runs that the guard does not know; we write the second one before the child is
 * reaped, so that its id cannot be another's yet. When the pipe ends, we are gone by whatever means: the guard kills each group left, with
 * all descendants of its leader. The machine may have killed the keepers with us, for they share our memory; what had left their groups is
 * then nobody's descendant, and is known by the guard's mark in its environment: GUARD_MARK and the word that the guard was started with. */
#ifndef SHOAL_WORLD_GUARD_H
#define SHOAL_WORLD_GUARD_H

#include <stdbool.h>
#include <stdint.h>

enum { GUARD_RECORD_BYTES = 8 };
#define GUARD_MARK "SHOAL_GUARD="

static inline void guard_record(uint8_t out[GUARD_RECORD_BYTES], uint32_t id, bool started) {
  for (int i = 0; i < 4; i++) {
    out[i] = (uint8_t)(id >> (8 * i));
    out[4 + i] = 0;
  }
  out[4] = started;
}

#endif
