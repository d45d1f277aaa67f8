/* The transport over real sockets on loopback: the properties that depend on a socket. net_spec.c has the rest, in virtual time.
 * Prints one line a property; exits 1 at the first that does not hold. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "net/net.h"
#include "world/uv.h"

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      printf("FAILED %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1); \
    } \
  } while (0)

struct node {
  struct net *net;
  struct net_peer *inbound; /* The last one greeted that we did not dial. */
  struct shoal_address address;
  int requests, ups, downs, gones, closed, down_code;
  char down_text[300];
};

struct outcome {
  int told, code;
  size_t length;
  uint8_t first;
};

static uv_loop_t loop;
static struct shoal_world *world;
static bool timed_out;

static void on_watchdog(uv_timer_t *timer) {
  (void)timer;
  timed_out = true;
}

/* Run the loop until *value reaches want; a spec that hangs fails after 10 s. */
static void until(const int *value, int want) {
  uv_timer_t watchdog;
  timed_out = false;
  uv_timer_init(&loop, &watchdog);
  uv_timer_start(&watchdog, on_watchdog, 10000, 0);
  while (*value < want && !timed_out) uv_run(&loop, UV_RUN_ONCE);
  uv_close((uv_handle_t *)&watchdog, NULL);
  uv_run(&loop, UV_RUN_NOWAIT);
  MUST(!timed_out);
  MUST(*value == want);
}

static void on_request(void *data, struct net_peer *peer, const struct net_request *r, const uint8_t *bytes,
                       size_t length) {
  struct node *n = data;
  (void)peer;
  n->requests++;
  if (r->id) MUST(net_reply(n->net, r, bytes, length) == 0);
}

static void on_peer(void *data, struct net_peer *peer, enum net_peer_event event, int code, const char *text) {
  struct node *n = data;
  struct net_peer_info info;
  net_peer_info(peer, &info);
  if (event == NET_UP) {
    n->ups++;
    if (!info.dialled) n->inbound = peer;
  } else if (event == NET_DOWN) {
    n->downs++;
    n->down_code = code;
    snprintf(n->down_text, sizeof n->down_text, "%s", text);
  } else {
    n->gones++;
  }
}

static void on_closed(void *data) { ((struct node *)data)->closed++; }

static const struct net_events events = {.on_request = on_request, .on_peer = on_peer, .on_closed = on_closed};

static void start(struct node *n, const char *name, const char *cluster) {
  struct shoal_address any = {.family = 4, .bytes = {127, 0, 0, 1}};
  struct net_options options = {.cluster = cluster, .node = name, .role = "worker", .dc = "a"};
  memset(n, 0, sizeof *n);
  MUST(net_open(world, &options, &events, n, &n->net) == 0);
  MUST(net_listen(n->net, &any, &n->address) == 0);
}

static void stop(struct node *n) {
  net_close(n->net);
  net_close(n->net);
  until(&n->closed, 1);
}

static void on_result(void *data, const struct net_result *result) {
  struct outcome *o = data;
  o->told++;
  o->code = result->code;
  o->length = result->length;
  o->first = result->length ? result->bytes[0] : 0;
}

static void both_ways(void) {
  struct node a, b;
  struct net_peer *p;
  struct outcome there = {0}, back = {0};
  start(&a, "a", "c");
  start(&b, "b", "c");
  MUST(net_peer(a.net, &b.address, &p) == 0);
  MUST(net_call(p, 7, NET_DISPATCH, "hello", 5, 1000000000, on_result, &there, NULL) == 0);
  MUST(there.told == 0); /* Never before the call returns. */
  until(&there.told, 1);
  MUST(there.code == 0 && there.length == 5 && there.first == 'h' && b.requests == 1);
  MUST(b.inbound);
  MUST(net_call(b.inbound, 8, NET_CONTROL, "x", 1, 1000000000, on_result, &back, NULL) == 0);
  until(&back.told, 1);
  MUST(back.code == 0 && a.requests == 1);
  struct net_peer_info info;
  net_peer_info(b.inbound, &info);
  MUST(info.up && strcmp(info.node, "a") == 0 && strcmp(info.role, "worker") == 0 && strcmp(info.dc, "a") == 0);
  stop(&a);
  until(&b.gones, 1);
  stop(&b);
  MUST(a.gones == 1 && a.downs == 1 && b.downs == 1 && b.down_code == ERR_DISCONNECTED);
  printf("ok a call is answered, both ways on one connection, and closing is orderly\n");
}

static void big_message(void) {
  static uint8_t body[FRAME_MESSAGE_MAX + 1];
  struct node a, b;
  struct net_peer *p;
  struct outcome o = {0};
  memset(body, 'z', sizeof body);
  start(&a, "a", "c");
  start(&b, "b", "c");
  MUST(net_peer(a.net, &b.address, &p) == 0);
  MUST(net_call(p, 7, NET_DATA, body, FRAME_MESSAGE_MAX + 1, 1000000000, on_result, &o, NULL) == ERR_TOO_LARGE);
  MUST(net_call(p, 7, NET_DATA, body, FRAME_MESSAGE_MAX, 5000000000, on_result, &o, NULL) == 0);
  until(&o.told, 1);
  MUST(o.code == 0 && o.length == FRAME_MESSAGE_MAX && o.first == 'z');
  stop(&a);
  stop(&b);
  printf("ok a message of 3 MiB goes there and back; one byte more is TOO_LARGE\n");
}

static void refusals(void) {
  struct node a, b;
  struct net_peer *p;
  struct outcome o = {0};
  start(&a, "a", "one");
  start(&b, "b", "two");
  MUST(net_peer(a.net, &b.address, &p) == 0);
  MUST(net_call(p, 7, NET_DATA, "", 0, 1000000000, on_result, &o, NULL) == 0);
  until(&o.told, 1);
  MUST(o.code == ERR_REFUSED && a.down_code == ERR_REFUSED && strstr(a.down_text, "of cluster \"two\""));
  until(&b.gones, 1);
  MUST(b.down_code == ERR_REFUSED && strstr(b.down_text, "\"a\" of cluster \"one\""));
  MUST(net_counts(a.net)->handshakes_refused == 1 && net_counts(b.net)->handshakes_refused == 1);
  struct shoal_address outside;
  MUST(address_parse("0.0.0.0:0", 9, &outside) == 0);
  MUST(net_listen(a.net, &outside, NULL) == ERR_CONFIG);
  stop(&a);
  stop(&b);
  struct net_peer *nobody;
  struct outcome none = {0};
  start(&a, "a", "one");
  MUST(net_peer(a.net, &b.address, &nobody) == 0);
  MUST(net_call(nobody, 7, NET_DATA, "", 0, 1000000000, on_result, &none, NULL) == 0);
  until(&none.told, 1);
  MUST(none.code == -ECONNREFUSED && net_counts(a.net)->dials_failed == 1);
  stop(&a);
  printf("ok another cluster, an address outside and a closed port are refused with a reason\n");
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  MUST(uv_loop_init(&loop) == 0);
  struct world_uv_options options = {.loop = &loop, .seed = 1};
  MUST(world_uv_open(&options, &world) == 0);
  both_ways();
  big_message();
  refusals();
  struct world_telemetry telemetry;
  world_telemetry(world, &telemetry);
  MUST(telemetry.open_handles == 0);
  world_uv_close(world, NULL, NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  MUST(uv_loop_close(&loop) == 0);
  return 0;
}
