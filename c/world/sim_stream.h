/* sim_stream: what sim_stream.c (the kernels and the wire) and sim_socket.c (what a process holds) share. */
#ifndef SHOAL_WORLD_SIM_STREAM_H
#define SHOAL_WORLD_SIM_STREAM_H

#include "world/sim_private.h"

enum sim_kind { SYN, SYNACK, REFUSED, ACK, DATA, FIN, RST, LOST }; /* LOST: never got through; the kernels give up. */

enum sim_state {
  CONNECTING, /* Side 0 only. */
  EMBRYO,     /* Side 1, until it is accepted. */
  OPEN,
  CLOSED, /* The process closed it; its kernel answers with RST. */
  DEAD,   /* The machine crashed; when it is up again its kernel answers with RST. */
  ADRIFT, /* As DEAD, and no machine has its address now: no answer ever. */
};

struct sim_segment {
  struct sim_segment *next, *previous;
  uint64_t due_ns, sent_ns;
  enum sim_kind kind;
  uint32_t length, capacity;
  uint8_t bytes[];
};
enum { SEGMENT_BYTES_MAX = WORLD_READ_MAX - sizeof(struct sim_segment) }; /* So that a full one is a power of two. */

struct sim_fifo {
  struct sim_segment *first, *last;
};

struct sim_flow {
  struct sim_connection *connection;
  int side; /* The sender's. */
  struct sim_fifo queue;  /* The sender's own, for want of room in the window. */
  struct sim_fifo flight; /* On the wire, or standing. */
  struct sim_fifo unread; /* Arrived. */
  size_t queued_bytes, flying_bytes, unread_bytes, window_bytes;
  uint64_t standing_ns;
  struct sim_event arrive, room;
  bool standing; /* Since standing_ns. */
  bool finish;   /* FIN follows the queue. */
  bool finished; /* FIN was sent: nothing follows. */
  bool reset;    /* So was RST, or the end was broken: nothing at all follows. */
  bool ended;    /* FIN arrived. */
};

struct sim_end {
  struct sim_connection *connection;
  int side;
  enum sim_state state;
  struct sim_stream *stream; /* NULL: none yet, or no more. */
  struct sim_node *node;
  struct shoal_address address;
  struct sim_end *next, *previous; /* Of its node. */
};

struct sim_connection {
  struct sim *sim;
  bool pipe;
  bool sink; /* A pipe to a plain child, which takes all it is given. */
  struct sim_end ends[2];
  struct sim_flow flows[2]; /* flows[i] runs from end i. */
  struct sim_event timeout; /* Of the connect. */
};

struct sim_stream {
  union {
    struct world_stream base;
    struct sim_thing thing;
  };
  struct sim_connection *connection; /* NULL once closed. */
  int side;
  struct shoal_address peer; /* Family 0: a pipe. */
  struct world_stream_events events;
  struct sim_event wake; /* Armed when one of the following is to be reported. */
  bool readable, writable; /* A pipe goes one way. */
  bool attached, reading, opened, broken;
  bool tell_open, tell_drain, told_end;
  int open_status, broken_code;
  struct sim_stream *next_accepted;
};

struct sim_listener {
  union {
    struct world_listener base;
    struct sim_thing thing;
  };
  struct sim_listener *next; /* Of its node. */
  struct shoal_address address;
  struct world_listener_events events;
  struct sim_event accept;
  struct sim_stream *accepted_first, *accepted_last; /* Not yet handed over. */
};

/* sim_stream.c */
struct sim_connection *sim_connection_new(struct sim_node *from, struct sim_node *to);
void sim_connection_start(struct sim_connection *c); /* Begin the handshake. */
void sim_flow_write(struct sim_connection *c, int side, const uint8_t *bytes, size_t length);
void sim_flow_finish(struct sim_flow *f); /* FIN, behind all that was written. */
struct sim_segment *sim_flow_take(struct sim_flow *f); /* The first of the unread. */
void sim_flow_forget(struct sim_flow *f);              /* All of the unread. */
/* Give it to the reader, which may close h. */
void sim_flow_give(struct sim_stream *h, struct sim_flow *f, struct sim_segment *g);
/* The process closed its end (or its machine died); its kernel does the rest. May free c. */
void sim_end_gone(struct sim_connection *c, int side, enum sim_state state);
bool sim_connection_free_if_gone(struct sim_connection *c); /* True when both ends are gone. */

/* sim_socket.c */
void sim_stream_wake(struct sim_stream *h); /* Arm its event: there is something to report. NULL: do nothing. */
struct sim_stream *sim_stream_new(struct sim_world *w, struct sim_connection *c, int side);
struct sim_listener *sim_find_listener(const struct sim_node *n, const struct shoal_address *to);
void sim_listener_add(struct sim_listener *l, struct sim_stream *h); /* Accepted, to be handed over. */

#endif
