/* tables: the streams over which core/swim sends long tables, on a world. It listens, and executes SWIM_STREAM_OPEN, _SEND and
 * _CLOSE. The core numbers the streams. Results come as events; only `ended` can come during tables_do().
 * At most 32 streams are open at once. A connection beyond that is closed, and with it all streams that the core has finished. */
#ifndef SHOAL_DRIVE_TABLES_H
#define SHOAL_DRIVE_TABLES_H

#include "core/swim.h"
#include "world/world.h"

struct tables;
struct tables_events { /* They match swim_stream_opened() and so on. Bytes come in pieces of at most SWIM_DATAGRAM_MAX. */
  void (*opened)(void *data, uint32_t stream);
  uint32_t (*accepted)(void *data, const struct shoal_address *from);
  void (*received)(void *data, uint32_t stream, const uint8_t *bytes, size_t length);
  void (*ended)(void *data, uint32_t stream);
  void (*error)(void *data, int code); /* An accept failed. */
  world_closed_fn *closed;             /* Once, after tables_close(). */
};

/* Listens at the host of `at`, at its port if that is free for streams, else at any. 0, or the world's code. */
int tables_open(struct shoal_world *world, const struct shoal_address *at, const struct tables_events *events, void *data,
                struct tables **out);
uint16_t tables_port(const struct tables *t);
void tables_do(struct tables *t, const struct swim_action *action);
void tables_close(struct tables *t);
void tables_abandon(struct tables *t); /* The world is gone without a closed event: free it. */

#endif
