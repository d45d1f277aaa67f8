/* drive/swim_driver on simulated worlds: its counts, its callbacks and their order, its recordings, and its closing. */
#include <errno.h>
#include <string.h>

#include "core/swim_record.h"
#include "drive/swim_driver.h"
#include "must.h"
#include "world/sim.h"
#include "world/world_private.h"

static const uint64_t SECOND = 1000000000, MS = 1000000;

struct member { /* And its payload. */
  struct swim_driver *driver;
  struct sim_node *machine;
  struct shoal_world *world;
  struct shoal_address address;
  bool close_at_event, tell_at_event;
  int events, joins, left, closed, depth, depth_max, sent;
  int code; /* The last trouble. */
  int troubles[SWIM_DRIVER_RECORD + 1];
  uint64_t event_ns[64];
};
struct group {
  struct sim *sim;
  struct member a, b;
};

static void on_event(void *data, const struct swim_action *action) {
  struct member *m = data;
  if (++m->depth > m->depth_max) m->depth_max = m->depth;
  m->events++;
  m->joins += action->event == SWIM_EVENT_JOIN;
  if (m->tell_at_event) {
    MUST(swim_driver_tell(m->driver, "again", 5) == 0);
    swim_driver_settle(m->driver);
  }
  if (m->close_at_event) swim_driver_close(m->driver);
  m->depth--;
}
static void on_left(void *data, uint32_t heard) {
  (void)heard;
  ((struct member *)data)->left++;
}
static void on_trouble(void *data, enum swim_driver_trouble which, int code) {
  struct member *m = data;
  m->troubles[which]++;
  m->code = code;
}
static void on_closed(void *data) { ((struct member *)data)->closed++; }
static bool on_outgoing(void *data, const struct swim_action *action) {
  ((struct member *)data)->sent += action->kind == SWIM_SEND;
  return false;
}
static const struct swim_driver_events events = {
    .event = on_event, .left = on_left, .trouble = on_trouble, .closed = on_closed, .outgoing = on_outgoing};

static struct swim_driver_options options_of(const struct member *m, const char *name) {
  struct swim_driver_options o = {.bind = m->address, .identity = {.name = name, .name_length = strlen(name), .generation = 5}};
  MUST(swim_config_profile("local", &o.config) == 0);
  return o;
}

static void add(struct group *g, struct member *m, uint8_t host, const char *name) {
  m->address = (struct shoal_address){.family = 4, .bytes = {10, 0, 0, host}};
  MUST(sim_node_add(g->sim, name, &m->address, &m->machine) == 0);
  m->address.port = 7000;
  m->world = sim_node_world(m->machine);
}

static void start(struct member *m, const struct swim_driver_options *o) {
  MUST(swim_driver_refuses(m->world, o) == NULL);
  MUST(swim_driver_open(m->world, &o->bind, &events, m, &m->driver) == 0);
  MUST(swim_driver_start(m->driver, o) == 0);
}

static void open_group(struct group *g, uint64_t seed, const char *record) {
  *g = (struct group){0};
  MUST(sim_open(&(struct sim_config){.seed = seed, .link = {.latency_ns = MS}}, &g->sim) == 0);
  add(g, &g->a, 1, "a"), add(g, &g->b, 2, "b");
  struct swim_driver_options a = options_of(&g->a, "a"), b = options_of(&g->b, "b");
  a.record = record;
  b.seeds[0] = g->a.address, b.seeds_count = 1;
  start(&g->a, &a), start(&g->b, &b);
}

static void run(struct group *g, uint64_t ns) { sim_run_until(g->sim, sim_now_ns(g->sim) + ns); }

static void close_group(struct group *g) {
  struct world_telemetry t;
  struct member *all[] = {&g->a, &g->b};
  for (int i = 0; i < 2; i++)
    if (!all[i]->closed) swim_driver_close(all[i]->driver), swim_driver_close(all[i]->driver); /* Idempotent, until it is freed. */
  run(g, SECOND);
  for (int i = 0; i < 2; i++) {
    MUST(all[i]->closed == 1);
    world_telemetry(all[i]->world, &t);
    MUST(t.open_handles == 0);
  }
  sim_close(g->sim);
}

/* ---- a world whose sockets and logs refuse ---- */

static int refusal;
static int refuse_send(struct world_udp *u, const struct shoal_address *to, const void *bytes, size_t length) {
  (void)u, (void)to, (void)bytes, (void)length;
  return refusal;
}
static int refuse_append(struct world_log *l, const void *bytes, size_t length) {
  (void)l, (void)bytes, (void)length;
  return refusal;
}

static void what_the_network_refuses_is_counted_by_its_code(uint64_t seed) {
  struct group g;
  open_group(&g, seed, NULL);
  run(&g, SECOND);
  const struct swim_driver_counts *c = swim_driver_counts(g.a.driver);
  MUST(swim_live(swim_driver_core(g.a.driver)) == 2 && c->send_failed == 0 && c->errors_count == 0);
  const struct world_ops *ops = g.a.world->ops;
  struct world_ops refusing = *ops;
  refusing.udp_send = refuse_send;
  g.a.world->ops = &refusing;
  uint64_t sum = 0;
  for (int i = 0; i <= SWIM_DRIVER_ERRORS_MAX; i++) { /* One more than are counted apart. */
    refusal = -(i + 1);
    for (int sent = 0; sent <= i; sent++) swim_driver_send(g.a.driver, &g.b.address, "x", 1), sum++;
    MUST(g.a.code == refusal);
  }
  MUST(c->send_failed == sum && g.a.troubles[SWIM_DRIVER_SEND] == (int)sum);
  MUST(c->errors_count == SWIM_DRIVER_ERRORS_MAX);
  for (int i = 0; i < SWIM_DRIVER_ERRORS_MAX; i++) MUST(c->errors[i].code == -(i + 1) && c->errors[i].count == (uint64_t)i + 1);
  refusal = -ENETUNREACH;
  run(&g, 5 * SECOND); /* The others declare it dead, but its counts show the reason. */
  MUST(c->send_failed > sum && g.a.code == -ENETUNREACH);
  struct swim_member a;
  MUST(swim_find(swim_driver_core(g.b.driver), "a", 1, &a) && a.state == SWIM_DEAD);
  g.a.world->ops = ops;
  close_group(&g);
}

static void an_input_calls_nobody_before_it_returns(uint64_t seed) {
  struct group g;
  open_group(&g, seed, NULL);
  MUST(g.a.sent == 0 && g.b.sent == 0);
  run(&g, SECOND);
  int sent = g.a.sent, seen = g.b.events;
  struct shoal_address nobody = {.family = 4, .bytes = {10, 0, 0, 9}, .port = 7000};
  MUST(swim_driver_join(g.a.driver, &nobody) == 0 && swim_driver_tell(g.a.driver, "hello", 5) == 0);
  MUST(swim_driver_payload(g.a.driver, "new", 3) == 0 && swim_driver_hint(g.a.driver, "b", 1));
  MUST(g.a.sent == sent);
  run(&g, 1000); /* In the next turn, though its period is not over. */
  MUST(g.a.sent >= sent + 2); /* To the seed and to the member of the hint. */
  MUST(swim_driver_forget(g.a.driver, &nobody) && !swim_driver_forget(g.a.driver, &nobody));
  run(&g, SECOND);
  MUST(g.b.events >= seen + 2); /* The broadcast arrived, and the payload changed. */
  sent = g.a.sent;
  MUST(swim_driver_leave(g.a.driver) == 0 && g.a.sent == sent && swim_driver_leave(g.a.driver) == ERR_EXISTS);
  run(&g, 5 * SECOND);
  MUST(g.a.left == 1);
  close_group(&g);
}

/* A member that joins when a and b know each other gets both in one table. */
static void join_as_third(struct group *g, struct member *c) {
  *c = (struct member){0};
  run(g, SECOND);
  add(g, c, 3, "c");
  struct swim_driver_options o = options_of(c, "c");
  o.seeds[0] = g->a.address, o.seeds_count = 1;
  start(c, &o);
}

static void close_third(struct group *g, struct member *c) {
  swim_driver_close(c->driver);
  run(g, SECOND);
  MUST(c->closed == 1);
  struct world_telemetry t;
  world_telemetry(c->world, &t);
  MUST(t.open_handles == 0);
  close_group(g);
}

static void events_come_one_after_another(uint64_t seed) {
  struct group g;
  struct member c;
  open_group(&g, seed, NULL);
  join_as_third(&g, &c);
  c.tell_at_event = true; /* And settles from within, while the next event waits. */
  run(&g, SECOND);
  MUST(c.joins == 2 && c.depth_max == 1);
  MUST(swim_counts(swim_driver_core(g.b.driver))->user_heard >= 1); /* Its last broadcast has been sent. */
  close_third(&g, &c);
}

static void whoever_closes_from_an_event_hears_no_more(uint64_t seed) {
  struct group g;
  struct member c;
  open_group(&g, seed, NULL);
  join_as_third(&g, &c);
  c.close_at_event = true;
  run(&g, 50 * MS);
  MUST(c.events == 1 && c.closed == 1); /* Though another waited. */
  struct world_telemetry t;
  world_telemetry(c.world, &t);
  MUST(t.open_handles == 0);
  close_group(&g);
}

static void what_opens_half_way_closes(uint64_t seed) {
  struct group g;
  open_group(&g, seed, NULL);
  struct swim_driver *third = NULL;
  struct member m = {.address = g.a.address, .world = g.a.world};
  struct swim_driver_options o = options_of(&m, "c");
  MUST(swim_driver_open(m.world, &o.bind, &events, &m, &third) == -EADDRINUSE && !third);
  o.bind.port = 7001;
  o.config.probe_interval_ms = 0; /* The core refuses it, when the socket is open. */
  MUST(swim_driver_open(m.world, &o.bind, &events, &m, &third) == 0 && swim_driver_start(third, &o) == ERR_CONFIG);
  MUST(m.closed == 0);
  swim_driver_close(third);
  run(&g, SECOND);
  MUST(m.closed == 1 && m.events == 0);
  close_group(&g);
}

static void an_address_that_nobody_can_reach_is_refused(uint64_t seed) {
  struct group g;
  open_group(&g, seed, NULL);
  struct swim_driver_options o = options_of(&g.a, "a");
  o.bind = (struct shoal_address){.family = 4, .port = 7000}; /* 0.0.0.0 */
  MUST(strstr(swim_driver_refuses(g.a.world, &o), "advertise"));
  o.identity.address = g.a.address;
  MUST(!swim_driver_refuses(g.a.world, &o));
  close_group(&g);
}

static void a_generation_never_falls_below_the_stored_one(uint64_t seed) {
  struct group g;
  open_group(&g, seed, NULL);
  uint32_t now_s = (uint32_t)(world_wall_ns(g.a.world) / 1000000000);
  MUST(swim_driver_generation(g.a.world, 0) == now_s && swim_driver_generation(g.a.world, now_s + 9) == now_s + 9);
  close_group(&g);
}

/* ---- recordings ---- */

static size_t file_size(struct shoal_world *w, const char *path) {
  uint8_t *bytes;
  size_t length;
  if (world_read_file(w, path, &bytes, &length) < 0) return 0;
  free(bytes);
  return length;
}

static void a_recording_replays_to_the_same_decisions(uint64_t seed) {
  struct group g;
  open_group(&g, seed, "rec");
  g.a.tell_at_event = true; /* An input between two actions of one event. */
  run(&g, SECOND);
  MUST(file_size(g.a.world, "rec") == 0);
  run(&g, SECOND); /* Each second, bytes or not so many, they reach the file. */
  MUST(file_size(g.a.world, "rec") > 500);
  struct swim_config config = *swim_config_now(swim_driver_core(g.a.driver));
  config.probe_interval_ms += 50;
  struct shoal_address nobody = {.family = 4, .bytes = {10, 0, 0, 9}, .port = 7000};
  MUST(swim_driver_reconfigure(g.a.driver, &config) == 0 && swim_driver_join(g.a.driver, &nobody) == 0);
  MUST(swim_driver_tell(g.a.driver, "x", 1) == 0 && swim_driver_payload(g.a.driver, "y", 1) == 0);
  run(&g, SECOND);
  MUST(swim_driver_hint(g.a.driver, "b", 1) && swim_driver_forget(g.a.driver, &nobody));
  run(&g, SECOND);
  MUST(swim_driver_leave(g.a.driver) == 0);
  run(&g, SECOND);
  int sent = g.a.sent, told = g.a.events;
  struct shoal_world *world = g.a.world;
  swim_driver_close(g.a.driver);
  run(&g, SECOND);
  uint8_t *bytes;
  size_t length;
  MUST(world_read_file(world, "rec", &bytes, &length) == 0);
  struct swim_replay r;
  struct swim_action a;
  MUST(swim_replay_open(&r, bytes, length) == 0);
  int rc = 0;
  do {
    while (swim_replay_next(&r, &a)) sent -= a.kind == SWIM_SEND, told -= a.kind == SWIM_EVENT;
  } while ((rc = swim_replay_step(&r)) > 0);
  MUST(rc == 0 && r.diverged == 0 && sent == 0 && told == 0);
  swim_replay_close(&r);
  free(bytes);
  close_group(&g);
}

static void the_recording_of_an_earlier_life_is_kept(uint64_t seed) {
  struct group g;
  open_group(&g, seed, "rec");
  run(&g, 2 * SECOND);
  swim_driver_close(g.a.driver);
  run(&g, SECOND);
  size_t earlier = file_size(g.a.world, "rec");
  struct swim_driver_options o = options_of(&g.a, "a");
  o.record = "rec";
  g.a.closed = 0;
  start(&g.a, &o);
  run(&g, 10 * MS);
  MUST(file_size(g.a.world, "rec") == 0 && file_size(g.a.world, "rec.1") == earlier);
  close_group(&g);
}

static void a_recording_that_cannot_be_written_ends_and_says_so_once(uint64_t seed) {
  struct group g;
  open_group(&g, seed, "rec");
  run(&g, 1500 * MS);
  const struct world_ops *ops = g.a.world->ops;
  struct world_ops refusing = *ops;
  refusing.log_append = refuse_append;
  refusal = -ENOSPC;
  g.a.world->ops = &refusing;
  run(&g, 5 * SECOND);
  MUST(g.a.troubles[SWIM_DRIVER_RECORD] == 1 && g.a.code == -ENOSPC);
  g.a.world->ops = ops;
  size_t size = file_size(g.a.world, "rec");
  run(&g, 5 * SECOND); /* There is room again, but a gap would not replay. */
  MUST(file_size(g.a.world, "rec") == size);
  MUST(swim_live(swim_driver_core(g.a.driver)) == 2);
  close_group(&g);
}

int main(void) {
#define RUN(spec, seeds) do { for (uint64_t seed = 1; seed <= seeds; seed++) spec(seed); puts("ok " #spec); fflush(stdout); } while (0)
  RUN(what_the_network_refuses_is_counted_by_its_code, 2);
  RUN(an_input_calls_nobody_before_it_returns, 3);
  RUN(events_come_one_after_another, 3);
  RUN(whoever_closes_from_an_event_hears_no_more, 3);
  RUN(what_opens_half_way_closes, 2);
  RUN(an_address_that_nobody_can_reach_is_refused, 1);
  RUN(a_generation_never_falls_below_the_stored_one, 1);
  RUN(a_recording_replays_to_the_same_decisions, 3);
  RUN(the_recording_of_an_earlier_life_is_kept, 1);
  RUN(a_recording_that_cannot_be_written_ends_and_says_so_once, 1);
  return 0;
}
