/* core/lease, its wheel and its index: against a plain model over random calls, and rule by rule. Prints a line for each behaviour. The
 * holder's side is spec/c/lease_holder_spec.c; both together, over random schedules, are spec/study/lease_study.c. */
#include "core/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/rng.h"
#include "must.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)
static const uint64_t TICK = UINT64_C(1) << LEASE_WHEEL_TICK_BITS;
static const struct lease_config defaults = {.leases_max = 1000, .drift_ppm = 20000, .late_ms = 100, .catch_up_ms = 1000, .past_ms = 300000,
                                             .sweep_ms = 10000, .seed = 7};

static struct leases t;
static uint64_t now;

static void begin(struct lease_config config) {
  now = 5 * S + 12345;
  MUST(leases_init(&t, &config, now) == 0);
}
static void done(void) { leases_free(&t); }

static int grant_as(const char *key, const char *holder, uint64_t fence, uint32_t ttl_ms) {
  uint64_t handle;
  return lease_grant(&t, now, key, strlen(key), holder, strlen(holder), fence, ttl_ms, &handle);
}
static int renew_as(const char *key, const char *holder, uint64_t fence) {
  struct lease_renewal r = {.key = key, .key_length = (uint32_t)strlen(key), .fence = fence};
  uint32_t renewed = lease_renew(&t, now, holder, strlen(holder), &r, 1);
  MUST(renewed == (r.code == 0));
  return r.code;
}
static int release_as(const char *key, uint64_t fence) { return lease_release(&t, now, key, strlen(key), fence); }
static int transfer_as(const char *key, uint64_t fence, const char *holder, uint64_t new_fence) {
  return lease_transfer(&t, now, key, strlen(key), fence, holder, strlen(holder), new_fence);
}

/* Let time pass, ticking exactly when asked. Takes all expiries; returns how many there were; `last` is the last one's lateness. */
static uint64_t lateness;
static uint32_t take_all(void) {
  struct lease_expiry e;
  uint32_t cursor = 0, count = 0;
  while (lease_peek(&t, &cursor, &e)) {
    lateness = e.expired_for_ns;
    count++;
  }
  lease_take(&t, cursor);
  return count;
}
static uint32_t pass(uint64_t ns) {
  uint64_t until = now + ns, due;
  uint32_t count = 0;
  while ((due = lease_deadline(&t)) <= until) {
    now = due > now ? due : now;
    lease_tick(&t, now, 1000);
    count += take_all();
  }
  now = until;
  return count;
}

static void a_key_has_one_holder_and_rising_fences(void) {
  begin(defaults);
  MUST(grant_as("job", "w1", 10, 1000) == 0);
  MUST(grant_as("job", "w2", 11, 1000) == ERR_HELD && grant_as("job", "w2", 10, 1000) == ERR_STALE);
  MUST(grant_as("job", "w1", 10, 1000) == ERR_STALE && grant_as("job", "w1", 12, 1000) == 0);
  MUST(renew_as("job", "w1", 11) == ERR_STALE && renew_as("job", "w1", 13) == ERR_NOT_FOUND);
  MUST(renew_as("job", "w2", 12) == ERR_HELD && renew_as("other", "w1", 12) == ERR_NOT_FOUND && renew_as("job", "w1", 12) == 0);
  MUST(transfer_as("job", 11, "w2", 20) == ERR_STALE && transfer_as("job", 12, "w2", 12) == ERR_STALE);
  MUST(transfer_as("job", 13, "w2", 20) == ERR_NOT_FOUND && transfer_as("no", 12, "w2", 20) == ERR_NOT_FOUND);
  MUST(transfer_as("job", 12, "w2", 20) == 0 && renew_as("job", "w1", 12) == ERR_STALE && renew_as("job", "w2", 20) == 0);
  MUST(release_as("job", 12) == ERR_STALE && release_as("job", 21) == ERR_NOT_FOUND && release_as("job", 20) == 0);
  MUST(release_as("job", 20) == ERR_EXPIRED && renew_as("job", "w2", 20) == ERR_EXPIRED && transfer_as("job", 20, "w3", 30) == ERR_EXPIRED);
  MUST(grant_as("job", "w3", 20, 1000) == ERR_STALE && grant_as("job", "w3", 21, 1000) == 0);
  MUST(t.counts.stale == 6 && t.counts.held_refused == 1 && t.counts.stale_renewals == 2);
  done();
}

static void it_expires_at_its_deadline_and_at_most_a_tick_later(void) {
  static const uint32_t ttls[] = {50, 51, 99, 250, 301, 1000, 30000, 599999, 3600000};
  for (size_t i = 0; i < sizeof ttls / sizeof *ttls; i++)
    for (int step = 0; step < 7; step++) {
      begin(defaults);
      (void)pass((uint64_t)step * 777777);
      uint64_t deadline = now + ttls[i] * (MS + defaults.drift_ppm), began = now;
      MUST(grant_as("k", "w", 1, ttls[i]) == 0);
      MUST(pass(deadline - 1 - now) == 0); /* Never early, and not renewed by looking. */
      MUST(renew_as("k", "w", 2) == ERR_NOT_FOUND && pass(TICK + 1) == 1 && lateness <= TICK);
      MUST(TICK <= 10 * MS && deadline - began == (uint64_t)ttls[i] * 1020000);
      done();
    }
}

static void a_renewal_moves_the_deadline_and_a_stale_one_does_not(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 1000) == 0 && grant_as("k", "w", 2, 1000) == 0);
  for (int i = 0; i < 50; i++) {
    MUST(pass(900 * MS) == 0);
    MUST(renew_as("k", "w", 2) == 0);
  }
  MUST(pass(900 * MS) == 0);
  MUST(renew_as("k", "w", 1) == ERR_STALE && renew_as("k", "x", 2) == ERR_HELD);
  MUST(pass(120 * MS - 1) == 0 && pass(TICK + 1) == 1);
  MUST(renew_as("k", "w", 2) == ERR_EXPIRED);
  done();
}

static void a_renewal_after_the_deadline_and_before_the_tick_counts(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 1000) == 0 && pass(1020 * MS) == 0);
  now += MS / 2; /* The tick is due within 2.1 ms of the deadline. */
  MUST(renew_as("k", "w", 1) == 0 && pass(1019 * MS) == 0);
  done();
}

static void an_expired_key_is_granted_when_its_expiry_was_taken(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 100) == 0);
  while (t.due == 0) {
    now = lease_deadline(&t);
    lease_tick(&t, now, 1000);
  }
  MUST(t.due == 1 && grant_as("k", "x", 2, 100) == ERR_HELD && grant_as("k", "w", 2, 100) == ERR_HELD && release_as("k", 1) == ERR_EXPIRED);
  MUST(lease_deadline(&t) == now); /* It waits to be taken. */
  MUST(take_all() == 1 && grant_as("k", "x", 2, 100) == 0);
  done();
}

static void a_pause_revokes_nothing_before_the_sockets_are_read(void) {
  for (uint64_t pause = 150 * MS; pause < 100 * S; pause = pause * 3 / 2) {
    begin(defaults);
    MUST(grant_as("k", "w", 1, 1000) == 0 && grant_as("gone", "w", 1, 1000) == 0);
    (void)pass(500 * MS);
    now += pause + 600 * MS; /* Both deadlines passed. */
    lease_tick(&t, now, 1000);
    MUST(take_all() == 0 && t.counts.late == 1);
    MUST(renew_as("k", "w", 1) == 0); /* It waited in a socket. */
    uint64_t still = t.counts.late_ns < S ? t.counts.late_ns : S;
    MUST(pass(still - MS) == 0); /* Standing still. */
    MUST(pass(500 * MS) == 0 && renew_as("k", "w", 1) == 0);
    MUST(pass(600 * MS) == 1);   /* Only the lease that nobody renewed. */
    MUST(renew_as("k", "w", 1) == 0 && renew_as("gone", "w", 1) == ERR_EXPIRED);
    done();
  }
}

static void a_pause_that_ends_just_before_a_deadline_is_noticed_by_its_eve(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 30000) == 0);
  (void)pass(20 * S);
  now += 10600 * MS - MS; /* Paused from 20 s to 1 ms before the deadline at 30.6 s. */
  lease_tick(&t, now, 1000);
  MUST(t.counts.late == 1 && pass(100 * MS) == 0 && renew_as("k", "w", 1) == 0);
  done();
  for (uint64_t step = 0; step < 20; step++) { /* A shorter one: the tick of each second is hardly late, the eve is. */
    begin(defaults);
    (void)pass(step * 13 * MS);
    MUST(grant_as("k", "w", 1, 1000) == 0);
    now += 1019 * MS;
    lease_tick(&t, now, 1000);
    MUST(t.counts.late == 1 && pass(100 * MS) == 0 && renew_as("k", "w", 1) == 0);
    done();
  }
}

static void a_hiccup_up_to_late_ms_is_none_and_hiccups_do_not_stop_expiry(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 30000) == 0);
  (void)pass(S);
  now = lease_deadline(&t) + 100 * MS;
  lease_tick(&t, now, 1000);
  MUST(t.counts.late == 0);
  now = lease_deadline(&t) + 100 * MS + 1;
  lease_tick(&t, now, 1000);
  MUST(t.counts.late == 1);
  done();
  begin(defaults); /* Every single tick is 150 ms late. */
  MUST(grant_as("k", "w", 1, 30000) == 0);
  uint64_t granted = now;
  for (int i = 0; i < 1000 && !take_all(); i++) {
    uint64_t due = lease_deadline(&t);
    now = (due > now ? due : now) + 150 * MS;
    lease_tick(&t, now, 1000);
  }
  MUST(t.counts.expired == 1 && now - granted < 45 * S);
  done();
}

static void a_clock_that_jumps_ahead_makes_no_lease_shorter(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 10000) == 0);
  (void)pass(2 * S);
  now += 3600 * S;
  MUST(renew_as("other", "w", 1) == ERR_NOT_FOUND); /* The first call after the jump. */
  MUST(t.counts.late == 1);
  uint32_t expired = pass(7900 * MS);
  MUST(expired == 0 && pass(2300 * MS) == 1);
  done();
}

static void a_leadership_that_begins_gives_every_lease_a_whole_ttl(void) {
  begin(defaults);
  MUST(grant_as("k", "w", 1, 10000) == 0);
  MUST(pass(10 * S) == 0);
  lease_catch_up(&t, now);
  MUST(pass(10200 * MS - 1) == 0 && pass(TICK + 1) == 1 && t.counts.catch_ups == 1);
  done();
}

static void what_is_forgotten_still_refuses_lower_fences(void) {
  struct lease_config c = defaults;
  c.past_ms = 1000;
  begin(c);
  MUST(grant_as("k", "w", 10, 1000) == 0 && release_as("k", 10) == 0 && t.past == 1);
  MUST(pass(999 * MS) == 0 && t.past == 1);
  (void)pass(2 * MS);
  MUST(t.past == 0 && t.floor == 10 && t.counts.forgotten == 1);
  MUST(grant_as("k", "w", 10, 1000) == ERR_STALE && grant_as("other", "w", 9, 1000) == ERR_STALE && grant_as("k", "w", 11, 1000) == 0);
  done();
  c.past_ms = 3600000;
  c.leases_max = 2; /* Room is made by forgetting the oldest. */
  begin(c);
  MUST(grant_as("a", "w", 1, 1000) == 0 && release_as("a", 1) == 0 && grant_as("b", "w", 5, 1000) == 0);
  MUST(grant_as("c", "w", 6, 1000) == 0 && t.floor == 1 && grant_as("a", "w", 1, 1000) == ERR_STALE);
  MUST(grant_as("d", "w", 7, 1000) == ERR_FULL && t.counts.full == 1);
  MUST(release_as("b", 5) == 0 && grant_as("d", "w", 7, 1000) == 0 && t.floor == 5);
  done();
  c.leases_max = 1; /* The room is made by the last lease of the same holder: its name stays. */
  begin(c);
  MUST(grant_as("a", "w", 1, 1000) == 0 && release_as("a", 1) == 0 && grant_as("b", "w", 2, 1000) == 0);
  MUST(renew_as("b", "w", 2) == 0 && t.names.count == 1 && grant_as("c", "w", 3, 1000) == ERR_FULL && t.names.count == 1);
  done();
}

static void the_sweep_finds_what_the_deadlines_lost_and_nothing_else(void) {
  begin(defaults);
  for (uint64_t i = 1; i <= 600; i++) {
    char key[16];
    (void)snprintf(key, sizeof key, "k%d", (int)i);
    MUST(grant_as(key, "w", i, 5000) == 0);
  }
  MUST(pass(20 * S) == 600 && t.counts.lost == 0);
  MUST(grant_as("held", "w", 1000, 60000) == 0 && grant_as("lost", "w", 1001, 5000) == 0);
  struct lease_view v;
  MUST(lease_find(&t, now, "lost", 4, &v));
  t.chunks[(uint32_t)v.handle / 512][(uint32_t)v.handle % 512].placed ^= 1; /* The wheel brings it up at a tick at which it is ignored. */
  uint64_t began = now;
  MUST(pass(5100 * MS) == 0);
  MUST(pass(10 * S) == 1 && t.counts.lost == 1 && now - began < 16 * S);
  MUST(grant_as("lost", "x", 1002, 5000) == 0 && pass(5200 * MS) == 1 && t.counts.lost == 1);
  done();
}

static void a_handle_is_good_for_one_entry(void) {
  struct lease_config c = defaults;
  c.past_ms = 0;
  begin(c);
  uint64_t first, second;
  MUST(lease_grant(&t, now, "a", 1, "w", 1, 5, 1000, &first) == 0);
  struct lease_renewal r[3] = {{.handle = first, .fence = 5}, {.handle = first ^ (UINT64_C(1) << 40), .fence = 5}, {.handle = UINT64_MAX, .fence = 5}};
  MUST(lease_renew(&t, now, "w", 1, r, 3) == 1 && r[0].code == 0 && r[1].code == ERR_NOT_FOUND && r[2].code == ERR_NOT_FOUND);
  MUST(release_as("a", 5) == 0);
  (void)pass(MS);
  MUST(t.past == 0 && lease_grant(&t, now, "b", 1, "w", 1, 6, 1000, &second) == 0);
  MUST((uint32_t)first == (uint32_t)second && first != second);
  r[0] = (struct lease_renewal){.handle = first, .fence = 6};
  MUST(lease_renew(&t, now, "w", 1, r, 1) == 0 && r[0].code == ERR_NOT_FOUND); /* Another lease of this holder, of the same fence even. */
  done();
}

static void limits_hold_at_the_maximum_and_one_past(void) {
  struct lease_config c = defaults;
#define TRY(name, good, bad) \
  do { \
    c = defaults; \
    c.name = (good); \
    MUST(leases_init(&t, &c, 0) == 0); \
    c.name = (bad); \
    MUST(leases_init(&t, &c, 0) == ERR_CONFIG); \
  } while (0)
  TRY(leases_max, LEASE_TABLE_MAX, LEASE_TABLE_MAX + 1);
  TRY(leases_max, 1, 0);
  TRY(drift_ppm, LEASE_DRIFT_MAX_PPM, LEASE_DRIFT_MAX_PPM + 1);
  TRY(late_ms, 60000, 60001);
  TRY(late_ms, 1, 0);
  TRY(catch_up_ms, 60000, 60001);
  TRY(past_ms, LEASE_TTL_MAX_MS, LEASE_TTL_MAX_MS + 1);
  TRY(sweep_ms, 600000, 600001);
  TRY(sweep_ms, 10, 9);
#undef TRY
  begin(defaults);
  char text[LEASE_KEY_MAX + 2];
  memset(text, 'x', sizeof text);
  uint64_t handle;
#define GRANT(key, holder, fence, ttl) lease_grant(&t, now, text, key, text, holder, fence, ttl, &handle)
  MUST(GRANT(LEASE_KEY_MAX, LEASE_HOLDER_MAX, 1, 1000) == 0 && GRANT(LEASE_KEY_MAX + 1, 1, 2, 1000) == ERR_TOO_LARGE);
  MUST(GRANT(2, LEASE_HOLDER_MAX + 1, 2, 1000) == ERR_TOO_LARGE && GRANT(0, 1, 2, 1000) == ERR_CONFIG && GRANT(1, 0, 2, 1000) == ERR_CONFIG);
  MUST(GRANT(1, 1, 0, 1000) == ERR_CONFIG && GRANT(1, 1, UINT64_MAX, 1000) == 0);
  MUST(GRANT(3, 1, 2, LEASE_TTL_MIN_MS) == 0 && GRANT(4, 1, 2, LEASE_TTL_MIN_MS - 1) == ERR_CONFIG);
  MUST(GRANT(5, 1, 2, LEASE_TTL_MAX_MS) == 0 && GRANT(6, 1, 2, LEASE_TTL_MAX_MS + 1) == ERR_CONFIG);
  MUST(lease_transfer(&t, now, text, 3, 2, text, LEASE_HOLDER_MAX + 1, 9) == ERR_TOO_LARGE);
#undef GRANT
  done();
}

static void the_holders_are_bounded_and_their_names_are_freed(void) {
  struct lease_config c = defaults;
  c.leases_max = LEASE_HOLDERS_MAX + 10;
  c.past_ms = 0;
  begin(c);
  char name[16];
  for (uint32_t i = 0; i <= LEASE_HOLDERS_MAX; i++) {
    (void)snprintf(name, sizeof name, "h%u", (unsigned)i);
    MUST(grant_as(name, name, i + 1, 60000) == (i < LEASE_HOLDERS_MAX ? 0 : ERR_FULL));
  }
  MUST(t.counts.full == 1 && grant_as("again", "h7", 99999999, 60000) == 0);
  MUST(release_as("h9", 10) == 0);
  (void)pass(MS);
  MUST(t.names.count == LEASE_HOLDERS_MAX - 1 && grant_as("more", "new", 100000000, 60000) == 0);
  size_t full = lease_bytes(&t);
  MUST(pass(70 * S) == LEASE_HOLDERS_MAX + 1);
  (void)pass(MS);
  MUST(t.held + t.past == 0 && t.names.count == 0 && lease_bytes(&t) < 4096 && full > 6 << 20);
  MUST(grant_as("k", "w", 100000001, 1000) == 0 && pass(2 * S) == 1);
  done();
}

static void reused_entries_leave_the_wheel_bounded(void) {
  struct lease_config c = defaults;
  c.past_ms = 0;
  begin(c);
  for (uint64_t i = 1; i < 200000; i++) { /* A long lease, then a short one, of the same key: each pair leaves a number behind. */
    MUST(grant_as("k", "w", i, i % 2 ? LEASE_TTL_MAX_MS : 50) == 0);
    MUST(t.wheel.count < 2000);
  }
  MUST(pass(60 * MS) == 0);
  done();
}

/* ---- against a model ---- */

enum { KEYS = 300 };
static struct model {
  bool held;
  int holder;
  uint64_t fence, deadline;
} model[KEYS];

static void it_is_what_a_plain_table_is_over_random_calls(void) {
  struct rng rng;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    rng_seed(&rng, seed);
    struct lease_config c = defaults;
    c.past_ms = (uint32_t)rng_below(&rng, 5000);
    c.leases_max = KEYS;
    begin(c);
    memset(model, 0, sizeof model);
    uint64_t fence = 1, next_tick = now;
    for (int step = 0; step < 20000; step++) {
      now += rng_below(&rng, 20 * MS);
      while (lease_deadline(&t) <= now) { /* As an owner would: on time. */
        uint64_t due = lease_deadline(&t), here = now;
        now = due > next_tick ? due : next_tick;
        next_tick = now;
        lease_tick(&t, now, 100);
        struct lease_expiry e;
        uint32_t cursor = 0;
        while (lease_peek(&t, &cursor, &e)) {
          int number = 0;
          for (uint32_t i = 1; i < e.lease.key_length; i++) number = number * 10 + e.lease.key[i] - '0';
          struct model *m = &model[number];
          MUST(m->held && m->fence == e.lease.fence && m->deadline <= now && now - m->deadline <= TICK);
          MUST(e.lease.holder[1] == '0' + m->holder && e.expired_for_ns == now - m->deadline);
          m->held = false;
        }
        lease_take(&t, cursor);
        now = here;
      }
      int k = (int)rng_below(&rng, KEYS), w = (int)rng_below(&rng, 5);
      char key[16], holder[16];
      (void)snprintf(key, sizeof key, "k%d", k);
      (void)snprintf(holder, sizeof holder, "w%d", w);
      struct model *m = &model[k];
      uint32_t ttl = (uint32_t)(50 + rng_below(&rng, rng_below(&rng, 4) ? 500 : 20000));
      uint64_t old = m->fence ? m->fence - rng_below(&rng, 2) : 1, span = ttl * (MS + c.drift_ppm);
      int rc;
      switch (rng_below(&rng, 6)) {
        case 0:
        case 1:
          rc = grant_as(key, holder, ++fence, ttl);
          MUST(rc == (m->held && m->holder != w ? ERR_HELD : 0));
          if (rc == 0) *m = (struct model){true, w, fence, now + span};
          break;
        case 2:
          MUST(!m->fence || grant_as(key, holder, old, ttl) == ERR_STALE);
          break;
        case 3:
          if (m->held && m->holder == w) {
            struct lease_view v;
            MUST(lease_find(&t, now, key, strlen(key), &v) && v.left_ns == (int64_t)(m->deadline - now));
            MUST(renew_as(key, holder, m->fence) == 0);
            m->deadline = now + v.ttl_ms * (MS + c.drift_ppm);
          } else {
            MUST(renew_as(key, holder, old) < 0);
          }
          break;
        case 4:
          rc = release_as(key, m->fence);
          MUST((rc == 0) == m->held);
          m->held = false;
          break;
        default:
          rc = transfer_as(key, m->fence, holder, fence + 1);
          MUST((rc == 0) == m->held);
          if (rc == 0) {
            struct lease_view v;
            MUST(lease_find(&t, now, key, strlen(key), &v));
            *m = (struct model){true, w, ++fence, now + v.ttl_ms * (MS + c.drift_ppm)};
          }
      }
      next_tick = now;
      if (step % 100 == 0) {
        uint32_t held = 0;
        for (int i = 0; i < KEYS; i++) held += model[i].held;
        MUST(held == t.held && t.keys.count == t.held + t.due + t.past && t.due == 0);
      }
    }
    MUST(t.counts.lost == 0 && t.counts.late == 0 && t.counts.sweeps > 0);
    done();
  }
}

static void the_wheel_brings_up_every_number_in_time(void) {
  struct lease_wheel w = {0};
  struct rng rng;
  rng_seed(&rng, 3);
  static uint64_t due[20000];
  static uint32_t placed[20000];
  uint64_t at_ns = 0;
  uint32_t left = 20000, block[50], tick, count;
  MUST(lease_wheel_reserve(&w, left) == 0);
  for (uint32_t i = 0; i < left; i++) {
    due[i] = rng_below(&rng, UINT64_C(1) << (20 + rng_below(&rng, 34)));
    placed[i] = lease_wheel_place(&w, i, due[i]);
  }
  while (left > 0) {
    uint64_t next = lease_wheel_next_ns(&w);
    MUST(next != UINT64_MAX);
    at_ns = next;
    while ((count = lease_wheel_take(&w, at_ns, block, 1 + (uint32_t)rng_below(&rng, 50), &tick)) > 0)
      for (uint32_t i = 0; i < count; i++) {
        uint32_t n = block[i];
        MUST(placed[n] == tick);
        if (due[n] > at_ns) {
          placed[n] = lease_wheel_place(&w, n, due[n]);
          continue;
        }
        MUST(at_ns - due[n] <= TICK);
        left--;
      }
  }
  MUST(w.count == 0 && lease_wheel_next_ns(&w) == UINT64_MAX);
  lease_wheel_free(&w);
}

#define RUN(name) (name(), puts("ok " #name))
int main(int argc, char **argv) {
  (void)argc, (void)argv;
  RUN(a_key_has_one_holder_and_rising_fences);
  RUN(it_expires_at_its_deadline_and_at_most_a_tick_later);
  RUN(a_renewal_moves_the_deadline_and_a_stale_one_does_not);
  RUN(a_renewal_after_the_deadline_and_before_the_tick_counts);
  RUN(an_expired_key_is_granted_when_its_expiry_was_taken);
  RUN(a_pause_revokes_nothing_before_the_sockets_are_read);
  RUN(a_pause_that_ends_just_before_a_deadline_is_noticed_by_its_eve);
  RUN(a_hiccup_up_to_late_ms_is_none_and_hiccups_do_not_stop_expiry);
  RUN(a_clock_that_jumps_ahead_makes_no_lease_shorter);
  RUN(a_leadership_that_begins_gives_every_lease_a_whole_ttl);
  RUN(what_is_forgotten_still_refuses_lower_fences);
  RUN(the_sweep_finds_what_the_deadlines_lost_and_nothing_else);
  RUN(a_handle_is_good_for_one_entry);
  RUN(limits_hold_at_the_maximum_and_one_past);
  RUN(the_holders_are_bounded_and_their_names_are_freed);
  RUN(reused_entries_leave_the_wheel_bounded);
  RUN(it_is_what_a_plain_table_is_over_random_calls);
  RUN(the_wheel_brings_up_every_number_in_time);
  return 0;
}
