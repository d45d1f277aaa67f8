#include "world/sim.h"

#include <stdarg.h>
#include <stdio.h>

#include "world/sim_private.h"

enum { WALL_SPAN_MS = 30000 }; /* Wall clocks are off by up to this, both ways. */

/* ---- the simulation ---- */

int sim_open(const struct sim_config *config, struct sim **out) {
  struct sim *s = calloc(1, sizeof *s);
  if (!s) return ERR_MEMORY;
  s->seed = config->seed;
  s->link = config->link;
  rng_seed(&s->chance, sim_derive(config->seed, "network", 0));
  *out = s;
  return 0;
}

static void node_free(struct sim_node *n) {
  sim_inbox_clear(n);
  sim_datagrams_drop(n->sim, &n->held);
  sim_disk_free(&n->disk);
  free(n->name);
  free(n);
}

void sim_close(struct sim *s) {
  assert(!s->running);
  s->on_event = NULL;
  for (uint32_t i = 0; i < s->nodes_count; i++) {
    sim_processes_crash(s->nodes[i], false);
    if (s->nodes[i]->world) sim_world_free(s->nodes[i]->world);
    s->nodes[i]->world = NULL;
  }
  for (uint32_t i = 0; i < s->nodes_count; i++) sim_streams_crashed(s->nodes[i]);
  for (uint32_t i = 0; i < s->nodes_count; i++) node_free(s->nodes[i]);
  s->nodes_count = 0;       /* Traffic that is still on the wire finds no node, */
  s->by_address_size = 0;
  sim_links_free(s);
  for (struct sim_event *e; (e = sim_event_take(s)) != NULL; ) e->run(s, e); /* and frees its memory. */
  free(s->nodes);
  free(s->by_address);
  free(s->by_name);
  sim_queue_free(s);
  sim_memory_free(s);
  free(s);
}

uint64_t sim_now_ns(const struct sim *s) { return s->now_ns; }
uint64_t sim_next_ns(struct sim *s) { return sim_event_next_ns(s); }

uint64_t sim_events(const struct sim *s) { return s->events; }
const struct sim_counts *sim_counted(const struct sim *s) { return &s->counts; }

static void run_deferred(struct sim *s) {
  struct sim_world *w = s->running;
  if (world_run_deferred(&w->base)) sim_event_at(s, &w->wake, s->now_ns + SIM_TURN_NS);
  s->running = NULL;
}

bool sim_step(struct sim *s) {
  assert(!s->running); /* Not from within a callback. */
  struct sim_event *e = sim_event_take(s);
  if (!e) return false;
  s->events++;
  if (e->world && (e->world->stalled || e->world->node->paused)) {
    sim_ring_push(e->world->stalled ? &e->world->held : &e->world->node->held, e);
    return true;
  }
  e->run(s, e);
  if (s->running) run_deferred(s);
  return true;
}

/* A process goes on after a stall or a pause: timers first, as a loop that returns from its wait runs them before it polls for input;
 * then everything else, in the order it came due. */
static void let_go_on(struct sim *s, struct sim_event *held) {
  struct sim_event others;
  sim_ring_init(&others);
  for (struct sim_event *e; (e = sim_ring_take(held)) != NULL; )
    if (sim_event_is_timer(e)) sim_event_at(s, e, s->now_ns);
    else sim_ring_push(&others, e);
  sim_ring_release(s, &others);
}

void sim_run_until(struct sim *s, uint64_t at_ns) {
  while (sim_next_ns(s) <= at_ns && sim_step(s)) continue;
  if (at_ns > s->now_ns) s->now_ns = at_ns;
}

void sim_trace(struct sim *s, void (*on_event)(void *data, uint64_t now_ns, const char *text), void *data) {
  s->on_event = on_event;
  s->on_event_data = data;
}

void sim_note(struct sim *s, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  s->on_event(s->on_event_data, s->now_ns, text);
}

/* Each user of randomness gets its own seed, so that draws of one do not change those of another. (FNV-1a, then the generator's mixing.) */
static uint64_t hash_name(const char *name) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (const char *c = name; *c; c++) hash = (hash ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
  return hash;
}
uint64_t sim_derive(uint64_t seed, const char *name, uint64_t number) {
  uint64_t hash = hash_name(name);
  struct rng rng;
  rng_seed(&rng, seed);
  rng_seed(&rng, rng_next(&rng) ^ hash);
  rng_seed(&rng, rng_next(&rng) + number);
  return rng_next(&rng);
}

/* ---- things ---- */

static void on_closed(struct sim *s, struct sim_event *e) {
  struct sim_thing *t = SIM_AROUND(struct sim_thing, closed, e);
  SIM_NOTE(s, "closed %s", e->world->name);
  world_handle_closed(&t->handle);
  if (t->on_closed) {
    sim_enter(e->world);
    t->on_closed(t->data);
  }
  t->drop(t);
}

void sim_thing_open(struct sim_world *w, struct sim_thing *t, void (*drop)(struct sim_thing *t),
                    world_closed_fn *closed, void *data) {
  assert(w->node->world); /* A crashed node's world opens nothing. */
  world_handle_opened(&w->base, &t->handle);
  t->next = &w->things;
  t->previous = w->things.previous;
  t->previous->next = t;
  w->things.previous = t;
  t->drop = drop;
  t->on_closed = closed;
  t->data = data;
  t->closed = (struct sim_event){.run = on_closed, .world = w};
}

void sim_thing_close(struct sim_thing *t) { sim_event_at(sim_of(t), &t->closed, 0); }

void sim_thing_leave(struct sim_thing *t) {
  sim_event_cancel(sim_of(t), &t->closed);
  t->next->previous = t->previous;
  t->previous->next = t->next;
}

/* ---- worlds ---- */

static void on_wake(struct sim *s, struct sim_event *e) {
  SIM_NOTE(s, "deferred %s", e->world->name);
  sim_enter(e->world);
}

static void defer_armed(struct shoal_world *base) {
  struct sim_world *w = sim_world_of(base);
  struct sim *s = w->node->sim;
  if (s->running != w && !sim_event_armed(&w->wake)) sim_event_at(s, &w->wake, s->now_ns);
}

static void on_go_on(struct sim *s, struct sim_event *e) {
  struct sim_world *w = SIM_AROUND(struct sim_world, go_on, e);
  SIM_NOTE(s, "go on %s", w->name);
  w->stalled = false;
  let_go_on(s, &w->held);
}

void sim_world_stall(struct sim_world *w, uint64_t for_ns) {
  struct sim *s = w->node->sim;
  uint64_t until_ns = s->now_ns + for_ns;
  if (w->stalled && until_ns <= w->stalled_until_ns) return;
  SIM_NOTE(s, "stall %s %llu", w->name, (unsigned long long)for_ns);
  w->stalled = true;
  w->stalled_until_ns = until_ns;
  sim_event_at(s, &w->go_on, until_ns);
}

struct sim_world *sim_world_new(struct sim_node *n, struct sim_process *process, uint64_t seed) {
  struct sim_world *w = sim_take(n->sim, sizeof *w);
  *w = (struct sim_world){.node = n, .process = process, .wake = {.run = on_wake, .world = w}};
  w->go_on = (struct sim_event){.run = on_go_on}; /* Of no world: a stall does not hold its own end. */
  sim_ring_init(&w->held);
  w->things.next = w->things.previous = &w->things;
  world_init(&w->base, &sim_ops, seed);
  return w;
}

void sim_world_free(struct sim_world *w) {
  struct sim *s = w->node->sim;
  assert(s->running != w); /* The driver ends worlds between events only. */
  while (w->things.next != &w->things) w->things.next->drop(w->things.next);
  sim_event_cancel(s, &w->wake);
  sim_event_cancel(s, &w->go_on);
  sim_datagrams_drop(s, &w->held); /* All other events in it belonged to things, which are freed. */
  sim_give(s, w, sizeof *w);
}

static void telemetry(struct shoal_world *w, struct world_telemetry *out) {
  (void)w;
  out->resident_bytes = 16 * 1024 * 1024; /* A constant: the true value would differ from run to run. */
}

/* ---- nodes ---- */

static void boot(struct sim_node *n) {
  n->boot++;
  sim_clock_boot(n);
  n->world = sim_world_new(n, NULL, sim_derive(n->sim->seed, n->name, n->boot * UINT64_C(8)));
  snprintf(n->world->name, sizeof n->world->name, "%s", n->name);
}

/* The slot of this name, or the free one where it belongs. */
static uint32_t name_slot(const struct sim *s, const char *name) {
  uint32_t slot = (uint32_t)sim_mix(hash_name(name)) & (s->by_name_size - 1);
  while (s->by_name[slot] && strcmp(s->nodes[s->by_name[slot] - 1]->name, name) != 0) slot = (slot + 1) & (s->by_name_size - 1);
  return slot;
}

static void place_name(struct sim *s, const struct sim_node *n) {
  if (s->nodes_count * 2 <= s->by_name_size) {
    s->by_name[name_slot(s, n->name)] = n->index + 1;
    return;
  }
  free(s->by_name);
  s->by_name_size = s->by_name_size ? s->by_name_size * 2 : 16;
  s->by_name = calloc(s->by_name_size, sizeof *s->by_name);
  if (!s->by_name) abort();
  for (uint32_t i = 0; i < s->nodes_count; i++) s->by_name[name_slot(s, s->nodes[i]->name)] = i + 1;
}

static struct sim_node *find_node(const struct sim *s, const char *name) {
  uint32_t found = s->by_name_size ? s->by_name[name_slot(s, name)] : 0;
  return found ? s->nodes[found - 1] : NULL;
}

int sim_node_add(struct sim *s, const char *name, const struct shoal_address *address, struct sim_node **out) {
  struct shoal_address plain = *address;
  plain.port = 0;
  if (find_node(s, name)) return ERR_EXISTS;
  if (address->family == 0) return ERR_MALFORMED;
  if (sim_node_at(s, &plain)) return ERR_EXISTS;
  struct sim_node *n = aligned_alloc(SIM_LINE_BYTES, (sizeof *n + SIM_LINE_BYTES - 1) / SIM_LINE_BYTES * SIM_LINE_BYTES);
  char *copy = strdup(name);
  if (!n || !copy) abort();
  *n = (struct sim_node){.sim = s, .name = copy, .index = s->nodes_count, .address = plain};
  sim_ring_init(&n->held);
  sim_inbox_init(n);
  rng_seed(&n->chance, sim_derive(s->seed, name, 3));
  uint64_t offset_ms = sim_derive(s->seed, name, 4) % (2 * WALL_SPAN_MS + 1);
  n->wall_offset_ns = ((int64_t)offset_ms - WALL_SPAN_MS) * (int64_t)SIM_MS;
  sim_disk_init(&n->disk);
  s->nodes = sim_grow(s->nodes, &s->nodes_capacity, s->nodes_count, sizeof *s->nodes);
  s->nodes[s->nodes_count++] = n;
  sim_place_node(s, n);
  place_name(s, n);
  boot(n);
  *out = n;
  return 0;
}

struct shoal_world *sim_node_world(struct sim_node *n) { return n->world ? &n->world->base : NULL; }

void sim_node_crash(struct sim_node *n) {
  assert(n->world && !n->sim->running);
  SIM_NOTE(n->sim, "crash %s", n->name);
  world_drop_deferred(&n->world->base);
  sim_processes_crash(n, true);
  sim_world_free(n->world);
  n->world = NULL;
  sim_streams_crashed(n);
  n->paused = false;
  sim_inbox_clear(n);
  sim_datagrams_drop(n->sim, &n->held); /* A process that is started at once must not find them. */
}

struct shoal_world *sim_node_restart(struct sim_node *n) {
  assert(!n->world);
  SIM_NOTE(n->sim, "restart %s", n->name);
  boot(n);
  sim_streams_restarted(n);
  return &n->world->base;
}

void sim_node_pause(struct sim_node *n, bool paused) {
  if (n->paused == paused || !n->world) return;
  SIM_NOTE(n->sim, "%s %s", paused ? "pause" : "resume", n->name);
  n->paused = paused;
  if (!paused) let_go_on(n->sim, &n->held);
}

void sim_node_stall(struct sim_node *n, uint64_t for_ns) {
  if (n->world) sim_world_stall(n->world, for_ns);
}

/* ---- names ---- */

enum { LOOKUP_MS = 1 };

struct sim_lookup {
  union {
    struct world_lookup base;
    struct sim_thing thing;
  };
  struct sim_event answer;
  void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count);
  struct shoal_address address; /* Family 0: the name is unknown. */
};

static void on_answer(struct sim *s, struct sim_event *e) {
  struct sim_lookup *l = SIM_AROUND(struct sim_lookup, answer, e);
  SIM_NOTE(s, "lookup %s", e->world->name);
  sim_enter(e->world);
  l->thing.handle.closing = true; /* It closes by itself: only on_closed follows. */
  sim_thing_close(&l->thing);
  if (l->address.family)
    l->on_result(l->thing.data, 0, &l->address, 1);
  else
    l->on_result(l->thing.data, ERR_NO_NAME, NULL, 0);
}

static void lookup_drop(struct sim_thing *thing) {
  struct sim_lookup *l = SIM_AROUND(struct sim_lookup, thing, thing);
  struct sim *s = sim_of(thing);
  sim_event_cancel(s, &l->answer);
  sim_thing_leave(thing);
  sim_give(s, l, sizeof *l);
}

static struct shoal_address find_name(struct sim_node *n, const char *host, uint16_t port) {
  struct shoal_address found = {0};
  char text[ADDRESS_TEXT_MAX];
  const struct sim_node *named = find_node(n->sim, host);
  if (named) found = named->address;
  else if (strcmp(host, "localhost") == 0) found = (struct shoal_address){.family = 4, .bytes = {127, 0, 0, 1}};
  else {
    int length = snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:0" : "%s:0", host);
    if (length < 0 || (size_t)length >= sizeof text || address_parse(text, (size_t)length, &found) < 0) return found;
  }
  found.port = port;
  return found;
}

static int resolve(struct shoal_world *base, const char *host, uint16_t port,
                   void (*on_result)(void *data, int status, const struct shoal_address *addresses, size_t count),
                   world_closed_fn *closed, void *data, struct world_lookup **out) {
  struct sim_world *w = sim_world_of(base);
  struct sim *s = w->node->sim;
  struct sim_lookup *l = sim_take(s, sizeof *l);
  *l = (struct sim_lookup){.answer = {.run = on_answer, .world = w}, .on_result = on_result,
                           .address = find_name(w->node, host, port)};
  sim_thing_open(w, &l->thing, lookup_drop, closed, data);
  sim_event_at(s, &l->answer, s->now_ns + LOOKUP_MS * SIM_MS);
  *out = &l->base;
  return 0;
}

static void lookup_close(struct world_lookup *base) {
  struct sim_lookup *l = (struct sim_lookup *)(void *)base;
  sim_event_cancel(sim_of(&l->thing), &l->answer);
  sim_thing_close(&l->thing);
}

const struct world_ops sim_ops = {
    .simulated = true,
    .now_ns = sim_clock_now_ns,
    .fresh_ns = sim_clock_now_ns,
    .wall_ns = sim_clock_wall_ns,
    .defer_armed = defer_armed,
    .timer_open = sim_timer_open,
    .timer_start = sim_timer_start,
    .timer_stop = sim_timer_stop,
    .timer_close = sim_timer_close,
    .udp_open = sim_udp_open,
    .udp_send = sim_udp_send,
    .udp_address = sim_udp_address,
    .udp_close = sim_udp_close,
    .connect = sim_connect,
    .stream_attach = sim_stream_attach,
    .stream_write = sim_stream_write,
    .stream_queued = sim_stream_queued,
    .stream_read = sim_stream_read,
    .stream_shutdown = sim_stream_shutdown,
    .stream_window = sim_stream_window,
    .stream_peer = sim_stream_peer,
    .stream_close = sim_stream_close,
    .listen = sim_listen,
    .listener_address = sim_listener_address,
    .listener_close = sim_listener_close,
    .stdio = sim_stdio,
    .resolve = resolve,
    .lookup_close = lookup_close,
    .read_file = sim_read_file,
    .put_durable = sim_put_durable,
    .put_later = sim_put_later,
    .put_close = sim_put_close,
    .stat = sim_stat,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .make_directory = sim_make_directory,
    .list = sim_list,
    .lock = sim_lock,
    .lock_close = sim_lock_close,
    .lock_check = sim_lock_check,
    .log_open = sim_log_open,
    .log_lock = sim_log_lock,
    .log_append = sim_log_append,
    .log_sync = sim_log_sync,
    .log_truncate = sim_log_truncate,
    .log_size = sim_log_size,
    .log_close = sim_log_close,
    .spawn = sim_spawn,
    .process_stream = sim_process_stream,
    .process_pid = sim_process_pid,
    .process_kill = sim_process_kill,
    .process_close = sim_process_close,
    .telemetry = telemetry,
};
