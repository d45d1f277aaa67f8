/* The transport in virtual time: every promise of net.h that does not need a real socket. net_limits.c holds the bounds.
 * Prints one line a property; exits 1 at the first that does not hold. */
#include "net_sim.h"

static void answers_and_lateness(void) {
  begin_sim(1, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  struct outcome first = {0}, late = {0}, other = {0}, next = {0};
  b->mode = HOLD;
  MUST(call(p, NET_DATA, "1", 1000, &late) == 0 && call(p, NET_DATA, "2", 5000, &other) == 0);
  run_ms(900);
  MUST(b->held_count == 2 && late.count == 0);
  run_ms(101); /* The wheel's tick is 1.05 ms. */
  MUST(late.count == 0 || late.at_ns >= ms(1000));
  run_ms(3);
  MUST(late.count == 1 && late.code == ERR_TIMEOUT && strcmp(late.name, "TIMEOUT") == 0 && late.at_ns >= ms(1000));
  MUST(late.at_ns <= ms(1003) && other.count == 0);
  MUST(net_reply(b->net, &b->held[0], "too late", 8) == 0);
  run_ms(10);
  MUST(net_counts(a->net)->late_replies == 1 && net_counts(a->net)->replies == 0 && late.count == 1 && other.count == 0);
  MUST(net_reply(b->net, &b->held[1], "22", 2) == 0);
  run_ms(10);
  MUST(other.count == 1 && other.code == 0 && other.length == 2);
  MUST(net_reply(b->net, &b->held[1], "again", 5) == 0); /* A second answer is a late one. */
  b->mode = REFUSE;
  MUST(call(p, NET_DATA, "3", 1000, &next) == 0 && call(p, NET_CONTROL, "4", 1000, &first) == 0);
  run_ms(10);
  MUST(next.code == ERR_REFUSED && strcmp(next.name, "TASTE") == 0 && first.code == ERR_REFUSED);
  MUST(net_counts(a->net)->late_replies == 2 && net_counts(a->net)->timeouts == 1 && net_counts(a->net)->stray_replies == 0);
  struct net_request forged = b->held[1];
  forged.id = UINT64_C(7) << 32 | 4000000; /* No slot. */
  MUST(net_reply(b->net, &forged, "?", 1) == 0);
  run_ms(10);
  MUST(net_counts(a->net)->stray_replies == 1 && a->downs == 0 && a->ups == 1);
  end_sim();
  printf("ok a late answer is counted and dropped, a stray one too, and one timeout harms no other call\n");
}

static void nobody_else_answers(void) {
  begin_sim(41, 3);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL), *c = open_node(2, NULL);
  struct outcome of_b = {0}, of_c = {0};
  b->mode = c->mode = HOLD;
  MUST(call(peer_of(a, b), NET_DATA, "b", 1000, &of_b) == 0 && call(peer_of(a, c), NET_DATA, "c", 1000, &of_c) == 0);
  run_ms(100);
  struct net_request forged = c->held[0];
  forged.id = b->held[0].id; /* c answers a request that went to b. */
  MUST(net_reply(c->net, &forged, "?", 1) == 0);
  forged = b->held[0];
  forged.lane = NET_CONTROL; /* b answers in another lane. */
  MUST(net_reply(b->net, &forged, "?", 1) == 0);
  run_ms(100);
  MUST(of_b.count == 0 && of_c.count == 0 && net_counts(a->net)->stray_replies == 2 && net_counts(a->net)->late_replies == 0);
  MUST(net_reply(b->net, &b->held[0], "b", 1) == 0 && net_reply(c->net, &c->held[0], "c", 1) == 0);
  run_ms(100);
  MUST(of_b.code == 0 && of_b.count == 1 && of_c.code == 0 && of_c.count == 1);
  end_sim();
  printf("ok only who was asked answers, in the lane it was asked in\n");
}

static void deadlines_in_any_order(void) {
  static struct outcome outcomes[300];
  begin_sim(2, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  struct rng rng;
  uint64_t timeouts[300];
  struct outcome up = {0};
  MUST(call(p, NET_DATA, "up", 1000, &up) == 0);
  run_ms(100);
  uint64_t start_ns = sim_now_ns(sim);
  b->mode = HOLD;
  rng_seed(&rng, 3);
  memset(outcomes, 0, sizeof outcomes);
  for (int i = 0; i < 300; i++) {
    timeouts[i] = 1 + rng_below(&rng, 5000);
    MUST(call(p, NET_CONTROL, "x", timeouts[i], &outcomes[i]) == 0);
  }
  run_ms(6000);
  for (int i = 0; i < 300; i++) {
    MUST(outcomes[i].count == 1 && outcomes[i].code == ERR_TIMEOUT);
    MUST(outcomes[i].at_ns >= start_ns + ms(timeouts[i]) && outcomes[i].at_ns <= start_ns + ms(timeouts[i]) + ms(2));
  }
  end_sim();
  printf("ok each of 300 calls with timeouts of its own ends in its own time, never early, within 2 ms\n");
}

static void refused_greetings(void) {
  begin_sim(3, 3);
  struct net_options elsewhere = {.cluster = "other"};
  struct node *a = open_node(0, NULL), *b = open_node(1, &elsewhere);
  struct outcome o = {0};
  MUST(call(peer_of(a, b), NET_DATA, "?", 1000, &o) == 0);
  run_ms(100);
  MUST(o.count == 1 && o.code == ERR_REFUSED && a->ups == 0 && b->ups == 0);
  MUST(strstr(a->down_text, "node \"b\" is of cluster \"other\", node \"a\" of cluster \"spec\""));
  MUST(strstr(b->down_text, "node \"b\" is of cluster \"other\"") && b->down_code == ERR_REFUSED);
  MUST(net_counts(a->net)->handshakes_refused == 1 && net_counts(b->net)->handshakes_refused == 1);
  end_sim();
  struct net *none;
  begin_sim(3, 1);
  struct net_options nameless = {.cluster = "x"}, clusterless = {.node = "x"}, impatient = {.node = "x", .cluster = "x", .keepalive_ms = 30000};
  MUST(net_open(nodes[0].world, &nameless, &node_events, NULL, &none) == ERR_CONFIG);
  MUST(net_open(nodes[0].world, &clusterless, &node_events, NULL, &none) == ERR_CONFIG);
  MUST(net_open(nodes[0].world, &impatient, &node_events, NULL, &none) == ERR_CONFIG);
  impatient.keepalive_ms = 29999;
  open_node(0, &impatient);
  end_sim();
  printf("ok another cluster is refused with the reason at both ends; a net without a name is not opened\n");
}

/* ---- a peer that is only a stream of the world ---- */

static struct raw {
  struct world_stream *stream;
  uint8_t got[70000];
  size_t length;
  int ended, end_status;
} raw;

static void raw_read(void *data, const uint8_t *bytes, size_t length) {
  (void)data;
  MUST(raw.length + length <= sizeof raw.got);
  memcpy(raw.got + raw.length, bytes, length);
  raw.length += length;
}
static void raw_end(void *data, int status) {
  (void)data;
  raw.ended++;
  raw.end_status = status;
}
static void raw_open(void *data, int status) {
  (void)data;
  MUST(status == 0);
}
static const struct world_stream_events raw_events = {.on_open = raw_open, .on_read = raw_read, .on_end = raw_end};
static void raw_connection(void *data, struct world_stream *stream) {
  (void)data;
  raw.stream = stream;
  world_stream_attach(stream, &raw_events, NULL);
}

static void raw_write_hello(uint16_t major, const char *cluster) {
  uint8_t bytes[FRAME_HEADER + FRAME_HELLO_MAX];
  struct frame_hello hello = {.major = major, .node = "raw"};
  snprintf(hello.cluster, sizeof hello.cluster, "%s", cluster);
  size_t length = frame_hello_put(bytes + FRAME_HEADER, &hello);
  struct frame f = {.length = (uint32_t)length, .type = FRAME_HELLO, .flags = FRAME_LINK | FRAME_LAST};
  frame_put(bytes, &f);
  struct world_buffer buffer = {bytes, FRAME_HEADER + length};
  MUST(world_stream_write(raw.stream, &buffer, 1) == 0);
}

static struct frame raw_frame(size_t *at) {
  struct frame f;
  MUST(raw.length - *at >= FRAME_HEADER);
  frame_get(raw.got + *at, &f);
  *at += FRAME_HEADER;
  MUST(raw.length - *at >= f.length);
  return f;
}

static void another_version(void) {
  begin_sim(4, 2);
  struct node *a = open_node(0, NULL);
  memset(&raw, 0, sizeof raw);
  MUST(world_connect(nodes[1].world, &a->address, &raw_events, NULL, &raw.stream) == 0);
  run_ms(10);
  raw_write_hello(FRAME_MAJOR + 1, "spec");
  run_ms(100);
  size_t at = 0;
  struct frame f = raw_frame(&at);
  struct frame_refusal refusal;
  MUST(f.type == FRAME_BYE && f.flags == (FRAME_LINK | FRAME_LAST) && frame_refusal_get(raw.got + at, f.length, &refusal));
  MUST(strcmp(refusal.name, "REFUSED") == 0 && strstr((const char *)refusal.text, "speaks protocol 1, the other node 2"));
  MUST(raw.ended == 1 && raw.end_status == 0 && a->downs == 1 && a->gones == 1 && a->ups == 0);
  world_stream_close(raw.stream);
  end_sim();
  printf("ok another major version is refused with a reason the other side can read\n");
}

static void too_large_from_outside(void) {
  static uint8_t frame[FRAME_MAX];
  begin_sim(40, 2);
  struct node *a = open_node(0, NULL);
  memset(&raw, 0, sizeof raw);
  MUST(world_connect(nodes[1].world, &a->address, &raw_events, NULL, &raw.stream) == 0);
  run_ms(10);
  raw_write_hello(FRAME_MAJOR, "spec");
  struct frame f = {.length = FRAME_BODY_MAX, .type = 5, .lane = 2, .flags = 0};
  frame_put(frame, &f);
  struct world_buffer buffer = {frame, sizeof frame};
  for (int i = 0; i < FRAME_MESSAGE_MAX / FRAME_BODY_MAX; i++) MUST(world_stream_write(raw.stream, &buffer, 1) == 0);
  run_ms(2000);
  MUST(a->downs == 0 && a->ups == 1);
  f.length = FRAME_MESSAGE_MAX % FRAME_BODY_MAX + 1; /* One byte more than a message may have. */
  frame_put(frame, &f);
  buffer.length = FRAME_HEADER + f.length;
  MUST(world_stream_write(raw.stream, &buffer, 1) == 0);
  run_ms(100);
  MUST(a->downs == 1 && a->down_code == ERR_MALFORMED && net_counts(a->net)->faults[FRAME_FAULT_MESSAGE] == 1 && a->told == 0);
  MUST(raw.ended == 1);
  world_stream_close(raw.stream);
  end_sim();
  printf("ok F70 a message that grows past 3 MiB ends its connection, counted\n");
}

static void silent_listener(void) {
  begin_sim(5, 2);
  struct node *a = open_node(0, NULL);
  static const struct world_listener_events listener_events = {.on_connection = raw_connection};
  struct world_listener *listener;
  struct outcome o = {0}, cut = {0};
  memset(&raw, 0, sizeof raw);
  MUST(world_listen(nodes[1].world, &nodes[1].address, &listener_events, NULL, &listener) == 0);
  MUST(call(peer_of(a, &nodes[1]), NET_DATA, "?", 60000, &o) == 0);
  run_ms(4990);
  MUST(o.count == 0);
  run_ms(20);
  MUST(o.count == 1 && o.code == ERR_TIMEOUT && strstr(a->down_text, "no greeting within 5000 ms"));
  world_stream_close(raw.stream);
  world_listener_close(listener);
  run_ms(1000);
  sim_cut(sim, nodes[0].machine, nodes[1].machine, true);
  net_peer_close(peer_of(a, &nodes[1]));
  MUST(call(peer_of(a, &nodes[1]), NET_DATA, "?", 60000, &cut) == 0);
  run_ms(5010);
  MUST(cut.count == 1 && (cut.code == ERR_TIMEOUT || cut.code == -ETIMEDOUT));
  /* The other way round: a peer connects and sends nothing. */
  sim_cut(sim, nodes[0].machine, nodes[1].machine, false);
  memset(&raw, 0, sizeof raw);
  MUST(world_connect(nodes[1].world, &a->address, &raw_events, NULL, &raw.stream) == 0);
  run_ms(4990);
  MUST(!raw.ended);
  run_ms(30);
  MUST(raw.ended == 1);
  world_stream_close(raw.stream);
  end_sim();
  printf("ok who does not connect or greet within 5 s is given up, on either side\n");
}

/* ---- connections that come and go ---- */

static void reconnects(void) {
  begin_sim(6, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  struct outcome first = {0}, lost = {0}, again = {0};
  MUST(call(p, NET_DATA, "1", 1000, &first) == 0);
  run_ms(100);
  b->mode = HOLD;
  MUST(call(p, NET_DATA, "2", 60000, &lost) == 0);
  run_ms(100);
  net_peer_close(b->inbound);
  run_ms(10);
  MUST(lost.count == 1 && lost.code == ERR_DISCONNECTED && a->down_code == ERR_DISCONNECTED);
  MUST(net_reply(b->net, &b->held[0], "x", 1) == ERR_DISCONNECTED && net_counts(b->net)->unsent_replies == 1);
  MUST(a->ups == 1);
  run_ms(600); /* It was up: it dials again by itself, after at most 0.5 s. */
  MUST(a->ups == 2 && b->ups == 2 && net_counts(a->net)->dials == 2);
  b->mode = ECHO;
  MUST(call(p, NET_DATA, "3", 1000, &again) == 0);
  run_ms(10);
  MUST(again.count == 1 && again.code == 0);
  /* The peer's machine is cut off: the connection ends after 30 s of silence; pings begin before. */
  struct outcome hung = {0};
  sim_cut(sim, NULL, NULL, true);
  MUST(call(p, NET_DATA, "4", 120000, &hung) == 0);
  run_ms(32000);
  MUST(hung.count == 1 && hung.code == ERR_DISCONNECTED && a->downs >= 2);
  sim_cut(sim, NULL, NULL, false);
  int ups = a->ups;
  run_ms(60000);
  MUST(a->ups == ups + 1); /* And it comes back by itself. */
  uint64_t dials = net_counts(a->net)->dials;
  run_ms(600000);
  MUST(net_counts(a->net)->dials == dials && a->ups == ups + 1); /* An idle connection is kept, by asking. */
  MUST(net_counts(a->net)->idle_closed + net_counts(a->net)->connections_lost >= 1);
  end_sim();
  printf("ok a lost connection fails what was outstanding and is dialled again; an idle one is kept, a dead one found\n");
}

static void frozen_peer_is_found(void) {
  begin_sim(7, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct outcome o = {0};
  MUST(call(peer_of(a, b), NET_DATA, "1", 1000, &o) == 0);
  run_ms(100);
  sim_node_pause(b->machine, true); /* Its kernel still answers; only the process stands. */
  run_ms(29800);
  MUST(a->downs == 0);
  run_ms(500);
  MUST(a->downs == 1 && a->down_code == ERR_TIMEOUT && net_counts(a->net)->idle_closed == 1);
  sim_node_pause(b->machine, false);
  run_ms(60000);
  MUST(a->ups == 2 && b->ups == 2 && b->gones == 1);
  end_sim();
  printf("ok a connection from which nothing is heard for 30 s is lost, and not sooner\n");
}

static uint64_t ms_until_up(struct node *n, int ups) {
  uint64_t start_ns = sim_now_ns(sim);
  while (n->ups < ups) run_ms(1);
  return (sim_now_ns(sim) - start_ns) / 1000000;
}

static void backoff_starts_again(void) {
  struct net_options steep = {.backoff = {ms(10), ms(5000), 1000}};
  for (int way = 0; way < 3; way++) {
    uint64_t longest = 0;
    for (uint64_t seed = 50; seed < 60; seed++) {
      begin_sim(seed, 2);
      struct node *a = open_node(0, &steep), *b = open_node(1, NULL);
      struct outcome o[2] = {0};
      MUST(call(peer_of(a, b), NET_DATA, "1", 1000, &o[0]) == 0);
      run_ms(100);
      net_peer_close(b->inbound); /* Waits at most 10 ms; what comes next may wait 5 s. */
      MUST(ms_until_up(a, 2) <= 20);
      if (way == 1) MUST(call(peer_of(a, b), NET_DATA, "2", 1000, &o[1]) == 0); /* An answer starts it again; */
      run_ms(way == 2 ? 5001 : 100);                                           /* so does having been up for the cap. */
      net_peer_close(b->inbound);
      uint64_t waited = ms_until_up(a, 3);
      if (waited > longest) longest = waited;
      run_ms(10);
      net_peer_close(b->inbound);
      run_ms(10);
      MUST(a->circuits[BREAKER_OPEN] == 0); /* Orderly ends without a waiting call are no failures. */
      end_sim();
    }
    MUST(way == 0 ? longest > 1000 : longest <= 20);
  }
  begin_sim(60, 2);
  struct node *a = open_node(0, &steep), *b = open_node(1, NULL);
  struct outcome o[3] = {0};
  b->mode = HOLD;
  for (int i = 0; i < 3; i++) { /* With a waiting call they are. */
    MUST(call(peer_of(a, b), NET_DATA, "?", 60000, &o[i]) == 0);
    run_ms(6000);
    MUST(b->held_count == i + 1);
    net_peer_close(b->inbound);
    run_ms(10);
    MUST(o[i].code == ERR_DISCONNECTED);
  }
  MUST(a->circuits[BREAKER_OPEN] == 1);
  end_sim();
  printf("ok F61 an answer, or a connection that lasted, starts the backoff again; an orderly end counts if somebody waited\n");
}

/* ---- closing ---- */

static void graceful_close(void) {
  static struct outcome sent[100];
  static uint8_t big[1 << 20];
  begin_sim(9, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  struct outcome up = {0}, waiting = {0}, large = {0};
  MUST(call(p, NET_DATA, "up", 1000, &up) == 0);
  run_ms(100);
  b->mode = HOLD;
  memset(sent, 0, sizeof sent);
  MUST(call(p, NET_DISPATCH, "w", 60000, &waiting) == 0);
  run_ms(10);
  MUST(net_send(p, 2, NET_TELEMETRY, big, sizeof big, on_outcome, &large, NULL) == 0);
  for (int i = 0; i < 100; i++) MUST(net_send(p, 2, NET_DATA, "x", 1, on_outcome, &sent[i], NULL) == 0);
  net_peer_close(p);
  net_peer_close(p);
  struct outcome refused = {0};
  MUST(call(p, NET_DATA, "late", 1000, &refused) == ERR_CLOSED);
  MUST(waiting.count == 0); /* Not from within the close. */
  run_ms(100);
  MUST(waiting.count == 1 && waiting.code == ERR_CLOSED && large.count == 1 && large.code == 0);
  for (int i = 0; i < 100; i++) MUST(sent[i].count == 1 && sent[i].code == 0);
  MUST(b->told == 101 && b->downs == 1 && strcmp(b->down_text, "closed by the other side") == 0 && a->gones == 1);
  struct net_peer *fresh = peer_of(a, b);
  struct outcome anew = {0};
  b->mode = ECHO;
  MUST(call(fresh, NET_DATA, "new", 1000, &anew) == 0);
  run_ms(100);
  MUST(anew.code == 0 && anew.count == 1);
  end_sim();
  /* A peer that does not read delays us no longer than the linger. */
  begin_sim(10, 2);
  a = open_node(0, NULL), b = open_node(1, NULL);
  p = peer_of(a, b);
  struct outcome stuck = {0};
  up = (struct outcome){0};
  MUST(call(p, NET_DATA, "up", 1000, &up) == 0);
  run_ms(100);
  sim_node_pause(b->machine, true);
  MUST(net_send(p, 2, NET_DATA, big, sizeof big, on_outcome, &stuck, NULL) == 0);
  run_ms(100);
  net_close(a->net);
  run_ms(1800);
  MUST(a->closed == 0);
  run_ms(300);
  MUST(a->closed == 1 && stuck.count == 1 && stuck.code == ERR_CLOSED);
  sim_node_pause(b->machine, false);
  end_sim();
  printf("ok closing lets what is queued leave, ends calls with CLOSED, and lingers 2 s for who does not read\n");
}

static void closes_from_callbacks(void) {
  for (int way = 0; way < 6; way++) {
    begin_sim(11 + (uint64_t)way, 2);
    struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
    struct net_peer *p = peer_of(a, b);
    struct outcome o[5] = {0};
    if (way == 0) b->mode = CLOSE_NET;  /* Inside on_request. */
    if (way == 1) b->mode = CLOSE_PEER;
    if (way == 2) o[0].close = a;       /* Inside an answer, with others behind it in the same bytes. */
    if (way == 3) o[0].close = b;
    if (way == 4) b->mode = HOLD, o[0].close = a; /* Inside a timeout. */
    if (way == 5) b->net ? net_close(b->net) : (void)0, o[0].close = a; /* Inside the failure of a dial. */
    for (int i = 0; i < 5; i++) MUST(call(p, NET_DATA, "x", 500 + (uint64_t)i, &o[i]) == 0);
    run_ms(5000);
    for (int i = 0; i < 5; i++) MUST(o[i].count == 1);
    end_sim();
  }
  begin_sim(20, 2); /* Before anything has happened. */
  struct node *a = open_node(0, NULL);
  struct outcome o = {0};
  MUST(call(peer_of(a, &nodes[1]), NET_DATA, "x", 500, &o) == 0);
  net_close(a->net);
  struct net_peer *none;
  MUST(net_peer(a->net, &nodes[1].address, &none) == ERR_CLOSED && net_listen(a->net, &a->address, NULL) == ERR_CLOSED);
  run_ms(1);
  MUST(o.count == 1 && o.code == ERR_CLOSED);
  end_sim();
  printf("ok a net or a peer may be closed from any callback, and each call still ends once\n");
}

static void crash_is_abandoned(void) {
  begin_sim(30, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct outcome o[3] = {0};
  b->mode = HOLD;
  for (int i = 0; i < 3; i++) MUST(call(peer_of(a, b), NET_DATA, "x", 500, &o[i]) == 0);
  run_ms(100);
  sim_node_crash(a->machine);
  net_abandon(a->net);
  a->net = NULL;
  run_ms(100000);
  MUST(o[0].count == 0 && b->downs == 1 && b->gones == 1);
  end_sim();
  printf("ok after a crash the memory goes without a callback, and the other side finds out\n");
}

static void chaos(void) {
  static struct outcome outcomes[OUTCOMES_MAX];
  uint64_t late = 0, lost = 0, served = 0;
  for (uint64_t seed = 100; seed < 120; seed++) {
    begin_sim(seed, 3);
    struct sim_link link = {.latency_ns = 1000000, .jitter_ns = 20000000, .loss = 0.05};
    sim_set_default_link(sim, &link);
    struct rng rng;
    rng_seed(&rng, seed);
    for (int i = 0; i < 3; i++) open_node(i, NULL);
    int accepted = 0;
    memset(outcomes, 0, sizeof outcomes);
    for (int step = 0; step < 1500; step++) {
      struct node *from = &nodes[rng_below(&rng, 3)], *to = &nodes[rng_below(&rng, 3)];
      uint64_t dice = rng_below(&rng, 200);
      if (dice == 0) sim_cut(sim, from->machine, to->machine, true);
      else if (dice < 3) sim_cut(sim, NULL, NULL, false);
      else if (dice == 3) net_peer_close(peer_of(from, to));
      else if (dice < 100) {
        static const char text[200] = "some bytes of a request";
        enum net_lane lane = (enum net_lane)rng_below(&rng, 4);
        if (net_call(peer_of(from, to), 1, lane, text, rng_below(&rng, sizeof text), ms(1 + rng_below(&rng, 2000)), on_outcome,
                     &outcomes[accepted], NULL) == 0)
          accepted++;
      } else if (dice < 130) {
        if (net_send(peer_of(from, to), 2, (enum net_lane)rng_below(&rng, 4), &dice, sizeof dice, on_outcome,
                     &outcomes[accepted], NULL) == 0)
          accepted++;
      } else {
        run_ms(rng_below(&rng, 60));
      }
    }
    sim_cut(sim, NULL, NULL, false);
    run_ms(70000);
    for (int i = 0; i < accepted; i++) {
      MUST(outcomes[i].count == 1);
      served += outcomes[i].code == 0;
    }
    for (int i = 0; i < 3; i++) {
      late += net_counts(nodes[i].net)->late_replies;
      lost += net_counts(nodes[i].net)->connections_lost;
      MUST(net_counts(nodes[i].net)->stray_replies == 0);
      for (int fault = 0; fault < FRAME_FAULTS_COUNT; fault++) MUST(net_counts(nodes[i].net)->faults[fault] == 0);
    }
    end_sim();
  }
  MUST(late > 0 && lost > 0 && served > 1000); /* Every case was reached. */
  printf("ok 20 seeds of loss, jitter, cuts and closings: every call and send ended exactly once\n");
}

static const struct property properties[] = {
    PROPERTY(answers_and_lateness),
    PROPERTY(nobody_else_answers),
    PROPERTY(deadlines_in_any_order),
    PROPERTY(refused_greetings),
    PROPERTY(another_version),
    PROPERTY(too_large_from_outside),
    PROPERTY(silent_listener),
    PROPERTY(reconnects),
    PROPERTY(frozen_peer_is_found),
    PROPERTY(backoff_starts_again),
    PROPERTY(graceful_close),
    PROPERTY(closes_from_callbacks),
    PROPERTY(crash_is_abandoned),
    PROPERTY(chaos),
};

int main(int argc, char **argv) { return run_properties(argc, argv, properties, sizeof properties / sizeof *properties); }
