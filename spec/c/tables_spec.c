/* drive/tables on simulated worlds: the limit of a member's streams, the handling of bytes, and the closing of all. */
#include "drive/tables.h"

#include <string.h>

#include "must.h"
#include "world/sim.h"

enum { STRANGERS = 40, STREAMS_MAX = 32 }; /* The second is what tables.c promises. */
static const uint64_t SECOND = 1000000000, MS = 1000000;

struct side {
  struct sim_node *machine;
  struct shoal_world *world;
  struct shoal_address address;
};
static struct sim *sim;
static struct side ours, theirs;
static struct tables *tables;

/* ---- the core's side: it takes so many streams, and numbers them ---- */

static uint32_t takes, accepted, refused, ended, opened, closed;
static size_t received, piece_max;
static uint32_t last_ended;

static void on_opened(void *data, uint32_t stream) { (void)data, (void)stream, opened++; }
static uint32_t on_accepted(void *data, const struct shoal_address *from) {
  (void)data, (void)from;
  if (accepted < takes) return 100 + ++accepted;
  refused++;
  return 0;
}
static void on_received(void *data, uint32_t stream, const uint8_t *bytes, size_t length) {
  (void)data, (void)stream, (void)bytes;
  received += length;
  if (length > piece_max) piece_max = length;
}
static void on_ended(void *data, uint32_t stream) { (void)data, last_ended = stream, ended++; }
static void on_error(void *data, int code) { (void)data, (void)code; }
static void on_closed(void *data) { (void)data, closed++; }
static const struct tables_events events = {on_opened, on_accepted, on_received, on_ended, on_error, on_closed};

/* ---- strangers, who connect ---- */

static struct stranger {
  struct world_stream *stream;
  bool open, over, gone;
} strangers[STRANGERS];

static void stranger_open(void *data, int status) { ((struct stranger *)data)->open = status == 0; }
static void stranger_read(void *data, const uint8_t *bytes, size_t length) { (void)data, (void)bytes, (void)length; }
static void stranger_end(void *data, int status) {
  (void)status; /* However it ended. */
  ((struct stranger *)data)->over = true; /* It keeps its side open, as an idle or hostile one would. */
}
static void stranger_closed(void *data) { ((struct stranger *)data)->gone = true; }
static const struct world_stream_events stranger_events = {
    .on_open = stranger_open, .on_read = stranger_read, .on_end = stranger_end, .on_closed = stranger_closed};

static void run(uint64_t ns) { sim_run_until(sim, sim_now_ns(sim) + ns); }

static void connect_one(struct stranger *s) {
  struct shoal_address to = ours.address;
  to.port = tables_port(tables);
  *s = (struct stranger){0};
  MUST(world_connect(theirs.world, &to, &stranger_events, s, &s->stream) == 0);
  run(10 * MS);
  MUST(s->open);
}

static int alive(int count) {
  int n = 0;
  for (int i = 0; i < count; i++) n += strangers[i].stream && !strangers[i].over && !strangers[i].gone;
  return n;
}

static void add(struct side *side, uint8_t host, const char *name) {
  side->address = (struct shoal_address){.family = 4, .bytes = {10, 0, 0, host}};
  MUST(sim_node_add(sim, name, &side->address, &side->machine) == 0);
  side->world = sim_node_world(side->machine);
  side->address.port = 7000;
}

static void open_all(uint32_t core_takes) {
  takes = core_takes, accepted = refused = ended = opened = closed = last_ended = 0;
  received = piece_max = 0;
  memset(strangers, 0, sizeof strangers);
  MUST(sim_open(&(struct sim_config){.seed = 1, .link = {.latency_ns = MS}}, &sim) == 0);
  add(&ours, 1, "ours"), add(&theirs, 2, "theirs");
  MUST(tables_open(ours.world, &ours.address, &events, NULL, &tables) == 0);
}

static void close_all(void) {
  struct world_telemetry t;
  tables_close(tables), tables_close(tables); /* Idempotent. */
  for (int i = 0; i < STRANGERS; i++)
    if (strangers[i].stream) world_stream_close(strangers[i].stream);
  run(SECOND);
  MUST(closed == 1);
  world_telemetry(ours.world, &t);
  MUST(t.open_handles == 0);
  sim_close(sim);
}

static void finish(uint32_t stream) { tables_do(tables, &(struct swim_action){.kind = SWIM_STREAM_CLOSE, .stream = stream}); }

static void no_more_streams_are_held_than_the_bound(void) {
  open_all(1000);
  for (int i = 0; i < STREAMS_MAX; i++) connect_one(&strangers[i]);
  run(SECOND);
  MUST(accepted == STREAMS_MAX && alive(STREAMS_MAX) == STREAMS_MAX);
  connect_one(&strangers[STREAMS_MAX]); /* One past it: the core gets no event. */
  run(SECOND);
  MUST(accepted == STREAMS_MAX && refused == 0 && strangers[STREAMS_MAX].over && alive(STREAMS_MAX) == STREAMS_MAX);
  world_stream_close(strangers[3].stream); /* A place is free again. */
  strangers[3].stream = NULL;
  run(SECOND);
  MUST(ended == 1);
  connect_one(&strangers[STREAMS_MAX + 1]);
  MUST(accepted == STREAMS_MAX + 1 && !strangers[STREAMS_MAX + 1].over);
  close_all();
}

static void streams_that_the_core_has_finished_make_room(void) {
  open_all(1000);
  for (int i = 0; i < STREAMS_MAX; i++) connect_one(&strangers[i]);
  for (uint32_t i = 1; i < STREAMS_MAX; i++) finish(100 + i); /* All but the last. The others do not close their sides. */
  run(SECOND);
  MUST(accepted == STREAMS_MAX && ended == 0);
  connect_one(&strangers[STREAMS_MAX]); /* It comes too soon, but makes them close. */
  run(SECOND);
  MUST(accepted == STREAMS_MAX && strangers[STREAMS_MAX].over);
  connect_one(&strangers[STREAMS_MAX + 1]);
  run(SECOND);
  MUST(accepted == STREAMS_MAX + 1 && !strangers[STREAMS_MAX + 1].over && !strangers[STREAMS_MAX - 1].over);
  close_all();
}

static void one_that_the_core_refuses_is_closed(void) {
  open_all(1);
  connect_one(&strangers[0]), connect_one(&strangers[1]);
  run(SECOND);
  MUST(accepted == 1 && refused == 1 && strangers[1].over && !strangers[0].over && ended == 0);
  close_all();
}

static void bytes_come_in_pieces_and_only_until_the_core_has_finished(void) {
  static uint8_t bytes[10 * SWIM_DATAGRAM_MAX];
  struct world_buffer buffer = {bytes, sizeof bytes};
  open_all(2);
  connect_one(&strangers[0]), connect_one(&strangers[1]);
  MUST(world_stream_write(strangers[0].stream, &buffer, 1) == 0);
  run(SECOND);
  MUST(received == sizeof bytes && piece_max <= SWIM_DATAGRAM_MAX);
  finish(102);
  MUST(world_stream_write(strangers[1].stream, &buffer, 1) == 0);
  run(SECOND);
  MUST(received == sizeof bytes); /* Nothing of the second: its number is no more. */
  world_stream_close(strangers[0].stream);
  strangers[0].stream = NULL;
  run(SECOND);
  MUST(ended == 1 && last_ended == 101);
  close_all();
}

static void a_connect_that_fails_has_ended(void) {
  open_all(1);
  struct shoal_address to = theirs.address; /* No listener is there. */
  tables_do(tables, &(struct swim_action){.kind = SWIM_STREAM_OPEN, .stream = 7, .to = to});
  run(SECOND);
  MUST(opened == 0 && ended == 1 && last_ended == 7);
  to.family = 6; /* There is no way at all: it has ended before tables_do returns, or soon after. */
  tables_do(tables, &(struct swim_action){.kind = SWIM_STREAM_OPEN, .stream = 8, .to = to});
  run(10 * SECOND);
  MUST(ended == 2 && last_ended == 8);
  to = ours.address;
  to.port = tables_port(tables);
  tables_do(tables, &(struct swim_action){.kind = SWIM_STREAM_OPEN, .stream = 9, .to = to});
  run(SECOND);
  MUST(opened == 1 && accepted == 1 && ended == 2);
  close_all();
}

static void another_port_does_where_ours_is_taken(void) {
  open_all(1);
  MUST(tables_port(tables) == 7000);
  struct tables *second;
  MUST(tables_open(ours.world, &ours.address, &events, NULL, &second) == 0);
  MUST(tables_port(second) != 7000 && tables_port(second) != 0);
  tables_close(second);
  run(SECOND);
  MUST(closed == 1);
  closed = 0;
  close_all();
}

int main(void) {
#define RUN(spec) spec(), puts("ok " #spec)
  RUN(no_more_streams_are_held_than_the_bound);
  RUN(streams_that_the_core_has_finished_make_room);
  RUN(one_that_the_core_refuses_is_closed);
  RUN(bytes_come_in_pieces_and_only_until_the_core_has_finished);
  RUN(a_connect_that_fails_has_ended);
  RUN(another_port_does_where_ours_is_taken);
  return 0;
}
