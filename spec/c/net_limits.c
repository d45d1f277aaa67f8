/* The transport's bounds in virtual time: lanes, queues, requests in flight, sizes; both sides of each.
 * Prints one line a property; exits 1 at the first that does not hold. */
#include "net_sim.h"

static struct outcome outcomes[OUTCOMES_MAX];
static uint8_t body[FRAME_MESSAGE_MAX + 1];

/* a and b, connected, and b answering nothing. */
static struct net_peer *connected(uint64_t seed, const struct net_options *of_a, const struct net_options *of_b) {
  struct outcome up = {0};
  memset(outcomes, 0, sizeof outcomes);
  begin_sim(seed, 2);
  struct node *a = open_node(0, of_a), *b = open_node(1, of_b);
  struct net_peer *p = peer_of(a, b);
  MUST(call(p, NET_DATA, "up", 1000, &up) == 0);
  run_ms(100);
  MUST(up.count == 1 && up.code == 0);
  memset(b->order, 0, sizeof b->order);
  b->requests = b->told = 0;
  b->mode = HOLD;
  return p;
}

static int send(struct net_peer *p, enum net_lane lane, const void *bytes, size_t length, struct outcome *o) {
  return net_send(p, 2, lane, bytes, length, on_outcome, o, NULL);
}

static void in_flight(void) {
  static const uint32_t most[NET_LANES] = {0, 500, 300, 200};
  struct net_peer_info info;
  for (int lane = NET_DISPATCH; lane < NET_LANES; lane++) {
    struct net_peer *p = connected(1, NULL, NULL);
    uint32_t accepted = 0;
    while (call(p, (enum net_lane)lane, "x", 1000, &outcomes[accepted]) == 0) accepted++;
    MUST(accepted == most[lane] && net_counts(nodes[0].net)->drops[lane][NET_DROP_IN_FLIGHT] == 1);
    for (int i = 0; i < 1500; i++) MUST(call(p, NET_CONTROL, "c", 1000, &outcomes[1000 + i]) == 0); /* Never refused for it. */
    net_peer_info(p, &info);
    MUST(info.in_flight == most[lane] + 1500);
    run_ms(2000);
    MUST(nodes[0].circuits[BREAKER_OPEN] == 1); /* All of them timed out. */
    net_peer_info(p, &info);
    MUST(info.in_flight == 0);
    end_sim();
  }
  struct net_options wide = {.in_flight_max = 600, .lane_in_flight_max = {0, 500, 500, 500}};
  struct net_peer *p = connected(2, &wide, NULL);
  int accepted = 0;
  for (; accepted < 500; accepted++) MUST(call(p, NET_DISPATCH, "x", 1000, &outcomes[accepted]) == 0);
  for (; accepted < 600; accepted++) MUST(call(p, NET_DATA, "x", 1000, &outcomes[accepted]) == 0);
  MUST(call(p, NET_TELEMETRY, "x", 1000, &outcomes[accepted]) == ERR_FULL);
  run_ms(10);
  for (int i = 0; i < 10; i++) MUST(net_reply(nodes[1].net, &nodes[1].held[i], "", 0) == 0);
  run_ms(10);
  for (int i = 0; i < 10; i++) MUST(call(p, NET_TELEMETRY, "x", 1000, &outcomes[accepted++]) == 0); /* Answers make room. */
  MUST(call(p, NET_TELEMETRY, "x", 1000, &outcomes[accepted]) == ERR_FULL);
  end_sim();
  printf("ok calls in flight: 500, 300, 200 by lane, 1000 in all, control not counted; the next is FULL\n");
}

static int ended;
static void on_end(void *data, const struct net_result *result) {
  (void)data;
  MUST(result->code == ERR_CLOSED);
  ended++;
}

static void requests_in_all(void) {
  enum { MOST = 1024 * 256 }; /* REQUESTS_CHUNKS * REQUESTS_A_CHUNK */
  struct net_peer *p = connected(10, NULL, NULL);
  nodes[1].mode = IGNORE;
  for (int i = 0; i < MOST; i++) {
    MUST(net_call(p, 1, NET_CONTROL, "c", 1, ms(600000), on_end, NULL, NULL) == 0);
    if (i % 4000 == 3999) run_ms(10);
  }
  run_ms(10);
  uint32_t slot;
  MUST(net_call(p, 1, NET_CONTROL, "c", 1, ms(600000), on_end, NULL, NULL) == ERR_FULL && net_next_slot(nodes[0].net, &slot) == ERR_FULL);
  MUST(nodes[1].requests == MOST && nodes[0].downs == 0 && ended == 0);
  end_sim();
  MUST(ended == MOST);
  printf("ok calls and sends are 262,144 in all; the next is FULL\n");
}

static void queues(void) {
  struct net_options small = {.lane_queue_max = {0, 0, 10, 0}, .lane_queue_bytes_max = {0, 0, 0, 1000}};
  struct net_peer *p = connected(3, &small, NULL);
  const struct net_counts *counts = net_counts(nodes[0].net);
  for (int i = 0; i < 10; i++) MUST(send(p, NET_DATA, "x", 1, &outcomes[i]) == 0);
  MUST(send(p, NET_DATA, "x", 1, &outcomes[10]) == ERR_FULL && counts->drops[NET_DATA][NET_DROP_FULL] == 1);
  MUST(send(p, NET_DISPATCH, "x", 1, &outcomes[11]) == 0); /* Another lane's room is its own. */
  MUST(send(p, NET_TELEMETRY, body, 2000, &outcomes[12]) == 0); /* An empty lane takes any one message. */
  MUST(send(p, NET_TELEMETRY, "x", 1, &outcomes[13]) == ERR_FULL);
  run_ms(10);
  for (int i = 0; i < 13; i++) MUST(outcomes[i].count == (i != 10) && outcomes[i].code == 0);
  MUST(send(p, NET_TELEMETRY, body, 500 - FRAME_HEADER, &outcomes[20]) == 0);
  MUST(send(p, NET_TELEMETRY, body, 500, &outcomes[21]) == 0); /* 1000 bytes, to the last. */
  MUST(send(p, NET_TELEMETRY, "", 0, &outcomes[22]) == ERR_FULL);
  struct net_peer_info info;
  net_peer_info(p, &info);
  MUST(info.queued_bytes == 1000 + FRAME_HEADER);
  run_ms(10);
  net_peer_info(p, &info);
  MUST(info.queued_bytes == 0);
  end_sim();
  printf("ok a lane is bounded in messages and bytes, each drop counted by lane and reason\n");
}

static void control_overflow(void) {
  struct net_options small = {.lane_queue_max = {20, 0, 0, 0}};
  struct net_peer *p = connected(4, &small, NULL);
  struct node *a = &nodes[0];
  MUST(call(p, NET_DATA, "d", 5000, &outcomes[100]) == 0);
  for (int i = 0; i < 20; i++) MUST(send(p, NET_CONTROL, "x", 1, &outcomes[i]) == 0);
  MUST(a->downs == 0 && send(p, NET_CONTROL, "x", 1, &outcomes[20]) == ERR_FULL);
  MUST(outcomes[0].count == 0); /* Called later, not from within the call. */
  run_ms(1);
  MUST(a->downs == 1 && a->down_code == ERR_FULL && strstr(a->down_text, "control queue is full"));
  MUST(net_counts(a->net)->control_overflows == 1 && net_counts(a->net)->drops[NET_CONTROL][NET_DROP_FULL] == 1);
  for (int i = 0; i < 20; i++) MUST(outcomes[i].count == 1 && outcomes[i].code == ERR_DISCONNECTED);
  MUST(outcomes[20].count == 0 && outcomes[100].code == ERR_DISCONNECTED);
  MUST(net_counts(a->net)->drops[NET_CONTROL][NET_DROP_DISCONNECTED] == 20);
  run_ms(1000);
  MUST(a->ups == 2);
  end_sim();
  printf("ok F63 a control queue that fills closes the connection, loudly, and it is made anew\n");
}

static void lanes_by_rank(void) {
  struct net_peer *p = connected(5, NULL, NULL);
  struct node *b = &nodes[1];
  MUST(send(p, NET_TELEMETRY, "t", 1, &outcomes[0]) == 0 && send(p, NET_DATA, "d", 1, &outcomes[1]) == 0);
  MUST(send(p, NET_DISPATCH, "s", 1, &outcomes[2]) == 0 && send(p, NET_CONTROL, "c", 1, &outcomes[3]) == 0);
  MUST(send(p, NET_TELEMETRY, "T", 1, &outcomes[4]) == 0 && send(p, NET_CONTROL, "C", 1, &outcomes[5]) == 0);
  run_ms(10);
  MUST(strncmp(b->order, "cCsdtT", 6) == 0); /* By rank, and in order within a lane. */
  /* Nor does a small one slip in where the next frame of a higher lane had no room in the write. */
  memset(b->order, 0, sizeof b->order);
  b->told = 0;
  memset(body, 'B', sizeof body);
  MUST(send(p, NET_TELEMETRY, "t", 1, &outcomes[60]) == 0);
  for (int i = 0; i < 2; i++) MUST(send(p, NET_DISPATCH, body, 40000, &outcomes[61 + i]) == 0);
  run_ms(100);
  MUST(strcmp(b->order, "BBt") == 0);
  /* While 3 MiB of results leave, a cancel goes past them. */
  memset(body, 'R', sizeof body);
  memset(b->order, 0, sizeof b->order);
  b->told = 0;
  MUST(send(p, NET_DATA, body, FRAME_MESSAGE_MAX, &outcomes[6]) == 0);
  run_ms(1);
  MUST(outcomes[6].count == 0 && b->told == 0);
  struct net_peer_info info;
  net_peer_info(p, &info);
  MUST(info.queued_bytes > FRAME_MESSAGE_MAX - NET_WINDOW - 2 * FRAME_MAX); /* No more than a window has left us. */
  MUST(send(p, NET_CONTROL, "!", 1, &outcomes[7]) == 0);
  run_ms(10);
  MUST(b->order[0] == '!' && b->told == 1 && outcomes[7].code == 0);
  run_ms(1000);
  MUST(b->told == 2 && b->order[1] == 'R' && outcomes[6].count == 1 && outcomes[6].code == 0);
  /* Messages of several frames in all four lanes at once come out whole. */
  memset(b->order, 0, sizeof b->order);
  b->told = 0;
  b->mode = ECHO;
  for (int i = 0; i < 40; i++) {
    size_t length = (size_t)i * 4500;
    MUST(net_call(p, 1, (enum net_lane)(i % 4), body, length, ms(20000), on_outcome, &outcomes[10 + i], NULL) == 0);
  }
  run_ms(5000);
  for (int i = 0; i < 40; i++) MUST(outcomes[10 + i].count == 1 && outcomes[10 + i].code == 0 && outcomes[10 + i].length == (size_t)i * 4500);
  end_sim();
  printf("ok F63 the highest lane leaves first, a cancel overtakes 3 MiB of results, and frames of four lanes interleave\n");
}

static void sizes(void) {
  struct net_peer *p = connected(6, NULL, NULL);
  struct node *b = &nodes[1];
  static const size_t lengths[] = {0, 1, FRAME_BODY_MAX - 1, FRAME_BODY_MAX, FRAME_BODY_MAX + 1, 2 * FRAME_BODY_MAX, FRAME_MESSAGE_MAX};
  enum { COUNT = sizeof lengths / sizeof *lengths };
  b->mode = ECHO;
  for (size_t i = 0; i < COUNT; i++) {
    MUST(net_call(p, 1, NET_DATA, body, lengths[i], ms(9000), on_outcome, &outcomes[i], NULL) == 0);
    run_ms(2000);
    MUST(outcomes[i].count == 1 && outcomes[i].code == 0 && outcomes[i].length == lengths[i]);
  }
  MUST(net_call(p, 1, NET_DATA, body, FRAME_MESSAGE_MAX + 1, ms(9000), on_outcome, &outcomes[COUNT], NULL) == ERR_TOO_LARGE);
  MUST(send(p, NET_DATA, body, FRAME_MESSAGE_MAX + 1, &outcomes[COUNT]) == ERR_TOO_LARGE);
  MUST(net_counts(nodes[0].net)->drops[NET_DATA][NET_DROP_TOO_LARGE] == 2);
  b->mode = HOLD;
  MUST(call(p, NET_DATA, "?", 9000, &outcomes[20]) == 0);
  run_ms(10);
  MUST(net_reply(b->net, &b->held[0], body, FRAME_MESSAGE_MAX + 1) == ERR_TOO_LARGE);
  run_ms(10);
  MUST(outcomes[20].count == 1 && outcomes[20].code == ERR_TOO_LARGE && strcmp(outcomes[20].name, "TOO_LARGE") == 0);
  end_sim();
  printf("ok a message of 3 MiB passes in frames of 64 KiB; a larger one is TOO_LARGE by name, an answer to its asker as well\n");
}

static void shedding(void) {
  struct net_options wide = {.in_flight_max = 100000, .lane_in_flight_max = {0, 100000, 100000, 100000}};
  struct net_options strict = {.unanswered_max = 50};
  struct net_peer *p = connected(7, &wide, &strict);
  struct node *b = &nodes[1];
  for (int i = 0; i < 60; i++) MUST(call(p, i % 2 ? NET_DISPATCH : NET_DATA, "x", 5000, &outcomes[i]) == 0);
  for (int i = 60; i < 120; i++) MUST(call(p, NET_CONTROL, "c", 5000, &outcomes[i]) == 0);
  run_ms(10);
  int shed = 0;
  for (int i = 0; i < 120; i++) {
    shed += outcomes[i].count;
    if (outcomes[i].count) MUST(i < 60 && outcomes[i].code == ERR_OVERLOADED);
  }
  MUST(shed == 10 && b->held_count == 110 && net_counts(b->net)->refused[NET_REFUSED_REQUESTS] == 10);
  for (int i = 0; i < 110; i++) MUST(net_reply(b->net, &b->held[i], "", 0) == 0);
  b->held_count = 0;
  run_ms(10);
  for (int i = 200; i < 251; i++) MUST(call(p, NET_DATA, "x", 5000, &outcomes[i]) == 0);
  run_ms(10);
  MUST(b->held_count == 50 && outcomes[250].count == 1 && outcomes[250].code == ERR_OVERLOADED);
  end_sim();
  /* Answers that find their queue full: the caller gets FULL. */
  struct net_options narrow = {.lane_queue_bytes_max = {0, 0, 100000, 0}};
  p = connected(8, NULL, &narrow);
  b = &nodes[1];
  for (int i = 0; i < 3; i++) MUST(call(p, NET_DATA, "x", 5000, &outcomes[i]) == 0);
  run_ms(10);
  MUST(net_reply(b->net, &b->held[0], body, 90000) == 0 && net_reply(b->net, &b->held[1], body, 90000) == ERR_FULL);
  MUST(net_reply(b->net, &b->held[2], "", 0) == 0);
  run_ms(100);
  MUST(outcomes[0].code == 0 && outcomes[0].length == 90000 && outcomes[1].code == ERR_OVERLOADED && outcomes[2].code == 0);
  end_sim();
  printf("ok F66 what is too much is answered OVERLOADED at once; control never is\n");
}

static void expired(void) {
  struct net_peer *p = connected(9, NULL, NULL);
  sim_cut(sim, NULL, NULL, true);
  MUST(send(p, NET_DATA, body, FRAME_MESSAGE_MAX, &outcomes[0]) == 0);
  MUST(call(p, NET_DATA, "gone", 100, &outcomes[1]) == 0);
  run_ms(1000);
  MUST(outcomes[1].code == ERR_TIMEOUT);
  sim_cut(sim, NULL, NULL, false);
  run_ms(20000);
  MUST(outcomes[0].code == 0 && nodes[1].requests == 0 && net_counts(nodes[0].net)->drops[NET_DATA][NET_DROP_EXPIRED] == 1);
  end_sim();
  printf("ok a call that timed out in the queue does not leave\n");
}

static const struct property properties[] = {
    PROPERTY(in_flight),
    PROPERTY(requests_in_all),
    PROPERTY(queues),
    PROPERTY(control_overflow),
    PROPERTY(lanes_by_rank),
    PROPERTY(sizes),
    PROPERTY(shedding),
    PROPERTY(expired),
};

int main(int argc, char **argv) { return run_properties(argc, argv, properties, sizeof properties / sizeof *properties); }
