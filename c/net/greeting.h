/* greeting: the frames between the two transports: hello, ping, pong, and the goodbye. */
#ifndef SHOAL_NET_GREETING_H
#define SHOAL_NET_GREETING_H

#include "net/link.h"

int greeting_send(struct link *l); /* Our hello. */
/* Write a BYE with this reason and finish our side. The connection ends when the other side has read it, or with the linger. */
void greeting_end(struct link *l, const char *name, const char *text);
/* The same for a connection that must not go on; its peer, if it has one, is lost now, with this code and text. */
void greeting_refuse(struct link *l, int code, const char *name, const char *text);
void greeting_on_frame(struct link *l, const struct frame *f, const uint8_t *body); /* A LINK frame arrived. */

#endif
