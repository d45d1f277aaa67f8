/* core/blobs against plain memory: many random takes, resizes and gives, every byte compared. Prints a line for each behaviour. */
#include "core/blobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "must.h"

enum { COUNT = 400 };
struct held {
  uint32_t handle;
  size_t length;
  uint8_t bytes[BLOBS_MAX];
};
static struct held held[COUNT];

static void fill(struct rng *rng, struct blobs *b, struct held *h, size_t from) {
  for (size_t i = from; i < h->length; i++) h->bytes[i] = (uint8_t)rng_next(rng);
  if (h->length > from) memcpy(blobs_at(b, h->handle) + from, h->bytes + from, h->length - from);
}

static void whatever_is_taken_resized_and_given_keeps_its_bytes(void) {
  struct blobs b = {0};
  struct rng rng;
  rng_seed(&rng, 1);
  memset(held, 0, sizeof held);
  for (int step = 0; step < 100000; step++) {
    struct held *h = &held[rng_below(&rng, COUNT)];
    size_t length = (size_t)rng_below(&rng, rng_below(&rng, 8) ? 40 : BLOBS_MAX + 1), kept = length < h->length ? length : h->length;
    h->handle = blobs_resize(&b, h->handle, h->length, length);
    MUST(h->handle != UINT32_MAX && (h->handle == BLOBS_NONE) == (length == 0));
    h->length = length;
    fill(&rng, &b, h, kept);
    if (step % 100) continue;
    for (int i = 0; i < COUNT; i++)
      if (held[i].length) MUST(memcmp(blobs_at(&b, held[i].handle), held[i].bytes, held[i].length) == 0);
  }
  blobs_free(&b);
}

static void what_comes_and_goes_in_the_same_sizes_takes_no_new_page(void) {
  struct blobs b = {0};
  uint32_t handles[COUNT], pages = 0;
  for (int round = 0; round < 50; round++) {
    for (int i = 0; i < COUNT; i++) handles[i] = blobs_take(&b, (size_t)(i % 30) + 1);
    if (round == 0) pages = b.pages_count;
    for (int i = 0; i < COUNT; i++) blobs_give(&b, handles[(i * 7) % COUNT], (size_t)((i * 7) % COUNT % 30) + 1);
  }
  MUST(b.pages_count == pages);
  blobs_free(&b);
}

static void ten_thousand_short_names_cost_their_length_rounded_up_to_eight(void) {
  struct blobs b = {0};
  for (int i = 0; i < 10000; i++) MUST(blobs_take(&b, 5) != UINT32_MAX);
  MUST(b.pages_count == (10000 * 8 + BLOBS_PAGE - 1) / BLOBS_PAGE);
  blobs_free(&b);
}

static void what_is_left_of_a_page_goes_to_a_shorter_one(void) {
  struct blobs b = {0};
  for (int i = 0; i < 5; i++) MUST(blobs_take(&b, 1000) != UINT32_MAX); /* Four in the first page, which leave 96 bytes. */
  uint32_t used = b.used;
  MUST(b.pages_count == 2 && blobs_take(&b, 96) != UINT32_MAX && b.used == used);
  MUST(blobs_take(&b, 96) != UINT32_MAX && b.used > used);
  blobs_free(&b);
}

int main(void) {
  whatever_is_taken_resized_and_given_keeps_its_bytes();
  puts("ok whatever_is_taken_resized_and_given_keeps_its_bytes");
  what_comes_and_goes_in_the_same_sizes_takes_no_new_page();
  puts("ok what_comes_and_goes_in_the_same_sizes_takes_no_new_page");
  ten_thousand_short_names_cost_their_length_rounded_up_to_eight();
  puts("ok ten_thousand_short_names_cost_their_length_rounded_up_to_eight");
  what_is_left_of_a_page_goes_to_a_shorter_one();
  puts("ok what_is_left_of_a_page_goes_to_a_shorter_one");
  return 0;
}
