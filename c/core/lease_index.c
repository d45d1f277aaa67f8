#include "core/lease_index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"

enum { FIRST_CAPACITY = 16 };

void lease_index_free(struct lease_index *x) {
  free(x->cells);
  *x = (struct lease_index){0};
}

static void put(struct lease_index *x, uint32_t hash, uint32_t number) {
  uint32_t at = hash & (x->capacity - 1);
  while (x->cells[at].number) at = (at + 1) & (x->capacity - 1);
  x->cells[at] = (struct lease_index_cell){hash, number};
}

int lease_index_reserve(struct lease_index *x) {
  if ((uint64_t)(x->count + 1) * 4 <= (uint64_t)x->capacity * 3) return 0;
  struct lease_index grown = {.capacity = x->capacity ? x->capacity * 2 : FIRST_CAPACITY, .count = x->count};
  grown.cells = calloc(grown.capacity, sizeof *grown.cells);
  if (!grown.cells) return ERR_MEMORY;
  for (uint32_t i = 0; i < x->capacity; i++)
    if (x->cells[i].number) put(&grown, x->cells[i].hash, x->cells[i].number);
  free(x->cells);
  *x = grown;
  return 0;
}

void lease_index_add(struct lease_index *x, uint32_t hash, uint32_t number) {
  assert(x->count < x->capacity && number < UINT32_MAX); /* Room was reserved. */
  put(x, hash, number + 1);
  x->count++;
}

/* Whether the cell `from` may fill the hole at `hole`: its home does not lie behind the hole. */
static int may_fill(const struct lease_index *x, uint32_t from, uint32_t hole) {
  uint32_t mask = x->capacity - 1, home = x->cells[from].hash & mask;
  return ((from - home) & mask) >= ((from - hole) & mask);
}

void lease_index_remove(struct lease_index *x, uint32_t hash, uint32_t number) {
  uint32_t mask = x->capacity - 1, hole = hash & mask;
  while (x->cells[hole].number != number + 1) {
    assert(x->cells[hole].number != 0);
    hole = (hole + 1) & mask;
  }
  for (uint32_t from = (hole + 1) & mask; x->cells[from].number; from = (from + 1) & mask) {
    if (!may_fill(x, from, hole)) continue;
    x->cells[hole] = x->cells[from];
    hole = from;
  }
  x->cells[hole].number = 0;
  x->count--;
}

/* Multiply and fold, 8 bytes a step; the constants are odd and random. */
static uint64_t fold(uint64_t a, uint64_t b) {
  __uint128_t product = (__uint128_t)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint32_t lease_index_hash(uint64_t seed, const void *bytes, size_t length) {
  const uint8_t *p = bytes;
  uint64_t h = seed ^ UINT64_C(0x8f1bbcdc2e6d3a95) ^ length;
  while (length >= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    h = fold(h ^ word, UINT64_C(0x9e6c63d0876a9a47));
    p += 8;
    length -= 8;
  }
  uint64_t rest = 0;
  if (length) memcpy(&rest, p, length);
  h = fold(h ^ rest, UINT64_C(0xd1b54a32d192ed03));
  return (uint32_t)(h ^ h >> 32);
}
