/* harness: shared by the cases of sim_faults: three nodes a, b, c, 10 ms apart, and sockets and streams that record events. */
#ifndef SIM_FAULTS_HARNESS_H
#define SIM_FAULTS_HARNESS_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world/sim.h"

#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

struct test_case {
  const char *title;
  void (*run)(void);
};
/* NULL title: the end. */
extern const struct test_case network_cases[], machines_cases[], children_cases[], chaos_cases[], queue_cases[],
    links_cases[], clocks_cases[], stalls_cases[];

void failed(const char *file, int line, const char *what, long long got);
#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition, 0))
#define SAME(got, want) \
  do { \
    long long got_ = (long long)(got); \
    if (got_ != (long long)(want)) failed(__FILE__, __LINE__, #got " == " #want, got_); \
  } while (0)

/* Each case begins with a fresh simulation, seed 1. */
extern struct sim *sim;
extern struct sim_node *a, *b, *c;
void start(uint64_t seed);
struct sim_node *add(const char *name, const char *address);
void pass(uint64_t ns);
struct shoal_address at(const char *text);
void cut_both(struct sim_node *x, struct sim_node *y, bool cut);

/* A socket on port 7000; each datagram is a number. */
struct box {
  struct sim_node *node;
  struct world_udp *udp;
  uint64_t heard[4096], heard_at_ns[4096];
  int count;
};
extern const struct world_udp_events box_events;
void box_open(struct box *box, struct sim_node *n);
void send_number(struct box *box, const char *to, uint64_t number);

/* An end of a stream: counts its events, and checks the bytes against put()'s pattern. */
struct end {
  struct world_stream *stream;
  int opened, status, ended, end_status, drained;
  uint64_t opened_at_ns, ended_at_ns, read_at_ns;
  size_t received;
  uint64_t wrong;
};
extern struct end near_end, far_end;
extern const struct world_stream_events end_events;
void end_end(void *data, int status);
void listen_at(struct sim_node *n); /* Port 80; what comes is far_end. */
void dial(struct sim_node *from, const char *to); /* As near_end. */
void pair(void); /* b listens, a has a stream to it. */
int put(struct end *e, size_t offset, size_t length);

#endif
