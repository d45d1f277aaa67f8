/* The transport against a bare libuv loop that does the same with nothing around it: frames of 16 bytes and a body, an id
 * matched on return, both ends in one process and one loop. It coalesces alike: what one read gives
 * rise to on its own connection leaves in one write. Echo of the body.
 * What the transport adds is lanes, deadlines, limits, circuits and a world between it and libuv.
 *
 * Runs of both alternate; the figure is the median over the pairs of (bare CPU per request / ours). CPU time, not wall
 * time: the machine may be shared.
 *
 *   transport_bench [seconds_per_run [pairs]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "net/net.h"
#include "world/uv.h"

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

enum { HEADER = 16, IN_FLIGHT_MAX = 64, BUFFER = 1 << 20, PAIRS_MAX = 99 };

static uv_loop_t loop;
static uint8_t body[65536];
static size_t body_length;
static unsigned in_flight;
static uint64_t asked, answered, wanted, started_ns, stopped_ns;

static uint64_t cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- bare ---- */

struct end {
  uv_tcp_t tcp;
  uv_write_t write;
  bool writing, client;
  uint8_t *out, *flying;
  size_t out_length;
  uint8_t *in;
  size_t in_length;
};
static struct end ends[2];
static uv_tcp_t listener;
static uv_connect_t connecting;
static uint8_t read_buffer[65536];
static struct slot {
  uint32_t generation;
  bool busy;
} slots[IN_FLIGHT_MAX];

static void put32(uint8_t *p, uint32_t v) { v = __builtin_bswap32(v), memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { v = __builtin_bswap64(v), memcpy(p, &v, 8); }
static uint32_t get32(const uint8_t *p) { uint32_t v; return memcpy(&v, p, 4), __builtin_bswap32(v); }
static uint64_t get64(const uint8_t *p) { uint64_t v; return memcpy(&v, p, 8), __builtin_bswap64(v); }

static void stage(struct end *e, uint64_t id, const uint8_t *bytes, size_t length) {
  MUST(e->out_length + HEADER + length <= BUFFER);
  uint8_t *p = e->out + e->out_length;
  put32(p, (uint32_t)length);
  put32(p + 4, 7 << 16);
  put64(p + 8, id);
  memcpy(p + HEADER, bytes, length);
  e->out_length += HEADER + length;
}

static void flush_end(struct end *e);
static void on_written(uv_write_t *w, int status) {
  struct end *e = w->data;
  MUST(status == 0);
  e->writing = false;
  flush_end(e);
}

static void flush_end(struct end *e) {
  if (e->writing || !e->out_length) return;
  uv_buf_t buffer = uv_buf_init((char *)e->out, (unsigned)e->out_length);
  int n = uv_try_write((uv_stream_t *)&e->tcp, &buffer, 1);
  size_t taken = n > 0 ? (size_t)n : 0;
  if (taken < e->out_length) {
    uint8_t *swap = e->flying;
    buffer = uv_buf_init((char *)e->out + taken, (unsigned)(e->out_length - taken));
    e->write.data = e;
    e->writing = true;
    MUST(uv_write(&e->write, (uv_stream_t *)&e->tcp, &buffer, 1, on_written) == 0);
    e->flying = e->out;
    e->out = swap;
  }
  e->out_length = 0;
}

static void bare_ask(struct end *e, uint32_t index) {
  slots[index].busy = true;
  asked++;
  stage(e, (uint64_t)++slots[index].generation << 32 | index, body, body_length);
}

static void bare_stop(void) {
  stopped_ns = cpu_ns();
  uv_close((uv_handle_t *)&ends[0].tcp, NULL);
  uv_close((uv_handle_t *)&ends[1].tcp, NULL);
  uv_close((uv_handle_t *)&listener, NULL);
}

static void bare_frame(struct end *e, uint64_t id, const uint8_t *bytes, size_t length) {
  if (!e->client) {
    stage(e, id, bytes, length);
    return;
  }
  uint32_t index = (uint32_t)id;
  MUST(index < IN_FLIGHT_MAX && slots[index].busy && slots[index].generation == id >> 32 && length == body_length);
  slots[index].busy = false;
  answered++;
  if (asked < wanted) bare_ask(e, index);
}

static void bare_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out) {
  (void)h, (void)suggested;
  *out = uv_buf_init((char *)read_buffer, sizeof read_buffer);
}

static void bare_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
  struct end *e = (struct end *)stream;
  const uint8_t *bytes = (const uint8_t *)buffer->base;
  if (n <= 0 || uv_is_closing((uv_handle_t *)stream)) return;
  size_t length = (size_t)n, at = 0;
  while (e->in_length && at < length) { /* Complete what began before. */
    size_t want = e->in_length < HEADER ? HEADER : HEADER + get32(e->in);
    size_t more = want - e->in_length < length - at ? want - e->in_length : length - at;
    memcpy(e->in + e->in_length, bytes + at, more);
    e->in_length += more;
    at += more;
    if (e->in_length < HEADER || e->in_length < HEADER + get32(e->in)) continue;
    e->in_length = 0;
    bare_frame(e, get64(e->in + 8), e->in + HEADER, get32(e->in));
  }
  while (length - at >= HEADER && length - at >= HEADER + get32(bytes + at)) {
    bare_frame(e, get64(bytes + at + 8), bytes + at + HEADER, get32(bytes + at));
    at += HEADER + get32(bytes + at);
  }
  if (at < length) {
    memcpy(e->in + e->in_length, bytes + at, length - at);
    e->in_length += length - at;
  }
  flush_end(e);
  if (e->client && answered == wanted) bare_stop();
}

static void bare_accept(uv_stream_t *server, int status) {
  MUST(status == 0);
  uv_tcp_init(&loop, &ends[1].tcp);
  MUST(uv_accept(server, (uv_stream_t *)&ends[1].tcp) == 0);
  uv_tcp_nodelay(&ends[1].tcp, 1);
  uv_read_start((uv_stream_t *)&ends[1].tcp, bare_alloc, bare_read);
}

static void bare_connected(uv_connect_t *c, int status) {
  (void)c;
  MUST(status == 0);
  uv_read_start((uv_stream_t *)&ends[0].tcp, bare_alloc, bare_read);
  started_ns = cpu_ns();
  for (uint32_t i = 0; i < in_flight; i++) bare_ask(&ends[0], i);
  flush_end(&ends[0]);
}

static double run_bare(void) {
  struct sockaddr_storage name;
  int length = sizeof name;
  asked = answered = 0;
  memset(slots, 0, sizeof slots);
  for (int i = 0; i < 2; i++) {
    uint8_t *out = ends[i].out ? ends[i].out : malloc(BUFFER), *flying = ends[i].flying ? ends[i].flying : malloc(BUFFER);
    uint8_t *in = ends[i].in ? ends[i].in : malloc(BUFFER);
    ends[i] = (struct end){.client = i == 0, .out = out, .flying = flying, .in = in};
  }
  uv_tcp_init(&loop, &listener);
  uv_ip4_addr("127.0.0.1", 0, (struct sockaddr_in *)&name);
  MUST(uv_tcp_bind(&listener, (struct sockaddr *)&name, 0) == 0);
  MUST(uv_listen((uv_stream_t *)&listener, 8, bare_accept) == 0);
  MUST(uv_tcp_getsockname(&listener, (struct sockaddr *)&name, &length) == 0);
  uv_tcp_init(&loop, &ends[0].tcp);
  uv_tcp_nodelay(&ends[0].tcp, 1);
  MUST(uv_tcp_connect(&connecting, &ends[0].tcp, (struct sockaddr *)&name, bare_connected) == 0);
  uv_run(&loop, UV_RUN_DEFAULT);
  MUST(answered == wanted);
  return (double)(stopped_ns - started_ns) / (double)wanted;
}

/* ---- ours ---- */

static struct shoal_world *world;
static struct net *client, *server;
static struct net_peer *peer;

static void net_answer(void *data, const struct net_result *result);
static void ask(void) {
  asked++;
  MUST(net_call(peer, 7, NET_DATA, body, body_length, 5000000000u, net_answer, NULL, NULL) == 0);
}

static void net_answer(void *data, const struct net_result *result) {
  (void)data;
  MUST(result->code == 0 && result->length == body_length);
  answered++;
  if (asked < wanted) ask();
  if (answered < wanted) return;
  stopped_ns = cpu_ns();
  net_close(client);
  net_close(server);
}

static void warm_answer(void *data, const struct net_result *result) {
  (void)data;
  MUST(result->code == 0);
  started_ns = cpu_ns();
  for (unsigned i = 0; i < in_flight; i++) ask();
}

static void net_on_request(void *data, struct net_peer *from, const struct net_request *r, const uint8_t *bytes,
                           size_t length) {
  (void)data, (void)from;
  MUST(net_reply(server, r, bytes, length) == 0);
}

static double run_net(void) {
  struct shoal_address any = {.family = 4, .bytes = {127, 0, 0, 1}}, bound;
  struct net_options options = {.cluster = "bench", .node = "bench"};
  struct net_events events = {.on_request = net_on_request};
  asked = answered = 0;
  MUST(net_open(world, &options, &events, NULL, &client) == 0 && net_open(world, &options, &events, NULL, &server) == 0);
  MUST(net_listen(server, &any, &bound) == 0 && net_peer(client, &bound, &peer) == 0);
  MUST(net_call(peer, 7, NET_DATA, "", 0, 5000000000u, warm_answer, NULL, NULL) == 0); /* Connected, as bare is. */
  uv_run(&loop, UV_RUN_DEFAULT);
  MUST(answered == wanted);
  return (double)(stopped_ns - started_ns) / (double)wanted;
}

/* ---- the table ---- */

static int rising(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, rising);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static int compare(size_t bytes, unsigned flight, double seconds, int pairs) {
  double bare[PAIRS_MAX], ours[PAIRS_MAX], ratio[PAIRS_MAX];
  body_length = bytes;
  in_flight = flight;
  wanted = 5000;
  double each = run_net(); /* Also warms up. */
  wanted = (uint64_t)(seconds * 1e9 / each);
  for (int i = 0; i < pairs; i++) { /* The order alternates, too. */
    if (i % 2) ours[i] = run_net();
    bare[i] = run_bare();
    if (i % 2 == 0) ours[i] = run_net();
    ratio[i] = bare[i] / ours[i];
  }
  double b = median(bare, pairs), o = median(ours, pairs), r = median(ratio, pairs);
  bool ok = r >= 0.9;
  printf("%6zu %9u %12.0f %12.0f %8.3f\n", bytes, flight, b, o, r);
  printf("bar transport_c_%zu_%u %.3f want 0.900 %s\n", bytes, flight, r, ok ? "ok" : "short");
  return !ok;
}

int main(int argc, char **argv) {
  double seconds = argc > 1 ? atof(argv[1]) : 0.3;
  int pairs = argc > 2 ? atoi(argv[2]) : 9, missed = 0;
  MUST(seconds > 0 && pairs >= 1 && pairs <= PAIRS_MAX);
  setvbuf(stdout, NULL, _IOLBF, 0);
  MUST(uv_loop_init(&loop) == 0);
  struct world_uv_options options = {.loop = &loop, .seed = 1};
  MUST(world_uv_open(&options, &world) == 0);
  memset(body, 'x', sizeof body);
  printf("# from C, CPU ns per request, both ends\n%6s %9s %12s %12s %8s\n", "bytes", "in flight", "bare libuv", "net", "ratio");
  missed += compare(64, 1, seconds, pairs);
  missed += compare(64, 64, seconds, pairs);
  missed += compare(1400, 1, seconds, pairs);
  missed += compare(1400, 64, seconds, pairs);
  world_uv_close(world, NULL, NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  return missed > 0;
}
