/* The transport without memory, in virtual time: allocations of c/net that fail on demand (the linker wraps them: CMakeLists.txt).
 * Prints one line a property; exits 1 at the first that does not hold. */
#include "net_raw.h"

static size_t fails_from; /* An allocation of this size or more fails; 0: none fails. */
static int failed;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails(size_t size) {
  if (!fails_from || size < fails_from) return false;
  failed++;
  return true;
}
void *__wrap_malloc(size_t size) { return fails(size) ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails(count * size) ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *old, size_t size) { return fails(size) ? NULL : __real_realloc(old, size); }

static struct raw raw;
static uint8_t body[300000];

/* Lets nothing allocate `size` bytes or more while these milliseconds go by. */
static void starve_ms(uint64_t n, size_t size) {
  fails_from = size;
  run_ms(n);
  fails_from = 0;
}

static void messages(void) {
  struct frame f;
  char name[FRAME_NAME_MAX + 1], text[FRAME_TEXT_MAX + 1];
  begin_sim(1, 2);
  struct node *a = open_node(0, NULL);
  raw_connect(&raw, 1, a);
  run_ms(3);
  raw_hello(&raw);
  run_ms(3);
  raw_frame(&raw, 1, 2, FRAME_REQUEST, 7, FRAME_BODY_MAX, FRAME_BODY_MAX);
  run_ms(3);
  failed = 0;
  raw_frame(&raw, 1, 2, FRAME_REQUEST, 7, FRAME_BODY_MAX, FRAME_BODY_MAX);
  starve_ms(5, 100000);
  MUST(failed > 0 && net_counts(a->net)->refused[NET_REFUSED_MEMORY] == 1 && net_counts(a->net)->faults[FRAME_FAULT_MESSAGE] == 0);
  run_ms(5);
  MUST(raw_refusal(&raw, &f, name, text) && strcmp(name, "FULL") == 0 && f.id == 7);
  MUST(strstr(text, "out of memory for this message; try again in 1000 ms"));
  MUST(a->downs == 0 && net_counts(a->net)->assembly_bytes == 0);
  raw_frame(&raw, 1, 2, FRAME_REQUEST | FRAME_LAST, 7, 1, 1);
  raw_frame(&raw, 1, 2, FRAME_REQUEST | FRAME_LAST, 8, 1, 1);
  run_ms(5);
  MUST(a->requests == 1 && a->downs == 0);
  /* In the control lane the connection ends, and not for a fault of the peer's. */
  raw_frame(&raw, 1, 0, FRAME_REQUEST, 9, 5000, 5000);
  starve_ms(5, 5000);
  run_ms(5);
  MUST(a->downs == 1 && a->down_code == ERR_MEMORY && strstr(a->down_text, "out of memory"));
  MUST(raw_refusal(&raw, &f, name, text) && f.type == FRAME_BYE && strcmp(name, "FULL") == 0);
  world_stream_close(raw.stream);
  end_sim();
  printf("ok F05 without memory a message is refused as FULL, counted, and not held against its sender\n");
}

static void connections(void) {
  begin_sim(2, 2);
  struct node *a = open_node(0, NULL);
  raw_connect(&raw, 1, a);
  starve_ms(3, 1400); /* A peer is larger. */
  MUST(net_counts(a->net)->refused[NET_REFUSED_MEMORY] == 1 && net_counts(a->net)->accepted == 0);
  run_ms(5);
  MUST(raw.ended == 1);
  world_stream_close(raw.stream);
  raw_connect(&raw, 1, a);
  run_ms(5);
  raw_hello(&raw);
  run_ms(5);
  MUST(a->ups == 1);
  world_stream_close(raw.stream);
  end_sim();
  printf("ok F05 without memory a connection is closed and counted\n");
}

static void our_own(void) {
  begin_sim(3, 2);
  struct node *a = open_node(0, NULL), *b = open_node(1, NULL);
  struct outcome up = {0}, refused = {0}, asked = {0}, later = {0};
  MUST(call(peer_of(a, b), NET_DATA, "up", 1000, &up) == 0);
  run_ms(10);
  fails_from = 100000;
  MUST(net_call(peer_of(a, b), 1, NET_DATA, body, 200000, ms(1000), on_outcome, &refused, NULL) == ERR_MEMORY);
  fails_from = 0;
  b->mode = HOLD;
  MUST(call(peer_of(a, b), NET_DATA, "x", 60000, &asked) == 0);
  run_ms(10);
  fails_from = 100000;
  MUST(net_reply(b->net, &b->held[0], body, 200000) == ERR_MEMORY);
  fails_from = 0;
  run_ms(10);
  MUST(refused.count == 0 && asked.count == 1 && asked.code == ERR_OVERLOADED); /* The caller gets the refusal instead of waiting. */
  MUST(net_counts(b->net)->unanswered == 0);
  struct outcome never = {0};
  MUST(call(peer_of(a, b), NET_TELEMETRY, "x", 100, &never) == 0); /* Not even the refusal finds memory: its lane is new. */
  run_ms(10);
  fails_from = 1;
  MUST(net_reply(b->net, &b->held[1], "x", 1) == ERR_MEMORY);
  fails_from = 0;
  run_ms(200);
  MUST(never.code == ERR_TIMEOUT && net_counts(b->net)->unanswered == 0 && net_counts(b->net)->unsent_replies == 1);
  b->mode = ECHO;
  MUST(net_call(peer_of(a, b), 1, NET_DATA, body, 200000, ms(1000), on_outcome, &later, NULL) == 0);
  run_ms(500);
  MUST(later.count == 1 && later.code == 0);
  end_sim();
  printf("ok without memory a call is refused with nothing changed, and an answer that does not fit is one that its asker hears of\n");
}

static const struct property properties[] = {PROPERTY(messages), PROPERTY(connections), PROPERTY(our_own)};

int main(int argc, char **argv) { return run_properties(argc, argv, properties, sizeof properties / sizeof *properties); }
