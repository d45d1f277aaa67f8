/* writer: bytes out: the lanes of a peer into its connection, the highest first.
 *
 * Sealing: between frames and the stream's bytes stand two places, link_write() here and reader_on_bytes(). TLS goes there, as a
 * pair of byte filters; nothing above or below changes. */
#ifndef SHOAL_NET_WRITER_H
#define SHOAL_NET_WRITER_H

#include "net/link.h"

/* One frame past the lanes: the greeting goes before them, the farewell after them. */
int writer_frame(struct link *l, enum frame_link type, const void *body, size_t length);
void link_flush(struct link *l); /* As many frames as the kernel takes. */

#endif
