/* histogram: counts of values, mergeable, with quantiles that are never further than 1 % from the truth.
 *
 * A value is an unsigned 64-bit integer in whatever unit the owner records (nanoseconds, bytes). Count, sum, minimum and
 * maximum are exact; quantiles are approximate, as follows.
 *
 * Buckets are log-linear: HISTOGRAM_STEPS = 64 of equal width in each octave [2^e, 2^(e+1)).
 *   v < 128    a bucket of its own:             index(v) = v
 *   v >= 128   e = floor(log2 v), w = 2^(e-6):  index(v) = 64 * (e - 5) + floor(v / w) - 64
 * so a bucket holds the w integers low .. low + w - 1, where low is a multiple of w and 64 w <= low < 128 w.
 *
 * The bound. A bucket answers with its middle, m = low + (w - 1) / 2 rounded down. For each v in it |m - v| <= w / 2, and
 * v >= low >= 64 w, so |m - v| / v <= (w / 2) / (64 w) = 1 / 128 < 1 %; below 128 the error is 0 (w = 1).
 * The q-quantile of n values is the one of rank r = max(1, ceil(q n)) in rising order (nearest rank). The bucket found by
 * adding counts up to r holds exactly that value, since buckets do not overlap and are in order. The answer is then brought into
 * [minimum, maximum], which contains the true value, so this can only reduce the error. The answers for ranks 1 and n are
 * the exact minimum and maximum. Merging adds counts bucket by bucket, so the bound holds for any merge in any order, and a
 * merge of parts equals the whole: bit for bit, in the encoded form too.
 *
 * Memory: an octave's 64 counters (512 B) are allocated at the first value in it: at most HISTOGRAM_OCTAVES of them, 31 KB
 * in all, however many values; latencies between 1 ms and 1 s take 5 KB. Counts reach HISTOGRAM_COUNT_MAX, then refuse.
 *
 * Encoded form, varints as in core/bytes.h (each in its shortest form, so that one histogram has one encoding):
 *   u8      version, 1
 *   varint  count; nothing follows a 0
 *   varint  minimum
 *   varint  maximum - minimum
 *   varint  sum, low 64 bits
 *   varint  sum, high 64 bits
 *   varint  number of buckets that are not empty
 *   each of them, in rising order:
 *     varint  how many empty buckets lie between the one before (or the start) and it
 *     varint  its count, > 0
 * The decoder takes any bytes. It refuses every form that no encoder writes: bucket counts that do not add up to the
 * count, an extreme outside its bucket, a sum outside the range that the buckets allow, bytes left over. */
#ifndef SHOAL_HISTOGRAM_H
#define SHOAL_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
  HISTOGRAM_STEPS = 64,
  HISTOGRAM_OCTAVES = 59,                                    /* Two for v < 128, then e = 7 .. 63. */
  HISTOGRAM_BUCKETS = HISTOGRAM_OCTAVES * HISTOGRAM_STEPS,   /* 3776 */
  HISTOGRAM_ENCODED_MAX = 64 + HISTOGRAM_BUCKETS * (2 + 10), /* Bytes; about two a bucket in practice. */
};
#define HISTOGRAM_COUNT_MAX ((uint64_t)INT64_MAX)
#define HISTOGRAM_RELATIVE_ERROR 0.01

struct histogram {
  uint64_t count;
  uint64_t min, max;            /* Exact; of use only while count > 0. */
  uint64_t sum_high, sum_low;   /* Exact: 128 bits hold HISTOGRAM_COUNT_MAX values of any size. */
  uint64_t *octaves[HISTOGRAM_OCTAVES]; /* HISTOGRAM_STEPS counters each, or NULL while all are 0. */
};

void histogram_init(struct histogram *h); /* Empty. Zeroed memory is an empty one too. */
void histogram_free(struct histogram *h); /* Empty it and release its memory. */

/* Count `value`, `times` (>= 0) over. Returns 0; or, with nothing changed, ERR_FULL past HISTOGRAM_COUNT_MAX, ERR_MEMORY. */
int histogram_record(struct histogram *h, uint64_t value, uint64_t times);

/* Add all of `from` to `into`. Returns 0, ERR_FULL or ERR_MEMORY with nothing changed. They may be the same one. */
int histogram_merge(struct histogram *into, const struct histogram *from);

/* The q-quantile, 0 <= q <= 1; count must be > 0. */
uint64_t histogram_quantile(const struct histogram *h, double q);

/* The mean, rounded to a double; count must be > 0. */
double histogram_mean(const struct histogram *h);
/* The sum, rounded to a double; exact in sum_high and sum_low. */
double histogram_sum(const struct histogram *h);

/* The bucket of a value (only specs ask for it), and the least and greatest value of a bucket. */
uint32_t histogram_index(uint64_t value);
uint64_t histogram_low(uint32_t index);
uint64_t histogram_high(uint32_t index);
/* How many values fell into a bucket. */
uint64_t histogram_at(const struct histogram *h, uint32_t index);

/* Write the encoded form into out[HISTOGRAM_ENCODED_MAX]; returns its length. */
size_t histogram_encode(const struct histogram *h, uint8_t *out);

/* Read an encoded form into an initialised *out, which it replaces. Returns 0; or ERR_MALFORMED or ERR_MEMORY with *out
 * unchanged. */
int histogram_decode(struct histogram *out, const void *bytes, size_t length);

#endif
