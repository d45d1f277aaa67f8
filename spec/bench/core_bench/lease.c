/* Leases: grant, renew (by handle and by key), expire. Keys are like those of jobs; operations come in random order of the entries, so
 * that the caches cannot foresee them; renewals are in batches of 1,024, as they arrive in messages, of random leases. */
#include "core/lease.h"

#include <string.h>

#include "core_bench.h"

enum { BATCH = 1024, KEY = 24, HOLDERS = 10 };
#define MS UINT64_C(1000000)
#define S (1000 * MS)
enum { GRANT, GRANT_ONE, REGRANT, RENEW, RENEW_KEY, TRANSFER, REFUSE, EXPIRE, BYTES, ROWS };

struct table {
  struct leases leases;
  uint32_t count;
  uint64_t now, fence;
  char (*keys)[KEY];  /* By number. */
  char (*named)[KEY]; /* In the order of the operations: a key comes in a message, so it is in the caches. */
  uint64_t *handles;  /* By number. */
};

static void key_of(char *out, uint32_t i) { (void)snprintf(out, KEY, "job-%08x/part-%u", i * 2654435761u, (unsigned)(i % 7)); }

static const char *holder_of(uint32_t i) {
  static const char *const names[HOLDERS] = {"w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8", "w9"};
  return names[i % HOLDERS];
}

/* The keys in this order, which the operations then follow. */
static void name_in(struct table *t, const uint32_t *order) {
  for (uint32_t i = 0; i < t->count; i++) memcpy(t->named[i], t->keys[order[i]], KEY);
}

/* Number order[i] gets fence i + 1 + the fences before. Leases whose ttl differs, so that they do not expire all at once. Returns the ns. */
static uint64_t grant_all(struct table *t, const uint32_t *order, uint32_t block) {
  enum { BLOCK_MAX = 64 };
  name_in(t, order);
  struct lease_grant_item items[BLOCK_MAX];
  uint64_t began = bench_cpu_ns();
  for (uint32_t from = 0; from < t->count; from += block) {
    uint32_t count = t->count - from < block ? t->count - from : block;
    for (uint32_t i = 0; i < count; i++)
      items[i] = (struct lease_grant_item){.key = t->named[from + i], .key_length = (uint32_t)strlen(t->named[from + i]),
                                           .holder = holder_of(order[from + i]), .holder_length = 2, .fence = ++t->fence,
                                           .ttl_ms = 30000 + (from + i) % 2000};
    BENCH_MUST(lease_grant_all(&t->leases, t->now, items, count) == count);
  }
  uint64_t spent = bench_cpu_ns() - began;
  for (uint32_t i = 0; i < t->count; i++) {
    struct lease_view v;
    BENCH_MUST(lease_find(&t->leases, t->now, t->named[i], strlen(t->named[i]), &v));
    t->handles[order[i]] = v.handle;
  }
  return spent;
}

/* All of them, in batches of random ones; only the calls are timed, not the making of the batches. `fences`: by number. */
static uint64_t renew_all(struct table *t, const uint32_t *order, const uint64_t *fences, bool by_key) {
  static struct lease_renewal batch[BATCH];
  static char keys[BATCH][KEY];
  uint32_t filled = 0;
  uint64_t spent = 0;
  for (uint32_t h = 0; h < HOLDERS; h++)
    for (uint32_t i = 0; i <= t->count; i++) {
      if (i < t->count) {
        uint32_t n = order[i];
        if (n % HOLDERS != h) continue;
        memcpy(keys[filled], t->keys[n], KEY);
        batch[filled] = (struct lease_renewal){.fence = fences[n], .handle = by_key ? 0 : t->handles[n], .key = keys[filled],
                                               .key_length = (uint32_t)strlen(keys[filled])};
        if (++filled < BATCH) continue;
      }
      uint64_t began = bench_cpu_ns();
      uint32_t renewed = lease_renew(&t->leases, t->now, holder_of(h), 2, batch, filled);
      spent += bench_cpu_ns() - began;
      BENCH_MUST(renewed == filled);
      filled = 0;
    }
  return spent;
}

/* Time passes, ticked as asked, until all have expired and were taken. */
static uint64_t expire_all(struct table *t) {
  uint64_t taken = 0;
  while (t->leases.held > 0) {
    uint64_t due = lease_deadline(&t->leases);
    t->now = due > t->now ? due : t->now;
    lease_tick(&t->leases, t->now, 8192);
    struct lease_expiry e;
    uint32_t cursor = 0;
    while (lease_peek(&t->leases, &cursor, &e)) bench_keep(e.lease.fence), taken++;
    lease_take(&t->leases, cursor);
  }
  return taken;
}

static void keep_least(double *at, uint64_t ns, uint32_t count) {
  double each = (double)ns / count;
  if (*at == 0 || each < *at) *at = each;
}

static void round_of(struct table *t, struct bench_row *rows, int size, uint32_t seed) {
  uint32_t *order = bench_order(t->count, seed), *other = bench_order(t->count, seed + 1);
  uint64_t *fences = malloc(t->count * sizeof *fences);
  const struct lease_config config = {.leases_max = t->count, .drift_ppm = 20000, .late_ms = 100, .catch_up_ms = 1000, .past_ms = 300000,
                                      .sweep_ms = 10000, .seed = seed};
  BENCH_MUST(fences);
  t->now = S;
  t->fence = 0;
  BENCH_MUST(leases_init(&t->leases, &config, t->now) == 0);
  keep_least(&rows[GRANT_ONE].ns[size], grant_all(t, order, 1), t->count);
  leases_free(&t->leases);
  t->fence = 0;
  BENCH_MUST(leases_init(&t->leases, &config, t->now) == 0);
  keep_least(&rows[GRANT].ns[size], grant_all(t, order, 64), t->count);
  rows[BYTES].ns[size] = (double)lease_bytes(&t->leases) / t->count;
  for (uint32_t i = 0; i < t->count; i++) fences[other[i]] = t->fence + i + 1;
  keep_least(&rows[REGRANT].ns[size], grant_all(t, other, 64), t->count); /* Its own, again, in another order than they lie in memory. */
  for (int by_key = 0; by_key < 2; by_key++) {
    t->now += 400 * MS;
    uint32_t *third = bench_order(t->count, seed + 2);
    keep_least(&rows[by_key ? RENEW_KEY : RENEW].ns[size], renew_all(t, third, fences, by_key), t->count);
    free(third);
  }
  uint64_t began = bench_cpu_ns();
  for (uint32_t i = 0; i < t->count; i++) /* `named` is in the order `other`, whose fences rise by one. */
    BENCH_MUST(lease_transfer(&t->leases, t->now, t->named[i], strlen(t->named[i]), i + 1 + t->count, "next", 4, ++t->fence) == 0);
  keep_least(&rows[TRANSFER].ns[size], bench_cpu_ns() - began, t->count);
  began = bench_cpu_ns();
  for (uint32_t i = 0; i < t->count; i++) /* A former owner, of each. */
    BENCH_MUST(lease_release(&t->leases, t->now, t->named[i], strlen(t->named[i]), 1) < 0);
  keep_least(&rows[REFUSE].ns[size], bench_cpu_ns() - began, t->count);
  began = bench_cpu_ns();
  BENCH_MUST(expire_all(t) == t->count && t->leases.counts.lost == 0 && t->leases.counts.late == 0);
  keep_least(&rows[EXPIRE].ns[size], bench_cpu_ns() - began, t->count);
  leases_free(&t->leases);
  free(order);
  free(other);
  free(fences);
}

void bench_lease(bool quick) {
  struct bench_row rows[ROWS] = {[GRANT] = {.name = "lease: grant new keys, 64 at once"},
                                 [GRANT_ONE] = {.name = "lease: grant a new key, alone"},
                                 [REGRANT] = {.name = "lease: grant known keys, 64 at once"},
                                 [RENEW] = {.name = "lease: renew by handle"}, [RENEW_KEY] = {.name = "lease: renew by key"},
                                 [TRANSFER] = {.name = "lease: transfer"}, [REFUSE] = {.name = "lease: refuse a lower fence"},
                                 [EXPIRE] = {.name = "lease: expire, with all its ticks"}, [BYTES] = {.name = "lease: bytes an entry"}};
  for (int size = 0; size < 3; size++) {
    struct table t = {.count = bench_sizes[size]};
    BENCH_MUST((t.keys = malloc(t.count * sizeof *t.keys)) && (t.named = malloc(t.count * sizeof *t.named)));
    BENCH_MUST((t.handles = malloc(t.count * sizeof *t.handles)));
    for (uint32_t i = 0; i < t.count; i++) key_of(t.keys[i], i);
    uint32_t rounds = quick ? 1 : size == 0 ? 200 : size == 1 ? 10 : 3;
    for (uint32_t i = 0; i < rounds; i++) round_of(&t, rows, size, i + 1);
    free(t.keys);
    free(t.named);
    free(t.handles);
  }
  bench_print_head("ns per operation");
  for (int i = 0; i < ROWS; i++) bench_print_row(&rows[i]);
  bench_bar("lease_renew_ns", rows[RENEW].ns[2], "<=", 200);
  bench_bar("lease_renew_by_key_ns", rows[RENEW_KEY].ns[2], "<=", 200);
  bench_bar("lease_grant_spread", bench_spread(&rows[GRANT]), "<=", 2);
  bench_bar("lease_renew_spread", bench_spread(&rows[RENEW]), "<=", 2);
  bench_bar("lease_expire_spread", bench_spread(&rows[EXPIRE]), "<=", 2);
}
