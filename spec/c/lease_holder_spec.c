/* core/lease_holder: each rule, and a plain model over random calls. Prints a line for each behaviour. */
#include "core/lease_holder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/errors.h"
#include "core/lease.h"
#include "core/rng.h"
#include "must.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)
static struct lease_holder h;
static uint64_t now;
static const struct lease_holder_config defaults = {.leases_max = 1000, .drift_ppm = 20000};

static void begin(void) {
  now = 100 * S;
  MUST(lease_holder_init(&h, &defaults, now) == 0);
}
static void done(void) { lease_holder_free(&h); }

static int add(const char *key, uint64_t fence, uint32_t ttl_ms, uint64_t sent) {
  return lease_holder_add(&h, now, key, strlen(key), fence, ttl_ms, sent, 0);
}
static bool holds(const char *key) { return lease_holder_holds(&h, now, key, strlen(key)); }
static bool renewed(const char *key, uint64_t fence, uint64_t sent) { return lease_holder_renewed(&h, now, key, strlen(key), fence, sent); }
static bool refused(const char *key, uint64_t fence) { return lease_holder_refused(&h, now, key, strlen(key), fence); }
static bool drop(const char *key) { return lease_holder_drop(&h, now, key, strlen(key)); }

/* Let time pass, ticking when asked; the events as letters: j, e (expired), r (refused), each with its fence's last digit. */
static const char *pass(uint64_t ns) {
  static char said[256];
  uint64_t until = now + ns, due;
  said[0] = '\0';
  while ((due = lease_holder_deadline(&h)) <= until) {
    now = due > now ? due : now;
    lease_holder_tick(&h, now);
    struct lease_holder_event e;
    uint32_t cursor = 0;
    while (lease_holder_peek(&h, &cursor, &e)) {
      size_t at = strlen(said);
      (void)snprintf(said + at, sizeof said - at, "%c%u", !e.ended ? 'j' : e.refused ? 'r' : 'e', (unsigned)(e.lease.fence % 10));
    }
    lease_holder_take(&h, cursor);
  }
  now = until;
  return said;
}
static uint32_t due(void) {
  struct lease_held_view v;
  uint32_t count = 0;
  while (lease_holder_due(&h, now, 0, &v)) count++;
  return count;
}
#define SAID(ns, text) MUST(strcmp(pass(ns), text) == 0)

static void it_holds_from_the_instant_of_sending_less_the_drift(void) {
  begin();
  for (uint64_t lag = 0; lag < 980; lag += 97) {
    uint64_t sent = now;
    now += lag * MS;
    MUST(add("k", lag + 1, 1000, sent) == 0 && holds("k"));
    now = sent + 980 * MS - 1;
    MUST(holds("k"));
    now++;
    MUST(!holds("k") && add("k", lag + 2, 1000, sent) == ERR_EXPIRED);
  }
  MUST(add("x", 1, 1000, now + 1) == ERR_CONFIG); /* Sent in the future. */
  done();
}

static void it_renews_warns_and_ends_in_time(void) {
  begin();
  MUST(add("k", 7, 3000, now) == 0);
  SAID(830 * MS, "");
  MUST(due() == 0);
  SAID(150 * MS, "");
  MUST(due() == 1 && due() == 0); /* A third of the ttl, or up to a twentieth before. */
  SAID(244 * MS, "");
  MUST(due() == 0);
  SAID(MS, "");
  MUST(due() == 1); /* Again after a twelfth. */
  SAID(735 * MS - 1, "");
  MUST(holds("k"));
  SAID(1, "j7"); /* Two thirds of 2.94 s. */
  SAID(980 * MS - 1, "");
  MUST(holds("k"));
  SAID(1, "e7");
  MUST(!holds("k") && h.held == 0 && h.counts.jeopardies == 1 && h.counts.expired == 1);
  done();
}

static void a_renewal_ends_jeopardy_and_unreported_jeopardy_is_not_reported(void) {
  begin();
  MUST(add("k", 7, 3000, now) == 0);
  uint64_t sent = now + 1900 * MS;
  SAID(2 * S, "j7");
  MUST(renewed("k", 7, sent));
  SAID(1800 * MS, "");
  MUST(renewed("k", 7, now) && holds("k"));
  now += 1970 * MS;
  lease_holder_tick(&h, now); /* Jeopardy is noticed, and a renewal comes before it is reported. */
  MUST(h.counts.jeopardies == 2 && renewed("k", 7, now - MS));
  SAID(1, "");
  done();
}

static void late_doubled_and_reordered_answers_are_harmless(void) {
  begin();
  MUST(add("k", 7, 3000, now) == 0);
  uint64_t first = now + S, second = now + 2 * S;
  now += 2 * S;
  MUST(renewed("k", 7, second) && !renewed("k", 7, first) && !renewed("k", 7, second));
  MUST(!renewed("k", 6, now) && !renewed("no", 7, now) && !renewed("k", 7, now + 1));
  now = second + 2940 * MS - 1;
  MUST(holds("k"));
  now++;
  MUST(!holds("k") && !renewed("k", 7, second));
  MUST(!refused("k", 6) && !refused("k", 8) && refused("k", 7) && !refused("k", 7) && !renewed("k", 7, now));
  SAID(1, "r7");
  done();
}

static void an_answer_after_the_deadline_counts_only_if_it_was_sent_in_time(void) {
  begin();
  MUST(add("k", 7, 1000, now) == 0);
  uint64_t sent = now + 500 * MS;
  now += 990 * MS; /* Past the deadline, not ticked. The grantor renewed it in time, so it was never anyone else's. */
  MUST(!holds("k") && renewed("k", 7, sent) && holds("k"));
  now += 600 * MS;
  MUST(!renewed("k", 7, sent + 10 * MS) && !holds("k")); /* 0.98 s after its sending are over, too. */
  done();
}

static void what_ended_is_not_granted_again_by_an_old_answer(void) {
  for (int how = 0; how < 3; how++) {
    begin();
    MUST(add("k", 7, 1000, now) == 0);
    (void)pass(500 * MS);
    if (how == 0) MUST(drop("k"));
    if (how == 1) MUST(refused("k", 7));
    if (how == 2) (void)pass(480 * MS);
    MUST(!holds("k") && h.held == 0 && h.gone == 1);
    uint64_t ended = now;
    SAID(0, how == 1 ? "r7" : "");
    now += 979 * MS; /* An answer to the last request that we can have sent before the end. */
    MUST(add("k", 7, 1000, ended) == ERR_STALE && add("k", 6, 1000, ended) == ERR_STALE && !holds("k"));
    MUST(add("k", 8, 1000, ended) == 0 && holds("k") && h.gone == 0); /* The grantor gave it to us anew. */
    (void)pass(10 * S);
    MUST(h.held == 0 && h.gone == 0 && h.keys.count == 0 && h.timers.count == 0);
    done();
  }
}

static void what_we_did_not_ask_for_is_held_when_a_renewal_was_answered(void) {
  begin();
  MUST(add("k", 7, 1000, LEASE_NOT_SENT) == 0 && !holds("k"));
  MUST(due() == 1);
  uint64_t sent = now;
  now += 100 * MS;
  MUST(renewed("k", 7, sent) && holds("k"));
  now = sent + 980 * MS;
  MUST(!holds("k"));
  MUST(add("l", 8, 1000, LEASE_NOT_SENT) == 0);
  SAID(980 * MS, "e7e8");
  done();
}

static void leases_of_about_the_same_age_are_due_together(void) {
  begin();
  char key[16];
  for (int i = 0; i < 100; i++) {
    (void)snprintf(key, sizeof key, "k%d", i);
    MUST(add(key, (uint64_t)i + 1, 10000, now) == 0);
    now += MS;
  }
  uint32_t turns = 0, count = 0;
  while (count < 100) {
    uint64_t next = lease_holder_deadline(&h);
    now = next > now ? next : now;
    count += due();
    turns++;
  }
  MUST(turns <= 2);
  done();
}

static void a_greater_fence_replaces_ours_and_is_due_on_its_own(void) {
  begin();
  MUST(add("k", 7, 1000, now) == 0 && add("k", 6, 1000, now) == ERR_STALE && add("k", 7, 1000, now) == 0);
  now += 500 * MS;
  MUST(add("k", 9, 1000, now) == 0 && h.held == 1 && h.gone == 0 && h.keys.count == 1);
  SAID(900 * MS, "j9");
  SAID(80 * MS, "e9"); /* No event for the fence that we replaced ourselves. */
  done();
}

static void limits_hold_at_the_maximum_and_one_past(void) {
  struct lease_holder_config c = {.leases_max = LEASE_HOLDER_LEASES_MAX, .drift_ppm = LEASE_DRIFT_MAX_PPM};
  MUST(lease_holder_init(&h, &c, 0) == 0);
  c.leases_max++;
  MUST(lease_holder_init(&h, &c, 0) == ERR_CONFIG);
  c.leases_max = 0;
  MUST(lease_holder_init(&h, &c, 0) == ERR_CONFIG);
  c.leases_max = 2, c.drift_ppm++;
  MUST(lease_holder_init(&h, &c, 0) == ERR_CONFIG);
  c.drift_ppm = 0, now = 0;
  MUST(lease_holder_init(&h, &c, 0) == 0);
  char text[LEASE_KEY_MAX + 1];
  memset(text, 'x', sizeof text);
#define ADD(key, fence, ttl, group) lease_holder_add(&h, now, text, key, fence, ttl, now, group)
  MUST(ADD(LEASE_KEY_MAX, 1, LEASE_TTL_MAX_MS, LEASE_HOLDER_GROUPS_MAX - 1) == 0 && ADD(LEASE_KEY_MAX + 1, 1, 1000, 0) == ERR_TOO_LARGE);
  MUST(ADD(0, 1, 1000, 0) == ERR_CONFIG && ADD(1, 0, 1000, 0) == ERR_CONFIG && ADD(1, 1, 1000, LEASE_HOLDER_GROUPS_MAX) == ERR_CONFIG);
  MUST(ADD(1, 1, LEASE_TTL_MIN_MS - 1, 0) == ERR_CONFIG && ADD(1, 1, LEASE_TTL_MAX_MS + 1, 0) == ERR_CONFIG);
  MUST(ADD(1, 1, LEASE_TTL_MIN_MS, 0) == 0 && ADD(2, 1, 1000, 0) == ERR_FULL);
  for (size_t i = 2; i < 4; i++) { /* Each that is given up is remembered for a ttl: twice leases_max in all. */
    MUST(lease_holder_drop(&h, now, text, i - 1) && ADD(i, 1, 1000, 0) == 0);
  }
  MUST(h.held == 2 && h.gone == 2 && lease_holder_drop(&h, now, text, 3) && ADD(4, 1, 1000, 0) == ERR_FULL);
  (void)pass(1001 * MS);
  MUST(h.gone == 0 && ADD(4, 1, 1000, 0) == 0);
#undef ADD
  done();
}

/* ---- against a model ---- */

enum { KEYS = 40 };
static struct model {
  bool held, pending;
  uint64_t fence, sent, gone_fence, gone_until;
} model[KEYS];

static void it_is_what_a_plain_table_is_over_random_calls(void) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    struct rng rng;
    rng_seed(&rng, seed);
    begin();
    memset(model, 0, sizeof model);
    uint64_t fence = 1, span = 1000 * (MS - defaults.drift_ppm);
    for (int step = 0; step < 10000; step++) {
      (void)pass(rng_below(&rng, 20 * MS));
      for (int i = 0; i < KEYS; i++)
        if (model[i].held && model[i].sent + span <= now)
          model[i] = (struct model){.gone_fence = model[i].fence, .gone_until = model[i].sent + 2 * span};
      int k = (int)rng_below(&rng, KEYS);
      char key[16];
      (void)snprintf(key, sizeof key, "k%d", k);
      struct model *m = &model[k];
      uint64_t sent = now - rng_below(&rng, 1500 * MS), f = m->held && rng_below(&rng, 2) ? m->fence : fence - rng_below(&rng, 3);
      bool gone = !m->held && m->gone_until > now;
      int rc;
      switch (rng_below(&rng, 5)) {
        case 0:
          fence += 2;
          rc = add(key, fence, 1000, sent);
          MUST(rc == (sent + span <= now ? ERR_EXPIRED : 0));
          if (rc == 0) *m = (struct model){.held = true, .fence = fence, .sent = sent};
          break;
        case 1:
          if (gone) MUST(add(key, m->gone_fence, 1000, sent) == ERR_STALE);
          break;
        case 2:
          MUST(renewed(key, f, sent) == (m->held && m->fence == f && sent > m->sent && sent + span > now));
          if (m->held && m->fence == f && sent > m->sent && sent + span > now) m->sent = sent;
          break;
        case 3:
          MUST(refused(key, f) == (m->held && m->fence == f));
          if (m->held && m->fence == f) *m = (struct model){.gone_fence = f, .gone_until = now + span};
          break;
        default:
          if (rng_below(&rng, 4)) break;
          MUST(drop(key) == m->held);
          if (m->held) *m = (struct model){.gone_fence = m->fence, .gone_until = now + span};
      }
      MUST(holds(key) == m->held);
      if (step % 50) continue;
      uint32_t held = 0;
      for (int i = 0; i < KEYS; i++) held += model[i].held;
      MUST(h.held == held && h.keys.count == h.held + h.gone && h.timers.count == h.keys.count);
    }
    done();
  }
}

#define RUN(name) (name(), puts("ok " #name))
int main(void) {
  RUN(it_holds_from_the_instant_of_sending_less_the_drift);
  RUN(it_renews_warns_and_ends_in_time);
  RUN(a_renewal_ends_jeopardy_and_unreported_jeopardy_is_not_reported);
  RUN(late_doubled_and_reordered_answers_are_harmless);
  RUN(an_answer_after_the_deadline_counts_only_if_it_was_sent_in_time);
  RUN(what_ended_is_not_granted_again_by_an_old_answer);
  RUN(what_we_did_not_ask_for_is_held_when_a_renewal_was_answered);
  RUN(leases_of_about_the_same_age_are_due_together);
  RUN(a_greater_fence_replaces_ours_and_is_due_on_its_own);
  RUN(limits_hold_at_the_maximum_and_one_past);
  RUN(it_is_what_a_plain_table_is_over_random_calls);
  return 0;
}
