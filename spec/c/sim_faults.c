/* sim_faults: the simulated world's features beyond world.h: faults, clocks of their own, children, one seed one run.
 *
 *   sim_faults [part of a title]
 *
 * Prints `ok TITLE` or `not ok TITLE`, with the failed checks before it; exits 1 if any failed. sim_spec.lua runs it. */
#include "sim_faults/harness.h"

static int failures;
void failed(const char *file, int line, const char *what, long long got) {
  const char *slash = strrchr(file, '/');
  printf("# %s:%d: %s (got %lld)\n", slash ? slash + 1 : file, line, what, got);
  failures++;
}

/* ---- three nodes a, b, c, 10 ms apart ---- */

struct sim *sim;
struct sim_node *a, *b, *c;
static const struct sim_link near_link = {.latency_ns = 10 * MS};

struct sim_node *add(const char *name, const char *address) {
  struct shoal_address parsed;
  struct sim_node *n = NULL;
  SAME(address_parse(address, strlen(address), &parsed), 0);
  SAME(sim_node_add(sim, name, &parsed, &n), 0);
  return n;
}

void start(uint64_t seed) {
  struct sim_config config = {.seed = seed, .link = near_link};
  SAME(sim_open(&config, &sim), 0);
  a = add("a", "10.0.0.1:0");
  b = add("b", "10.0.0.2:0");
  c = add("c", "10.0.0.3:0");
}

void pass(uint64_t ns) { sim_run_until(sim, sim_now_ns(sim) + ns); }

struct shoal_address at(const char *text) {
  struct shoal_address address = {0};
  SAME(address_parse(text, strlen(text), &address), 0);
  return address;
}

void cut_both(struct sim_node *x, struct sim_node *y, bool cut) {
  sim_cut(sim, x, y, cut);
  sim_cut(sim, y, x, cut);
}

/* ---- a socket that remembers what it got: each datagram is a number ---- */

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct box *box = data;
  (void)from;
  SAME(length, 8);
  if (box->count == 4096) return;
  memcpy(&box->heard[box->count], bytes, 8);
  box->heard_at_ns[box->count++] = sim_now_ns(sim);
}

const struct world_udp_events box_events = {.on_datagram = on_datagram};

void box_open(struct box *box, struct sim_node *n) {
  struct shoal_address any = at("0.0.0.0:7000");
  memset(box, 0, sizeof *box);
  box->node = n;
  SAME(world_udp_open(sim_node_world(n), &any, &box_events, box, &box->udp), 0);
}

void send_number(struct box *box, const char *to, uint64_t number) {
  struct shoal_address address = at(to);
  SAME(world_udp_send(box->udp, &address, &number, 8), 0);
}

/* ---- the ends of streams ---- */

struct end near_end, far_end;
static struct world_listener *listener;

static void end_open(void *data, int status) {
  struct end *e = data;
  e->opened++;
  e->status = status;
  e->opened_at_ns = sim_now_ns(sim);
}
static void end_read(void *data, const uint8_t *bytes, size_t length) {
  struct end *e = data;
  CHECK(length > 0 && length <= WORLD_READ_MAX);
  for (size_t i = 0; i < length; i++) e->wrong += bytes[i] != (uint8_t)((e->received + i) * 7);
  e->received += length;
  e->read_at_ns = sim_now_ns(sim);
}
void end_end(void *data, int status) {
  struct end *e = data;
  e->ended++;
  e->end_status = status;
  e->ended_at_ns = sim_now_ns(sim);
}
static void end_drain(void *data) { ((struct end *)data)->drained++; }
const struct world_stream_events end_events = {end_open, end_read, end_end, end_drain, NULL};

static void on_connection(void *data, struct world_stream *stream) {
  struct end *e = data;
  e->stream = stream;
  e->opened++;
  world_stream_attach(stream, &end_events, e);
}
static const struct world_listener_events listener_events = {.on_connection = on_connection};

void listen_at(struct sim_node *n) {
  struct shoal_address any = at("0.0.0.0:80");
  far_end = (struct end){0};
  SAME(world_listen(sim_node_world(n), &any, &listener_events, &far_end, &listener), 0);
}

void dial(struct sim_node *from, const char *to) {
  struct shoal_address address = at(to);
  near_end = (struct end){0};
  SAME(world_connect(sim_node_world(from), &address, &end_events, &near_end, &near_end.stream), 0);
}

/* b listens, a has a stream to it. */
void pair(void) {
  listen_at(b);
  dial(a, "10.0.0.2:80");
  pass(100 * MS);
  SAME(near_end.opened, 1);
  SAME(near_end.status, 0);
  SAME(far_end.opened, 1);
}

int put(struct end *e, size_t offset, size_t length) {
  uint8_t *bytes = malloc(length);
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)((offset + i) * 7);
  struct world_buffer buffer = {bytes, length};
  int rc = world_stream_write(e->stream, &buffer, 1);
  free(bytes);
  return rc;
}

int main(int argc, char **argv) {
  static const struct test_case *const rooms[] = {network_cases, links_cases,  machines_cases, clocks_cases, stalls_cases,
                                                    children_cases, chaos_cases,  queue_cases};
  int bad = 0, run = 0;
  for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
    for (const struct test_case *t = rooms[i]; t->title; t++) {
      if (argc > 1 && !strstr(t->title, argv[1])) continue;
      failures = 0;
      start(1);
      t->run();
      sim_close(sim);
      printf("%s %s\n", failures ? "not ok" : "ok", t->title);
      fflush(stdout);
      bad += failures > 0;
      run++;
    }
  return run == 0 ? 2 : bad > 0;
}
