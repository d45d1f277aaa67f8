/* harness: shared by the cases of the world's conformance suite. A case sees a world only through world.h; the driver
 * in world_conformance.c gives it a fresh one, turns it, and afterwards checks that everything is closed. */
#ifndef WORLD_CONFORMANCE_HARNESS_H
#define WORLD_CONFORMANCE_HARNESS_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "world/world.h"

#define MS ((uint64_t)1000000)

/* A case's needs beyond the seam; a world without them skips the case, by name. */
enum { NEEDS_NOTHING = 0, NEEDS_PROCESSES = 1, NEEDS_REAL_TIME = 2, NEEDS_SIMULATION = 4 };

struct test_case {
  const char *title;
  void (*run)(void);
  int needs;
};
extern const struct test_case clock_cases[], datagram_cases[], stream_cases[], ending_cases[], file_cases[], name_cases[],
    process_cases[], stdio_cases[]; /* Each ends with a NULL title. */

extern struct shoal_world *W;          /* This case's world. */
extern struct shoal_address HERE;      /* Its own address, port 0. */
extern const char *OWN_NAME;           /* A name that resolves to HERE, or near it. */
extern const char *PROGRAM;            /* This program's path. */
extern int calls;                      /* > 0 while a call of the world is being made. */

void failed(const char *file, int line, const char *what, long long got);
bool turn(uint64_t *spent_ms);         /* One turn of the world. False when too long was waited. */
void settle(unsigned ms);              /* Let this much time of the world pass. */
int child_main(int argc, char **argv); /* This program's main as a child of stdio cases. */

#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition, 0))
#define SAME(got, want)                                                                     \
  do {                                                                                      \
    long long got_ = (long long)(got);                                                      \
    if (got_ != (long long)(want)) failed(__FILE__, __LINE__, #got " == " #want, got_);     \
  } while (0)
/* Turn the world until the condition holds. */
#define UNTIL(condition)                                                                    \
  do {                                                                                      \
    uint64_t spent_ = 0;                                                                    \
    while (!(condition))                                                                    \
      if (!turn(&spent_)) {                                                                 \
        failed(__FILE__, __LINE__, "in time: " #condition, 0);                              \
        break;                                                                              \
      }                                                                                     \
  } while (0)
/* Make a call of the world: no callback may run within it. */
#define CALL(call) (calls++, (call), (void)calls--)
#define ASK(call)                                                                           \
  __extension__({                                                                           \
    calls++;                                                                                \
    int result_ = (call);                                                                   \
    calls--;                                                                                \
    result_;                                                                                \
  })
/* Begins every callback. */
#define EVENT() SAME(calls, 0)

/* Counts on_closed, for things of which nothing else is of interest. */
void count_closed(void *data);

/* ---- the two ends of a stream ---- */

struct end {
  const char *name;
  struct world_stream *stream;
  int opened, open_status, ended, end_status, drained, closed;
  int events_after_close;
  size_t received, queued_at_drain;
  uint64_t mismatches; /* Bytes that are not pattern(offset). */
  bool close_on_open, close_on_read, close_on_end, close_on_drain, pause_on_read, echo, shut;
};
extern const struct world_stream_events END_EVENTS;
uint8_t pattern(size_t offset);
/* Write `length` bytes of the pattern as if from `offset`. */
int write_pattern(struct end *e, size_t offset, size_t length);

struct pair {
  struct world_listener *listener;
  struct shoal_address at;
  struct end near, far; /* far: accepted. */
  int accepted, listener_closed, listener_errors;
  bool leave_unattached, close_accepted, close_listener;
};
void pair_listen(struct pair *p);
void pair_connect(struct pair *p);
/* Listen, connect, and wait until both ends are there. */
void pair_open(struct pair *p);
/* Close all open things and wait for it. */
void pair_close(struct pair *p);

#endif
