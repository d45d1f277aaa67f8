/* A peer's circuit in virtual time: its opening and closing, and the messages that bypass it. Prints one line a property; exits 1 at the
 * first that does not hold. */
#include "net_sim.h"

static void circuit_and_backoff(void) {
  begin_sim(8, 2);
  struct node *a = open_node(0, NULL), *b = &nodes[1];
  struct net_peer *p = peer_of(a, b);
  for (int i = 0; i < 3; i++) { /* No listener. */
    struct outcome o = {0};
    uint64_t asked_ns = sim_now_ns(sim);
    MUST(call(p, NET_DATA, "?", 60000, &o) == 0);
    run_ms(2100);
    MUST(o.count == 1 && o.code == -ECONNREFUSED && net_counts(a->net)->dials == (uint64_t)i + 1);
    if (i == 1) MUST(o.at_ns - asked_ns < ms(600)); /* The wait was drawn below 0.5 s, and part of it had passed. */
  }
  uint64_t opened_ns = sim_now_ns(sim);
  struct outcome refused = {0}, trial = {0}, second = {0};
  MUST(a->circuits[BREAKER_OPEN] == 1);
  MUST(call(p, NET_DATA, "?", 1000, &refused) == ERR_CIRCUIT && call(p, NET_DISPATCH, "?", 1000, &refused) == ERR_CIRCUIT);
  MUST(net_counts(a->net)->drops[NET_DATA][NET_DROP_CIRCUIT] == 1);
  open_node(1, NULL);
  run_ms(7500);
  MUST(call(p, NET_DATA, "?", 1000, &refused) == ERR_CIRCUIT && net_counts(a->net)->dials == 3 && a->ups == 0);
  while (!a->circuits[BREAKER_HALF_OPEN]) run_ms(1);
  MUST(sim_now_ns(sim) <= opened_ns + ms(10000));
  MUST(call(p, NET_DATA, "?", 1000, &trial) == 0);
  MUST(call(p, NET_DATA, "?", 1000, &second) == ERR_CIRCUIT);
  run_ms(3000);
  MUST(trial.count == 1 && trial.code == 0 && a->circuits[BREAKER_CLOSED] == 1 && refused.count == 0 && second.count == 0);
  /* Now it is connected and does not answer: three timeouts open it as well; a trial that times out opens it again. */
  b->mode = HOLD;
  struct outcome o[4] = {0};
  for (int i = 0; i < 3; i++) MUST(call(p, NET_DATA, "?", 100, &o[i]) == 0);
  run_ms(200);
  MUST(a->circuits[BREAKER_OPEN] == 2 && a->ups == 1 && a->downs == 3);
  run_ms(10000);
  MUST(a->circuits[BREAKER_HALF_OPEN] == 2 && call(p, NET_DATA, "?", 100, &o[3]) == 0);
  run_ms(200);
  MUST(a->circuits[BREAKER_OPEN] == 3 && o[3].code == ERR_TIMEOUT);
  /* A send is a trial, too, and it is enough that the kernel took it. */
  struct outcome sent = {0};
  run_ms(10000);
  MUST(net_send(p, 2, NET_DATA, "x", 1, on_outcome, &sent, NULL) == 0);
  run_ms(10);
  MUST(sent.count == 1 && sent.code == 0 && a->circuits[BREAKER_CLOSED] == 2);
  end_sim();
  printf("ok F68 three failures refuse all calls for 10 s, then one trial decides\n");
}

/* a, connected to b, which holds its requests; three timeouts have opened the circuit. */
static struct net_peer *opened(uint64_t seed) {
  static struct outcome o[4];
  begin_sim(seed, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  memset(o, 0, sizeof o);
  MUST(call(p, NET_DATA, "up", 1000, &o[3]) == 0);
  run_ms(100);
  b->mode = HOLD;
  for (int i = 0; i < 3; i++) MUST(call(p, NET_DATA, "?", 100, &o[i]) == 0);
  run_ms(200);
  MUST(a->circuits[BREAKER_OPEN] == 1);
  return p;
}

static void control_passes_an_open_circuit(void) {
  struct net_peer *p = opened(70);
  struct node *a = &nodes[0], *b = &nodes[1];
  struct outcome refused = {0}, cancel = {0}, silent = {0}, told = {0}, after = {0};
  MUST(call(p, NET_DATA, "?", 1000, &refused) == ERR_CIRCUIT && call(p, NET_DISPATCH, "?", 1000, &refused) == ERR_CIRCUIT);
  MUST(call(p, NET_TELEMETRY, "?", 1000, &refused) == ERR_CIRCUIT);
  /* One that is not answered changes nothing; nor does one that wants no answer. */
  MUST(call(p, NET_CONTROL, "c", 100, &silent) == 0 && net_send(p, 2, NET_CONTROL, "s", 1, on_outcome, &told, NULL) == 0);
  run_ms(200);
  MUST(silent.code == ERR_TIMEOUT && told.count == 1 && told.code == 0 && b->told == 1);
  MUST(call(p, NET_DATA, "?", 1000, &refused) == ERR_CIRCUIT && a->circuits[BREAKER_CLOSED] == 0 && a->circuits[BREAKER_OPEN] == 1);
  b->mode = ECHO; /* An answer closes it, long before its 10 s are over. */
  MUST(call(p, NET_CONTROL, "c", 1000, &cancel) == 0);
  run_ms(10);
  MUST(cancel.count == 1 && cancel.code == 0 && a->circuits[BREAKER_CLOSED] == 1 && a->circuits[BREAKER_HALF_OPEN] == 0);
  MUST(call(p, NET_DATA, "?", 1000, &after) == 0);
  run_ms(10);
  MUST(after.code == 0 && net_counts(a->net)->drops[NET_CONTROL][NET_DROP_CIRCUIT] == 0);
  end_sim();
  printf("ok F68 control passes an open circuit, and its answer closes it\n");
}

static void a_trial_that_control_forestalled_decides_nothing(void) {
  struct net_peer *p = opened(71);
  struct node *a = &nodes[0], *b = &nodes[1];
  struct outcome trial = {0}, cancel = {0}, o[3] = {0}, second = {0}, third = {0};
  run_ms(10000);
  MUST(a->circuits[BREAKER_HALF_OPEN] == 1 && call(p, NET_DATA, "t", 60000, &trial) == 0);
  b->mode = ECHO;
  MUST(call(p, NET_CONTROL, "c", 1000, &cancel) == 0);
  run_ms(10);
  MUST(cancel.code == 0 && cancel.count == 1 && a->circuits[BREAKER_CLOSED] == 1 && trial.count == 1); /* Both were answered. */
  end_sim();
  p = opened(73), a = &nodes[0], b = &nodes[1];
  trial = cancel = (struct outcome){0};
  run_ms(10000);
  b->held_count = 0;
  MUST(call(p, NET_DATA, "t", 60000, &trial) == 0 && call(p, NET_CONTROL, "c", 60000, &cancel) == 0);
  run_ms(10);
  MUST(b->held_count == 2 && net_reply(b->net, &b->held[0], "c", 1) == 0); /* Control came first. */
  run_ms(10);
  MUST(cancel.count == 1 && trial.count == 0 && a->circuits[BREAKER_CLOSED] == 1);
  for (int i = 0; i < 3; i++) MUST(call(p, NET_DATA, "?", 100, &o[i]) == 0); /* It opens again, and tries again. */
  run_ms(200);
  MUST(a->circuits[BREAKER_OPEN] == 2);
  run_ms(10000);
  MUST(a->circuits[BREAKER_HALF_OPEN] == 2 && net_reply(b->net, &b->held[1], "t", 1) == 0);
  run_ms(10);
  MUST(trial.count == 1 && trial.code == 0 && a->circuits[BREAKER_CLOSED] == 1); /* The old trial proves nothing by now. */
  b->mode = ECHO;
  MUST(call(p, NET_DATA, "2", 1000, &second) == 0 && call(p, NET_DATA, "3", 1000, &third) == ERR_CIRCUIT);
  run_ms(10);
  MUST(second.code == 0 && a->circuits[BREAKER_CLOSED] == 2);
  end_sim();
  printf("ok F68 once control has closed a circuit, the trial of before decides nothing\n");
}

static void control_dials_at_once(void) {
  begin_sim(74, 2);
  struct node *a = open_node(0, NULL);
  struct net_peer *p = peer_of(a, &nodes[1]);
  for (int i = 0; i < 3; i++) {
    struct outcome o = {0};
    MUST(call(p, NET_DATA, "?", 60000, &o) == 0);
    run_ms(2100);
  }
  MUST(a->circuits[BREAKER_OPEN] == 1 && net_counts(a->net)->dials == 3);
  struct outcome o = {0}, again[50] = {0};
  MUST(call(p, NET_CONTROL, "c", 5000, &o) == 0);
  run_ms(10);
  MUST(o.count == 1 && o.code == -ECONNREFUSED && net_counts(a->net)->dials == 4);
  for (int i = 0; i < 50; i++) { /* A caller that repeats it makes us dial twice a second, not at each. */
    (void)call(p, NET_CONTROL, "c", 5000, &again[i]);
    run_ms(20);
  }
  MUST(net_counts(a->net)->dials >= 5 && net_counts(a->net)->dials <= 6);
  struct outcome served = {0};
  open_node(1, NULL);
  MUST(call(p, NET_CONTROL, "c", 5000, &served) == 0);
  run_ms(510);
  MUST(served.count == 1 && served.code == 0 && a->circuits[BREAKER_CLOSED] == 1);
  end_sim();
  printf("ok F68 control to a peer behind an open circuit dials, at most every half second\n");
}

static void a_trial_dials_at_once(void) {
  struct net_options slow = {.breaker = {1, ms(30000), ms(10000)}, .backoff = {ms(300000), ms(300000), 2}}; /* A wait of 30 s or more. */
  begin_sim(80, 2);
  struct node *a = open_node(0, &slow);
  struct net_peer *p = peer_of(a, &nodes[1]);
  struct outcome first = {0}, trial = {0};
  MUST(call(p, NET_DATA, "?", 60000, &first) == 0);
  run_ms(10100);
  MUST(first.code == -ECONNREFUSED && a->circuits[BREAKER_HALF_OPEN] == 1);
  open_node(1, NULL);
  run_ms(1000);
  MUST(a->ups == 0 && call(p, NET_DATA, "?", 60000, &trial) == 0);
  run_ms(10);
  MUST(trial.count == 1 && trial.code == 0);
  end_sim();
  printf("ok F68 a trial does not wait for the backoff of its peer's dialling\n");
}

static void a_failure_while_dialling_counts_once(void) {
  begin_sim(75, 2);
  struct node *a = open_node(0, NULL);
  struct net_peer *p = peer_of(a, &nodes[1]);
  struct outcome o[20] = {0};
  sim_cut(sim, nodes[0].machine, nodes[1].machine, true); /* Nothing comes back: the dial lasts its 5 s. */
  for (int i = 0; i < 20; i++) {
    MUST(call(p, NET_DATA, "?", 200, &o[i]) == 0); /* Each times out while it is being dialled. */
    run_ms(210);
    MUST(o[i].code == ERR_TIMEOUT);
  }
  MUST(a->circuits[BREAKER_OPEN] == 0 && a->downs == 0);
  run_ms(1000);
  MUST(a->downs == 1 && a->circuits[BREAKER_OPEN] == 0); /* The dial itself is one failure. */
  end_sim();
  printf("ok F68 what times out while its peer is being dialled is no failure beside the dial's own\n");
}

/* b's process ends and another one begins at its address. */
static void restart(struct node *b) {
  net_close(b->net);
  run_ms(100);
  MUST(b->closed == 1);
  b->closed = 0;
  open_node(1, NULL);
}

static void a_new_life_closes_the_circuit(void) {
  /* It greets us when it dials us: at once. */
  struct net_peer *p = opened(76);
  struct node *a = &nodes[0], *b = &nodes[1];
  struct outcome hello = {0}, o = {0};
  restart(b);
  b->mode = ECHO;
  run_ms(1000);
  MUST(call(p, NET_DATA, "?", 1000, &o) == ERR_CIRCUIT);
  MUST(call(peer_of(b, a), NET_DATA, "hello", 1000, &hello) == 0);
  run_ms(100);
  MUST(a->circuits[BREAKER_CLOSED] == 1 && a->circuits[BREAKER_HALF_OPEN] == 0);
  MUST(call(p, NET_DATA, "?", 1000, &o) == 0);
  run_ms(100);
  MUST(o.count == 1 && o.code == 0);
  end_sim();
  /* If the same process contacts us, it gets one trial and no more. */
  p = opened(77), a = &nodes[0], b = &nodes[1];
  hello = o = (struct outcome){0};
  net_peer_close(b->inbound);
  run_ms(100);
  MUST(call(peer_of(b, a), NET_DATA, "hello", 1000, &hello) == 0);
  run_ms(1000);
  MUST(a->circuits[BREAKER_HALF_OPEN] == 1 && a->circuits[BREAKER_CLOSED] == 0);
  struct outcome second = {0};
  b->mode = ECHO;
  MUST(call(p, NET_DATA, "?", 1000, &o) == 0 && call(p, NET_DATA, "?", 1000, &second) == ERR_CIRCUIT);
  run_ms(100);
  MUST(o.code == 0 && a->circuits[BREAKER_CLOSED] == 1);
  end_sim();
  /* We dial again when the circuit is half-open, and the greeting is another life's: no trial is needed. */
  p = opened(78), a = &nodes[0], b = &nodes[1];
  restart(b);
  run_ms(11000);
  MUST(a->ups == 2 && a->circuits[BREAKER_CLOSED] == 1);
  end_sim();
  p = opened(79), a = &nodes[0], b = &nodes[1];
  net_peer_close(b->inbound);
  run_ms(11000);
  MUST(a->ups == 2 && a->circuits[BREAKER_CLOSED] == 0 && a->circuits[BREAKER_HALF_OPEN] == 1);
  (void)p;
  end_sim();
  printf("ok F68 another life of a peer closes its circuit as soon as it greets; the same life does not\n");
}

/* ---- probes: net_hurry ---- */

static int probe(struct net_peer *p, uint64_t timeout_ms, struct outcome *o) {
  net_hurry(p);
  return call(p, NET_CONTROL, "p", timeout_ms, o);
}

/* Probe each 2 s while the two are cut; then heal them, and return how long it takes until a probe is answered. */
static uint64_t heal_after(uint64_t cut_ms, uint64_t seed, uint32_t *most_dials) {
  static struct outcome o[4096];
  memset(o, 0, sizeof o);
  begin_sim(seed, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  int count = 0;
  for (int i = 0; i < 3; i++, run_ms(2000)) MUST(probe(p, 10000, &o[count++]) == 0);
  MUST(o[2].code == 0 && o[2].count == 1 && a->ups == 1);
  sim_cut(sim, a->machine, b->machine, true), sim_cut(sim, b->machine, a->machine, true);
  uint64_t cut_ns = sim_now_ns(sim), healed_ns = 0, last_ns = cut_ns;
  for (uint64_t ran = 0; healed_ns == 0 || sim_now_ns(sim) - healed_ns < ms(30000); ran += 10) {
    if (sim_now_ns(sim) - last_ns >= ms(2000)) MUST(probe(p, 10000, &o[count++]) == 0 && (last_ns = sim_now_ns(sim)));
    run_ms(10);
    if (healed_ns == 0 && ran >= cut_ms) {
      sim_cut(sim, a->machine, b->machine, false), sim_cut(sim, b->machine, a->machine, false);
      healed_ns = sim_now_ns(sim);
      *most_dials = (uint32_t)net_counts(a->net)->dials;
    }
    if (healed_ns && o[count - 1].count && o[count - 1].code == 0) break;
    if (healed_ns && count > 1 && o[count - 2].count && o[count - 2].code == 0 && o[count - 2].at_ns > healed_ns) break;
  }
  uint64_t took_ns = sim_now_ns(sim) - healed_ns;
  end_sim();
  return took_ns;
}

static void a_probe_finds_a_way_within_one_interval_of_healing(void) {
  uint64_t worst = 0;
  for (uint64_t i = 0; i < 40; i++) {
    uint32_t dials = 0;
    uint64_t cut_ms = 9000 + 1370 * i, took = heal_after(cut_ms, 90 + i, &dials);
    worst = took > worst ? took : worst;
    MUST(took <= ms(2000 + 50));
    MUST(dials <= 2 + cut_ms / 2000); /* One each probe, not more. */
  }
  printf("ok F14 probes each 2 s: after cuts of 9 to 62 s the longest wait for an answer was %.2f s\n", (double)worst / 1e9);
}

static void a_probe_does_not_wait_for_a_redial_backoff(void) {
  begin_sim(91, 2);
  struct node *a = open_node(0, NULL), *b = &nodes[1];
  struct net_peer *p = peer_of(a, b);
  struct outcome o[12] = {0}, plain = {0};
  for (int i = 0; i < 10; i++) { /* Nobody listens there: the backoff grows to 30 s, and the circuit opens. */
    MUST(probe(p, 1000, &o[i]) == 0);
    run_ms(2000);
    MUST(o[i].count == 1 && o[i].code == -ECONNREFUSED && net_counts(a->net)->dials == (uint64_t)i + 1);
  }
  open_node(1, NULL);
  MUST(call(p, NET_DATA, "?", 1000, &plain) == ERR_CIRCUIT);
  MUST(probe(p, 1000, &o[10]) == 0);
  run_ms(10);
  MUST(o[10].count == 1 && o[10].code == 0 && a->ups == 1 && a->circuits[BREAKER_CLOSED] == 1); /* Its answer closes it. */
  end_sim();
  /* With an open circuit, control dials by itself after the shortest backoff. With a closed one, or a long backoff, only the probe does. */
  for (uint32_t failures = 1; failures <= 9; failures += 8) {
    struct net_options slow = {.breaker = {failures, ms(60000), ms(10000)}, .backoff = {ms(300000), ms(300000), 2}}; /* 30 s or more. */
    begin_sim(92, 2);
    a = open_node(0, &slow);
    p = peer_of(a, b);
    memset(o, 0, sizeof o);
    MUST(probe(p, 1000, &o[0]) == 0);
    run_ms(2000);
    MUST(o[0].count == 1 && o[0].code == -ECONNREFUSED);
    open_node(1, NULL);
    MUST(call(p, NET_CONTROL, "?", 1000, &o[1]) == 0);
    run_ms(2000);
    MUST(o[1].count == 1 && o[1].code == ERR_TIMEOUT && net_counts(a->net)->dials == 1);
    MUST(probe(p, 1000, &o[2]) == 0);
    run_ms(10);
    MUST(o[2].count == 1 && o[2].code == 0 && a->ups == 1 && net_counts(a->net)->dials == 2);
    end_sim();
  }
  printf("ok F14, F68 a probe waits for no redial backoff and no circuit\n");
}

static void a_silent_connection_is_kept_while_it_may_be_alive(void) {
  begin_sim(92, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct net_peer *p = peer_of(a, b);
  static struct outcome o[64];
  memset(o, 0, sizeof o);
  MUST(probe(p, 1000, &o[0]) == 0);
  run_ms(100);
  b->mode = IGNORE; /* It hears and does not answer: the keepalive's answers are heard. */
  for (int i = 1; i < 20; i++) {
    MUST(probe(p, 9000, &o[i]) == 0);
    run_ms(200); /* Many probes within 5 s, */
  }
  MUST(a->downs == 0);
  b->mode = ECHO;
  MUST(probe(p, 9000, &o[20]) == 0);
  run_ms(8000); /* and a few after a long time: we were stalled, and its bytes may wait in our socket. */
  MUST(o[20].code == 0);
  b->mode = IGNORE;
  for (int i = 21; i < 24; i++) {
    MUST(probe(p, 9000, &o[i]) == 0);
    run_ms(100);
  }
  MUST(a->downs == 0);
  MUST(probe(p, 9000, &o[24]) == 0); /* The fourth gives it up. */
  run_ms(100);
  MUST(a->downs == 1 && a->ups == 2 && strstr(a->down_text, "nothing heard for 8"));
  end_sim();
  printf("ok F14 a connection that is silent for less than 5 s, or for fewer than 3 probes, is kept\n");
}

static void a_peer_that_dialled_us_is_never_given_up(void) {
  begin_sim(93, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct outcome up = {0}, o[8] = {0};
  MUST(call(peer_of(b, a), NET_DATA, "up", 1000, &up) == 0);
  run_ms(100);
  MUST(a->inbound);
  b->mode = IGNORE;
  for (int i = 0; i < 8; i++) {
    MUST(probe(a->inbound, 9000, &o[i]) == 0);
    run_ms(1500);
  }
  MUST(a->downs == 0 && a->gones == 0);
  end_sim();
  printf("ok F14 a connection that the other side made is not given up\n");
}

static const struct property properties[] = {
    PROPERTY(a_probe_finds_a_way_within_one_interval_of_healing),
    PROPERTY(a_probe_does_not_wait_for_a_redial_backoff),
    PROPERTY(a_silent_connection_is_kept_while_it_may_be_alive),
    PROPERTY(a_peer_that_dialled_us_is_never_given_up),
    PROPERTY(circuit_and_backoff),
    PROPERTY(control_passes_an_open_circuit),
    PROPERTY(a_trial_that_control_forestalled_decides_nothing),
    PROPERTY(control_dials_at_once),
    PROPERTY(a_trial_dials_at_once),
    PROPERTY(a_failure_while_dialling_counts_once),
    PROPERTY(a_new_life_closes_the_circuit),
};

int main(int argc, char **argv) { return run_properties(argc, argv, properties, sizeof properties / sizeof *properties); }
