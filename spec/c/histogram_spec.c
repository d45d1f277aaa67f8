/* Properties of core/histogram and core/crc that Lua cannot reach: the whole 64-bit range, and hostile encodings.
 * Prints one line a property; exits 1 at the first that does not hold. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc.h"
#include "core/errors.h"
#include "core/histogram.h"
#include "core/rng.h"

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

static uint64_t any_value(struct rng *rng) { return rng_next(rng) >> rng_below(rng, 64); }

static void buckets_tile_the_range(void) {
  uint64_t expected = 0;
  for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
    uint64_t low = histogram_low(i), high = histogram_high(i);
    MUST(low == expected && high >= low);
    MUST(histogram_index(low) == i && histogram_index(high) == i);
    expected = high + 1;
  }
  MUST(expected == 0); /* The last bucket ends at UINT64_MAX. */
  printf("ok buckets tile 0 .. 2^64-1 without gap or overlap\n");
}

static int rising(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static void quantiles_are_within_the_bound(struct rng *rng) {
  static uint64_t values[3000];
  double worst = 0;
  for (int run = 0; run < 300; run++) {
    struct histogram h = {0};
    size_t n = 1 + rng_below(rng, 3000);
    uint64_t shift = rng_below(rng, 60);
    for (size_t i = 0; i < n; i++) {
      values[i] = run % 2 ? any_value(rng) : rng_next(rng) >> shift;
      MUST(histogram_record(&h, values[i], 1) == 0);
    }
    qsort(values, n, sizeof *values, rising);
    MUST(h.min == values[0] && h.max == values[n - 1]);
    for (int step = 0; step <= 200; step++) {
      double q = step / 200.0;
      size_t rank = (size_t)ceil(q * (double)n);
      double truth = (double)values[rank ? rank - 1 : 0], got = (double)histogram_quantile(&h, q);
      double error = truth > 0 ? fabs(got - truth) / truth : got;
      if (error > worst) worst = error;
      MUST(error <= 1.0 / 128 + 1e-12);
    }
    histogram_free(&h);
  }
  MUST(worst > 0.005); /* Else the values never came near the bound, and the property was not tested. */
  printf("ok quantiles within 1/128 of the true ones (worst %.5f)\n", worst);
}

static void equal(const struct histogram *a, const struct histogram *b) {
  static uint8_t left[HISTOGRAM_ENCODED_MAX], right[HISTOGRAM_ENCODED_MAX];
  size_t length = histogram_encode(a, left);
  MUST(length == histogram_encode(b, right) && memcmp(left, right, length) == 0);
}

static void merging_is_recording(struct rng *rng) {
  for (int run = 0; run < 100; run++) {
    struct histogram whole = {0}, parts[4] = {{0}}, forward = {0}, backward = {0};
    for (int i = 0; i < 500; i++) {
      uint64_t value = any_value(rng), times = rng_below(rng, 3);
      MUST(histogram_record(&whole, value, times) == 0);
      MUST(histogram_record(&parts[rng_below(rng, 4)], value, times) == 0);
    }
    for (int i = 0; i < 4; i++) MUST(histogram_merge(&forward, &parts[i]) == 0);
    for (int i = 3; i >= 0; i--) MUST(histogram_merge(&backward, &parts[i]) == 0);
    equal(&whole, &forward);
    equal(&whole, &backward);
    MUST(histogram_merge(&forward, &forward) == 0 && forward.count == 2 * whole.count);
    histogram_free(&whole), histogram_free(&forward), histogram_free(&backward);
    for (int i = 0; i < 4; i++) histogram_free(&parts[i]);
  }
  printf("ok merging, in any order, equals recording it all in one\n");
}

static void counts_and_sums_do_not_overflow(void) {
  struct histogram h = {0}, other = {0};
  MUST(histogram_record(&h, UINT64_MAX, HISTOGRAM_COUNT_MAX - 1) == 0);
  MUST(histogram_record(&h, UINT64_MAX, 2) == ERR_FULL && h.count == HISTOGRAM_COUNT_MAX - 1);
  MUST(histogram_record(&h, UINT64_MAX, 1) == 0 && histogram_quantile(&h, 0.5) == UINT64_MAX);
  MUST(histogram_record(&h, 1, 1) == ERR_FULL && h.min == UINT64_MAX);
  MUST(histogram_mean(&h) == (double)UINT64_MAX);
  MUST(histogram_record(&other, 7, 1) == 0);
  MUST(histogram_merge(&h, &other) == ERR_FULL && h.min == UINT64_MAX && histogram_at(&h, 7) == 0);
  static uint8_t bytes[HISTOGRAM_ENCODED_MAX];
  size_t length = histogram_encode(&h, bytes);
  MUST(histogram_decode(&other, bytes, length) == 0);
  equal(&h, &other);
  histogram_free(&h), histogram_free(&other);
  printf("ok the greatest count of the greatest value is exact, one more is refused\n");
}

static void decoder_takes_any_bytes(struct rng *rng) {
  static uint8_t bytes[HISTOGRAM_ENCODED_MAX + 64], again[HISTOGRAM_ENCODED_MAX];
  unsigned taken = 0, refused = 0;
  for (int run = 0; run < 100000; run++) {
    struct histogram h = {0}, read = {0};
    for (uint64_t i = rng_below(rng, 8); i > 0; i--) {
      uint64_t value = any_value(rng); /* Apart: the order in which arguments are evaluated is the compiler's. */
      MUST(histogram_record(&h, value, 1 + rng_below(rng, 4)) == 0);
    }
    size_t length = histogram_encode(&h, bytes);
    uint64_t kind = rng_below(rng, 4);
    if (kind == 0) length = rng_below(rng, length + 1);
    for (uint64_t i = kind == 1 ? 1 : kind == 2 ? 4 : 0; i > 0; i--) {
      uint64_t at = rng_below(rng, length);
      bytes[at] = (uint8_t)rng_next(rng);
    }
    if (kind == 3) bytes[length++] = (uint8_t)rng_next(rng);
    uint8_t *exact = malloc(length + !length); /* So that a read past the end is one past an allocation. */
    MUST(exact);
    memcpy(exact, bytes, length);
    int rc = histogram_decode(&read, exact, length);
    MUST(rc == 0 || rc == ERR_MALFORMED);
    if (rc == 0) { /* An accepted input is in the one form that an encoder writes. */
      MUST(histogram_encode(&read, again) == length && memcmp(exact, again, length) == 0);
      if (read.count) MUST(histogram_quantile(&read, 0.5) >= read.min && histogram_quantile(&read, 1) == read.max);
    }
    rc == 0 ? taken++ : refused++;
    free(exact);
    histogram_free(&h), histogram_free(&read);
  }
  MUST(taken > 0 && refused > 50000);
  printf("ok 100000 mutated encodings: %u refused, %u taken and written back the same\n", refused, taken);
}

static void crc_matches_the_standard(struct rng *rng) {
  uint8_t bytes[64] = {0};
  MUST(crc32c(0, "123456789", 9) == 0xe3069283);
  MUST(crc32c(0, bytes, 32) == 0x8a9136aa); /* RFC 3720, B.4. */
  memset(bytes, 0xff, 32);
  MUST(crc32c(0, bytes, 32) == 0x62a8ab43);
  MUST(crc32c(77, bytes, 0) == 77);
  for (int run = 0; run < 10000; run++) {
    size_t length = rng_below(rng, 64), cut = rng_below(rng, length + 1);
    for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)rng_next(rng);
    uint32_t whole = crc32c(0, bytes, length);
    MUST(whole == crc32c_portable(0, bytes, length));
    MUST(whole == crc32c(crc32c(0, bytes, cut), bytes + cut, length - cut));
  }
  printf("ok crc32c matches RFC 3720 and continues at any cut\n");
}

int main(void) {
  struct rng rng;
  rng_seed(&rng, 1);
  buckets_tile_the_range();
  quantiles_are_within_the_bound(&rng);
  merging_is_recording(&rng);
  counts_and_sums_do_not_overflow();
  decoder_takes_any_bytes(&rng);
  crc_matches_the_standard(&rng);
  return 0;
}
