/* core/detector: its rules one by one, both sides of each boundary. With a word: only the behaviours whose names contain it. */
#include "core/detector.h"

#include <string.h>

#include "core/detector_private.h"
#include "core/errors.h"
#include "core/rng.h"
#include "detector_model.h"
#include "must.h"

#define MS MODEL_MS
#define S (1000 * MS)
static const uint64_t T0 = 7 * S + 12345; /* Time does not begin at 0. */
static const struct detector_scale unknown = {0, 0};
static struct detector_action got[64];
static char got_names[64][2][256];
static int got_count;

static struct detector_text t(const char *text) { return (struct detector_text){text, strlen(text)}; }
static uint32_t by(const char *name) { return detector_number(name, strlen(name)); }

static struct detector_config config_of(const char *profile, enum detector_watches watches) {
  struct detector_config c;
  MUST(detector_config_profile(profile, watches, &c) == 0 && !detector_config_check(&c));
  return c;
}
static struct detector *open(void) {
  struct detector_config c = config_of("lan", DETECTOR_WORKERS);
  return detector_new(&c, T0);
}
static int drain(struct detector *d) {
  struct detector_action a;
  for (got_count = 0; detector_next(d, &a); got_count++) {
    MUST(got_count < 64);
    memcpy(got_names[got_count][0], a.job.bytes, a.job.length), got_names[got_count][0][a.job.length] = 0;
    memcpy(got_names[got_count][1], a.node.bytes, a.node.length), got_names[got_count][1][a.node.length] = 0;
    got[got_count] = a;
  }
  return got_count;
}
static bool is(int index, enum detector_kind kind, const char *job, const char *node, enum detector_why why) {
  return index < got_count && got[index].kind == kind && got[index].why == why && strcmp(got_names[index][0], job) == 0 &&
         strcmp(got_names[index][1], node) == 0;
}
/* Tick whenever the detector asks, up to and including `until_ns`. Returns the instant of the first action; 0: none came. */
static uint64_t run(struct detector *d, uint64_t until_ns) {
  for (uint64_t at_ns; (at_ns = detector_deadline(d)) <= until_ns;) {
    detector_tick(d, at_ns);
    if (drain(d) > 0) return d->now_ns;
  }
  return 0;
}
static int suspect(struct detector *d, uint64_t now_ns, const char *job, const char *node, const char *accuser) {
  return detector_suspect(d, now_ns, t(job), t(node), by(accuser), UINT32_MAX, unknown);
}
static int alive(struct detector *d, uint64_t now_ns, const char *node, uint32_t generation, uint32_t version) {
  return detector_node(d, now_ns, t(node), DETECTOR_ALIVE, (struct detector_incarnation){generation, version});
}
static int claim(struct detector *d, const char *node, enum detector_state state, uint32_t generation, uint32_t version) {
  return detector_node(d, d->now_ns, t(node), state, (struct detector_incarnation){generation, version});
}
static struct detector_counts counts(struct detector *d) {
  struct detector_counts c;
  detector_counts(d, &c);
  return c;
}

/* ---- time ---- */

static void expiry_comes_within_a_tick_of_the_deadline_and_never_before(void) {
  static const uint32_t timeouts_ms[] = {50, 51, 999, 1000, 10000, 60000, 3600000};
  for (size_t i = 0; i < sizeof timeouts_ms / sizeof *timeouts_ms; i++) {
    struct detector_config c = config_of("lan", DETECTOR_WORKERS);
    c.job_min_ms = c.job_max_ms = timeouts_ms[i];
    for (uint64_t shift_ns = 0; shift_ns < 3 * MS; shift_ns += 777777) {
      struct detector *d = detector_new(&c, T0);
      uint64_t deadline_ns = T0 + shift_ns + timeouts_ms[i] * MS;
      MUST(suspect(d, T0 + shift_ns, "j", "w", "m") == 1 && drain(d) == 1 && is(0, DETECTOR_SUSPECTED, "j", "w", DETECTOR_WHY_SILENT));
      MUST(run(d, deadline_ns - 1) == 0);
      detector_tick(d, deadline_ns - 1);
      MUST(drain(d) == 0);
      uint64_t at_ns = run(d, deadline_ns + DETECTOR_TICK_NS);
      MUST(at_ns >= deadline_ns && at_ns <= deadline_ns + DETECTOR_TICK_NS && is(0, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT));
      MUST(got[0].timeout_ns == timeouts_ms[i] * MS && got[0].age_ns == at_ns - T0 - shift_ns);
      MUST(detector_deadline(d) == UINT64_MAX && counts(d).suspicions == 0);
      detector_free(d);
    }
  }
}

/* From `from_ns` on, each millisecond one more accuser, and an old one again. Returns when it expired. */
static uint64_t confirm_on_and_on(uint64_t from_ns) {
  struct detector *d = open();
  struct detector_evidence e;
  uint64_t last_ns = T0 + 10 * S, expired_ns = 0;
  MUST(suspect(d, T0, "j", "w", "m0") == 1 && drain(d) == 1 && run(d, from_ns) == 0);
  for (uint64_t now_ns = from_ns; now_ns < T0 + 11 * S && !expired_ns; now_ns += MS) {
    char name[32];
    (void)snprintf(name, sizeof name, "m%d", (int)((now_ns - T0) / MS) + 1);
    (void)detector_confirm(d, now_ns, t("j"), t("w"), by(name)); /* Whether it counts is not the question here. */
    (void)suspect(d, now_ns, "j", "w", "m0");
    detector_why(d, t("j"), t("w"), &e);
    MUST(e.suspected && e.deadline_ns <= last_ns);
    last_ns = e.deadline_ns;
    expired_ns = run(d, now_ns + MS);
  }
  MUST(is(0, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT) && got[0].confirmations == 2);
  detector_free(d);
  return expired_ns;
}

static void a_stream_of_confirmations_cannot_delay_expiry(void) {
  uint64_t at_ns = confirm_on_and_on(T0);
  MUST(at_ns >= T0 + S && at_ns <= T0 + S + DETECTOR_TICK_NS);
  at_ns = confirm_on_and_on(T0 + 2 * S); /* The least time is past: the second confirmation ends it. */
  MUST(at_ns >= T0 + 2 * S + MS && at_ns <= T0 + 2 * S + MS + DETECTOR_TICK_NS);
}

static void confirmations_bring_the_deadline_nearer_by_lifeguards_law(void) {
  struct detector *d = open();
  struct detector_evidence e;
  MUST(suspect(d, T0, "j", "w", "m1") == 1);
  MUST(detector_confirm(d, T0 + S, t("j"), t("w"), by("m1")) == 0 && counts(d).repeated == 1);
  MUST(detector_confirm(d, T0 + S, t("j"), t("w"), by("m2")) == 1);
  detector_why(d, t("j"), t("w"), &e);
  uint64_t want_ns = T0 + 10 * S - (uint64_t)(9e9 * log(2) / log(3));
  MUST(e.deadline_ns >= want_ns - 1 && e.deadline_ns <= want_ns + 1 && e.confirmations == 1 && e.wanted == 2);
  MUST(detector_confirm(d, T0 + 2 * S, t("j"), t("w"), by("m3")) == 1); /* The last one wanted: start + least is past. */
  MUST(drain(d) == 1 && run(d, T0 + 2 * S + 2 * MS) > 0 && is(0, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT));
  MUST(detector_confirm(d, T0 + 3 * S, t("j"), t("w"), by("m4")) == 0 && counts(d).unmatched == 1);
  detector_free(d);
}

static void a_late_tick_leaves_a_tick_for_what_waits_unread(void) {
  struct detector *d = open();
  MUST(suspect(d, T0, "j", "w", "m") == 1 && suspect(d, T0, "j", "v", "m") == 1 && drain(d) == 2);
  MUST(run(d, T0 + 9950 * MS) == 0);
  detector_tick(d, T0 + 10 * S + 11 * MS); /* Late, but no stall. */
  MUST(drain(d) == 0 && counts(d).stalls == 0 && counts(d).postponed == 2);
  MUST(detector_progress(d, T0 + 10 * S + 12 * MS, t("j"), t("v")) == 1);
  uint64_t at_ns = run(d, T0 + 11 * S);
  MUST(is(0, DETECTOR_CLEARED, "j", "v", DETECTOR_WHY_PROGRESS) && is(1, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT));
  MUST(at_ns >= T0 + 10 * S + 21 * MS && at_ns <= T0 + 10 * S + 31 * MS);
  MUST(suspect(d, T0 + 20 * S, "j", "w", "m") == 1 && drain(d) == 1);
  MUST(run(d, T0 + 29950 * MS) == 0);
  detector_tick(d, T0 + 30 * S + 10 * MS); /* Within a tick: it expires. */
  MUST(drain(d) == 1 && is(0, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT));
  detector_free(d);
}

static void a_stall_gives_back_its_time_up_to_one_timeout(void) {
  struct detector *d = open();
  struct detector_evidence e;
  MUST(suspect(d, T0, "j", "w", "m") == 1 && drain(d) == 1);
  MUST(run(d, T0 + 2 * S) == 0);
  uint64_t beat_ns = detector_deadline(d);
  detector_tick(d, beat_ns + 100 * MS); /* Late by stall_ms: not yet a stall. */
  MUST(counts(d).stalls == 0);
  beat_ns = detector_deadline(d);
  detector_tick(d, beat_ns + 5 * S);
  MUST(counts(d).stalls == 1 && drain(d) == 0);
  MUST(run(d, T0 + 14900 * MS) == 0);
  uint64_t at_ns = run(d, T0 + 16 * S);
  MUST(at_ns >= T0 + 15 * S && at_ns <= T0 + 15 * S + DETECTOR_TICK_NS);
  /* After an hour away, a whole timeout, and no hour. */
  uint64_t from_ns = T0 + 20 * S;
  MUST(suspect(d, from_ns, "j", "w", "m") == 1 && drain(d) == 1);
  detector_tick(d, from_ns + 3600 * S);
  MUST(drain(d) == 0);
  detector_why(d, t("j"), t("w"), &e);
  MUST(e.postponed_ns == 10 * S || e.deadline_ns <= from_ns + 3610 * S);
  at_ns = run(d, from_ns + 3611 * S);
  MUST(at_ns > from_ns + 3600 * S && is(0, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT));
  detector_free(d);
}

static void a_loop_that_is_always_late_cannot_prevent_expiry(void) {
  struct detector *d = open();
  MUST(suspect(d, T0, "j", "w", "m") == 1 && drain(d) == 1);
  uint64_t now_ns = T0;
  while (now_ns < T0 + 60 * S && drain(d) == 0) now_ns = detector_deadline(d) + 300 * MS, detector_tick(d, now_ns);
  MUST(is(0, DETECTOR_EXPIRED, "j", "w", DETECTOR_WHY_TIMEOUT) && now_ns > T0 + 10 * S && now_ns < T0 + 21 * S);
  detector_free(d);
}

static void members_and_health_move_the_least_within_the_bounds(void) {
  static const struct { uint32_t members, health, wanted; uint64_t least_ms, most_ms; } rows[] = {
      {0, 0, 2, 1000, 10000},    {1, 0, 0, 1000, 10000},       {2, 0, 0, 1000, 10000}, {3, 0, 1, 1000, 10000},
      {4, 0, 2, 1000, 10000},    {10, 0, 2, 1000, 10000},      {100, 0, 2, 2000, 10000}, {1000, 0, 2, 3000, 10000},
      {4, 1, 2, 2000, 10000},    {4, 8, 2, 9000, 10000},       {1000, 8, 2, 10000, 10000}, {4, 4000000, 2, 9000, 10000},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct detector *d = open();
    struct detector_evidence e;
    MUST(detector_suspect(d, T0, t("j"), t("w"), 1, UINT32_MAX, (struct detector_scale){rows[i].members, rows[i].health}) == 1);
    detector_why(d, t("j"), t("w"), &e);
    MUST(e.wanted == rows[i].wanted && e.least_ns == rows[i].least_ms * MS && e.most_ns == rows[i].most_ms * MS);
    MUST(e.deadline_ns == T0 + (rows[i].wanted ? rows[i].most_ms : rows[i].least_ms) * MS);
    detector_free(d);
  }
  struct detector_config managers = config_of("wan", DETECTOR_MANAGERS), gates = config_of("local", DETECTOR_GATES);
  MUST(managers.job_min_ms == 2000 && managers.job_max_ms == 15000 && managers.node_min_ms == 5000 && managers.node_max_ms == 30000);
  MUST(gates.job_min_ms == 5000 && gates.job_max_ms == 30000 && gates.node_min_ms == 200 && gates.node_max_ms == 1200);
  MUST(detector_config_profile("moon", DETECTOR_GATES, &gates) == ERR_CONFIG);
}

/* ---- machines ---- */

static void a_death_clears_every_job_suspicion_of_that_node_in_the_same_step(void) {
  static const struct { enum detector_state state; enum detector_why why; } ends[] = {
      {DETECTOR_DEAD, DETECTOR_WHY_NODE_DEAD}, {DETECTOR_HELD, DETECTOR_WHY_NODE_DEAD}, {DETECTOR_LEFT, DETECTOR_WHY_NODE_LEFT}};
  for (int i = 0; i < 3; i++) {
    struct detector *d = open();
    MUST(alive(d, T0, "w", 1, 0) == 1 && alive(d, T0, "v", 1, 0) == 1);
    MUST(suspect(d, T0, "j", "w", "m") == 1 && suspect(d, T0, "k", "w", "m") == 1 && suspect(d, T0, "j", "v", "m") == 1 && drain(d) == 3);
    MUST(claim(d, "w", ends[i].state, 1, 0) == 1 && drain(d) == 2);
    MUST(is(0, DETECTOR_CLEARED, "k", "w", ends[i].why) && is(1, DETECTOR_CLEARED, "j", "w", ends[i].why));
    MUST(counts(d).suspicions == 1 && counts(d).jobs == 1);
    MUST(suspect(d, T0, "j", "w", "m") == 0 && suspect(d, T0, "", "w", "m") == 0 && counts(d).of_dead == 2 && drain(d) == 0);
    detector_free(d);
  }
}

static void alone_a_machine_is_suspected_confirmed_and_refuted_by_swims_rules(void) {
  struct detector *d = open();
  MUST(alive(d, T0, "w", 3, 1) == 1 && suspect(d, T0, "", "w", "a") == 1 && drain(d) == 1 && is(0, DETECTOR_SUSPECTED, "", "w", DETECTOR_WHY_SILENT));
  MUST(suspect(d, T0, "j", "w", "a") == 1 && drain(d) == 1);
  MUST(alive(d, T0 + S, "w", 3, 1) == 0 && counts(d).stale == 1 && drain(d) == 0); /* Of this incarnation the suspicion stands. */
  MUST(detector_progress(d, T0 + S, t("j"), t("w")) == 1 && drain(d) == 1 && counts(d).machines == 1);
  MUST(suspect(d, T0 + S, "j", "w", "a") == 1 && drain(d) == 1);
  MUST(run(d, T0 + 2 * S) == 0);
  MUST(alive(d, T0 + 2 * S, "w", 3, 2) == 1 && drain(d) == 1 && is(0, DETECTOR_CLEARED, "", "w", DETECTOR_WHY_REFUTED));
  MUST(counts(d).suspicions == 1); /* A refutation by a version proves nothing about the job. */
  MUST(run(d, T0 + 3 * S) == 0);
  MUST(suspect(d, T0 + 3 * S, "", "w", "a") == 1 && detector_confirm(d, T0 + 3 * S, t(""), t("w"), by("b")) == 1);
  MUST(detector_confirm(d, T0 + 3 * S, t(""), t("w"), by("c")) == 1 && drain(d) == 1);
  uint64_t at_ns = run(d, T0 + 5 * S);
  MUST(at_ns >= T0 + 4 * S && at_ns <= T0 + 4 * S + DETECTOR_TICK_NS && got_count == 2);
  MUST(is(0, DETECTOR_EXPIRED, "", "w", DETECTOR_WHY_TIMEOUT) && is(1, DETECTOR_CLEARED, "j", "w", DETECTOR_WHY_NODE_DEAD));
  struct detector_evidence e;
  detector_why(d, t(""), t("w"), &e);
  MUST(e.known && e.state == DETECTOR_DEAD && !e.suspected);
  MUST(alive(d, T0 + 6 * S, "w", 3, 2) == 0 && alive(d, T0 + 6 * S, "w", 3, 3) == 1);
  detector_free(d);
}

static void a_new_life_clears_the_suspicions_of_the_old_one_and_stale_claims_are_counted(void) {
  struct detector *d = open();
  MUST(alive(d, T0, "w", 5, 0) == 1 && alive(d, T0, "w", 5, 0) == 0 && counts(d).stale == 0);
  MUST(suspect(d, T0, "j", "w", "m") == 1 && suspect(d, T0, "", "w", "m") == 1 && drain(d) == 2);
  MUST(alive(d, T0, "w", 4, 9) == 0 && claim(d, "w", DETECTOR_DEAD, 4, 9) == 0 && counts(d).stale == 2 && drain(d) == 0);
  MUST(alive(d, T0, "w", 6, 0) == 1 && drain(d) == 2);
  MUST(is(0, DETECTOR_CLEARED, "", "w", DETECTOR_WHY_REJOINED) && is(1, DETECTOR_CLEARED, "j", "w", DETECTOR_WHY_REJOINED));
  MUST(got[1].incarnation.generation == 5);
  MUST(detector_suspect(d, T0, t("j"), t("w"), 1, 5, unknown) == 0 && counts(d).stale == 3 && drain(d) == 0); /* An accusation of the old life. */
  MUST(detector_suspect(d, T0, t("j"), t("w"), 1, 6, unknown) == 1 && drain(d) == 1);
  detector_free(d);
}

static void claims_of_one_incarnation_have_an_order(void) {
  for (int first = 0; first < DETECTOR_STATES; first++) {
    for (int second = 0; second < DETECTOR_STATES; second++) {
      struct detector *d = open();
      MUST(claim(d, "w", (enum detector_state)first, 2, 2) == 1);
      bool released = first == DETECTOR_HELD && second == DETECTOR_ALIVE;
      MUST(claim(d, "w", (enum detector_state)second, 2, 2) == (second > first || released));
      MUST(counts(d).stale == (second < first && !released));
      MUST(claim(d, "w", DETECTOR_ALIVE, 2, 3) == 1 && claim(d, "w", DETECTOR_LEFT, 2, 2) == 0);
      detector_free(d);
    }
  }
}

static void a_node_that_nobody_knows_is_forgotten_with_its_suspicions(void) {
  struct detector *d = open();
  MUST(suspect(d, T0, "j", "w", "m") == 1 && counts(d).nodes == 1 && detector_progress(d, T0, t("j"), t("w")) == 1);
  MUST(drain(d) == 0 && counts(d).nodes == 0 && counts(d).jobs == 0); /* It began and ended untold; and only the suspicion named the node. */
  MUST(alive(d, T0, "w", 1, 0) == 1 && suspect(d, T0, "j", "w", "m") == 1 && drain(d) == 1);
  MUST(detector_forget(d, T0, t("w")) == 1 && drain(d) == 1 && is(0, DETECTOR_CLEARED, "j", "w", DETECTOR_WHY_FORGOTTEN));
  MUST(counts(d).nodes == 0 && detector_forget(d, T0, t("w")) == 0);
  detector_free(d);
}

/* ---- jobs ---- */

static void a_job_that_ends_there_or_everywhere_clears_its_suspicions_and_leaves_nothing(void) {
  struct detector *d = open();
  char name[16];
  for (int i = 0; i < 40; i++) {
    (void)snprintf(name, sizeof name, "w%d", i);
    MUST(suspect(d, T0, "j", name, "m") == 1 && suspect(d, T0, "k", name, "m") == 1 && drain(d) == 2);
  }
  MUST(detector_over(d, T0, t("j"), t("w7")) == 1 && drain(d) == 1 && is(0, DETECTOR_CLEARED, "j", "w7", DETECTOR_WHY_OVER));
  MUST(detector_over(d, T0, t("j"), t("w7")) == 0 && detector_over(d, T0, t("no"), t("")) == 0 && detector_over(d, T0, t(""), t("")) == 0);
  MUST(detector_over(d, T0, t("j"), t("")) == 39 && drain(d) == 39 && counts(d).suspicions == 40 && counts(d).jobs == 1);
  MUST(detector_over(d, T0, t("k"), t("")) == 40 && drain(d) == 40);
  MUST(counts(d).jobs == 0 && counts(d).nodes == 0 && detector_deadline(d) == UINT64_MAX && d->records == 0);
  detector_free(d);
}

static void caps_refuse_and_count_and_never_evict(void) {
  struct detector_config c = config_of("lan", DETECTOR_WORKERS);
  c.nodes_max = 4, c.job_suspicions_max = 3, c.suspicions_max = 5;
  struct detector *d = detector_new(&c, T0);
  MUST(suspect(d, T0, "j", "a", "m") == 1 && suspect(d, T0, "j", "b", "m") == 1 && suspect(d, T0, "j", "c", "m") == 1);
  MUST(suspect(d, T0, "j", "d", "m") == ERR_FULL && counts(d).full_job == 1 && counts(d).nodes == 3);
  MUST(suspect(d, T0, "k", "d", "m") == 1 && suspect(d, T0, "k", "e", "m") == ERR_FULL && counts(d).full_nodes == 1);
  MUST(alive(d, T0, "e", 1, 1) == ERR_FULL && counts(d).full_nodes == 2 && drain(d) == 4);
  MUST(suspect(d, T0, "k", "a", "m") == 1 && suspect(d, T0, "k", "b", "m") == ERR_FULL && counts(d).full_all == 1);
  MUST(suspect(d, T0, "", "b", "m") == ERR_FULL && counts(d).full_all == 2 && counts(d).suspicions == 5);
  MUST(suspect(d, T0, "k", "a", "other") == 1 && drain(d) == 1); /* A confirmation needs no room. */
  MUST(detector_over(d, T0, t("j"), t("")) == 3);
  MUST(suspect(d, T0, "k", "b", "m") == ERR_FULL); /* Ends that nobody took count. */
  MUST(drain(d) == 3 && suspect(d, T0, "k", "b", "m") == 1);
  char longest[DETECTOR_NAME_MAX + 2];
  memset(longest, 'x', sizeof longest), longest[DETECTOR_NAME_MAX] = 0;
  MUST(detector_over(d, T0, t("k"), t("")) == 3 && drain(d) == 2 && suspect(d, T0, longest, longest, "m") == 1);
  longest[DETECTOR_NAME_MAX] = 'x', longest[DETECTOR_NAME_MAX + 1] = 0;
  MUST(suspect(d, T0, "k", longest, "m") == ERR_TOO_LARGE && suspect(d, T0, longest, "a", "m") == ERR_TOO_LARGE);
  MUST(suspect(d, T0, "k", "", "m") == ERR_TOO_LARGE && alive(d, T0, "", 1, 1) == ERR_TOO_LARGE && counts(d).nodes == 1);
  c.suspicions_max = 1, c.job_suspicions_max = 1, c.nodes_max = 1;
  MUST(detector_reconfigure(d, &c) == 0 && suspect(d, T0, "k", "a", "m") == ERR_FULL);
  c.suspicions_max = 2, c.job_suspicions_max = 2, c.nodes_max = 2;
  MUST(detector_reconfigure(d, &c) == 0 && suspect(d, T0, "k", "a", "m") == 1);
  c.suspicions_max = 1, c.job_suspicions_max = 1;
  MUST(detector_reconfigure(d, &c) == ERR_FULL);
  c.confirmations = 8;
  MUST(detector_reconfigure(d, &c) == ERR_CONFIG);
  detector_free(d);
}

/* ---- extensions ---- */

static enum detector_grant extend(struct detector *d, uint64_t now_ns, const char *workflow, uint64_t progress, uint32_t *ms) {
  enum detector_grant grant;
  int rc = detector_extend(d, now_ns, t("j"), t("w"), t(workflow), progress, &grant, ms);
  MUST(rc == (*ms > 0));
  return grant;
}

static void extensions_shrink_need_progress_and_are_capped_by_workflow(void) {
  static const uint32_t want_ms[] = {15000, 7500, 3750, 1875, 1000};
  struct detector *d = open();
  uint32_t ms;
  uint64_t total_ns = 0;
  for (int i = 0; i < 5; i++) {
    MUST(extend(d, T0, "first", UINT64_MAX, &ms) == DETECTOR_GRANTED && ms == want_ms[i]);
    MUST(extend(d, T0, "first", UINT64_MAX, &ms) == (i < 4 ? DETECTOR_NO_PROGRESS : DETECTOR_EXHAUSTED) && ms == (i < 4 ? 0 : 10000));
    total_ns += want_ms[i] * MS;
    MUST(detector_progress(d, T0, t("j"), t("w")) == 0);
  }
  total_ns += 10 * S;
  MUST(extend(d, T0, "first", UINT64_MAX, &ms) == DETECTOR_EXHAUSTED && ms == 0 && counts(d).graces == 1 && counts(d).exhausted == 2);
  MUST(extend(d, T0, "second", 0, &ms) == DETECTOR_NO_PROGRESS && extend(d, T0, "second", 5, &ms) == DETECTOR_GRANTED && ms == 15000);
  MUST(extend(d, T0, "second", 5, &ms) == DETECTOR_NO_PROGRESS && extend(d, T0, "second", 6, &ms) == DETECTOR_GRANTED && ms == 7500);
  MUST(extend(d, T0, "first", UINT64_MAX, &ms) == DETECTOR_EXHAUSTED && ms == 0); /* Another workflow does not refill it. */
  total_ns += 22500 * MS;
  /* A later suspicion begins to count when the granted time is over; an extension moves a running one. */
  MUST(suspect(d, T0 + S, "j", "w", "m") == 1 && drain(d) == 1);
  struct detector_evidence e;
  detector_why(d, t("j"), t("w"), &e);
  MUST(e.deadline_ns == T0 + total_ns + 10 * S && e.extension && e.grants == 5 && e.graced);
  MUST(extend(d, T0 + S, "third", UINT64_MAX, &ms) == DETECTOR_GRANTED);
  detector_why(d, t("j"), t("w"), &e);
  MUST(e.deadline_ns == T0 + total_ns + 25 * S && e.extended_ns == 15 * S);
  MUST(detector_over(d, T0 + S, t("j"), t("")) == 1 && counts(d).extensions == 0 && drain(d) == 1);
  MUST(extend(d, T0 + S, "first", UINT64_MAX, &ms) == DETECTOR_GRANTED && ms == 15000); /* The job is a new one. */
  detector_free(d);
}

static void extensions_end_with_the_life_and_are_bounded(void) {
  struct detector_config c = config_of("lan", DETECTOR_WORKERS);
  c.job_suspicions_max = 2, c.suspicions_max = 3;
  struct detector *d = detector_new(&c, T0);
  enum detector_grant grant;
  uint32_t ms;
  MUST(alive(d, T0, "w", 1, 0) == 1 && extend(d, T0, "f", UINT64_MAX, &ms) == DETECTOR_GRANTED);
  MUST(alive(d, T0, "w", 2, 0) == 1 && suspect(d, T0, "j", "w", "m") == 1 && drain(d) == 1);
  struct detector_evidence e;
  detector_why(d, t("j"), t("w"), &e);
  MUST(e.deadline_ns == T0 + 10 * S && !e.extension);
  MUST(claim(d, "w", DETECTOR_DEAD, 2, 0) == 1 && extend(d, T0, "f", UINT64_MAX, &ms) == DETECTOR_NOT_ALIVE && ms == 0);
  MUST(detector_extend(d, T0, t("j"), t("v"), t("f"), UINT64_MAX, &grant, &ms) == 1);
  MUST(detector_extend(d, T0, t("j"), t("u"), t("f"), UINT64_MAX, &grant, &ms) == ERR_FULL && counts(d).full_extensions == 1);
  MUST(detector_extend(d, T0, t("k"), t("u"), t("f"), UINT64_MAX, &grant, &ms) == 1);
  MUST(detector_extend(d, T0, t("l"), t("u"), t("f"), UINT64_MAX, &grant, &ms) == ERR_FULL && counts(d).full_extensions == 2);
  MUST(counts(d).jobs == 2);
  char flow[16];
  for (int i = 1; i < DETECTOR_WORKFLOWS_MAX; i++) {
    (void)snprintf(flow, sizeof flow, "f%d", i);
    MUST(detector_extend(d, T0, t("j"), t("v"), t(flow), UINT64_MAX, &grant, &ms) == 1);
  }
  MUST(detector_extend(d, T0, t("j"), t("v"), t("one more"), UINT64_MAX, &grant, &ms) == ERR_FULL && counts(d).full_extensions == 3);
  detector_free(d);
}

/* ---- the reconcile pass ---- */

static int look_at_all(struct detector *d, uint64_t now_ns) {
  struct detector_text name;
  int looked = 0;
  while (detector_look(d, now_ns, &name) != DETECTOR_LOOKED_ALL) looked++;
  return looked;
}

static void the_reconcile_pass_looks_at_each_once_mends_and_drops_what_is_past(void) {
  struct detector *d = open();
  uint32_t ms;
  MUST(alive(d, T0, "a", 1, 0) == 1 && alive(d, T0, "b", 1, 0) == 1 && suspect(d, T0, "j", "a", "m") == 1 && suspect(d, T0, "", "b", "m") == 1);
  struct detector_text name, other;
  MUST(drain(d) == 2 && detector_look(d, T0, &name) == DETECTOR_LOOKED_NODE && detector_look(d, T0, &other) == DETECTOR_LOOKED_NODE);
  MUST(name.bytes[0] == 'a' && other.bytes[0] == 'b' && detector_look(d, T0, &name) == DETECTOR_LOOKED_JOB && name.bytes[0] == 'j');
  MUST(look_at_all(d, T0) == 0 && counts(d).cycles == 1 && counts(d).mended == 0 && counts(d).looked == 3);
  struct detector_record *r = detector_record_find(detector_job_find(d, t("j")), detector_node_find(d, t("a")));
  wheel_remove(&d->wheel, &r->due); /* A fault of ours: it would never expire. */
  MUST(look_at_all(d, T0) == 3 && counts(d).mended == 1 && wheel_has(&r->due));
  MUST(detector_progress(d, T0, t("j"), t("a")) == 1 && drain(d) == 1 && counts(d).jobs == 0);
  MUST(claim(d, "b", DETECTOR_DEAD, 1, 0) == 1 && drain(d) == 1);
  MUST(look_at_all(d, T0 + 300 * S - 1) == 2 && counts(d).nodes == 2);
  MUST(look_at_all(d, T0 + 300 * S) == 1 && counts(d).nodes == 1 && counts(d).dropped_nodes == 1);
  MUST(alive(d, d->now_ns, "w", 1, 0) == 1 && extend(d, d->now_ns, "f", UINT64_MAX, &ms) == DETECTOR_GRANTED);
  MUST(look_at_all(d, d->now_ns) == 3 && counts(d).extensions == 1);
  MUST(claim(d, "w", DETECTOR_LEFT, 1, 0) == 1 && look_at_all(d, d->now_ns) == 2);
  MUST(counts(d).dropped_grants == 1 && counts(d).extensions == 0 && counts(d).jobs == 0);
  detector_free(d);
}

static void what_a_handler_of_an_action_does_is_safe(void) {
  struct detector *d = open();
  struct detector_action a;
  MUST(suspect(d, T0, "j", "w", "m") == 1 && suspect(d, T0, "k", "w", "m") == 1);
  MUST(detector_next(d, &a) && detector_over(d, T0, a.job, a.node) == 1); /* With the action's own names. */
  MUST(detector_next(d, &a) && a.job.bytes[0] == 'k');
  MUST(detector_forget(d, T0, a.node) == 1);
  MUST(detector_next(d, &a) && a.kind == DETECTOR_CLEARED && a.job.bytes[0] == 'j');
  MUST(detector_next(d, &a) && a.kind == DETECTOR_CLEARED && a.job.bytes[0] == 'k' && suspect(d, T0, "j", "w", "m") == 1);
  MUST(detector_next(d, &a) && a.kind == DETECTOR_SUSPECTED && !detector_next(d, &a));
  MUST(detector_suspect(d, T0 - S, t("j"), t("v"), 1, UINT32_MAX, unknown) == 1); /* A clock that went back counts as one that stood. */
  MUST(d->now_ns == T0);
  detector_free(d);
}

/* ---- against the model ---- */

static char node_names[MODEL_NODES][8], job_names[MODEL_JOBS][8];
static const char *const flow_names[MODEL_FLOWS] = {"f", "g", "h"};

static int order(const void *one, const void *other) {
  const struct model_event *a = one, *b = other;
  if (a->node != b->node) return a->node - b->node;
  return a->job != b->job ? a->job - b->job : a->kind - b->kind;
}

static int index_of(char (*names)[8], int count, struct detector_text name) {
  for (int i = 0; i < count; i++)
    if (strlen(names[i]) == name.length && memcmp(names[i], name.bytes, name.length) == 0) return i;
  MUST(!"a known name");
  return 0;
}

/* Of a machine and its jobs that expire in one tick, which comes first is not promised: the job may be cleared or have expired. */
static void level(struct model_event *events, int count) {
  for (int i = 0; i < count; i++) {
    if (events[i].job > 0 || events[i].kind != DETECTOR_EXPIRED) continue;
    for (int k = 0; k < count; k++) {
      struct model_event *e = &events[k];
      if (e->node == events[i].node && e->job > 0 && e->kind == DETECTOR_EXPIRED) e->kind = DETECTOR_CLEARED, e->why = DETECTOR_WHY_NODE_DEAD;
    }
  }
}

static void compare_events(struct detector *d, struct model *m) {
  struct model_event seen[MODEL_EVENTS];
  struct detector_action a;
  int count = 0;
  for (; detector_next(d, &a); count++) {
    MUST(count < MODEL_EVENTS);
    seen[count] = (struct model_event){a.kind, a.why, index_of(job_names, MODEL_JOBS, a.job), index_of(node_names, MODEL_NODES, a.node),
                                       a.confirmations, a.timeout_ns, a.age_ns, a.incarnation};
  }
  MUST(count == m->count);
  level(seen, count), level(m->events, count);
  qsort(seen, (size_t)count, sizeof *seen, order);
  qsort(m->events, (size_t)count, sizeof *seen, order);
  for (int i = 0; i < count; i++) {
    const struct model_event *x = &seen[i], *y = &m->events[i];
    MUST(x->kind == y->kind && x->why == y->why && x->job == y->job && x->node == y->node && x->confirmations == y->confirmations);
    MUST(x->timeout_ns == y->timeout_ns && x->age_ns == y->age_ns);
    MUST(x->incarnation.generation == y->incarnation.generation && x->incarnation.version == y->incarnation.version);
  }
  m->count = 0;
  model_sweep(m);
  struct detector_counts c = counts(d);
  int known = 0;
  for (int n = 0; n < MODEL_NODES; n++) known += model_is_known(m, n);
  MUST((int)c.nodes == known && (int)(c.machines + c.suspicions) == model_total(m) && (int)c.machines == model_of_job(m, 0));
}

static void pass_time(struct detector *d, struct model *m, struct rng *rng) {
  uint64_t until_ns = m->now_ns + rng_below(rng, rng_below(rng, 10) ? 400 * MS : 40 * S);
  bool on_time = rng_below(rng, 6) > 0;
  for (uint64_t at_ns; on_time && (at_ns = detector_deadline(d)) < until_ns;) {
    m->now_ns = at_ns > m->now_ns ? at_ns : m->now_ns;
    detector_tick(d, m->now_ns), model_tick(m);
    compare_events(d, m);
  }
  m->now_ns = until_ns;
  if (rng_below(rng, 2)) detector_tick(d, until_ns), model_tick(m);
}

static void one_step(struct detector *d, struct model *m, struct rng *rng) {
  int job = (int)rng_below(rng, MODEL_JOBS), node = (int)rng_below(rng, MODEL_NODES), real = 1 + (int)rng_below(rng, MODEL_JOBS - 1);
  struct detector_text j = t(job_names[job]), n = t(node_names[node]), r = t(job_names[real]);
  uint32_t accuser = (uint32_t)rng_below(rng, 5), ms[2];
  uint64_t now_ns = m->now_ns;
  int grants[2];
  enum detector_grant grant;
  uint64_t what = rng_below(rng, 16);
  if (what < 12) model_advance(m);
  switch (what) {
    case 0: case 1: case 2: case 3: {
      struct detector_scale scale = {(uint32_t)rng_below(rng, 6) * (uint32_t)rng_below(rng, 40), (uint32_t)rng_below(rng, 3)};
      uint32_t generation = rng_below(rng, 3) ? UINT32_MAX : (uint32_t)rng_below(rng, 4);
      MUST(detector_suspect(d, now_ns, j, n, accuser, generation, scale) == model_suspect(m, job, node, accuser, generation, scale));
      return;
    }
    case 4: case 5: MUST(detector_confirm(d, now_ns, j, n, accuser) == model_confirm(m, job, node, accuser)); return;
    case 6: MUST(detector_progress(d, now_ns, r, n) == model_progress(m, real, node)); return;
    case 7: case 8: {
      struct detector_incarnation i = {(uint32_t)rng_below(rng, 4), (uint32_t)rng_below(rng, 4)};
      enum detector_state state = (enum detector_state)(rng_below(rng, 3) ? 0 : rng_below(rng, DETECTOR_STATES));
      MUST(detector_node(d, now_ns, n, state, i) == model_claim(m, node, state, i));
      return;
    }
    case 9: case 10: {
      int flow = (int)rng_below(rng, MODEL_FLOWS);
      uint64_t progress = rng_below(rng, 2) ? UINT64_MAX : rng_below(rng, 6);
      int got_rc = detector_extend(d, now_ns, r, n, t(flow_names[flow]), progress, &grant, &ms[0]);
      MUST(got_rc == model_extend(m, real, node, flow, progress, &grants[1], &ms[1]));
      grants[0] = (int)grant;
      MUST(got_rc < 0 || (grants[0] == grants[1] && ms[0] == ms[1]));
      return;
    }
    case 11:
      if (rng_below(rng, 8) > 0) MUST(detector_over(d, now_ns, r, n) == model_over(m, real, node));
      else MUST(detector_over(d, now_ns, r, t("")) == model_over(m, real, -1));
      return;
    case 12:
      model_advance(m);
      if (rng_below(rng, 3) == 0) MUST(detector_forget(d, now_ns, n) == model_forget(m, node));
      else look_at_all(d, now_ns), model_look(m);
      return;
    default: pass_time(d, m, rng);
  }
}

static void random_operations_do_what_a_simple_model_does(void) {
  for (int i = 0; i < MODEL_NODES; i++) (void)snprintf(node_names[i], sizeof node_names[i], "w%d", i);
  for (int i = 1; i < MODEL_JOBS; i++) (void)snprintf(job_names[i], sizeof job_names[i], "j%d", i);
  const char *given = getenv("DETECTOR_SEEDS");
  uint64_t seeds = given ? strtoull(given, NULL, 10) : 300, expired = 0;
  for (uint64_t seed = 1; seed <= seeds; seed++) {
    struct rng rng;
    rng_seed(&rng, seed);
    struct model m = {.config = config_of("lan", (enum detector_watches)rng_below(&rng, 3)), .now_ns = rng_below(&rng, 1000 * S)};
    if (rng_below(&rng, 2)) m.config.nodes_max = 10, m.config.job_suspicions_max = 5, m.config.suspicions_max = 20;
    m.config.confirmations = (uint32_t)rng_below(&rng, 5), m.config.dead_kept_ms = 20000, m.beat_ns = m.now_ns;
    struct detector *d = detector_new(&m.config, m.now_ns);
    for (int step = 0; step < 1500; step++) {
      one_step(d, &m, &rng);
      compare_events(d, &m);
    }
    struct detector_counts c = counts(d);
    expired += c.expired[0] + c.expired[1];
    MUST(c.mended == 0);
    detector_free(d);
  }
  MUST(expired > 20 * seeds); /* The walk goes where the rules are. */
}

#define BEHAVIOUR(name) {#name, name}
static const struct { const char *name; void (*run)(void); } behaviours[] = {
    BEHAVIOUR(expiry_comes_within_a_tick_of_the_deadline_and_never_before),
    BEHAVIOUR(a_stream_of_confirmations_cannot_delay_expiry),
    BEHAVIOUR(confirmations_bring_the_deadline_nearer_by_lifeguards_law),
    BEHAVIOUR(a_late_tick_leaves_a_tick_for_what_waits_unread),
    BEHAVIOUR(a_stall_gives_back_its_time_up_to_one_timeout),
    BEHAVIOUR(a_loop_that_is_always_late_cannot_prevent_expiry),
    BEHAVIOUR(members_and_health_move_the_least_within_the_bounds),
    BEHAVIOUR(a_death_clears_every_job_suspicion_of_that_node_in_the_same_step),
    BEHAVIOUR(alone_a_machine_is_suspected_confirmed_and_refuted_by_swims_rules),
    BEHAVIOUR(a_new_life_clears_the_suspicions_of_the_old_one_and_stale_claims_are_counted),
    BEHAVIOUR(claims_of_one_incarnation_have_an_order),
    BEHAVIOUR(a_node_that_nobody_knows_is_forgotten_with_its_suspicions),
    BEHAVIOUR(a_job_that_ends_there_or_everywhere_clears_its_suspicions_and_leaves_nothing),
    BEHAVIOUR(caps_refuse_and_count_and_never_evict),
    BEHAVIOUR(extensions_shrink_need_progress_and_are_capped_by_workflow),
    BEHAVIOUR(extensions_end_with_the_life_and_are_bounded),
    BEHAVIOUR(the_reconcile_pass_looks_at_each_once_mends_and_drops_what_is_past),
    BEHAVIOUR(what_a_handler_of_an_action_does_is_safe),
    BEHAVIOUR(random_operations_do_what_a_simple_model_does),
};

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof behaviours / sizeof *behaviours; i++) {
    if (argc > 1 && !strstr(behaviours[i].name, argv[1])) continue;
    behaviours[i].run();
    printf("ok %s\n", behaviours[i].name);
  }
  return 0;
}
