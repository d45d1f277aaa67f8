/* swim_driver: one member of core/swim on a world. It owns the datagram socket, the timer, the streams of tables and the
 * recording, feeds the core from them, and does what the core asks for.
 *
 *   swim_driver_open ---> swim_driver_start ---> (runs) ---> swim_driver_close ---> events.closed, freed
 *
 * An input (join, leave, ...) is recorded, given to the core, and its actions are taken in the next turn of the world: no
 * function here calls back before it returns. An event may call anything, swim_driver_close included. */
#ifndef SHOAL_DRIVE_SWIM_DRIVER_H
#define SHOAL_DRIVE_SWIM_DRIVER_H

#include "core/swim.h"
#include "world/world.h"

struct swim_driver;

enum swim_driver_trouble {
  SWIM_DRIVER_SEND,    /* The network refused a datagram; also counted. */
  SWIM_DRIVER_RECEIVE, /* The socket or the listener reported an error. */
  SWIM_DRIVER_RECORD,  /* The recording could not be written, and has ended. Once. */
};

struct swim_driver_events {
  void (*event)(void *data, const struct swim_action *action); /* SWIM_EVENT. Its pointers are valid until this returns. */
  void (*left)(void *data, uint32_t heard);                    /* SWIM_LEFT_DONE. */
  void (*notice)(void *data, const struct swim_notice *notice); /* SWIM_NOTICE. NULL: nobody wants them. */
  void (*trouble)(void *data, enum swim_driver_trouble which, int code);
  world_closed_fn *closed; /* Once, after swim_driver_close(). The driver has been freed. */
  /* Hooks that studies put between the core and the network; NULL in a node. True: withheld, the driver does nothing more. */
  bool (*outgoing)(void *data, const struct swim_action *action); /* SWIM_SEND; SWIM_STREAM_SEND cannot be withheld. */
  bool (*incoming)(void *data, const struct shoal_address *from, const uint8_t *bytes, size_t length);
};

struct swim_driver_options {
  struct swim_config config;
  struct swim_identity identity; /* With an address of family 0, others reach us where we are bound. */
  struct shoal_address bind;
  struct shoal_address seeds[SWIM_SEEDS_MAX];
  size_t seeds_count;
  const char *record; /* The path of a recording; NULL: none. */
};

/* NULL, or why these options must not be opened here: "datagrams are not sealed yet, ...". Static. */
const char *swim_driver_refuses(struct shoal_world *world, const struct swim_driver_options *options);

/* The generation of a life that begins now: wall-clock seconds, or `stored` when that is greater. */
uint32_t swim_driver_generation(struct shoal_world *world, uint32_t stored);

/* Bind the socket. 0, or the world's code with nothing left open. `events` must outlive the driver. */
int swim_driver_open(struct shoal_world *world, const struct shoal_address *bind, const struct swim_driver_events *events,
                     void *data, struct swim_driver **out);
/* Open the rest, join the seeds, and begin. On a negative code the driver must still be closed. */
int swim_driver_start(struct swim_driver *d, const struct swim_driver_options *options);
void swim_driver_close(struct swim_driver *d);   /* Idempotent. `closed` comes later, no other event before it. */
void swim_driver_abandon(struct swim_driver *d); /* The world is gone without a closed event: free everything. */

/* ---- inputs; each returns what its namesake in core/swim.h returns ---- */

int swim_driver_join(struct swim_driver *d, const struct shoal_address *seed);
bool swim_driver_forget(struct swim_driver *d, const struct shoal_address *seed);
int swim_driver_erase(struct swim_driver *d, const char *name, size_t length);
int swim_driver_leave(struct swim_driver *d); /* 0; ERR_EXISTS: it is leaving already. */
int swim_driver_payload(struct swim_driver *d, const void *bytes, size_t length);
bool swim_driver_hint(struct swim_driver *d, const char *name, size_t length);
int swim_driver_tell(struct swim_driver *d, const void *bytes, size_t length);
int swim_driver_reconfigure(struct swim_driver *d, const struct swim_config *config);

/* ---- looking ---- */

/* The core, to look at. A change that goes around the inputs above is not recorded, and its actions wait for the next event or
 * swim_driver_settle(). NULL until swim_driver_start(). */
struct swim *swim_driver_core(const struct swim_driver *d);
const struct shoal_address *swim_driver_address(const struct swim_driver *d); /* Where it is bound. */

enum { SWIM_DRIVER_ERRORS_MAX = 8 }; /* Codes counted apart. */
struct swim_driver_counts {
  uint64_t send_failed; /* Datagrams that the network refused. They are lost, as any datagram can be. */
  uint32_t errors_count;
  struct {
    int code;
    uint64_t count;
    struct shoal_address to; /* Of the last one. */
    size_t length;           /* Its bytes. */
  } errors[SWIM_DRIVER_ERRORS_MAX]; /* The same ones by code, in the order of first occurrence; further codes are only in the sum. */
};
const struct swim_driver_counts *swim_driver_counts(const struct swim_driver *d);

/* ---- for the fleet ---- */

/* Take all actions of the core now, and set the timer. */
void swim_driver_settle(struct swim_driver *d);
/* Send or take a datagram that `outgoing` or `incoming` withheld. */
void swim_driver_send(struct swim_driver *d, const struct shoal_address *to, const void *bytes, size_t length);
void swim_driver_receive(struct swim_driver *d, const struct shoal_address *from, const void *bytes, size_t length);

#endif
