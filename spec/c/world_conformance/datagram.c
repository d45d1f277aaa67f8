/* Datagrams. */
#include <stdlib.h>

#include "harness.h"

struct socket {
  struct world_udp *udp;
  struct shoal_address at, from;
  int received, errors, closed;
  size_t length;
  uint64_t mismatches;
  bool close_on_datagram, shut, answer;
};

static void on_datagram(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length) {
  struct socket *s = data;
  EVENT();
  CHECK(!s->shut);
  s->received++;
  s->from = *from;
  s->length = length;
  for (size_t i = 0; i < length; i++) s->mismatches += bytes[i] != pattern(i);
  if (s->answer) SAME(ASK(world_udp_send(s->udp, from, bytes, length)), 0);
  if (s->close_on_datagram) {
    s->shut = true;
    CALL(world_udp_close(s->udp));
    CALL(world_udp_close(s->udp));
  }
}
static void on_error(void *data, int code) {
  (void)code;
  EVENT();
  ((struct socket *)data)->errors++;
}
static void on_closed(void *data) {
  EVENT();
  ((struct socket *)data)->closed++;
}
static const struct world_udp_events EVENTS = {.on_datagram = on_datagram, .on_error = on_error, .on_closed = on_closed};

static uint8_t large[WORLD_DATAGRAM_MAX + 1];

static void open_socket(struct socket *s) {
  SAME(ASK(world_udp_open(W, &HERE, &EVENTS, s, &s->udp)), 0);
  world_udp_address(s->udp, &s->at);
  CHECK(s->at.port != 0);
  for (size_t i = 0; i < sizeof large; i++) large[i] = pattern(i);
}
static void close_socket(struct socket *s) {
  if (!s->shut) CALL(world_udp_close(s->udp));
  s->shut = true;
  UNTIL(s->closed);
  settle(3);
  SAME(s->closed, 1);
  SAME(s->mismatches, 0);
}
static int send_bytes(struct socket *from, struct socket *to, size_t length) {
  return ASK(world_udp_send(from->udp, &to->at, large, length));
}

static void there_and_back(void) {
  struct socket a = {0}, b = {.answer = true};
  open_socket(&a);
  open_socket(&b);
  SAME(send_bytes(&a, &b, 100), 0);
  UNTIL(a.received == 1);
  SAME(b.received, 1);
  SAME(a.length, 100);
  CHECK(address_equal(&a.from, &b.at) && address_equal(&b.from, &a.at));
  close_socket(&a);
  close_socket(&b);
}

static void empty_one(void) {
  struct socket a = {.length = 7};
  open_socket(&a);
  SAME(send_bytes(&a, &a, 0), 0);
  UNTIL(a.received == 1);
  SAME(a.length, 0);
  close_socket(&a);
}

static void largest(void) {
  struct socket a = {0};
  open_socket(&a);
  SAME(send_bytes(&a, &a, WORLD_DATAGRAM_MAX + 1), ERR_TOO_LARGE);
  SAME(send_bytes(&a, &a, WORLD_DATAGRAM_MAX), 0);
  UNTIL(a.received == 1);
  SAME(a.length, WORLD_DATAGRAM_MAX);
  settle(5);
  SAME(a.received, 1);
  SAME(a.errors, 0);
  close_socket(&a);
}

static void port_taken(void) {
  struct socket a = {0};
  struct world_udp *second = NULL;
  struct world_telemetry told;
  open_socket(&a);
  SAME(ASK(world_udp_open(W, &a.at, &EVENTS, NULL, &second)), -EADDRINUSE);
  CHECK(!second);
  world_telemetry(W, &told);
  SAME(told.open_handles, 1);
  close_socket(&a);
  struct socket again = {0}; /* Free again once closed. */
  SAME(ASK(world_udp_open(W, &a.at, &EVENTS, &again, &again.udp)), 0);
  close_socket(&again);
}

static void closed_within_a_batch(void) {
  struct socket a = {0}, b = {.close_on_datagram = true};
  open_socket(&a);
  open_socket(&b);
  for (int i = 0; i < 10; i++) SAME(send_bytes(&a, &b, 20), 0);
  UNTIL(b.closed);
  settle(10);
  SAME(b.received, 1);
  close_socket(&a);
  close_socket(&b);
}

static void many(void) {
  struct socket a = {0}, b = {0};
  open_socket(&a);
  open_socket(&b);
  for (int i = 0; i < 200; i++) SAME(send_bytes(&a, &b, 1400), 0);
  UNTIL(b.received == 200);
  settle(5);
  SAME(b.received, 200);
  close_socket(&a);
  close_socket(&b);
}

static void to_nobody(void) {
  struct socket a = {0};
  struct shoal_address nobody = HERE, none = {0};
  nobody.port = 9;
  open_socket(&a);
  SAME(ASK(world_udp_send(a.udp, &nobody, "x", 1)), 0);
  SAME(ASK(world_udp_send(a.udp, &none, "x", 1)), -EINVAL);
  settle(5);
  SAME(a.errors, 0);
  close_socket(&a);
}

static void after_close(void) {
  struct socket a = {0};
  open_socket(&a);
  SAME(send_bytes(&a, &a, 10), 0); /* In flight; no event may follow. */
  CALL(world_udp_close(a.udp));
  a.shut = true;
  SAME(send_bytes(&a, &a, 10), ERR_CLOSED);
  close_socket(&a);
  SAME(a.received, 0);
}

const struct test_case datagram_cases[] = {
    {"datagram: there and back, with the sender's address", there_and_back, 0},
    {"datagram: an empty one arrives", empty_one, 0},
    {"datagram: the largest arrives whole; one byte more is TOO_LARGE", largest, 0},
    {"datagram: a port taken is EADDRINUSE with nothing opened, and free after close", port_taken, 0},
    {"datagram: closed within a batch: nothing more", closed_within_a_batch, 0},
    {"datagram: two hundred at once all arrive on this host", many, 0},
    {"datagram: to a port where nobody listens is no error; to no address is", to_nobody, 0},
    {"datagram: after close a send is CLOSED and nothing arrives", after_close, 0},
    {NULL, NULL, 0},
};
