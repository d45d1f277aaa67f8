/* The decoders of small values, each alone: a decoded value is encoded to the same bytes, and decoded the same. The first byte selects one. */
#include "core/address.h"
#include "core/errors.h"
#include "core/histogram.h"
#include "net/frame.h"
#include "target.h"

/* One histogram has one encoding. */
static void histogram(const uint8_t *bytes, size_t length) {
  static uint8_t out[HISTOGRAM_ENCODED_MAX];
  struct histogram h, twice;
  histogram_init(&h);
  histogram_init(&twice);
  int rc = histogram_decode(&h, bytes, length);
  MUST(rc == 0 || (rc == ERR_MALFORMED && h.count == 0));
  if (rc == 0) {
    MUST(histogram_encode(&h, out) == length && memcmp(out, bytes, length) == 0);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) sum += histogram_at(&h, i);
    MUST(sum == h.count);
    if (h.count) {
      uint64_t low = histogram_quantile(&h, 0), high = histogram_quantile(&h, 1);
      MUST(low <= high && high <= h.max && low >= h.min && histogram_mean(&h) >= 0);
    }
    MUST(histogram_merge(&twice, &h) == 0);
    rc = histogram_merge(&twice, &h);
    MUST(h.count > HISTOGRAM_COUNT_MAX / 2 ? rc == ERR_FULL : rc == 0 && twice.count == 2 * h.count);
    rc = histogram_decode(&h, out, length ? length - 1 : 0); /* Cut short: refused, and nothing changed. */
    MUST(rc == ERR_MALFORMED && histogram_encode(&h, out) == length);
  }
  histogram_free(&h);
  histogram_free(&twice);
}

static void address(const uint8_t *bytes, size_t length) {
  struct shoal_address a = {0}, again;
  char text[ADDRESS_TEXT_MAX];
  if (address_parse((const char *)bytes, length, &a) != 0) {
    MUST(a.family == 0);
    return;
  }
  size_t written = address_format(&a, text);
  MUST(written < sizeof text && address_parse(text, written, &again) == 0 && address_equal(&a, &again));
}

static void hello(const uint8_t *bytes, size_t length) {
  struct frame_hello read, again;
  uint8_t out[FRAME_HELLO_MAX];
  if (!frame_hello_get(bytes, length, &read)) return;
  if (read.major != FRAME_MAJOR) return; /* Nothing else of it was read. */
  MUST(read.node[0] && frame_hello_get(out, frame_hello_put(out, &read), &again));
  MUST(strcmp(read.node, again.node) == 0 && strcmp(read.cluster, again.cluster) == 0 && strcmp(read.role, again.role) == 0);
  MUST(strcmp(read.dc, again.dc) == 0 && strcmp(read.advertise, again.advertise) == 0 && read.major == again.major);
}

static void refusal(const uint8_t *bytes, size_t length) {
  struct frame_refusal read, again;
  uint8_t out[FRAME_REFUSAL_MAX];
  if (!frame_refusal_get(bytes, length, &read)) return;
  MUST(read.name[0] && read.text_length <= FRAME_TEXT_MAX);
  MUST(frame_refusal_get(out, frame_refusal_put(out, read.name, (const char *)read.text, read.text_length), &again));
  MUST(strcmp(read.name, again.name) == 0 && read.text_length == again.text_length);
  MUST(memcmp(read.text, again.text, read.text_length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  if (length < 1) return 0;
  uint8_t *exact = malloc(length);
  MUST(exact);
  memcpy(exact, bytes + 1, length - 1);
  (void (*[])(const uint8_t *, size_t)){histogram, address, hello, refusal}[bytes[0] % 4](exact, length - 1);
  free(exact);
  return 0;
}
