/* drive/fleet and drive/predict: members on one simulated world, and predictions of their behaviour. */
#include "drive/fleet.h"

#include <math.h>
#include <string.h>

#include "drive/predict.h"
#include "must.h"

static const uint64_t SECOND = 1000000000, MS = 1000000;

static struct fleet *open_fleet(uint32_t count, bool acquainted) {
  struct fleet *f;
  struct swim_config config;
  MUST(swim_config_profile("lan", &config) == 0);
  config.members_max = 2; /* Raised to fit. */
  MUST(fleet_open(1, count, &config, &(struct sim_link){.latency_ns = MS}, acquainted, &f) == 0);
  return f;
}

static void close_fleet(struct fleet *f) {
  MUST(f->error == 0);
  fleet_close(f);
}

/* ---- the fleet ---- */

static uint32_t sent, subject_of_death, deaths;
static void on_send(struct fleet *f, uint32_t from, uint32_t to, const uint8_t *bytes, size_t length) {
  MUST(from < f->count && to < f->count && from != to && bytes && length > 0);
  sent++;
}
static void on_event(struct fleet *f, uint32_t at, const struct swim_action *a, uint32_t subject) {
  (void)f;
  if (a->event == SWIM_EVENT_DEAD) deaths++, subject_of_death = subject;
  MUST(at != subject);
}

static void all_know_each_other_and_who_dies(void) {
  struct fleet *f = open_fleet(12, true);
  sent = deaths = 0;
  f->on_send = on_send, f->on_event = on_event;
  fleet_run(f, 5 * SECOND);
  for (uint32_t i = 0; i < 12; i++) MUST(swim_live(f->nodes[i].swim) == 12);
  MUST(sent == f->datagrams && sent > 100 && f->bytes > 20 * sent && deaths == 0);
  fleet_crash(f, 11);
  fleet_run(f, 30 * SECOND);
  MUST(deaths == 11 && subject_of_death == 11);
  close_fleet(f);
}

static void whoever_restarts_is_in_a_later_life(void) {
  struct fleet *f = open_fleet(5, true);
  struct swim_member before, after;
  fleet_run(f, SECOND);
  swim_self(f->nodes[2].swim, &before);
  fleet_crash(f, 2);
  MUST(!f->nodes[2].swim);
  MUST(fleet_restart(f, 2) == 0 && fleet_join(f, 2, 0) == 0);
  swim_self(f->nodes[2].swim, &after);
  MUST(after.incarnation.generation == before.incarnation.generation + 1);
  fleet_run(f, 5 * SECOND);
  for (uint32_t i = 0; i < 5; i++) MUST(swim_live(f->nodes[i].swim) == 5);
  close_fleet(f);
}

static struct { bool came; uint32_t at; struct shoal_address other; size_t length; uint8_t bytes[SWIM_DATAGRAM_MAX]; } kept[256];
static uint32_t kept_count;
static bool withhold(struct fleet *f, const struct fleet_datagram *d) {
  (void)f;
  if (d->at != 1 || kept_count == 256) return false;
  kept[kept_count].came = d->came, kept[kept_count].at = d->at, kept[kept_count].other = d->other;
  kept[kept_count].length = d->length;
  memcpy(kept[kept_count++].bytes, d->bytes, d->length);
  return true;
}

static void what_is_withheld_comes_when_it_is_passed_on(void) {
  struct fleet *f = open_fleet(3, true);
  kept_count = 0;
  fleet_run(f, SECOND);
  uint64_t received = swim_counts(f->nodes[1].swim)->bytes_received;
  f->withhold = withhold;
  fleet_run(f, 3 * SECOND);
  uint32_t in = 0, out = 0;
  for (uint32_t i = 0; i < kept_count; i++) kept[i].came ? in++ : out++;
  MUST(in > 2 && out > 2 && swim_counts(f->nodes[1].swim)->bytes_received == received);
  uint32_t count = kept_count;
  uint64_t at_0 = swim_counts(f->nodes[0].swim)->bytes_received, at_2 = swim_counts(f->nodes[2].swim)->bytes_received;
  f->withhold = NULL;
  for (uint32_t i = 0; i < count; i++)
    fleet_pass(f, &(struct fleet_datagram){.at = kept[i].at, .came = kept[i].came, .other = kept[i].other, .bytes = kept[i].bytes,
                                           .length = kept[i].length});
  MUST(swim_counts(f->nodes[1].swim)->bytes_received > received);
  fleet_run(f, 10 * MS);
  MUST(swim_counts(f->nodes[0].swim)->bytes_received > at_0 && swim_counts(f->nodes[2].swim)->bytes_received > at_2);
  fleet_crash(f, 1);
  fleet_pass(f, &(struct fleet_datagram){.at = 1, .came = true, .other = kept[0].other, .bytes = kept[0].bytes, .length = kept[0].length});
  close_fleet(f); /* Passed to one that is down: gone. */
}

static void a_fleet_of_none_and_a_wrong_configuration_are_refused(void) {
  struct fleet *f;
  struct swim_config config;
  struct sim_link link = {.latency_ns = MS};
  MUST(swim_config_profile("lan", &config) == 0);
  MUST(fleet_open(1, 0, &config, &link, true, &f) == ERR_CONFIG && fleet_open(1, FLEET_MAX + 1, &config, &link, true, &f) == ERR_CONFIG);
  config.probe_timeout_ms = config.probe_interval_ms;
  MUST(fleet_open(1, 3, &config, &link, true, &f) == ERR_CONFIG);
}

/* ---- predictions ---- */

static struct predict_question question(uint32_t members, uint32_t crashes, uint32_t rest_s) {
  struct predict_question q = {.members = members, .crashes = crashes, .rest_s = rest_s, .seed = 3, .link = {.latency_ns = MS}};
  MUST(swim_config_profile("lan", &q.config) == 0);
  return q;
}

static void questions_are_held_to_their_limits(void) {
  struct predict_answer a;
  struct predict_question q = question(3, 1, 1);
  MUST(predict(&q, &a) == 0 && a.undecided == 0);
  q = question(2, 0, 1);
  MUST(predict(&q, &a) == ERR_CONFIG);
  q = question(PREDICT_MEMBERS_MAX + 1, 0, 1);
  MUST(predict(&q, &a) == ERR_CONFIG);
  q = question(3, 2, 1);
  MUST(predict(&q, &a) == ERR_CONFIG); /* Half of them, or more. */
  q = question(4, 2, 1);
  MUST(predict(&q, &a) == ERR_CONFIG);
  q = question(5, 2, 1);
  MUST(predict(&q, &a) == 0);
  q = question(PREDICT_MEMBERS_MAX, PREDICT_CRASHES_MAX + 1, 1);
  MUST(predict(&q, &a) == ERR_CONFIG);
  q = question(3, 0, 0);
  MUST(predict(&q, &a) == ERR_CONFIG);
  q = question(3, 0, PREDICT_REST_MAX_S + 1);
  MUST(predict(&q, &a) == ERR_CONFIG);
  q = question(3, 0, PREDICT_REST_MAX_S);
  MUST(predict(&q, &a) == 0 && a.virtual_s > PREDICT_REST_MAX_S);
  q = question(3, 0, 1), q.link.loss = 1;
  MUST(predict(&q, &a) == ERR_CONFIG);
}

static void a_healthy_network_is_foretold_as_one(void) {
  struct predict_answer a, again;
  struct predict_question q = question(40, 8, 30);
  MUST(predict(&q, &a) == 0 && predict(&q, &again) == 0 && memcmp(&a, &again, sizeof a) == 0);
  MUST(a.false_suspicions_per_hour == 0 && a.false_deaths == 0 && a.undecided == 0);
  MUST(a.datagrams_per_s > 1.9 && a.datagrams_per_s < 2.1); /* A ping and an answer each second. */
  MUST(a.suspected.p50 > 0.5 && a.suspected.p50 <= a.first_dead.p50 && a.first_dead.p50 <= a.all_dead.p50);
  MUST(a.all_dead.p50 <= a.all_dead.p99 && a.all_dead.p99 <= a.all_dead.max && a.all_dead.max < 15);
  q = question(40, 0, 30);
  MUST(predict(&q, &a) == 0 && isnan(a.suspected.p50) && isnan(a.all_dead.max));
}

static void a_lossy_network_is_foretold_as_one(void) {
  struct predict_answer a;
  struct predict_question q = question(20, 2, 120);
  q.link.loss = 0.5, q.config.ping_repeats = 0, q.config.suspicion_multiplier = 1;
  MUST(predict(&q, &a) == 0);
  MUST(a.false_suspicions_per_hour > 10 && a.false_deaths > 0); /* Of living members; the death of a crashed one is not false. */
  MUST(a.false_deaths <= 20);
}

int main(void) {
#define RUN(spec) spec(), puts("ok " #spec)
  RUN(all_know_each_other_and_who_dies);
  RUN(whoever_restarts_is_in_a_later_life);
  RUN(what_is_withheld_comes_when_it_is_passed_on);
  RUN(a_fleet_of_none_and_a_wrong_configuration_are_refused);
  RUN(questions_are_held_to_their_limits);
  RUN(a_healthy_network_is_foretold_as_one);
  RUN(a_lossy_network_is_foretold_as_one);
  return 0;
}
