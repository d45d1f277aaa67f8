/* Mutated datagrams through the real decoder into a living core: swim_fuzz [count] [seed]. The corpus is what a small
 * cluster really sends. Half of the mutants get a right checksum, so that they reach what lies behind it. After each the
 * tables must agree, every refusal must be counted, and the core must go on: it still answers a right ping. Built with
 * libFuzzer (-DSHOAL_LIBFUZZER, -fsanitize=fuzzer) it is a target for that. */
#include "swim_net.h"

enum { CORPUS_MAX = 512 };
static struct { uint8_t bytes[SWIM_DATAGRAM_MAX]; size_t length; } corpus[CORPUS_MAX];
static uint32_t corpus_count;

static void collect(struct net *net, uint32_t from, uint32_t to, uint8_t type, const uint8_t *bytes, size_t length) {
  static uint32_t of_type[16];
  (void)net, (void)from, (void)to;
  if (corpus_count == CORPUS_MAX || of_type[type]++ >= CORPUS_MAX / 6) return;
  memcpy(corpus[corpus_count].bytes, bytes, length);
  corpus[corpus_count++].length = length;
}

static void make_corpus(void) {
  struct net *net = net_open(7, "lan");
  net->on_send = collect;
  set_loss(net, 0.1);
  for (uint32_t i = 0; i < 8; i++) net_add(net);
  for (uint32_t i = 1; i < 8; i++) join(net, i, 0);
  run(net, 5 * SECOND);
  for (uint32_t i = 0; i < 40; i++) /* So that there are gaps, and questions about them. */
    MUST(swim_tell(net->nodes[i % 3].swim, local_ns(net, &net->nodes[i % 3]), &i, sizeof i) == 0);
  for (uint32_t i = 0; i < 3; i++) settle(net, i);
  crash(net, 3);
  leave(net, 4);
  run(net, 20 * SECOND);
  MUST(net->sent[PING_REQ] > 0 && net->sent[GOSSIP] > 0 && net->sent[TABLE] > 0 && net->sent[SEEN] > 0);
  net_close(net);
}

static struct swim *target;
static struct shoal_address home = {.family = 4, .bytes = {10, 0, 9, 9}, .port = 7000};

static void open_target(uint64_t now_ns) {
  struct swim_config config;
  MUST(swim_config_profile("lan", &config) == 0);
  config.members_max = 12; /* Mutants make many names: the limit is met, too. */
  config.tombstone_ms = 20000;
  struct swim_identity id = {
      .name = "n7", .name_length = 2, .cluster = "spec", .cluster_length = 4, .address = home, .generation = 1000};
  MUST(swim_open(&config, &id, 5, now_ns, &target) == 0);
}

static void take(void) {
  struct swim_action a;
  unsigned taken = 0;
  while (swim_next(target, &a)) {
    MUST(++taken < 1000);
    if (a.kind != SWIM_SEND) continue;
    MUST(a.length <= SWIM_DATAGRAM_MAX && !address_equal(&a.to, &home));
    struct header header; /* We would accept our own datagrams. */
    struct reader r;
    MUST(swim_wire_open(&target->cluster, a.bytes, a.length, &header, &r) == 0);
  }
  swim_check(target);
  MUST(target->counts.dropped == 0);
}

static void feed(uint64_t now_ns, const uint8_t *bytes, size_t length, uint64_t *refused, uint64_t *taken) {
  uint8_t *exact = malloc(length + !length); /* A read past the end is then one past an allocation. */
  MUST(exact);
  if (length) memcpy(exact, bytes, length);
  uint64_t before = 0, after = 0;
  for (int i = 0; i < SWIM_REFUSALS_COUNT; i++) before += i == SWIM_REFUSED_FULL ? 0 : target->counts.refused[i];
  int rc = swim_receive(target, now_ns, &(struct shoal_address){.family = 4, .bytes = {10, 0, 0, 1}, .port = 7000}, exact,
                        length);
  for (int i = 0; i < SWIM_REFUSALS_COUNT; i++) after += i == SWIM_REFUSED_FULL ? 0 : target->counts.refused[i];
  MUST(rc == 0 || rc == ERR_MALFORMED || rc == ERR_REFUSED);
  MUST(after - before == (rc != 0));
  rc == 0 ? ++*taken : ++*refused;
  free(exact);
  take();
}

static size_t mutate(struct rng *rng, uint8_t *bytes, size_t length) {
  for (uint64_t n = rng_below(rng, 4); n > 0 && length > 0; n--) {
    uint64_t at = rng_below(rng, length), kind = rng_below(rng, 6);
    if (kind == 0) bytes[at] = (uint8_t)rng_next(rng);
    else if (kind == 1) bytes[at] ^= (uint8_t)(1u << rng_below(rng, 8));
    else if (kind == 2) bytes[at] = (uint8_t[]){0, 1, 0x7f, 0x80, 0xff}[rng_below(rng, 5)];
    else if (kind == 3) length = at;
    else if (kind == 4 && length < SWIM_DATAGRAM_MAX) memmove(bytes + at + 1, bytes + at, length++ - at);
    else if (kind == 5) memmove(bytes + at, bytes + at + 1, --length - at);
  }
  if (rng_below(rng, 2) && length >= 18) swim_wire_seal(bytes, length, &target->cluster);
  return length;
}

static void must_still_answer(uint64_t now_ns) {
  uint8_t bytes[SWIM_DATAGRAM_MAX];
  struct swim_member self;
  struct swim_action a;
  bool answered = false;
  struct writer w = writer_of(bytes, sizeof bytes);
  swim_self(target, &self);
  swim_wire_header(&w, &target->cluster, &(struct header){PING, 0x12345678, {7, 0}});
  write_u32(&w, 99);
  swim_wire_write_claim(&w, &(struct claim){swim_wire_key("n7", 2), self.incarnation, SWIM_ALIVE, 0});
  swim_wire_seal(bytes, (size_t)(w.at - bytes), &target->cluster);
  MUST(swim_receive(target, now_ns, &(struct shoal_address){.family = 4, .bytes = {10, 0, 0, 2}, .port = 7000}, bytes,
                    (size_t)(w.at - bytes)) == 0);
  while (swim_next(target, &a)) answered |= a.kind == SWIM_SEND && (a.bytes[2] & 15) == ACK;
  MUST(answered && self.state == SWIM_ALIVE);
}

#ifdef SHOAL_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  static uint64_t now_ns = 1000;
  uint8_t sealed[SWIM_DATAGRAM_MAX];
  uint64_t refused = 0, taken = 0;
  if (!target) open_target(now_ns);
  if (length > sizeof sealed || length < 18) return 0;
  memcpy(sealed, bytes, length);
  struct writer w = writer_of(sealed, 18); /* A header that is taken, with the type that was drawn. */
  swim_wire_header(&w, &target->cluster,
              &(struct header){(uint8_t)(1 + bytes[2] % 9), 1 + bytes[5] % 5u, {1000 + bytes[9] % 3u, 0}});
  swim_wire_seal(sealed, length, &target->cluster);
  feed(now_ns += MILLISECOND, sealed, length, &refused, &taken);
  swim_tick(target, now_ns);
  take();
  return 0;
}
#else
int main(int argc, char **argv) {
  uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000, now_ns = 5 * SECOND, refused = 0, taken = 0;
  struct rng rng;
  rng_seed(&rng, argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
  make_corpus();
  open_target(now_ns);
  for (uint64_t i = 0; i < count; i++) {
    uint8_t bytes[SWIM_DATAGRAM_MAX + 1];
    uint64_t which = rng_below(&rng, corpus_count);
    size_t length = corpus[which].length;
    memcpy(bytes, corpus[which].bytes, length);
    length = mutate(&rng, bytes, length);
    feed(now_ns, bytes, length, &refused, &taken);
    now_ns += rng_below(&rng, 20 * MILLISECOND);
    swim_tick(target, now_ns);
    take();
    if (i % 1000 == 999) must_still_answer(now_ns);
  }
  printf("%llu mutated datagrams: %llu refused, %llu taken\n", (unsigned long long)count, (unsigned long long)refused,
         (unsigned long long)taken);
  for (int i = 0; i < SWIM_REFUSALS_COUNT; i++)
    printf("  %-12s %10llu\n", swim_refusal_name((enum swim_refusal)i), (unsigned long long)target->counts.refused[i]);
  MUST(refused > count / 10 && taken > count / 10);
  swim_close(target);
  printf("ok\n");
  return 0;
}
#endif
