/* net: the transport. Peers, connections, requests and their answers, over the streams of a world.
 *
 * A node opens one `net`. It listens, and it has peers: the ones it dials, one for each address, and the ones that
 * dialled it, which are peers as well: either side may ask the other over the one connection between them.
 *
 *                 a call, a send               opened                 the other side's hello
 *   idle (no connection) ------>  CONNECTING  ---------->  HELLO  --------------------------->  UP
 *     ^  ^                            | failed, timed out    | refused, timed out                | lost, silent too long
 *     |  +---- backoff, then dial ----+----------------------+-----------------------------------+
 *     +------------- net_peer_close: DRAINING (what is queued leaves, then BYE), closed ----------+
 *
 * The bytes are drawn in frame.h. Messages wait in their lanes and are written once per turn of the loop (answers: once the bytes
 * with their requests were read), the highest lane first at each frame. The kernel holds at most NET_WINDOW bytes of a connection,
 * so an urgent message waits behind few bytes.
 *
 * Promises:
 *  - No function here calls back before it returns. Every accepted net_call and net_send has its callback run exactly
 *    once: with the answer, or with a code. A refused one (negative return) never has.
 *  - A late reply is counted and dropped; a timeout touches no other request.
 *  - Malformed bytes end the connection that they came from, counted by fault, and harm nothing else.
 *  - Callbacks may call anything here; they may also close the peer or the net that called them.
 *
 * Limits: all of them stand in README.md. Our own messages beyond a limit are refused (ERR_FULL, ERR_TOO_LARGE). The messages and
 * connections of others are refused with a reason and the time after which to try again. A full control queue closes its
 * connection, and on_peer reports it: a cancel that waits is worse than one that fails.
 *
 * The control lane passes an open circuit, and the answer to a control call closes the circuit (circuit.h).
 *
 * Sealing: there are no keys yet, so net_listen takes loopback addresses only (sealing.h). TLS will stand between a frame and the
 * stream: the seam is in writer.h. */
#ifndef SHOAL_NET_H
#define SHOAL_NET_H

#include <assert.h>

#include "core/backoff.h"
#include "core/breaker.h"
#include "net/frame.h"
#include "world/world.h"

struct net;
struct net_peer;

enum net_lane { NET_CONTROL, NET_DISPATCH, NET_DATA, NET_TELEMETRY, NET_LANES };
static_assert((int)NET_LANES == (int)FRAME_LANES, "the lanes are the wire's");
const char *net_lane_name(enum net_lane lane); /* "control", "dispatch", "data", "telemetry" */

enum { NET_WINDOW = 128 * 1024 }; /* Bytes of one connection in the kernel. */

struct net_options {
  /* Our names, sent in the hello. At most 255 bytes each; node and cluster not empty; NULL is "". */
  const char *cluster, *node, *role, *dc;
  const char *advertise; /* The address at which others may dial us, as "ip:port". */
  /* 0 stands for the default. */
  uint32_t connect_timeout_ms; /* From dialling to the other side's hello. 5000 */
  uint32_t keepalive_ms;       /* After so much silence we send a ping. 10000 */
  uint32_t idle_timeout_ms;    /* After so much silence the connection is lost. 30000; > keepalive_ms */
  uint32_t linger_ms;          /* How long a closing connection may take to send its queues. 2000 */
  uint32_t in_flight_max;      /* Requests of one peer without answer, control not counted. 1000 */
  uint32_t lane_in_flight_max[NET_LANES]; /* control unbounded (ignored), 500, 300, 200 */
  uint32_t lane_queue_max[NET_LANES];     /* Messages that wait for one peer. 4096, 2048, 2048, 1024 */
  uint32_t lane_queue_bytes_max[NET_LANES]; /* And their bytes; an empty lane takes any one message. 4, 4, 4, 1 MiB */
  uint32_t unanswered_max; /* Requests of one connection that wait for our answer; control not counted. More are
                              refused OVERLOADED. 1000 */
  uint32_t unanswered_all_max;  /* The same over all connections, also those that have gone. 10000 */
  uint32_t connections_max;     /* Accepted connections. 4096 */
  uint32_t assembly_bytes_max;  /* Bytes of unfinished messages over all connections (assembly.h); >= FRAME_MESSAGE_MAX. 32 MiB */
  uint32_t queued_bytes_max;    /* Bytes that wait to be sent over all peers; control is counted and never refused;
                                   >= 2 * FRAME_MESSAGE_MAX. 64 MiB */
  struct breaker_config breaker; /* failures 0: the defaults. */
  struct backoff_config backoff; /* base_ns 0: the defaults. */
};

/* Why a message of ours was not sent. */
#define NET_DROPS(X) \
  X(FULL)            /* Its lane was full. */ \
  X(QUEUED)          /* The lanes of all peers together held queued_bytes_max. */ \
  X(IN_FLIGHT)       /* Too many requests had no answer yet. */ \
  X(TOO_LARGE)       /* Larger than a message may be. */ \
  X(CIRCUIT)         /* The circuit was open. */ \
  X(CLOSED)          /* The peer or the net was closed. */ \
  X(DISCONNECTED)    /* The connection ended, or was never made, while it waited. */ \
  X(EXPIRED)         /* Its request timed out before it left. */
enum net_drop {
#define NET_DROP_ENUM(name) NET_DROP_##name,
  NET_DROPS(NET_DROP_ENUM)
#undef NET_DROP_ENUM
  NET_DROPS_COUNT
};
const char *net_drop_name(enum net_drop drop); /* "full" */

/* Why we refused something to others: a limit was reached here. */
#define NET_REFUSALS(X)                                                                      \
  X(CONNECTIONS)     /* A connection: connections_max are open. It got BYE with FULL. */      \
  X(GREETING)        /* A connection that had not greeted, to make room for another. */       \
  X(REQUESTS)        /* A request: too many wait for our answer. It was answered OVERLOADED. */ \
  X(ASSEMBLY)        /* A message: unfinished ones hold assembly_bytes_max. */              \
  X(STUCK)           /* A message that was stuck, to make room for others. */               \
  X(MEMORY)          /* A connection or a message: out of memory. */
enum net_refusal {
#define NET_REFUSAL_ENUM(name) NET_REFUSED_##name,
  NET_REFUSALS(NET_REFUSAL_ENUM)
#undef NET_REFUSAL_ENUM
  NET_REFUSALS_COUNT
};
const char *net_refusal_name(enum net_refusal refusal); /* "connections" */

struct net_counts {
  uint64_t messages_sent, messages_received; /* The application's. */
  uint64_t bytes_sent, bytes_received;       /* On the streams. */
  uint64_t writes;                           /* Calls to the stream; many messages each, under load. */
  uint64_t requests, replies;                /* Sent by us; answered to us, refusals included. */
  uint64_t timeouts;                         /* Requests that had no answer in time. */
  uint64_t late_replies;                     /* Answers that came after their request had ended. Dropped. */
  uint64_t stray_replies;                    /* Answers to a request that this connection never carried. Dropped. */
  uint64_t unsent_replies;                   /* Answers that found no connection or no room. */
  uint64_t dials, dials_failed, accepted, accept_errors;
  uint64_t handshakes_refused;               /* By us or by them: cluster, version. */
  uint64_t connections_lost, idle_closed, control_overflows;
  uint64_t faults[FRAME_FAULTS_COUNT];
  uint64_t refused[NET_REFUSALS_COUNT];
  /* At the time of the call: accepted connections, bytes of unfinished messages, bytes that wait to be sent, and requests that wait
   * for our answer. */
  uint64_t connections_open, assembly_bytes, queued_bytes, unanswered;
  uint64_t drops[NET_LANES][NET_DROPS_COUNT];
};

/* A peer's request. Answer it once, with net_reply or net_refuse, now or later. It is a plain value. */
struct net_request {
  uint64_t link, id; /* The connection, and the request; id 0: a message that wants no answer. */
  uint32_t peer;
  uint16_t type;
  uint8_t lane;
};

/* How a call or a send ended. */
struct net_result {
  uint64_t id;          /* As net_call or net_send gave it. */
  int code;             /* 0, or why it failed. A refusal with an unknown name: ERR_REFUSED. */
  const char *name;     /* The code's name; of a refusal, the name the other side gave. "" when 0. */
  const uint8_t *bytes; /* The answer; of a failure, a text for people. */
  size_t length;
};
typedef void net_result_fn(void *data, const struct net_result *result);

enum net_peer_event {
  NET_UP,   /* Greeted; info is known. */
  NET_DOWN, /* The connection, or an attempt at one, ended: code and text say why. */
  NET_GONE, /* The last event of this peer: the pointer is void after this call. */
};
struct net_events {
  /* bytes are valid during the call. NULL: requests are refused UNHANDLED, others dropped. */
  void (*on_request)(void *data, struct net_peer *peer, const struct net_request *request, const uint8_t *bytes,
                     size_t length);
  void (*on_peer)(void *data, struct net_peer *peer, enum net_peer_event event, int code, const char *text); /* May be NULL. */
  void (*on_circuit)(void *data, struct net_peer *peer, enum breaker_status status); /* May be NULL. */
  void (*on_closed)(void *data); /* The net is gone; the last callback. May be NULL. */
};

/* Open it. Returns 0, or ERR_CONFIG (names), ERR_MEMORY. Everything in options and events is copied. */
int net_open(struct shoal_world *world, const struct net_options *options, const struct net_events *events, void *data,
             struct net **out);

/* Accept connections. *bound (may be NULL) is where. ERR_CONFIG for an address that needs keys (sealing.h says so in words), or
 * the world's codes. */
int net_listen(struct net *n, const struct shoal_address *bind, struct shoal_address *bound);

/* The peer at this address, made when it is new. Nothing is dialled before there is a message to send. ERR_CLOSED, ERR_MEMORY. */
int net_peer(struct net *n, const struct shoal_address *address, struct net_peer **out);

/* Ask: fn is run once, with the answer or a code (ERR_TIMEOUT, ERR_DISCONNECTED, ERR_CLOSED, the connect's, a
 * refusal's). timeout_ns > 0. Returns 0 with *id (may be NULL), or ERR_FULL, ERR_TOO_LARGE, ERR_CIRCUIT, ERR_CLOSED,
 * ERR_MEMORY. */
int net_call(struct net_peer *p, uint16_t type, enum net_lane lane, const void *bytes, size_t length,
             uint64_t timeout_ns, net_result_fn *fn, void *data, uint64_t *id);

/* The next message to this peer is a probe: it must not wait for a redial backoff, nor for a connection that leads nowhere. Dial now; give
 * up a dial of NET_HURRY_DIAL_MS, for TCP repeats its SYN ever more rarely; and give up a connection on which nothing was heard for
 * NET_HURRY_SILENT_MS and over the last NET_HURRY_UNHEARD calls of this. So after a cut heals, the first probe finds a way. Call it once
 * before each probe. Of a peer that was not dialled nothing is given up. */
enum { NET_HURRY_DIAL_MS = 1500, NET_HURRY_SILENT_MS = 5000, NET_HURRY_UNHEARD = 3 };
void net_hurry(struct net_peer *p);

/* Send one way: fn is run once: with 0 when the kernel has it all (which says nothing about arrival), else with the reason it
 * was dropped. Codes as net_call. */
int net_send(struct net_peer *p, uint16_t type, enum net_lane lane, const void *bytes, size_t length, net_result_fn *fn,
             void *data, uint64_t *id);

/* Answer. 0, or ERR_DISCONNECTED when the connection is gone, ERR_FULL (counted), ERR_TOO_LARGE (the asker is refused
 * with that name). */
int net_reply(struct net *n, const struct net_request *request, const void *bytes, size_t length);
/* Refuse the request: name for programs ("OVERLOADED"), text for people. */
int net_refuse(struct net *n, const struct net_request *request, const char *name, const char *text);

/* The slot, the lower half of the id, that the next accepted call or send will have. So a caller can store its own part first, and
 * fail before the request exists. ERR_FULL, ERR_MEMORY. */
int net_next_slot(struct net *n, uint32_t *slot);

struct net_peer_info {
  struct shoal_address address; /* The one we dial, or the one that the connection came from. */
  const char *node, *role, *dc, *advertise; /* "" before the first hello. */
  bool up, dialled;
  enum breaker_status circuit;
  uint32_t in_flight;    /* Requests without answer. */
  size_t queued_bytes;   /* In all lanes, and in the stream before the kernel took them. */
};
void net_peer_info(struct net_peer *p, struct net_peer_info *out);
uint32_t net_peer_index(const struct net_peer *p); /* Small, and unique among the peers that are not gone. */
void net_peer_set_data(struct net_peer *p, void *data);
void *net_peer_data(const struct net_peer *p);

/* Send the queues, then close. Requests without answer end with ERR_CLOSED. NET_GONE follows. Twice is harmless. */
void net_peer_close(struct net_peer *p);

const struct net_counts *net_counts(struct net *n); /* As they are at this call. */

/* Close every peer and listener as net_peer_close does; then on_closed. Twice is harmless. */
void net_close(struct net *n);

/* The world is gone (a simulated crash): free the memory, call nobody, touch no world. */
void net_abandon(struct net *n);

#endif
