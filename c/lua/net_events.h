/* net_events: what the files of the transport's binding share: the net's userdata, and how its events reach Lua. */
#ifndef SHOAL_LUA_NET_EVENTS_H
#define SHOAL_LUA_NET_EVENTS_H

#include "lua/door.h"
#include "lua/handle.h"
#include "net/net.h"

enum { /* User values of the net. */
  ON_REQUEST = 2,
  ON_PEER,
  ON_CIRCUIT,
  ON_CLOSED,
  CALLBACKS,   /* Slot of the request + 1 -> its function. */
  ANSWERING,   /* The function whose answer came last. */
  PEERS,       /* Index of the peer + 1 -> its userdata. */
  BY_ADDRESS,  /* Address as given -> userdata of the peer that is dialled there. */
  REQUESTS,    /* The metatable of requests, so that each costs no look into the registry. */
  CURRENT,     /* The request that is being handled: kept, so that `current` may be looked at afterwards. */
  NET_VALUES = CURRENT - 1,
};

struct lua_request;
struct lua_net {
  struct lua_handle handle;
  struct net *net;
  struct lua_request *current;
  bool wired[ON_CLOSED + 1];
};

struct net_event { /* What a push function pushes; each uses some of it. */
  struct lua_net *self;
  const char *text;
  struct net_peer *peer;
  const struct net_request *request;
  const struct net_result *result;
  const uint8_t *bytes;
  size_t length;
  int code;
  bool pushed;
};

/* Call what `push` pushes, through the door. False when the state is gone or it raised; then the door has reported it. */
bool net_fire(struct lua_net *self, const char *site, door_push_fn *push, struct net_event *e);
/* Push the function that is user value `value`, over the net's userdata, which is left below it. */
void net_push_handler(lua_State *L, struct net_event *e, int value);

/* For struct net_events; `data` is the struct lua_net. */
void net_on_peer(void *data, struct net_peer *peer, enum net_peer_event event, int code, const char *text);
void net_on_circuit(void *data, struct net_peer *peer, enum breaker_status status);
void net_on_closed(void *data);

#endif
