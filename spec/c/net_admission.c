/* A net's admission limits in virtual time: connections, unfinished messages, requests, and the queues for all peers.
 * Each limit at its end and one past it. Prints one line a property; exits 1 at the first that does not hold. */
#include <malloc.h>

#include "net_raw.h"

enum { RAWS = 1200, MIB = 1 << 20, PIECE = FRAME_BODY_MAX };

static struct raw raws[RAWS];
static struct outcome outcomes[OUTCOMES_MAX];
static uint8_t body[FRAME_MESSAGE_MAX];

static uint64_t refused(const struct node *n, enum net_refusal why) { return net_counts(n->net)->refused[why]; }

/* The last thing that this raw peer was refused. */
static struct frame last_frame;
static char last_name[FRAME_NAME_MAX + 1], last_text[FRAME_TEXT_MAX + 1];
static bool was_refused(const struct raw *r, const char *name, const char *text) {
  return raw_refusal(r, &last_frame, last_name, last_text) && strcmp(last_name, name) == 0 && strstr(last_text, text);
}

static void connect_greeted(int index, struct node *to) {
  raw_connect(&raws[index], 1, to);
  run_ms(2);
  raw_hello(&raws[index]);
  run_ms(3);
}

static void close_raws(int count) {
  for (int i = 0; i < count; i++) world_stream_close(raws[i].stream);
  run_ms(100);
}

/* ---- connections ---- */

static void connections(void) {
  struct net_options few = {.connections_max = 5};
  begin_sim(1, 3);
  struct node *a = open_node(0, &few), *c = open_node(2, NULL);
  for (int i = 0; i < 5; i++) connect_greeted(i, a);
  MUST(a->ups == 5 && refused(a, NET_REFUSED_CONNECTIONS) == 0 && net_counts(a->net)->connections_open == 5);
  struct outcome o = {0}, again = {0};
  MUST(call(peer_of(c, a), NET_DATA, "x", 1000, &o) == 0); /* One past it. */
  run_ms(20);
  MUST(o.count == 1 && o.code == ERR_FULL && strstr(c->down_text, "5 connections are open here, the limit; try again in 1000 ms"));
  MUST(refused(a, NET_REFUSED_CONNECTIONS) == 1 && a->ups == 5 && a->downs == 0 && c->ups == 0);
  world_stream_close(raws[0].stream);
  run_ms(100);
  MUST(a->downs == 1 && call(peer_of(c, a), NET_DATA, "x", 2000, &again) == 0);
  run_ms(1000);
  MUST(again.count == 1 && again.code == 0 && net_counts(a->net)->connections_open == 5);
  for (int i = 1; i < 5; i++) world_stream_close(raws[i].stream);
  end_sim();
  printf("ok F05 connections_max connections are accepted; one more is refused FULL, told when to try again, and counted\n");
}

static void newcomers_push_out_whoever_does_not_greet(void) {
  struct net_options few = {.connections_max = 3};
  begin_sim(2, 3);
  struct node *a = open_node(0, &few), *c = open_node(2, NULL);
  connect_greeted(0, a);
  raw_connect(&raws[1], 1, a);
  run_ms(10);
  raw_connect(&raws[2], 1, a);
  run_ms(900);
  struct outcome early = {0}, o = {0};
  MUST(call(peer_of(c, a), NET_DATA, "x", 100, &early) == 0);
  run_ms(20);
  MUST(early.code == ERR_FULL && refused(a, NET_REFUSED_GREETING) == 0); /* They are not silent for a second yet. */
  run_ms(600);
  net_peer_close(peer_of(c, a));
  run_ms(10);
  MUST(call(peer_of(c, a), NET_DATA, "x", 1000, &o) == 0);
  run_ms(20);
  MUST(o.count == 1 && o.code == 0 && refused(a, NET_REFUSED_GREETING) == 1);
  MUST(raws[1].ended == 1 && raws[2].ended == 0 && raws[0].ended == 0); /* The one that was silent longest. */
  MUST(a->down_code == ERR_FULL && strstr(a->down_text, "no greeting for") && strstr(a->down_text, "made room for another"));
  close_raws(3);
  end_sim();
  printf("ok F05 at connections_max, whoever did not greet for a second makes room, the oldest first\n");
}

static void a_flood_is_turned_away_in_bounds(void) {
  struct net_options few = {.connections_max = 1};
  begin_sim(3, 2);
  struct node *a = open_node(0, &few);
  connect_greeted(0, a);
  for (int i = 1; i <= 100; i++) raw_connect(&raws[i], 1, a);
  run_ms(3);
  int told = 0, ended = 0;
  run_ms(20);
  for (int i = 1; i <= 100; i++) told += was_refused(&raws[i], "FULL", "try again"), ended += raws[i].ended;
  MUST(refused(a, NET_REFUSED_CONNECTIONS) == 100 && told == 64 && ended == 100); /* LISTEN_GOODBYES_MAX get a reason. */
  struct world_telemetry t = {0};
  world_telemetry(a->world, &t);
  MUST(t.open_handles <= 3 + 64);
  run_ms(3000);
  world_telemetry(a->world, &t);
  MUST(t.open_handles == 3 && raws[0].ended == 0); /* The timer, the listener, and the one connection. */
  close_raws(101);
  end_sim();
  printf("ok F05 of a flood of connections 64 at a time get a reason, the rest is closed at once\n");
}

/* ---- unfinished messages ---- */

/* Frames of an unfinished request: `pieces` whole ones. */
static void half_message(int index, uint8_t lane, uint8_t flags, uint64_t id, int pieces) {
  for (int i = 0; i < pieces; i++) raw_frame(&raws[index], 1, lane, flags, id, PIECE, PIECE);
}

static const struct net_options tight = {.assembly_bytes_max = 4 * MIB};

static void unfinished_messages(void) {
  begin_sim(4, 2);
  struct node *a = open_node(0, &tight);
  for (int i = 0; i < 6; i++) connect_greeted(i, a);
  /* 16 pieces of 64 KiB less a header are a buffer of 1 MiB: four of these are all there is. */
  for (int i = 0; i < 4; i++) half_message(i, 2, FRAME_REQUEST, 7, 16);
  run_ms(500);
  MUST(net_counts(a->net)->assembly_bytes == 4 * MIB && refused(a, NET_REFUSED_ASSEMBLY) == 0);
  half_message(4, 2, FRAME_REQUEST, 9, 1); /* One past it. */
  run_ms(20);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 1 && net_counts(a->net)->assembly_bytes == 4 * MIB);
  MUST(was_refused(&raws[4], "FULL", "unfinished messages hold 4194304 bytes here, the limit; try again in 1000 ms"));
  MUST(last_frame.id == 9 && last_frame.lane == 2 && last_frame.flags & FRAME_REPLY);
  /* The rest of it is skipped; what comes behind it is served, on the same connection. */
  half_message(4, 2, FRAME_REQUEST, 9, 5);
  raw_frame(&raws[4], 1, 2, FRAME_REQUEST | FRAME_LAST, 9, 100, 100);
  MUST(a->requests == 0);
  raw_frame(&raws[4], 1, 2, FRAME_REQUEST | FRAME_LAST, 10, 100, 100);
  run_ms(50);
  MUST(a->requests == 1 && a->downs == 0 && refused(a, NET_REFUSED_ASSEMBLY) == 1);
  /* Small ones are always taken, also in pieces. */
  raw_frame(&raws[5], 1, 2, FRAME_REQUEST | FRAME_LAST, 1, 2048, 1);
  run_ms(20);
  raw_write(&raws[5], body, 2047);
  raw_frame(&raws[5], 1, 2, FRAME_REQUEST | FRAME_LAST, 2, 2049, 2049); /* A whole one needs no room. */
  run_ms(20);
  MUST(a->requests == 3 && refused(a, NET_REFUSED_ASSEMBLY) == 1);
  raw_frame(&raws[5], 1, 2, FRAME_REQUEST | FRAME_LAST, 3, 4000, 2049); /* Nor small, nor whole. */
  run_ms(20);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 2 && was_refused(&raws[5], "FULL", "try again") && last_frame.id == 3);
  /* One that is finished makes room. */
  raw_frame(&raws[0], 1, 2, FRAME_REQUEST | FRAME_LAST, 7, 100, 100);
  run_ms(50);
  MUST(a->requests == 4 && net_counts(a->net)->assembly_bytes == 3 * MIB);
  MUST(net_counts(a->net)->unanswered == 0);
  close_raws(6);
  MUST(net_counts(a->net)->assembly_bytes == 0 && a->downs == 6);
  end_sim();
  printf("ok F05 unfinished messages hold assembly_bytes_max in all; one more is refused FULL and skipped, its connection goes on\n");
}

static void a_stuck_message_makes_room(void) {
  begin_sim(5, 3);
  struct node *a = open_node(0, &tight), *c = open_node(2, NULL);
  struct outcome up = {0}, o = {0};
  MUST(call(peer_of(c, a), NET_DATA, "x", 1000, &up) == 0);
  for (int i = 0; i < 4; i++) connect_greeted(i, a);
  half_message(0, 1, FRAME_REQUEST, 7, 16);
  half_message(1, 2, 0, 0, 16); /* Which wants no answer. */
  half_message(2, 2, FRAME_REQUEST, 7, 16);
  half_message(3, 2, FRAME_REQUEST, 7, 16);
  run_ms(500);
  half_message(0, 1, FRAME_REQUEST, 7, 1); /* Its buffer needs another MiB now: none is stuck for a second, so it is refused. */
  run_ms(20);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 1 && refused(a, NET_REFUSED_STUCK) == 0 && was_refused(&raws[0], "FULL", "try again"));
  half_message(0, 1, FRAME_REQUEST, 7, 20);
  connect_greeted(4, a);
  half_message(4, 2, FRAME_REQUEST, 7, 16); /* There is room again for one. */
  run_ms(1200);
  half_message(4, 2, FRAME_REQUEST, 7, 1); /* And two MiB more are needed: the oldest that is idle goes. */
  run_ms(20);
  MUST(refused(a, NET_REFUSED_STUCK) == 1 && a->downs == 0);
  run_ms(1100);
  MUST(raws[1].ended == 0); /* No peer could get the refusal; it was counted. */
  memset(body, 'B', sizeof body);
  MUST(net_call(peer_of(c, a), 1, NET_DATA, body, FRAME_MESSAGE_MAX, ms(20000), on_outcome, &o, NULL) == 0);
  run_ms(3000);
  MUST(o.count == 1 && o.code == 0 && o.length == FRAME_MESSAGE_MAX); /* A peer in good order is served. */
  MUST(was_refused(&raws[2], "FULL", "was unfinished for") && last_frame.id == 7);
  MUST(was_refused(&raws[3], "FULL", "made room for others; try again in 1000 ms"));
  close_raws(5);
  end_sim();
  printf("ok F05 a message that is stuck for a second makes room for others, the oldest first; its sender is told\n");
}

static void a_trickle_makes_room(void) {
  begin_sim(6, 2);
  struct node *a = open_node(0, &tight);
  for (int i = 0; i < 5; i++) connect_greeted(i, a);
  for (int i = 0; i < 4; i++) half_message(i, 2, FRAME_REQUEST, 7, 15);
  run_ms(500);
  for (int i = 0; i < 4; i++) raw_frame(&raws[i], 1, 2, FRAME_REQUEST, 7, 20000, 1);
  run_ms(50);
  MUST(net_counts(a->net)->assembly_bytes == 4 * MIB);
  for (int tenths = 0; tenths < 90; tenths++) { /* A byte every tenth of a second. */
    for (int i = 0; i < 4; i++) raw_write(&raws[i], "z", 1);
    run_ms(100);
  }
  half_message(4, 2, FRAME_REQUEST, 1, 1);
  run_ms(20);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 1 && refused(a, NET_REFUSED_STUCK) == 0);
  raw_frame(&raws[4], 1, 2, FRAME_REQUEST | FRAME_LAST, 1, 1, 1);
  for (int tenths = 0; tenths < 10; tenths++) {
    for (int i = 0; i < 4; i++) raw_write(&raws[i], "z", 1);
    run_ms(100);
  }
  half_message(4, 2, FRAME_REQUEST, 2, 1);
  run_ms(20);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 1 && refused(a, NET_REFUSED_STUCK) == 1 && was_refused(&raws[0], "FULL", "made room"));
  close_raws(5);
  end_sim();
  printf("ok F05 a message that trickles in for 10 s makes room, too\n");
}

static void refusals_by_kind(void) {
  begin_sim(7, 3);
  struct node *a = open_node(0, &tight), *c = open_node(2, NULL);
  struct outcome up = {0}, answer = {0}, after = {0};
  c->mode = HOLD;
  MUST(call(peer_of(a, c), NET_DATA, "x", 60000, &up) == 0 && call(peer_of(a, c), NET_DATA, "y", 60000, &answer) == 0);
  for (int i = 0; i < 6; i++) connect_greeted(i, a);
  for (int i = 0; i < 4; i++) half_message(i, 2, FRAME_REQUEST, 7, 16);
  run_ms(500);
  /* No answer is wanted: skipped and counted; the connection goes on. */
  half_message(4, 3, 0, 0, 2);
  for (int i = 0; i < 2; i++) raw_frame(&raws[4], 1, 3, FRAME_LAST, 0, 10, 10); /* Its end, and another one. */
  run_ms(50);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 1 && a->told == 1 && a->downs == 0);
  /* Control: the connection ends, and both sides get the reason. */
  half_message(5, 0, FRAME_REQUEST, 7, 1);
  run_ms(50);
  MUST(refused(a, NET_REFUSED_ASSEMBLY) == 2 && a->downs == 1 && a->down_code == ERR_FULL);
  MUST(was_refused(&raws[5], "FULL", "unfinished messages hold") && last_frame.type == FRAME_BYE && raws[5].ended == 1);
  /* An answer to us: our call ends with FULL, and the connection goes on. */
  MUST(net_reply(c->net, &c->held[1], body, 200000) == 0);
  run_ms(100);
  MUST(answer.count == 1 && answer.code == ERR_FULL && strcmp(answer.name, "FULL") == 0 && refused(a, NET_REFUSED_ASSEMBLY) == 3);
  MUST(net_reply(c->net, &c->held[0], "x", 1) == 0);
  run_ms(100);
  MUST(up.code == 0 && up.count == 1 && a->downs == 1);
  c->mode = ECHO;
  MUST(call(peer_of(a, c), NET_DATA, "z", 1000, &after) == 0);
  run_ms(100);
  MUST(after.code == 0 && net_counts(a->net)->late_replies == 0);
  close_raws(6);
  end_sim();
  printf("ok F05 what finds no room: one way is counted, an answer ends its call, control closes its connection loudly\n");
}

static void a_thousand_half_messages(void) {
  begin_sim(8, 2);
  struct node *a = open_node(0, NULL);
  size_t before = mallinfo2().uordblks;
  enum { COUNT = 1000 };
  for (int i = 0; i < COUNT; i++) raw_connect(&raws[i], 1, a);
  run_ms(10);
  for (int i = 0; i < COUNT; i++) raw_hello(&raws[i]);
  run_ms(10);
  MUST(a->ups == COUNT);
  size_t largest = 0;
  for (int i = 0; i < COUNT; i++) { /* In each lane a message without an end, some of nearly 3 MiB, and half a frame behind it. */
    for (uint8_t lane = (uint8_t)(i % 2); lane < 4; lane++) half_message(i, lane, FRAME_REQUEST, 7, i % 10 == 0 ? 47 : 1);
    raw_frame(&raws[i], 1, 3, FRAME_REQUEST, 7, PIECE, 30000);
    run_ms(i % 10 == 0 ? 100 : 1);
    uint64_t held = net_counts(a->net)->assembly_bytes;
    MUST(held <= (32 << 20) + 2048 * 5 * COUNT);
    if (held > largest) largest = held;
  }
  run_ms(1000);
  size_t in_all = mallinfo2().uordblks - before;
  MUST(largest > 30 << 20 && a->downs <= COUNT / 2); /* It met its limit, and closed only for control. */
  MUST(in_all <= 64 << 20);
  struct outcome o = {0};
  struct node *b = open_node(1, NULL);
  MUST(call(peer_of(b, a), NET_DATA, "x", 1000, &o) == 0);
  run_ms(100);
  MUST(o.code == 0 && o.count == 1);
  close_raws(COUNT);
  run_ms(1000);
  MUST(net_counts(a->net)->assembly_bytes == 0);
  end_sim();
  printf("ok F05 1,000 connections with unfinished messages cost %.1f MiB in all, the simulated kernels included\n", (double)in_all / MIB);
}

/* ---- faults, not unfinished messages ---- */

/* One frame too many, and the fault that ends the connection. */
static void fault_of(int index, struct node *a, enum frame_fault fault) {
  int downs = a->downs;
  run_ms(20);
  MUST(a->downs == downs + 1 && a->down_code == ERR_MALFORMED && net_counts(a->net)->faults[fault] == 1 && raws[index].ended == 1);
  world_stream_close(raws[index].stream);
  run_ms(10);
}

static void frames_out_of_turn(void) {
  begin_sim(11, 2);
  struct node *a = open_node(0, NULL);
  raw_connect(&raws[0], 1, a);
  run_ms(5);
  raw_frame(&raws[0], 1, 2, FRAME_REQUEST | FRAME_LAST, 1, 10, 10); /* Before the greeting. */
  fault_of(0, a, FRAME_FAULT_EARLY);
  MUST(a->requests == 0);
  end_sim();
  static const struct { uint16_t type; uint8_t flags; uint64_t id; } others[] = {
      {2, FRAME_REQUEST, 7}, {1, 0, 7}, {1, FRAME_REQUEST, 8}};
  for (int i = 0; i < 3; i++) { /* A frame that does not continue its lane's message, by type, flags or id. */
    begin_sim(12 + (uint64_t)i, 2);
    a = open_node(0, NULL);
    connect_greeted(1, a);
    raw_frame(&raws[1], 1, 2, FRAME_REQUEST, 7, 100, 100);
    raw_frame(&raws[1], 1, 1, FRAME_REQUEST | FRAME_LAST, 9, 100, 100); /* Another lane's may come between. */
    run_ms(10);
    MUST(a->requests == 1 && a->downs == 0);
    raw_frame(&raws[1], others[i].type, 2, others[i].flags | FRAME_LAST, others[i].id, 100, 100);
    fault_of(1, a, FRAME_FAULT_ORDER);
    MUST(a->requests == 1 && a->told == 0 && net_counts(a->net)->assembly_bytes == 0);
    end_sim();
  }
  printf("ok F70 a message before the greeting ends the connection, and so does a frame that does not continue its message\n");
}

/* ---- requests and queues over all peers ---- */

static void requests_over_all(void) {
  struct net_options strict = {.unanswered_max = 20, .unanswered_all_max = 50};
  begin_sim(9, 4);
  struct node *b = open_node(0, &strict), *from[3];
  b->mode = HOLD;
  memset(outcomes, 0, sizeof outcomes);
  for (int i = 0; i < 3; i++) from[i] = open_node(i + 1, NULL);
  for (int i = 0; i < 51; i++) MUST(call(peer_of(from[i / 17], b), NET_DATA, "x", 60000, &outcomes[i]) == 0); /* 17 each. */
  run_ms(50);
  int shed = 0;
  for (int i = 0; i < 51; i++) shed += outcomes[i].count == 1 && outcomes[i].code == ERR_OVERLOADED;
  MUST(shed == 1 && b->held_count == 50 && refused(b, NET_REFUSED_REQUESTS) == 1 && net_counts(b->net)->unanswered == 50);
  MUST(call(peer_of(from[0], b), NET_CONTROL, "c", 60000, &outcomes[60]) == 0); /* Control is not counted, nor shed. */
  run_ms(50);
  MUST(b->held_count == 51 && refused(b, NET_REFUSED_REQUESTS) == 1);
  net_peer_close(peer_of(from[1], b)); /* The caller is gone; its request counts until it is answered. */
  run_ms(50);
  MUST(net_counts(b->net)->unanswered == 50);
  for (int i = 0; i < 50; i++) (void)net_reply(b->net, &b->held[i], "", 0);
  MUST(net_counts(b->net)->unanswered == 0);
  end_sim();
  printf("ok F05 F66 requests without answer are bounded over all connections, gone ones included\n");
}

static void queued_over_all(void) {
  struct net_options small = {.queued_bytes_max = 2 * FRAME_MESSAGE_MAX};
  begin_sim(10, 4);
  struct node *a = open_node(0, &small), *to[3];
  memset(outcomes, 0, sizeof outcomes);
  for (int i = 0; i < 3; i++) {
    to[i] = open_node(i + 1, NULL);
    MUST(call(peer_of(a, to[i]), NET_DATA, "up", 1000, &outcomes[i]) == 0);
  }
  run_ms(50);
  sim_cut(sim, NULL, NULL, true);
  const struct net_counts *counts = net_counts(a->net);
  MUST(counts->queued_bytes == 0);
  /* To the last byte: 96 messages of 64 KiB, headers included. */
  for (int i = 0; i < 96; i++)
    MUST(net_send(peer_of(a, to[i / 32]), 2, NET_DISPATCH, body, FRAME_BODY_MAX, on_outcome, &outcomes[10 + i], NULL) == 0);
  MUST(net_counts(a->net)->queued_bytes == 2 * FRAME_MESSAGE_MAX);
  for (int i = 0; i < 3; i++)
    MUST(net_send(peer_of(a, to[i]), 2, NET_DATA, "", 0, on_outcome, &outcomes[200], NULL) == ERR_FULL); /* Its lane is empty. */
  MUST(counts->drops[NET_DATA][NET_DROP_QUEUED] == 3 && counts->drops[NET_DATA][NET_DROP_FULL] == 0);
  MUST(net_send(peer_of(a, to[0]), 2, NET_CONTROL, "c", 1, on_outcome, &outcomes[201], NULL) == 0); /* Control passes. */
  sim_cut(sim, NULL, NULL, false);
  run_ms(5000);
  MUST(net_counts(a->net)->queued_bytes == 0 && outcomes[10].code == 0 && outcomes[201].code == 0);
  MUST(net_send(peer_of(a, to[1]), 2, NET_DATA, "", 0, on_outcome, &outcomes[202], NULL) == 0);
  run_ms(10);
  /* Answers count, too, and the caller gets the refusal. */
  struct outcome o[2] = {0};
  a->mode = HOLD;
  for (int i = 0; i < 2; i++) MUST(call(peer_of(to[i], a), NET_DATA, "x", 60000, &o[i]) == 0);
  run_ms(20);
  sim_cut(sim, NULL, NULL, true);
  for (int i = 0; i < 96; i++)
    MUST(net_send(peer_of(a, to[i / 32]), 2, NET_DISPATCH, body, FRAME_BODY_MAX, on_outcome, &outcomes[300 + i], NULL) == 0);
  MUST(net_reply(a->net, &a->held[0], body, 1000) == ERR_FULL);
  sim_cut(sim, NULL, NULL, false);
  run_ms(5000);
  MUST(o[0].count + o[1].count == 1 && (o[0].code == ERR_OVERLOADED || o[1].code == ERR_OVERLOADED));
  net_peer_close(peer_of(a, to[0]));
  end_sim();
  printf("ok F05 F63 what waits to be sent is bounded over all peers; control passes\n");
}

static const struct property properties[] = {
    PROPERTY(connections),
    PROPERTY(newcomers_push_out_whoever_does_not_greet),
    PROPERTY(a_flood_is_turned_away_in_bounds),
    PROPERTY(unfinished_messages),
    PROPERTY(a_stuck_message_makes_room),
    PROPERTY(a_trickle_makes_room),
    PROPERTY(refusals_by_kind),
    PROPERTY(a_thousand_half_messages),
    PROPERTY(frames_out_of_turn),
    PROPERTY(requests_over_all),
    PROPERTY(queued_over_all),
};

int main(int argc, char **argv) { return run_properties(argc, argv, properties, sizeof properties / sizeof *properties); }
