/* turn: the net itself, its one timer, and the end of a turn of the loop, where all callbacks run that an answer did not cause.
 *
 * The net is freed last, when its timer was closed. */
#ifndef SHOAL_NET_TURN_H
#define SHOAL_NET_TURN_H

#include "core/wheel.h"
#include "net/assembly.h"
#include "net/net.h"
#include "net/queue.h"
#include "net/request.h"
#include "net/ring.h"

enum timer_kind { TIMER_DEADLINE = 1, TIMER_LINK, TIMER_REDIAL, TIMER_CIRCUIT };

struct net {
  struct shoal_world *world;
  struct net_events events;
  void *data;
  struct net_options options; /* With the defaults filled in; its strings are `hello`'s. */
  struct frame_hello hello;
  struct wheel wheel;
  struct world_timer *timer;
  uint64_t armed_at_ns; /* UINT64_MAX: not. */
  struct world_defer turn;
  struct net_peer *marked_first, *marked_last;
  struct request *chunks[REQUESTS_CHUNKS];
  uint32_t requests_count;
  struct request *free;
  struct request_line ended;
  struct net_peer **peers;
  uint32_t peers_count, peers_capacity; /* Holes are NULL; */
  uint32_t peers_hole;                  /* there is none before this one. */
  uint64_t links_made;
  struct link *links;
  struct listening *listeners;
  uint32_t accepted, turned_away; /* Connections that count against connections_max; those that say goodbye because of it. */
  struct ring ungreeted;          /* Accepted ones without a hello, the oldest first. */
  struct assemblies assemblies;
  struct queue_total queued;      /* Over all lanes of all peers. */
  uint32_t unanswered;            /* Requests that were handed to us and not answered; control not counted. */
  bool closing, ending;
  struct link *reading; /* Not NULL: this one's bytes are being read, and now_ns is now. */
  uint64_t now_ns;
  struct net_counts counts;
};

void net_wake(struct net *n);                     /* Run the turn's end before the world waits. */
void net_mark(struct net_peer *p);                /* The same, with work for this peer. */
void net_set_timer(struct net *n, struct wheel_entry *e, uint64_t at_ns);
/* The world's clock stands still in a callback, so each callback that brings many messages reads it once. */
static inline uint64_t net_now(struct net *n) { return n->reading ? n->now_ns : world_now_ns(n->world); }
void net_peer_event(struct net_peer *p, enum net_peer_event event, int code, const char *text);

void turn_end(void *net);             /* The deferred work. */
void turn_on_timer(void *net);        /* The timer's callback, and its closed event. */
void turn_on_timer_closed(void *net);
void turn_free(struct net *n);

#endif
