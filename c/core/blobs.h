/* blobs: many small byte strings, each known by a 32-bit handle, packed without a header.
 *
 * A blob takes its length rounded up to 8 bytes, from pages of 4 KiB. A freed blob joins the free list of its size, for the next blob of
 * that size. So a table of names costs little more than their bytes (malloc takes 32 for a name of five), and churn in the same sizes
 * allocates nothing. The owner stores each length. Only blobs_free() releases pages.
 * Zeroed memory is an empty store. */
#ifndef SHOAL_BLOBS_H
#define SHOAL_BLOBS_H

#include <stddef.h>
#include <stdint.h>

enum {
  BLOBS_NONE = 0,    /* No blob has this handle: it stands for the one of length 0. */
  BLOBS_MAX = 1024,  /* Bytes of the longest. */
  BLOBS_GRAIN = 8,
  BLOBS_PAGE = 4096, /* Bytes. */
};

struct blobs {
  uint8_t **pages;
  uint32_t pages_count, pages_capacity;
  uint32_t used; /* Grains of the last page that are taken. */
  uint32_t free[BLOBS_MAX / BLOBS_GRAIN + 1]; /* By grains: the first freed one; its first bytes hold the next. */
};

void blobs_free(struct blobs *b);
/* Room for `length` bytes, 0 .. BLOBS_MAX: its handle (BLOBS_NONE for none), or UINT32_MAX when there is no memory. */
uint32_t blobs_take(struct blobs *b, size_t length);
void blobs_give(struct blobs *b, uint32_t handle, size_t length);
/* Another length for it, its first bytes kept: the new handle, or UINT32_MAX with nothing changed. */
uint32_t blobs_resize(struct blobs *b, uint32_t handle, size_t from, size_t to);

/* Valid while it is not given back; pages never move. */
static inline uint8_t *blobs_at(const struct blobs *b, uint32_t handle) {
  uint32_t grain = handle - 1;
  return handle == BLOBS_NONE ? (uint8_t *)0 : b->pages[grain / (BLOBS_PAGE / BLOBS_GRAIN)] + grain % (BLOBS_PAGE / BLOBS_GRAIN) * BLOBS_GRAIN;
}

#endif
