/* The floor of what a member costs: a libuv loop that sends one datagram a period to another, and answers one with one. No
 * table, no checksum, no deadline; the sizes are those of our PING and ACK with nothing to tell. Each member has its socket and
 * its timer; who is sent to goes in a shuffled order, as in SWIM. */
#include "membership_bench.h"

#include <arpa/inet.h>
#include <string.h>

enum { PING_BYTES = 32, ACK_BYTES = 26 };

struct bare {
  uv_udp_t udp;
  uv_timer_t timer;
  uint32_t index, next;
  uint32_t *order;
  uint64_t random;
  int parts;
};
static struct bare *members[BENCH_MEMBERS_MAX];
static char received[65536];

static uint32_t draw(struct bare *m, uint32_t below) {
  m->random = m->random * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((m->random >> 33) % below);
}

static void shuffle(struct bare *m) {
  for (uint32_t i = bench.n - 1; i > 0; i--) {
    uint32_t j = draw(m, i + 1), swap = m->order[i];
    m->order[i] = m->order[j];
    m->order[j] = swap;
  }
  m->next = 0;
}

static void send_to(struct bare *m, const struct sockaddr *to, char type, unsigned length) {
  char bytes[PING_BYTES] = {type};
  uv_buf_t buffer = uv_buf_init(bytes, length);
  (void)uv_udp_try_send(&m->udp, &buffer, 1, to); /* Lost, as any can be. */
}

static void on_timer(uv_timer_t *timer) {
  struct bare *m = timer->data;
  if (m->next == bench.n) shuffle(m);
  uint32_t target = m->order[m->next++];
  if (target == m->index) target = (target + 1) % bench.n;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(bench.port + target)),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  send_to(m, (const struct sockaddr *)&to, 'p', PING_BYTES);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
  (void)handle, (void)suggested;
  *out = uv_buf_init(received, sizeof received);
}

static void on_receive(uv_udp_t *udp, ssize_t length, const uv_buf_t *buffer, const struct sockaddr *from, unsigned flags) {
  (void)flags;
  if (length > 0 && from && buffer->base[0] == 'p') send_to(udp->data, from, 'a', ACK_BYTES);
}

void bare_start(uint32_t index) {
  struct bare *m = calloc(1, sizeof *m);
  BENCH_MUST(m && !members[index] && index < bench.n);
  m->order = calloc(bench.n, sizeof *m->order);
  BENCH_MUST(m->order);
  for (uint32_t i = 0; i < bench.n; i++) m->order[i] = i;
  m->index = index;
  m->random = uv_hrtime() ^ (uint64_t)uv_os_getpid() << 40 ^ index;
  (void)draw(m, 1);
  shuffle(m);
  uv_loop_t *loop = uv_default_loop();
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(bench.port + index)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  BENCH_MUST(uv_udp_init(loop, &m->udp) == 0 && uv_udp_bind(&m->udp, (const struct sockaddr *)&name, 0) == 0);
  BENCH_MUST(uv_udp_recv_start(&m->udp, on_alloc, on_receive) == 0);
  BENCH_MUST(uv_timer_init(loop, &m->timer) == 0);
  BENCH_MUST(uv_timer_start(&m->timer, on_timer, draw(m, bench.interval_ms), bench.interval_ms) == 0);
  m->udp.data = m->timer.data = m;
  members[index] = m;
  bench_say(index, "up", index);
}

static void on_closed(uv_handle_t *handle) {
  struct bare *m = handle->data;
  if (++m->parts < 2) return;
  free(m->order);
  free(m);
}

void bare_kill(uint32_t index) {
  struct bare *m = members[index];
  BENCH_MUST(m);
  members[index] = NULL;
  uv_close((uv_handle_t *)&m->udp, on_closed);
  uv_close((uv_handle_t *)&m->timer, on_closed);
  bench_say(index, "killed", index);
}
