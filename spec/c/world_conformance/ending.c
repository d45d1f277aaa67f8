/* How streams and listeners end. */
#include <sys/resource.h>

#include "harness.h"

static void peer_closes(void) {
  struct pair p = {0};
  pair_open(&p);
  SAME(write_pattern(&p.near, 0, 3000), 0);
  CALL(world_stream_shutdown(p.near.stream));
  UNTIL(p.far.ended);
  SAME(p.far.received, 3000); /* The bytes first. */
  SAME(p.far.end_status, 0);
  settle(5);
  SAME(p.far.ended, 1);
  pair_close(&p);
}

static void half_closed(void) {
  struct pair p = {0};
  pair_open(&p);
  SAME(ASK(world_stream_shutdown(p.near.stream)), 0);
  SAME(ASK(world_stream_shutdown(p.near.stream)), 0); /* Twice is once. */
  SAME(write_pattern(&p.near, 0, 10), -EPIPE);
  UNTIL(p.far.ended);
  SAME(write_pattern(&p.far, 0, 5000), 0); /* The other direction still works. */
  UNTIL(p.near.received == 5000);
  SAME(p.near.ended, 0);
  SAME(ASK(world_stream_shutdown(p.far.stream)), 0);
  UNTIL(p.near.ended);
  SAME(p.near.end_status, 0);
  pair_close(&p);
}

enum { HUGE_BYTES = 24 * 1024 * 1024 };

static void shutdown_after_queue(void) {
  struct pair p = {0};
  pair_open(&p);
  CALL(world_stream_read(p.far.stream, false));
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  CHECK(world_stream_queued(p.near.stream) > 0);
  SAME(ASK(world_stream_shutdown(p.near.stream)), 0);
  SAME(write_pattern(&p.near, HUGE_BYTES, 10), -EPIPE);
  settle(10);
  SAME(p.far.ended, 0);
  CALL(world_stream_read(p.far.stream, true));
  UNTIL(p.far.ended);
  SAME(p.far.received, HUGE_BYTES);
  SAME(p.far.end_status, 0);
  pair_close(&p);
}

static void close_drops_the_queue(void) {
  struct pair p = {0};
  pair_open(&p);
  CALL(world_stream_read(p.far.stream, false));
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  CALL(world_stream_close(p.near.stream));
  SAME(write_pattern(&p.near, 0, 10), ERR_CLOSED);
  SAME(ASK(world_stream_shutdown(p.near.stream)), ERR_CLOSED);
  CALL(world_stream_read(p.near.stream, true));
  p.near.shut = true;
  UNTIL(p.near.closed);
  SAME(p.near.drained, 0);
  CALL(world_stream_read(p.far.stream, true));
  UNTIL(p.far.ended);
  CHECK(p.far.received < HUGE_BYTES);
  pair_close(&p);
}

static void writing_to_the_gone(void) {
  struct pair p = {.close_accepted = true};
  pair_open(&p);
  int rc = 0;
  for (int i = 0; i < 200 && rc == 0; i++) {
    rc = write_pattern(&p.near, 0, 100000);
    settle(1);
  }
  CHECK(rc == -EPIPE || rc == -ECONNRESET);
  UNTIL(p.near.ended);
  SAME(write_pattern(&p.near, 0, 10), -EPIPE);
  settle(5);
  SAME(p.near.ended, 1);
  pair_close(&p);
}

static void queued_for_the_gone(void) {
  struct pair p = {0};
  pair_open(&p);
  CALL(world_stream_read(p.far.stream, false));
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  settle(5);
  p.far.shut = true;
  CALL(world_stream_close(p.far.stream)); /* With bytes it never read: a reset. */
  UNTIL(p.near.ended);
  CHECK(p.near.end_status == -ECONNRESET || p.near.end_status == -EPIPE);
  SAME(p.near.drained, 0);
  SAME(write_pattern(&p.near, 0, 10), -EPIPE);
  pair_close(&p);
}

/* A failed write reaches one that does not read, too. */
static void paused_and_gone(void) {
  struct pair p = {0};
  pair_open(&p);
  CALL(world_stream_read(p.near.stream, false));
  CALL(world_stream_read(p.far.stream, false));
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  settle(5);
  p.far.shut = true;
  CALL(world_stream_close(p.far.stream));
  UNTIL(p.near.ended);
  CHECK(p.near.end_status < 0);
  pair_close(&p);
}

static void closed_in_on_open(void) {
  struct pair p = {.near.close_on_open = true};
  pair_listen(&p);
  pair_connect(&p);
  UNTIL(p.near.closed && p.far.ended);
  SAME(p.near.opened, 1);
  pair_close(&p);
}
static void closed_while_connecting(void) {
  struct pair p = {0};
  pair_listen(&p);
  pair_connect(&p);
  p.near.shut = true;
  CALL(world_stream_close(p.near.stream));
  UNTIL(p.near.closed);
  settle(10);
  SAME(p.near.opened, 0);
  pair_close(&p);
}
static void closed_in_on_read(void) {
  struct pair p = {.far.close_on_read = true};
  pair_open(&p);
  SAME(write_pattern(&p.near, 0, 3 * WORLD_READ_MAX), 0);
  UNTIL(p.far.closed);
  pair_close(&p);
}
static void closed_in_on_end(void) {
  struct pair p = {.far.close_on_end = true, .near.close_on_end = true};
  pair_open(&p);
  CALL(world_stream_shutdown(p.near.stream));
  UNTIL(p.far.closed && p.near.closed);
  pair_close(&p);
}
static void closed_in_on_drain(void) {
  struct pair p = {.near.close_on_drain = true};
  pair_open(&p);
  SAME(write_pattern(&p.near, 0, HUGE_BYTES), 0);
  UNTIL(p.near.closed);
  SAME(p.near.drained, 1);
  UNTIL(p.far.ended);
  SAME(p.far.received, HUGE_BYTES); /* It was all with the kernel. */
  pair_close(&p);
}

static void listener_closed_in_on_connection(void) {
  struct pair p = {.close_listener = true};
  pair_listen(&p);
  struct end second = {.name = "second"};
  SAME(ASK(world_connect(W, &p.at, &END_EVENTS, &second, &second.stream)), 0);
  pair_connect(&p);
  UNTIL(p.listener_closed && p.near.opened && second.opened);
  settle(5);
  SAME(p.accepted, 1);
  CALL(world_stream_close(second.stream));
  UNTIL(second.closed);
  pair_close(&p);
}

static void never(void) { CHECK(!"called back by what was refused"); }

/* Each kind of thing, refused: a code, and nothing opened. */
static void refused_for_want_of_descriptors(void) {
  static const struct world_udp_events udp = {
      .on_datagram = (void (*)(void *, const struct shoal_address *, const uint8_t *, size_t))never};
  static const struct world_listener_events listener = {.on_connection = (void (*)(void *, struct world_stream *))never};
  static const struct world_process_events process = {.on_exit = (void (*)(void *, int64_t, int))never};
  static const struct world_log_events log = {.on_synced = (void (*)(void *, int, uint64_t))never};
  const char *argv[] = {"true", NULL};
  struct world_spawn options = {.argv = argv, .pipe = {true, true, true}};
  struct world_telemetry before, after;
  struct world_stream *s = NULL;
  struct world_listener *l = NULL;
  struct world_udp *u = NULL;
  struct world_process *p = NULL;
  struct world_log *g = NULL;
  world_telemetry(W, &before);
  SAME(ASK(world_connect(W, &HERE, &END_EVENTS, NULL, &s)), -EMFILE);
  SAME(ASK(world_listen(W, &HERE, &listener, NULL, &l)), -EMFILE);
  SAME(ASK(world_udp_open(W, &HERE, &udp, NULL, &u)), -EMFILE);
  SAME(ASK(world_spawn(W, &options, &process, NULL, &p)), -EMFILE);
  SAME(ASK(world_log_open(W, "log", &log, NULL, &g)), -EMFILE);
  SAME(world_put_durable(W, "file", "x", 1), -EMFILE);
  world_telemetry(W, &after);
  SAME(after.open_handles, before.open_handles);
  CHECK(!s && !l && !u && !p && !g);
}

static void no_descriptors(void) {
  struct pair p = {0};
  struct rlimit before, none;
  pair_listen(&p);
  pair_connect(&p);
  /* Everything we have is open already; the next descriptor is one too many. */
  int next = fileno(stderr);
  getrlimit(RLIMIT_NOFILE, &before);
  for (next = 3; next < 1000; next++) {
    none = (struct rlimit){(rlim_t)next, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    FILE *probe = fopen("/dev/null", "r");
    if (probe) {
      fclose(probe);
      none.rlim_cur--;
      break;
    }
  }
  setrlimit(RLIMIT_NOFILE, &none);
  refused_for_want_of_descriptors();
  struct world_telemetry start, after;
  UNTIL(p.listener_errors);
  world_telemetry(W, &start);
  settle(300);
  setrlimit(RLIMIT_NOFILE, &before);
  world_telemetry(W, &after);
  CHECK(p.listener_errors >= 2 && p.listener_errors <= 6); /* It goes on, but does not spin. */
  CHECK(after.cpu_ns - start.cpu_ns < 100 * MS);
  SAME(p.accepted, 0);
  UNTIL(p.accepted == 1); /* And what waited was not lost. */
  SAME(p.near.ended, 0);
  pair_close(&p);
}

const struct test_case ending_cases[] = {
    {"ending: a shutdown is read behind the bytes before it, once", peer_closes, 0},
    {"ending: after a shutdown the other direction goes on", half_closed, 0},
    {"ending: a shutdown waits for what is queued", shutdown_after_queue, 0},
    {"ending: a close drops what is queued; calls after it are CLOSED", close_drops_the_queue, 0},
    {"ending: writing to a closed peer fails, and on_end comes once", writing_to_the_gone, 0},
    {"ending: a reset with bytes queued is told by on_end", queued_for_the_gone, 0},
    {"ending: a reset reaches one that paused reading, if it writes", paused_and_gone, 0},
    {"ending: closed in on_open", closed_in_on_open, 0},
    {"ending: closed while connecting: no on_open", closed_while_connecting, 0},
    {"ending: closed in on_read", closed_in_on_read, 0},
    {"ending: closed in on_end, both ends", closed_in_on_end, 0},
    {"ending: closed in on_drain: what the kernel had arrives", closed_in_on_drain, 0},
    {"ending: a listener closed in on_connection: no other comes", listener_closed_in_on_connection, 0},
    {"ending: no descriptors: on_error, no spinning, nothing lost", no_descriptors, NEEDS_REAL_TIME},
    {NULL, NULL, 0},
};
