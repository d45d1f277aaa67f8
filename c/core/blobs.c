#include "core/blobs.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { GRAINS = BLOBS_PAGE / BLOBS_GRAIN };

static uint32_t grains_of(size_t length) {
  assert(length <= BLOBS_MAX);
  return (uint32_t)((length + BLOBS_GRAIN - 1) / BLOBS_GRAIN);
}

void blobs_free(struct blobs *b) {
  for (uint32_t i = 0; i < b->pages_count; i++) free(b->pages[i]);
  free(b->pages);
  *b = (struct blobs){0};
}

static int add_page(struct blobs *b) {
  if (b->pages_count == b->pages_capacity) {
    uint32_t capacity = b->pages_capacity ? b->pages_capacity * 2 : 4;
    uint8_t **pages = realloc(b->pages, capacity * sizeof *pages);
    if (!pages) return -1;
    b->pages = pages;
    b->pages_capacity = capacity;
  }
  uint8_t *page = malloc(BLOBS_PAGE);
  if (!page) return -1;
  b->pages[b->pages_count++] = page;
  b->used = 0;
  return 0;
}

/* A list of the freed runs through their first four bytes. */
static uint32_t pop(struct blobs *b, uint32_t grains) {
  uint32_t handle = b->free[grains];
  if (handle != BLOBS_NONE) memcpy(&b->free[grains], blobs_at(b, handle), sizeof handle);
  return handle;
}

static void push(struct blobs *b, uint32_t handle, uint32_t grains) {
  memcpy(blobs_at(b, handle), &b->free[grains], sizeof handle);
  b->free[grains] = handle;
}

uint32_t blobs_take(struct blobs *b, size_t length) {
  uint32_t grains = grains_of(length);
  if (grains == 0) return BLOBS_NONE;
  uint32_t handle = pop(b, grains);
  if (handle != BLOBS_NONE) return handle;
  if (b->pages_count == 0 || b->used + grains > GRAINS) {
    uint32_t rest = b->pages_count ? GRAINS - b->used : 0, last = (b->pages_count - 1) * GRAINS + b->used + 1;
    if (add_page(b) < 0) return UINT32_MAX;
    if (rest > 0) push(b, last, rest); /* Some shorter one takes it. */
  }
  handle = (b->pages_count - 1) * GRAINS + b->used + 1;
  b->used += grains;
  return handle;
}

void blobs_give(struct blobs *b, uint32_t handle, size_t length) {
  uint32_t grains = grains_of(length);
  assert((handle == BLOBS_NONE) == (grains == 0));
  if (grains > 0) push(b, handle, grains);
}

uint32_t blobs_resize(struct blobs *b, uint32_t handle, size_t from, size_t to) {
  if (grains_of(from) == grains_of(to)) return handle;
  uint32_t moved = blobs_take(b, to);
  if (moved == UINT32_MAX) return moved;
  size_t kept = from < to ? from : to;
  if (kept) memcpy(blobs_at(b, moved), blobs_at(b, handle), kept);
  blobs_give(b, handle, from);
  return moved;
}
