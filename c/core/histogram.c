#include "core/histogram.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/bytes.h"
#include "core/errors.h"

typedef unsigned __int128 u128;

enum { VERSION = 1, LINEAR = 2 * HISTOGRAM_STEPS, STEP_BITS = 6 };

static u128 sum_of(const struct histogram *h) { return (u128)h->sum_high << 64 | h->sum_low; }

static void set_sum(struct histogram *h, u128 sum) {
  h->sum_high = (uint64_t)(sum >> 64);
  h->sum_low = (uint64_t)sum;
}

void histogram_init(struct histogram *h) { *h = (struct histogram){0}; }

void histogram_free(struct histogram *h) {
  for (size_t i = 0; i < HISTOGRAM_OCTAVES; i++) free(h->octaves[i]);
  histogram_init(h);
}

uint32_t histogram_index(uint64_t value) {
  if (value < LINEAR) return (uint32_t)value;
  uint32_t exponent = 63 - (uint32_t)__builtin_clzll(value);
  uint32_t step = (uint32_t)(value >> (exponent - STEP_BITS)) - HISTOGRAM_STEPS;
  return HISTOGRAM_STEPS * (exponent - STEP_BITS + 1) + step;
}

static uint32_t shift_of(uint32_t index) { return index < LINEAR ? 0 : index / HISTOGRAM_STEPS - 1; }

uint64_t histogram_low(uint32_t index) {
  assert(index < HISTOGRAM_BUCKETS);
  if (index < LINEAR) return index;
  return (uint64_t)(HISTOGRAM_STEPS + index % HISTOGRAM_STEPS) << shift_of(index);
}

uint64_t histogram_high(uint32_t index) { return histogram_low(index) + (((uint64_t)1 << shift_of(index)) - 1); }

static uint64_t middle(uint32_t index) { return histogram_low(index) + (histogram_high(index) - histogram_low(index)) / 2; }

uint64_t histogram_at(const struct histogram *h, uint32_t index) {
  assert(index < HISTOGRAM_BUCKETS);
  const uint64_t *octave = h->octaves[index / HISTOGRAM_STEPS];
  return octave ? octave[index % HISTOGRAM_STEPS] : 0;
}

/* Allocate the counters of an octave, if they are missing. */
static bool reserve(struct histogram *h, uint32_t octave) {
  if (!h->octaves[octave]) h->octaves[octave] = calloc(HISTOGRAM_STEPS, sizeof(uint64_t));
  return h->octaves[octave] != NULL;
}

static void widen(struct histogram *h, uint64_t min, uint64_t max) {
  if (h->count == 0 || min < h->min) h->min = min;
  if (h->count == 0 || max > h->max) h->max = max;
}

int histogram_record(struct histogram *h, uint64_t value, uint64_t times) {
  if (times == 0) return 0;
  if (times > HISTOGRAM_COUNT_MAX - h->count) return ERR_FULL;
  uint32_t index = histogram_index(value);
  if (!reserve(h, index / HISTOGRAM_STEPS)) return ERR_MEMORY;
  h->octaves[index / HISTOGRAM_STEPS][index % HISTOGRAM_STEPS] += times;
  widen(h, value, value);
  h->count += times;
  set_sum(h, sum_of(h) + (u128)value * times);
  return 0;
}

int histogram_merge(struct histogram *into, const struct histogram *from) {
  if (from->count == 0) return 0;
  if (from->count > HISTOGRAM_COUNT_MAX - into->count) return ERR_FULL;
  for (uint32_t i = 0; i < HISTOGRAM_OCTAVES; i++) /* Allocations first, for they can fail. */
    if (from->octaves[i] && !reserve(into, i)) return ERR_MEMORY;
  for (uint32_t i = 0; i < HISTOGRAM_OCTAVES; i++)
    for (uint32_t step = 0; from->octaves[i] && step < HISTOGRAM_STEPS; step++)
      into->octaves[i][step] += from->octaves[i][step];
  widen(into, from->min, from->max);
  set_sum(into, sum_of(into) + sum_of(from));
  into->count += from->count;
  return 0;
}

uint64_t histogram_quantile(const struct histogram *h, double q) {
  assert(h->count > 0 && q >= 0 && q <= 1);
  /* In doubles: past 2^53 values a rank may be off by its rounding. The last rank is compared before it is converted. */
  double rank_real = ceil(q * (double)h->count);
  if (rank_real >= (double)h->count) return h->max;
  uint64_t rank = (uint64_t)rank_real, below = 0;
  if (rank <= 1) return h->min;
  for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
    if (!h->octaves[i / HISTOGRAM_STEPS]) {
      i |= HISTOGRAM_STEPS - 1; /* The last bucket of an octave with nothing in it. */
      continue;
    }
    below += histogram_at(h, i);
    if (below < rank) continue;
    uint64_t value = middle(i);
    return value < h->min ? h->min : value > h->max ? h->max : value;
  }
  assert(!"the buckets add up to the count");
  return h->max;
}

double histogram_sum(const struct histogram *h) { return (double)sum_of(h); }

double histogram_mean(const struct histogram *h) {
  assert(h->count > 0);
  return (double)sum_of(h) / (double)h->count;
}

size_t histogram_encode(const struct histogram *h, uint8_t *out) {
  struct writer w = writer_of(out, HISTOGRAM_ENCODED_MAX);
  write_u8(&w, VERSION);
  write_varint(&w, h->count);
  if (h->count > 0) {
    uint32_t used = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) used += histogram_at(h, i) > 0;
    write_varint(&w, h->min);
    write_varint(&w, h->max - h->min);
    write_varint(&w, h->sum_low);
    write_varint(&w, h->sum_high);
    write_varint(&w, used);
    for (uint32_t i = 0, next = 0; i < HISTOGRAM_BUCKETS; i++) {
      if (histogram_at(h, i) == 0) continue;
      write_varint(&w, i - next);
      write_varint(&w, histogram_at(h, i));
      next = i + 1;
    }
  }
  assert(!w.failed);
  return (size_t)(w.at - out);
}

/* Read and check the buckets; h->count, min, max and sum are set, but not yet validated. */
static int decode_buckets(struct histogram *h, struct reader *r) {
  uint64_t used = read_varint(r), next = 0, counted = 0;
  u128 least = 0, most = 0;
  if (r->failed || used == 0 || used > HISTOGRAM_BUCKETS) return ERR_MALFORMED;
  for (uint64_t n = 0; n < used; n++) {
    uint64_t gap = read_varint(r), times = read_varint(r);
    if (r->failed || gap >= HISTOGRAM_BUCKETS - next) return ERR_MALFORMED;
    if (times == 0 || times > h->count - counted) return ERR_MALFORMED;
    uint32_t index = (uint32_t)(next + gap);
    if (n == 0 && histogram_index(h->min) != index) return ERR_MALFORMED;
    if (n == used - 1 && histogram_index(h->max) != index) return ERR_MALFORMED;
    if (!reserve(h, index / HISTOGRAM_STEPS)) return ERR_MEMORY;
    h->octaves[index / HISTOGRAM_STEPS][index % HISTOGRAM_STEPS] = times;
    counted += times;
    least += (u128)histogram_low(index) * times;
    most += (u128)histogram_high(index) * times;
    next = index + 1;
    if (next == HISTOGRAM_BUCKETS && n != used - 1) return ERR_MALFORMED;
  }
  u128 sum = sum_of(h);
  if (counted != h->count || sum < least || sum > most) return ERR_MALFORMED;
  if (sum < (u128)h->min * h->count || sum > (u128)h->max * h->count) return ERR_MALFORMED;
  return 0;
}

static int decode(struct histogram *h, struct reader *r) {
  if (read_u8(r) != VERSION) return ERR_MALFORMED;
  h->count = read_varint(r);
  if (r->failed || h->count > HISTOGRAM_COUNT_MAX) return ERR_MALFORMED;
  if (h->count > 0) {
    h->min = read_varint(r);
    uint64_t width = read_varint(r);
    if (width > UINT64_MAX - h->min) return ERR_MALFORMED;
    h->max = h->min + width;
    h->sum_low = read_varint(r);
    h->sum_high = read_varint(r);
    int rc = decode_buckets(h, r);
    if (rc < 0) return rc;
  }
  return !r->failed && reader_left(r) == 0 ? 0 : ERR_MALFORMED;
}

int histogram_decode(struct histogram *out, const void *bytes, size_t length) {
  struct histogram read = {0};
  struct reader r = reader_of(bytes, length);
  int rc = decode(&read, &r);
  if (rc < 0) {
    histogram_free(&read);
    return rc;
  }
  histogram_free(out);
  *out = read;
  return 0;
}
