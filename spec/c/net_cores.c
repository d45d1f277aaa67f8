/* The parts of the transport, each alone: circuit, backoff, deadlines, frames, a lane's queue. No world, no clock.
 * Prints one line a property; exits 1 at the first that does not hold. */
#include <string.h>

#include "core/backoff.h"
#include "core/breaker.h"
#include "core/errors.h"
#include "core/rng.h"
#include "core/wheel.h"
#include "must.h"
#include "net/queue.h"

static const uint64_t s = 1000000000;
static const struct breaker_config usual = {3, 30000000000, 10000000000};

/* ---- the circuit ---- */

static struct breaker opened_at(uint64_t now) {
  struct breaker b;
  breaker_init(&b, &usual);
  for (int i = 0; i < 3; i++) breaker_failure(&b, now, false);
  MUST(b.status == BREAKER_OPEN);
  return b;
}

static void circuit_opens(void) {
  struct breaker b;
  bool trial;
  breaker_init(&b, &usual);
  breaker_failure(&b, 1 * s, false);
  breaker_failure(&b, 2 * s, false);
  MUST(breaker_allow(&b, 2 * s, &trial) && !trial && b.status == BREAKER_CLOSED);
  breaker_failure(&b, 31 * s, false); /* 30 s after the first: within. */
  MUST(b.status == BREAKER_OPEN && !breaker_allow(&b, 31 * s, &trial));
  breaker_init(&b, &usual);
  breaker_failure(&b, 1 * s, false);
  breaker_failure(&b, 2 * s, false);
  breaker_failure(&b, 31 * s + 1, false); /* 1 ns more: the first has fallen out. */
  MUST(b.status == BREAKER_CLOSED && b.count == 2);
  breaker_failure(&b, 32 * s, false);
  MUST(b.status == BREAKER_OPEN);
  breaker_init(&b, &usual);
  breaker_failure(&b, 1, false);
  breaker_failure(&b, 2, false);
  breaker_success(&b, false);
  breaker_failure(&b, 3, false);
  breaker_failure(&b, 4, false);
  MUST(b.status == BREAKER_CLOSED);
  struct breaker_config one = {1, 0, 5};
  breaker_init(&b, &one);
  breaker_failure(&b, 9, false);
  MUST(b.status == BREAKER_OPEN && breaker_deadline(&b) == 14);
  struct breaker_config most = {BREAKER_FAILURES_MAX, 100, 5};
  breaker_init(&b, &most);
  for (uint64_t i = 0; i < BREAKER_FAILURES_MAX; i++) {
    MUST(b.status == BREAKER_CLOSED);
    breaker_failure(&b, i, false);
  }
  MUST(b.status == BREAKER_OPEN);
  printf("ok F68 a circuit opens at the third failure in 30 s with no success between, and not 1 ns later\n");
}

static void circuit_hears(void) {
  struct breaker b = opened_at(7 * s);
  bool trial, second;
  breaker_heard(&b); /* Long before its 10 s are over. */
  MUST(breaker_allow(&b, 7 * s + 1, &trial) && trial && !breaker_allow(&b, 7 * s + 1, &second));
  breaker_heard(&b); /* Again: the trial that is on its way stays the only one. */
  MUST(!breaker_allow(&b, 7 * s + 2, &second));
  breaker_failure(&b, 8 * s, true); /* It lives, but does not answer. */
  MUST(b.status == BREAKER_OPEN && breaker_deadline(&b) == 18 * s);
  breaker_init(&b, &usual);
  breaker_failure(&b, 1, false);
  breaker_heard(&b); /* A closed one forgets nothing. */
  MUST(b.status == BREAKER_CLOSED && b.count == 1);
  printf("ok F68 a peer that comes to us is tried again at once, with the one trial\n");
}

static void circuit_tries_once(void) {
  struct breaker b = opened_at(7 * s);
  bool trial, second;
  MUST(breaker_deadline(&b) == 17 * s);
  MUST(!breaker_allow(&b, 17 * s - 1, &trial) && !trial);
  breaker_success(&b, false); /* A late answer says nothing. */
  breaker_failure(&b, 17 * s - 1, false);
  MUST(breaker_deadline(&b) == 17 * s && breaker_state(&b, 17 * s) == BREAKER_HALF_OPEN);
  MUST(breaker_deadline(&b) == UINT64_MAX);
  MUST(breaker_allow(&b, 17 * s, &trial) && trial);
  MUST(!breaker_allow(&b, 18 * s, &second) && !second);
  breaker_success(&b, false); /* Nor does one of those asked before it opened. */
  breaker_failure(&b, 18 * s, false);
  MUST(b.status == BREAKER_HALF_OPEN && b.trial);
  breaker_failure(&b, 18 * s, true);
  MUST(b.status == BREAKER_OPEN && breaker_deadline(&b) == 28 * s);
  MUST(breaker_allow(&b, 28 * s, &trial) && trial);
  breaker_release(&b); /* Withdrawn: the next one is the trial. */
  MUST(breaker_allow(&b, 29 * s, &trial) && trial && b.status == BREAKER_HALF_OPEN);
  breaker_success(&b, true);
  MUST(b.status == BREAKER_CLOSED && b.count == 0 && breaker_allow(&b, 29 * s, &trial) && !trial);
  breaker_failure(&b, 29 * s, false);
  breaker_failure(&b, 29 * s, false);
  MUST(b.status == BREAKER_CLOSED); /* It starts from nothing again. */
  printf("ok F68 after 10 s one trial goes through, and only it closes or opens the circuit\n");
}

/* ---- backoff ---- */

static void backoff_spreads(void) {
  static const uint64_t ceilings[] = {500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
  const uint64_t ms = 1000000;
  struct backoff_config config = {500 * ms, 30000 * ms, 2};
  struct backoff least, most, any;
  struct rng rng;
  rng_seed(&rng, 5);
  backoff_init(&least, &config);
  backoff_init(&most, &config);
  for (size_t i = 0; i < sizeof ceilings / sizeof *ceilings; i++) {
    MUST(backoff_next(&least, 0) == ceilings[i] * ms / 10);
    MUST(backoff_next(&most, UINT64_MAX) == ceilings[i] * ms);
  }
  MUST(least.attempts == 9);
  backoff_reset(&least);
  MUST(backoff_next(&least, UINT64_MAX) == 500 * ms && least.attempts == 1);
  double sum = 0;
  backoff_init(&any, &config);
  for (int i = 0; i < 10000; i++) {
    backoff_reset(&any);
    uint64_t wait = backoff_next(&any, rng_next(&rng));
    MUST(wait >= 50 * ms && wait <= 500 * ms);
    sum += (double)wait;
  }
  MUST(sum / 10000 > 270e6 && sum / 10000 < 280e6); /* Evenly: the mean is 275 ms. */
  struct backoff_config huge = {1, UINT64_MAX, UINT32_MAX};
  backoff_init(&any, &huge);
  for (int i = 0; i < 100; i++) (void)backoff_next(&any, rng_next(&rng)); /* Asserts that nothing overflows. */
  MUST(any.ceiling_ns == UINT64_MAX);
  printf("ok F61 waits double from 0.5 s to 30 s, drawn evenly from a tenth of the ceiling up to it\n");
}

/* ---- deadlines ---- */

enum { TIMERS = 500 };

static void wheel_is_never_early(void) {
  static struct wheel w;
  static struct wheel_entry entries[TIMERS];
  static uint64_t deadlines[TIMERS]; /* 0: not set. */
  const uint64_t tick = UINT64_C(1) << WHEEL_TICK_BITS;
  struct rng rng;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    rng_seed(&rng, seed);
    uint64_t now = rng_next(&rng) >> 8;
    memset(entries, 0, sizeof entries);
    memset(deadlines, 0, sizeof deadlines);
    wheel_init(&w, now);
    for (int step = 0; step < 20000; step++) {
      size_t i = rng_below(&rng, TIMERS);
      uint64_t ahead = rng_next(&rng) >> (24 + rng_below(&rng, 30));
      switch (rng_below(&rng, 4)) {
      case 0:
      case 1:
        deadlines[i] = now + ahead;
        wheel_set(&w, &entries[i], deadlines[i]);
        break;
      case 2:
        wheel_remove(&w, &entries[i]);
        deadlines[i] = 0;
        break;
      default: {
        uint64_t next = wheel_next_ns(&w);
        now = rng_below(&rng, 2) && next != UINT64_MAX && next > now ? next : now + ahead / 8;
        for (struct wheel_entry *e; (e = wheel_pop(&w, now));) {
          size_t due = (size_t)(e - entries);
          MUST(deadlines[due] && deadlines[due] <= now && !wheel_has(e)); /* Never early, never one taken back. */
          deadlines[due] = 0;
        }
        for (size_t j = 0; j < TIMERS; j++) MUST(!deadlines[j] || deadlines[j] + tick > now); /* At most a tick late. */
      }
      }
      uint64_t next = wheel_next_ns(&w), least = UINT64_MAX;
      for (size_t j = 0; step % 64 == 0 && j < TIMERS; j++)
        if (deadlines[j] && deadlines[j] < least) least = deadlines[j];
      if (step % 64 == 0) MUST(least == UINT64_MAX ? next == UINT64_MAX : next < least + tick); /* Asked in time. */
    }
  }
  printf("ok deadlines are never early, at most one tick late, and gone when taken back\n");
}

/* ---- frames ---- */

static enum frame_fault check(uint32_t length, uint8_t lane, uint8_t flags, uint64_t id) {
  struct frame f = {.length = length, .type = 9, .lane = lane, .flags = flags, .id = id}, back;
  uint8_t bytes[FRAME_HEADER];
  frame_put(bytes, &f);
  frame_get(bytes, &back);
  MUST(back.length == length && back.type == 9 && back.lane == lane && back.flags == flags && back.id == id);
  enum frame_fault fault = frame_check(&f);
  if (frame_is_plain(frame_word(bytes), id)) MUST(fault == FRAME_FAULT_NONE && flags & FRAME_LAST && !(flags & 0x18));
  return fault;
}

static void frames_are_checked(void) {
  static const uint8_t drawn[FRAME_HEADER] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x02, 0x03,
                                              0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f};
  struct frame f;
  frame_get(drawn, &f);
  MUST(f.length == 0x10203 && f.type == 0x405 && f.lane == 2 && f.flags == (FRAME_LAST | FRAME_REQUEST));
  MUST(f.id == UINT64_C(0x08090a0b0c0d0e0f));
  MUST(check(FRAME_BODY_MAX, 3, FRAME_LAST | FRAME_REQUEST, 1) == FRAME_FAULT_NONE);
  MUST(check(FRAME_BODY_MAX + 1, 3, FRAME_LAST | FRAME_REQUEST, 1) == FRAME_FAULT_LENGTH);
  MUST(check(UINT32_MAX, 0, FRAME_LAST, 0) == FRAME_FAULT_LENGTH);
  MUST(check(FRAME_LINK_MAX, 0, FRAME_LINK | FRAME_LAST, 0) == FRAME_FAULT_NONE);
  MUST(check(FRAME_LINK_MAX + 1, 0, FRAME_LINK | FRAME_LAST, 0) == FRAME_FAULT_LENGTH);
  MUST(check(0, 0, FRAME_LAST, 0) == FRAME_FAULT_NONE && check(0, 0, 0, 0) == FRAME_FAULT_LENGTH);
  MUST(check(1, 0, 0, 0) == FRAME_FAULT_NONE);
  MUST(check(1, 4, FRAME_LAST, 0) == FRAME_FAULT_LANE && check(1, 255, FRAME_LAST, 0) == FRAME_FAULT_LANE);
  MUST(check(1, 0, FRAME_LAST | FRAME_REQUEST | FRAME_REPLY, 1) == FRAME_FAULT_FLAGS);
  MUST(check(1, 0, FRAME_LAST | FRAME_REQUEST | FRAME_REFUSAL, 1) == FRAME_FAULT_FLAGS);
  MUST(check(1, 0, FRAME_LAST | FRAME_REFUSAL, 1) == FRAME_FAULT_FLAGS);
  MUST(check(1, 0, FRAME_LAST | FRAME_REPLY | FRAME_REFUSAL, 1) == FRAME_FAULT_NONE);
  MUST(check(1, 0, 0x21, 1) == FRAME_FAULT_FLAGS && check(1, 0, 0x81, 1) == FRAME_FAULT_FLAGS);
  MUST(check(1, 0, FRAME_LAST | FRAME_LINK, 0) == FRAME_FAULT_NONE);
  MUST(check(1, 1, FRAME_LAST | FRAME_LINK, 0) == FRAME_FAULT_FLAGS && check(1, 0, FRAME_LINK, 0) == FRAME_FAULT_FLAGS);
  MUST(check(1, 0, FRAME_LAST | FRAME_REQUEST, 0) == FRAME_FAULT_ID && check(1, 0, FRAME_LAST | FRAME_REPLY, 0) == FRAME_FAULT_ID);
  for (int fault = 0; fault < FRAME_FAULTS_COUNT; fault++)
    MUST(frame_fault_name((enum frame_fault)fault)[0] && frame_fault_text((enum frame_fault)fault)[0]);
  printf("ok F70 a frame's header is as drawn, and each thing that can be wrong with it has its name\n");
}

static void greetings_and_refusals(void) {
  struct frame_hello hello = {.major = FRAME_MAJOR, .minor = 3, .life = UINT64_C(0x0123456789abcdef), .cluster = "c", .node = "n", .role = "gate", .advertise = "1.2.3.4:5"};
  struct frame_hello back;
  uint8_t bytes[FRAME_HELLO_MAX + 8];
  memset(hello.dc, 'd', 255);
  size_t length = frame_hello_put(bytes, &hello);
  MUST(frame_hello_get(bytes, length, &back) && back.minor == 3 && strcmp(back.dc, hello.dc) == 0 && back.life == hello.life);
  MUST(strcmp(back.advertise, "1.2.3.4:5") == 0 && strcmp(back.role, "gate") == 0);
  MUST(frame_hello_get(bytes, length + 8, &back)); /* A later minor version's fields are skipped. */
  for (size_t shorter = 0; shorter < length; shorter++) MUST(!frame_hello_get(bytes, shorter, &back));
  hello.minor = 0; /* Which had no life. */
  MUST(frame_hello_put(bytes, &hello) == length - 8 && frame_hello_get(bytes, length - 8, &back) && back.life == 0);
  hello.major = FRAME_MAJOR + 1;
  length = frame_hello_put(bytes, &hello);
  MUST(frame_hello_get(bytes, 8, &back) && back.major == FRAME_MAJOR + 1 && back.node[0] == 0);
  hello.major = FRAME_MAJOR;
  hello.node[0] = 0;
  MUST(!frame_hello_get(bytes, frame_hello_put(bytes, &hello), &back)); /* No name. */
  struct frame_refusal refusal;
  char name[FRAME_NAME_MAX + 2], text[FRAME_TEXT_MAX + 2];
  uint8_t body[FRAME_REFUSAL_MAX];
  memset(name, 'N', sizeof name);
  memset(text, 't', sizeof text);
  name[sizeof name - 1] = text[sizeof text - 1] = 0;
  length = frame_refusal_put(body, name, text, strlen(text));
  MUST(length == FRAME_REFUSAL_MAX && frame_refusal_get(body, length, &refusal));
  MUST(strlen(refusal.name) == FRAME_NAME_MAX && refusal.text_length == FRAME_TEXT_MAX); /* Cut, not refused. */
  length = frame_refusal_put(body, "FULL", "", 0);
  MUST(length == 5 && frame_refusal_get(body, 5, &refusal) && strcmp(refusal.name, "FULL") == 0 && refusal.text_length == 0);
  for (size_t shorter = 0; shorter < 5; shorter++) MUST(!frame_refusal_get(body, shorter, &refusal));
  body[0] = 0;
  MUST(!frame_refusal_get(body, 5, &refusal));
  body[0] = FRAME_NAME_MAX + 1;
  MUST(!frame_refusal_get(body, FRAME_REFUSAL_MAX, &refusal));
  printf("ok F70 a greeting and a refusal come back as they were, and no prefix of one is one\n");
}

/* ---- a lane's queue ---- */

static uint64_t ended; /* Requests below this id have ended. */
static bool has_ended(void *data, const struct frame *f) {
  (void)data;
  return f->flags & FRAME_REQUEST && f->id < ended;
}

static void queue_keeps_order(void) {
  static uint8_t body[FRAME_MESSAGE_MAX], got[FRAME_MESSAGE_MAX];
  struct queue_total total = {.bytes_max = SIZE_MAX / 2};
  struct queue q = {.total = &total, .messages_max = UINT32_MAX, .bytes_max = UINT32_MAX};
  struct rng rng;
  rng_seed(&rng, 11);
  for (size_t i = 0; i < sizeof body; i++) body[i] = (uint8_t)rng_next(&rng);
  uint64_t pushed = 0, taken = 0, sent = 0;
  size_t got_length = 0;
  for (int step = 0; step < 3000; step++) {
    size_t length = rng_below(&rng, 40) == 0 ? rng_below(&rng, 400000) : rng_below(&rng, 300);
    struct frame_head head = frame_head((uint16_t)pushed, 2, FRAME_REPLY, length + 1);
    MUST(queue_push(&q, head, body, length) == 0);
    pushed++;
    for (uint64_t n = rng_below(&rng, 4); n > 0; n--) {
      uint32_t dropped;
      size_t run;
      const uint8_t *bytes = queue_peek(&q, FRAME_MAX, NULL, NULL, &run, &dropped);
      if (!bytes) break;
      MUST(run <= FRAME_MAX && dropped == 0);
      for (size_t at = 0; at < run;) {
        struct frame f;
        frame_get(bytes + at, &f);
        MUST(frame_check(&f) == FRAME_FAULT_NONE && f.type == (uint16_t)taken);
        memcpy(got + got_length, bytes + at + FRAME_HEADER, f.length);
        got_length += f.length;
        if (f.flags & FRAME_LAST) {
          MUST(got_length == f.id - 1 && memcmp(got, body, got_length) == 0);
          got_length = 0;
          taken++;
        }
        at += FRAME_HEADER + f.length;
      }
      queue_take(&q, run);
      sent += run;
      MUST(q.taken == sent && q.messages == pushed - taken);
    }
  }
  MUST(taken > 2000);
  queue_free(&q);
  MUST(total.bytes == 0 && total.capacity == 0);
  printf("ok messages leave a lane whole and in order, in writes of at most one frame's length\n");
}

static void queue_drops(void) {
  struct queue_total total = {.bytes_max = SIZE_MAX / 2};
  struct queue q = {.total = &total, .messages_max = UINT32_MAX, .bytes_max = UINT32_MAX};
  struct frame_head ask = frame_head(6, 0, FRAME_REQUEST, 0);
  struct frame f;
  uint32_t dropped;
  size_t run;
  const uint8_t *bytes;
  for (ask.id = 1; ask.id <= 3; ask.id++) MUST(queue_push(&q, ask, "q", 1) == 0);
  ended = 3;
  bytes = queue_peek(&q, FRAME_MAX, has_ended, NULL, &run, &dropped);
  MUST(run == 3 * (FRAME_HEADER + 1) && dropped == 0); /* No call has marked that one of them may have ended. */
  q.stale = true;
  bytes = queue_peek(&q, FRAME_MAX, has_ended, NULL, &run, &dropped);
  frame_get(bytes, &f);
  MUST(dropped == 2 && run == FRAME_HEADER + 1 && f.id == 3);
  queue_take(&q, run);
  static uint8_t big[3 * FRAME_MAX];
  ended = 1;
  for (ask.id = 1; ask.id <= 2; ask.id++) MUST(queue_push(&q, ask, big, sizeof big) == 0);
  bytes = queue_peek(&q, FRAME_MAX, has_ended, NULL, &run, &dropped);
  queue_take(&q, run); /* The first has begun to leave: it goes on though it ended. */
  ended = 3;
  q.stale = true;
  size_t left = 0;
  while ((bytes = queue_peek(&q, FRAME_MAX, has_ended, NULL, &run, &dropped))) left += run, queue_take(&q, run);
  MUST(left == sizeof big + 4 * FRAME_HEADER - FRAME_MAX && dropped == 1 && q.messages == 0);
  queue_free(&q);
  MUST(total.bytes == 0 && total.capacity == 0);
  printf("ok a request that ended does not leave, unless it had begun to\n");
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  circuit_opens();
  circuit_hears();
  circuit_tries_once();
  backoff_spreads();
  wheel_is_never_early();
  frames_are_checked();
  greetings_and_refusals();
  queue_keeps_order();
  queue_drops();
  return 0;
}
