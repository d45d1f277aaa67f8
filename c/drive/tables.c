#include "drive/tables.h"

#include <assert.h>
#include <stdlib.h>

enum { LINKS_MAX = 32 }; /* The core has fewer. The rest are being shut down, and make room when others come. */

struct link {
  struct tables *tables;
  struct link *next;
  struct world_stream *stream;
  uint32_t number; /* The core's; 0 once the core has finished with it. */
};
struct tables {
  struct shoal_world *world;
  const struct tables_events *events;
  void *data;
  struct world_listener *listener;
  struct link *links;
  uint16_t port;
  int open; /* Things of the world whose closed event is still to come. */
  bool closing;
};

static void let_go(struct tables *t) {
  if (--t->open > 0 || !t->closing) return;
  t->events->closed(t->data);
  free(t);
}

/* ---- events of one stream ---- */

/* Close it. The core gets `ended`, unless it has finished with the stream. */
static void end(struct link *l) {
  struct tables *t = l->tables;
  uint32_t number = l->number;
  l->number = 0;
  world_stream_close(l->stream);
  if (number && !t->closing) t->events->ended(t->data, number);
}

static void on_open(void *data, int status) {
  struct link *l = data;
  if (status < 0) end(l);
  else if (l->number && !l->tables->closing) l->tables->events->opened(l->tables->data, l->number);
}

static void on_read(void *data, const uint8_t *bytes, size_t length) {
  struct link *l = data;
  while (length > 0 && l->number && !l->tables->closing) { /* Each piece may end the stream. */
    size_t piece = length < SWIM_DATAGRAM_MAX ? length : SWIM_DATAGRAM_MAX;
    l->tables->events->received(l->tables->data, l->number, bytes, piece);
    bytes += piece, length -= piece;
  }
}

static void on_end(void *data, int status) {
  (void)status; /* The core asks again for a table that was cut short, for whatever reason. */
  end(data);
}

static void on_closed(void *data) {
  struct link *l = data, **at = &l->tables->links;
  struct tables *t = l->tables;
  while (*at != l) at = &(*at)->next;
  *at = l->next;
  free(l);
  let_go(t);
}

static const struct world_stream_events stream_events = {.on_open = on_open, .on_read = on_read, .on_end = on_end, .on_closed = on_closed};

static struct link *add(struct tables *t, uint32_t number) {
  struct link *l = calloc(1, sizeof *l);
  if (!l) return NULL;
  *l = (struct link){.tables = t, .next = t->links, .number = number};
  t->links = l;
  t->open++;
  return l;
}

static void drop(struct tables *t, struct link *l) { /* The newest one, which was never opened. */
  assert(t->links == l);
  t->links = l->next;
  t->open--;
  free(l);
}

/* ---- events of the listener ---- */

static void on_connection(void *data, struct world_stream *stream) {
  struct tables *t = data;
  struct shoal_address from;
  bool room = t->open <= LINKS_MAX;
  for (struct link *old = room ? NULL : t->links; old; old = old->next)
    if (old->number == 0) world_stream_close(old->stream);
  struct link *l = room && !t->closing && world_stream_peer(stream, &from) ? add(t, 0) : NULL;
  if (!l) {
    world_stream_close(stream);
    return;
  }
  l->stream = stream;
  world_stream_attach(stream, &stream_events, l);
  l->number = t->events->accepted(t->data, &from);
  if (l->number == 0) world_stream_close(stream);
}

static void on_listen_error(void *data, int code) {
  struct tables *t = data;
  if (!t->closing) t->events->error(t->data, code);
}

static void on_listener_closed(void *data) { let_go(data); }

/* ---- the seam ---- */

int tables_open(struct shoal_world *world, const struct shoal_address *at, const struct tables_events *events, void *data,
                struct tables **out) {
  static const struct world_listener_events listener_events = {on_connection, on_listen_error, on_listener_closed};
  struct tables *t = calloc(1, sizeof *t);
  if (!t) return ERR_MEMORY;
  *t = (struct tables){.world = world, .events = events, .data = data, .open = 1};
  struct shoal_address any = *at, bound;
  any.port = 0;
  int rc = world_listen(world, at, &listener_events, t, &t->listener);
  if (rc < 0) rc = world_listen(world, &any, &listener_events, t, &t->listener); /* The node's own transport may have that port. */
  if (rc < 0) {
    free(t);
    return rc;
  }
  world_listener_address(t->listener, &bound);
  t->port = bound.port;
  *out = t;
  return 0;
}

uint16_t tables_port(const struct tables *t) { return t->port; }

static struct link *find(const struct tables *t, uint32_t number) {
  for (struct link *l = t->links; l; l = l->next)
    if (l->number == number) return l;
  return NULL;
}

static void connect_to(struct tables *t, const struct swim_action *a) {
  struct link *l = add(t, a->stream);
  int rc = l ? world_connect(t->world, &a->to, &stream_events, l, &l->stream) : ERR_MEMORY;
  if (rc == 0) return;
  if (l) drop(t, l);
  t->events->ended(t->data, a->stream);
}

void tables_do(struct tables *t, const struct swim_action *a) {
  struct link *l = a->kind == SWIM_STREAM_OPEN ? NULL : find(t, a->stream);
  if (a->kind == SWIM_STREAM_OPEN) {
    connect_to(t, a);
  } else if (l && a->kind == SWIM_STREAM_SEND) {
    struct world_buffer buffer = {a->bytes, a->length};
    if (world_stream_write(l->stream, &buffer, 1) < 0) end(l);
  } else if (l && a->kind == SWIM_STREAM_CLOSE) {
    l->number = 0;
    if (world_stream_shutdown(l->stream) < 0) world_stream_close(l->stream); /* Else it ends when the other side has finished. */
  }
}

void tables_close(struct tables *t) {
  if (t->closing) return;
  t->closing = true;
  world_listener_close(t->listener);
  for (struct link *l = t->links; l; l = l->next) world_stream_close(l->stream);
}

void tables_abandon(struct tables *t) {
  for (struct link *l = t->links, *next; l; l = next) next = l->next, free(l);
  free(t);
}
