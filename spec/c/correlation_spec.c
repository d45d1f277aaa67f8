/* core/correlation: each rule at both sides of its boundary. Prints a line for each behaviour. With a word as argument: only those whose
 * name contains it. The property test against a model is spec/lua/correlation_spec.lua, random schedules are study correlation. */
#include "core/correlation.h"

#include <stdio.h>
#include <string.h>

#include "core/errors.h"
#include "must.h"

#define SECOND UINT64_C(1000000000)

static struct correlation c;
static uint64_t now;
static char told[4096]; /* What came out, as "12 evict b alone; 30 detected low abc; ": seconds, kind, dcs. */

static void drain(void) {
  struct correlation_action a;
  while (correlation_next(&c, now, &a)) {
    char *at = told + strlen(told), dcs[512] = "";
    size_t left = sizeof told - strlen(told);
    for (uint32_t i = 0; i < c.end; i++)
      if (c.dcs[i].name[0] && c.dcs[i].event == a.event) strcat(dcs, c.dcs[i].name);
    double s = (double)now / 1e9;
    if (a.kind == CORRELATION_EVICT)
      snprintf(at, left, "%.12g evict %s %s; ", s, c.dcs[a.dc].name, correlation_cause_name(a.cause));
    else if (a.kind == CORRELATION_HEALED)
      snprintf(at, left, "%.12g healed %s %s %s; ", s, correlation_cause_name(a.cause), correlation_severity_name(a.severity), dcs);
    else
      snprintf(at, left, "%.12g %s %s %s; ", s, correlation_kind_name(a.kind), correlation_severity_name(a.severity), dcs);
    MUST(correlation_holds(&c) == (a.kind == CORRELATION_DETECTED || a.kind == CORRELATION_RAISED));
    correlation_check(&c);
  }
  uint64_t at_ns = correlation_deadline(&c);
  MUST(at_ns > now || at_ns == UINT64_MAX);
}

/* Let time pass, stopping at each deadline. */
static void to_ns(uint64_t until) {
  while (correlation_deadline(&c) <= until) {
    now = correlation_deadline(&c);
    drain();
  }
  now = until;
  drain();
}
static void to(double s) { to_ns((uint64_t)(s * 1e9 + 0.5)); }

static uint32_t slot(char name) {
  int found = correlation_find(&c, &name, 1);
  MUST(found >= 0);
  return (uint32_t)found;
}
static void down(const char *names) {
  for (; *names; names++) correlation_down(&c, now, slot(*names)), drain();
}
static void up(const char *names) {
  for (; *names; names++) correlation_up(&c, now, slot(*names)), drain();
}
static void suspect(const char *names) {
  for (; *names; names++) correlation_suspect(&c, now, slot(*names)), drain();
}

static struct correlation_config config;
static void begin(const char *names) {
  now = 0;
  told[0] = 0;
  correlation_init(&c, &config, now);
  for (; *names; names++) MUST(correlation_know(&c, now, names, 1) >= 0);
}
static void expect(const char *text, int line) {
  if (strcmp(told, text) == 0) return;
  printf("FAILED line %d: expected \"%s\"\n               got \"%s\"\n", line, text, told);
  exit(1);
}
#define EXPECT(text) expect(text, __LINE__)

static void one_dc_down_is_evicted_alone_once_it_is_known_not_to_be_the_first_of_several(void) {
  begin("abc");
  down("a");
  to_ns(10 * SECOND - 1);
  EXPECT("");
  to(10);
  EXPECT("10 evict a alone; ");
  to(1000);
  EXPECT("10 evict a alone; ");
  up("a");
  to(1031); /* Settled; the next failure is a new one. */
  down("a");
  to(1041);
  EXPECT("10 evict a alone; 1041 evict a alone; ");
  begin("a"); /* The only one is no different. */
  down("a");
  to(10);
  EXPECT("10 evict a alone; ");
}

static void a_failure_counts_when_it_has_lasted(void) {
  begin("abc");
  down("a");
  to_ns(5 * SECOND - 1);
  up("a");
  down("bc");
  to(30);
  EXPECT("9.999999999 detected low bc; "); /* A is no part of it: it was not down for 5 s. */
  begin("abcd");
  down("a"), to(4), up("a"), to(8), down("a"), to(13.5);
  MUST(c.dcs[0].status == CORRELATION_DOWN && c.dcs[0].fell_ns == 8 * SECOND);
}

static void half_of_the_known_ones_and_two_at_least(void) {
  begin("abcd");
  down("ab");
  to(5);
  EXPECT("5 detected low ab; ");
  begin("abcde");
  down("ab");
  to(10);
  EXPECT("10 evict a alone; 10 evict b alone; ");
  begin("abcdef");
  down("abc");
  to(5);
  EXPECT("5 detected medium abc; ");
  begin("abcdefg");
  down("abc");
  to(10);
  EXPECT("10 evict a alone; 10 evict b alone; 10 evict c alone; ");
  begin("abcdefgh");
  down("abcd");
  to(5);
  EXPECT("5 detected high abcd; ");
}

static void failures_are_counted_together_within_the_window(void) {
  begin("abc");
  down("a"), to(30), down("b"), to(35);
  EXPECT("10 evict a alone; 35 detected low ab; ");
  begin("abc");
  down("a"), to_ns(30 * SECOND + 1), down("b"), to(41);
  EXPECT("10 evict a alone; 40.000000001 evict b alone; ");
}

static void a_suspected_one_delays_the_verdict_but_detects_nothing(void) {
  begin("abcd");
  down("a"), to(1), suspect("b"), to(29);
  EXPECT("");
  down("b"), to(33);
  EXPECT("");
  to(34);
  EXPECT("34 detected low ab; ");
  begin("abcd"); /* It recovers: then the first one was alone. */
  down("a"), to(1), suspect("b"), to(20), up("b"), to(21);
  EXPECT("20 evict a alone; ");
  begin("abcd"); /* It never becomes anything: the wait is bounded. */
  down("a"), to(1), suspect("b"), to_ns(30 * SECOND);
  EXPECT("");
  to_ns(30 * SECOND + 1);
  EXPECT("30.000000001 evict a alone; ");
  begin("abcde"); /* Two of five could not be correlated: no reason to wait. */
  down("a"), suspect("b"), to(10);
  EXPECT("10 evict a alone; ");
  begin("abcd"); /* One that fell before the end of the window is waited for until it counts. */
  down("a"), to(1), suspect("b"), to(30), down("b"), to(34);
  EXPECT("");
  to(35);
  EXPECT("35 detected low ab; ");
}

static void while_it_holds_nobody_is_evicted_and_time_alone_ends_it(void) {
  begin("abcd");
  down("abc"), to(5);
  MUST(correlation_holds(&c));
  to_ns(65 * SECOND - 1);
  EXPECT("5 detected medium abc; ");
  to(65);
  EXPECT("5 detected medium abc; 65 healed expired medium abc; 65 evict a vain; 65 evict b vain; 65 evict c vain; ");
  told[0] = 0;
  to(10000); /* And is not detected again. */
  EXPECT("");
  MUST(!correlation_holds(&c) && correlation_deadline(&c) == UINT64_MAX);
}

static void who_is_back_when_it_ends_was_never_evicted(void) {
  begin("abcd");
  down("abcd"), to(50), up("ab"), to(65); /* They are up, for less than it takes to count. */
  EXPECT("5 detected high abcd; 65 healed expired high abcd; 65 evict c vain; 65 evict d vain; ");
}

static void it_heals_when_enough_are_back_for_long_enough(void) {
  begin("abcd");
  down("abc"), to(20), up("ab");
  to_ns(50 * SECOND - 1);
  EXPECT("5 detected medium abc; ");
  to(50);
  EXPECT("5 detected medium abc; 50 healed returned medium abc; 50 evict c left; ");
  begin("abcd"); /* All come back: nobody is evicted. */
  down("abcd"), to(20), up("abcd"), to(2000);
  EXPECT("5 detected high abcd; 50 healed returned high abcd; ");
  begin("abcdefgh"); /* Half of its dcs are not enough, and one more is. */
  down("abcdefgh"), to(20), up("abcd"), to(30), up("e"), to(59);
  EXPECT("5 detected high abcdefgh; ");
  to(60);
  EXPECT("5 detected high abcdefgh; 60 healed returned high abcdefgh; 60 evict f left; 60 evict g left; 60 evict h left; ");
}

static void one_that_comes_back_for_a_moment_has_not_come_back(void) {
  begin("ab");
  down("ab"), to(10), up("a"), to_ns(40 * SECOND - 1);
  down("a"), to(64);
  EXPECT("5 detected low ab; ");
  to(65);
  EXPECT("5 detected low ab; 65 healed expired low ab; 65 evict a vain; 65 evict b vain; ");
  config.hold_ns = 200 * SECOND;
  begin("ab"); /* Signs of a failure delay its return. */
  down("ab"), to(10), up("a"), to(30), suspect("a"), to(50), up("a"), to(79);
  EXPECT("5 detected low ab; ");
  to(80);
  EXPECT("5 detected low ab; 80 healed returned low ab; 80 evict b left; ");
  correlation_defaults(&config);
}

static void it_rises_while_it_holds_and_the_hold_begins_again(void) {
  begin("abcdef");
  down("abc"), to(50), down("d"), to(55);
  EXPECT("5 detected medium abc; 55 raised high abcd; ");
  down("e"), to(114); /* HIGH is the highest: more of them change nothing. */
  EXPECT("5 detected medium abc; 55 raised high abcd; ");
  to(115);
  EXPECT("5 detected medium abc; 55 raised high abcd; 115 healed expired high abcde; 115 evict a vain; 115 evict b vain; "
         "115 evict c vain; 115 evict d vain; 115 evict e vain; ");
}

static void three_holds_are_the_most(void) {
  begin("abcd");
  down("ab"), to(60), down("c"), to(120), down("d"), to(184);
  MUST(correlation_holds(&c));
  to(185);
  MUST(!correlation_holds(&c) && c.counts.raised == 2 && c.counts.vain == 4);
}

static void a_member_that_falls_again_counts_once(void) {
  config.hold_ns = 1000 * SECOND;
  begin("abcd");
  down("abcd"), to(10), up("ab"), to(41);
  MUST(c.dcs[0].status == CORRELATION_UP && c.members == 4 && correlation_holds(&c));
  config.flap_moves = 0, c.config = config;
  down("a"), to(50);
  MUST(c.members == 4 && correlation_holds(&c));
  up("c"), to(81); /* b and c are back, a and d are not. */
  MUST(correlation_holds(&c));
  up("d"), to(111);
  EXPECT("5 detected high abcd; 111 healed returned high abcd; 111 evict a left; ");
  correlation_defaults(&config);
}

static void what_was_part_of_an_event_is_no_evidence_until_it_was_up(void) {
  begin("abcd");
  down("ab"), to(65);
  EXPECT("5 detected low ab; 65 healed expired low ab; 65 evict a vain; 65 evict b vain; ");
  told[0] = 0;
  up("a"), to(70), down("a"), to(71), down("c"), to(90); /* A was not up for 30 s: this is its old failure. */
  EXPECT("80 evict a alone; 81 evict c alone; ");
}

static void a_relapse_is_the_old_failure(void) {
  config.flap_moves = 0;
  begin("abcd");
  down("a"), to(20), up("a"), to(49), down("a"), to(50), down("b"), to(60); /* A was up for 29 s. */
  EXPECT("10 evict a alone; 59 evict a alone; 60 evict b alone; ");
  begin("abcd");
  down("a"), to(20), up("a"), to(50), down("a"), to(51), down("b"), to(60); /* For 30 s. */
  EXPECT("10 evict a alone; 56 detected low ab; ");
  correlation_defaults(&config);
}

static void a_dc_that_flaps_is_no_evidence(void) {
  begin("abcd");
  down("a"), to(6), up("a"), to_ns(120 * SECOND), down("a"), down("b"), to(125);
  MUST(correlation_damped(&c, 0) && c.counts.damped == 1);
  EXPECT(""); /* Two of four are down, but a flaps; and one of three is not half. */
  to(130);
  EXPECT("130 evict a alone; 130 evict b alone; ");
  begin("abcd"); /* One instant later the first move does not count. */
  down("a"), to(6), up("a"), to_ns(120 * SECOND + 1), down("a"), down("b"), to(126);
  EXPECT("125.000000001 detected low ab; ");
  MUST(!correlation_damped(&c, 0));
}

static void damping_ends_when_it_was_calm_for_long(void) {
  begin("abcd");
  down("a"), to(6), up("a"), to(20), down("a"), to(26), up("a"); /* Four moves: the last was at 26. */
  to_ns(326 * SECOND - 1);
  MUST(correlation_damped(&c, 0));
  to(326);
  MUST(!correlation_damped(&c, 0));
  told[0] = 0;
  down("ab"), to(331);
  EXPECT("331 detected low ab; ");
}

static void a_dc_that_flaps_is_not_one_of_the_known(void) {
  begin("abcde");
  down("e"), to(1), up("e"), to(2), down("e"), to(3), up("e"), to(10);
  down("ab"), to(15); /* Two of four. */
  EXPECT("15 detected low ab; ");
}

static void a_member_that_flaps_remains_part(void) {
  begin("abc");
  down("ab"), to(10), up("a"), to(20), down("a"), to(64);
  MUST(correlation_damped(&c, 0) && correlation_holds(&c));
  to(65);
  EXPECT("5 detected low ab; 65 healed expired low ab; 65 evict a vain; 65 evict b vain; ");
}

static void old_failures_are_not_weighed_again_when_others_are_forgotten(void) {
  begin("abcdef");
  down("ab"), to(20);
  for (const char *name = "cdef"; *name; name++) {
    MUST(correlation_forget(&c, now, name, 1) == 0);
    drain();
  }
  to(100);
  EXPECT("10 evict a alone; 10 evict b alone; ");
}

static void a_forgotten_member_ends_the_event_when_it_was_needed(void) {
  begin("abc");
  down("ab"), to(10);
  MUST(correlation_forget(&c, now, "b", 1) == 0);
  drain();
  EXPECT("5 detected low ab; 10 healed returned low a; 10 evict a left; ");
  MUST(correlation_find(&c, "b", 1) == ERR_NOT_FOUND && correlation_forget(&c, now, "b", 1) == ERR_NOT_FOUND);
  MUST(correlation_know(&c, now, "b", 1) == 1 && c.dcs[1].status == CORRELATION_UP); /* Known again: another life. */
}

static void a_process_that_was_stopped_decides_nothing_for_a_second(void) {
  begin("abcd");
  down("ab");
  now = 5 * SECOND + CORRELATION_LATE_NS; /* Late, but not too late. */
  drain();
  EXPECT("6 detected low ab; ");
  begin("abcd");
  down("ab");
  now = 5 * SECOND + CORRELATION_LATE_NS + 1;
  drain();
  EXPECT("");
  up("ab"), to(100); /* The reports that waited in the sockets. */
  EXPECT("");
  MUST(c.counts.late == 1);
  begin("abcd"); /* Always late: it decides all the same. */
  down("ab");
  now = 20 * SECOND, drain();
  now = 40 * SECOND, drain();
  EXPECT("40 detected low ab; ");
}

static void repeated_reports_change_nothing_and_are_counted(void) {
  begin("abc");
  down("a"), to(4), down("a"), suspect("a"), to(5);
  MUST(c.dcs[0].status == CORRELATION_DOWN && c.counts.repeated == 2 && c.dcs[0].moves == 1);
  up("a"), up("a");
  MUST(c.counts.repeated == 3 && c.counts.ups == 1);
  suspect("b"), suspect("b"), up("b");
  MUST(c.counts.suspects == 1 && c.counts.repeated == 4 && !c.dcs[1].suspect);
}

static void limits(void) {
  char name[CORRELATION_NAME_MAX + 2];
  correlation_init(&c, &config, 0);
  for (int i = 0; i < CORRELATION_DCS_MAX; i++) {
    snprintf(name, sizeof name, "dc%d", i);
    MUST(correlation_know(&c, 0, name, strlen(name)) == i);
  }
  MUST(correlation_know(&c, 0, "one more", 8) == ERR_FULL && c.counts.full == 1 && c.known == CORRELATION_DCS_MAX);
  MUST(correlation_know(&c, 0, "dc7", 3) == 7); /* Known already. */
  MUST(correlation_forget(&c, 0, "dc7", 3) == 0 && correlation_know(&c, 0, "one more", 8) == 7);
  memset(name, 'x', sizeof name);
  correlation_init(&c, &config, 0);
  MUST(correlation_know(&c, 0, name, CORRELATION_NAME_MAX) == 0 && correlation_know(&c, 0, name, CORRELATION_NAME_MAX + 1) == ERR_TOO_LARGE);
  MUST(correlation_know(&c, 0, "", 0) == ERR_TOO_LARGE && correlation_know(&c, 0, "a\0b", 3) == ERR_TOO_LARGE);
  correlation_check(&c);
  correlation_init(&c, &config, 0); /* All at once, at the limit. */
  for (int i = 0; i < CORRELATION_DCS_MAX; i++) {
    snprintf(name, sizeof name, "%d", i);
    MUST(correlation_know(&c, 0, name, strlen(name)) == i);
  }
  now = 0, told[0] = 0;
  for (uint32_t i = 0; i < CORRELATION_DCS_MAX; i++) correlation_down(&c, 0, i);
  struct correlation_action a;
  MUST(!correlation_next(&c, 0, &a) && correlation_next(&c, 5 * SECOND, &a) && a.kind == CORRELATION_DETECTED);
  MUST(!correlation_next(&c, 65 * SECOND - 1, &a) && correlation_next(&c, 65 * SECOND, &a) && a.kind == CORRELATION_HEALED);
  for (uint32_t i = 0; i < CORRELATION_DCS_MAX; i++) MUST(correlation_next(&c, 65 * SECOND, &a) && a.kind == CORRELATION_EVICT && a.dc == i);
  MUST(!correlation_next(&c, 65 * SECOND, &a));
}

static void a_wrong_configuration_is_named(void) {
  struct correlation_config wrong;
#define WRONG(change, begins) \
  correlation_defaults(&wrong), wrong.change; \
  MUST(correlation_config_check(&wrong) && strncmp(correlation_config_check(&wrong), begins, strlen(begins)) == 0)
  WRONG(low = 1, "low ");
  WRONG(medium = 2, "medium ");
  WRONG(high = 3, "high ");
  WRONG(down_ns = 0, "down ");
  WRONG(up_ns = 0, "up ");
  WRONG(hold_ns = 0, "hold ");
  WRONG(window_ns = 5 * SECOND - 1, "window ");
  WRONG(flap_moves = 1, "flap_moves ");
  WRONG(flap_moves = 9, "flap_moves ");
  WRONG(cool_ns = UINT64_MAX, "times ");
#undef WRONG
  correlation_defaults(&wrong);
  MUST(!correlation_config_check(&wrong));
  wrong.flap_moves = CORRELATION_MOVES_MAX;
  MUST(!correlation_config_check(&wrong));
}

int main(int argc, char **argv) {
  correlation_defaults(&config);
#define BEHAVIOUR(name) if (argc < 2 || strstr(#name, argv[1])) name(), puts("ok " #name)
  BEHAVIOUR(one_dc_down_is_evicted_alone_once_it_is_known_not_to_be_the_first_of_several);
  BEHAVIOUR(a_failure_counts_when_it_has_lasted);
  BEHAVIOUR(half_of_the_known_ones_and_two_at_least);
  BEHAVIOUR(failures_are_counted_together_within_the_window);
  BEHAVIOUR(a_suspected_one_delays_the_verdict_but_detects_nothing);
  BEHAVIOUR(while_it_holds_nobody_is_evicted_and_time_alone_ends_it);
  BEHAVIOUR(who_is_back_when_it_ends_was_never_evicted);
  BEHAVIOUR(it_heals_when_enough_are_back_for_long_enough);
  BEHAVIOUR(one_that_comes_back_for_a_moment_has_not_come_back);
  BEHAVIOUR(it_rises_while_it_holds_and_the_hold_begins_again);
  BEHAVIOUR(three_holds_are_the_most);
  BEHAVIOUR(a_member_that_falls_again_counts_once);
  BEHAVIOUR(what_was_part_of_an_event_is_no_evidence_until_it_was_up);
  BEHAVIOUR(a_relapse_is_the_old_failure);
  BEHAVIOUR(a_dc_that_flaps_is_no_evidence);
  BEHAVIOUR(damping_ends_when_it_was_calm_for_long);
  BEHAVIOUR(a_dc_that_flaps_is_not_one_of_the_known);
  BEHAVIOUR(a_member_that_flaps_remains_part);
  BEHAVIOUR(old_failures_are_not_weighed_again_when_others_are_forgotten);
  BEHAVIOUR(a_forgotten_member_ends_the_event_when_it_was_needed);
  BEHAVIOUR(a_process_that_was_stopped_decides_nothing_for_a_second);
  BEHAVIOUR(repeated_reports_change_nothing_and_are_counted);
  BEHAVIOUR(limits);
  BEHAVIOUR(a_wrong_configuration_is_named);
  return 0;
}
