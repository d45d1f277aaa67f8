/* reader: bytes in: frames, the messages they make, and the handler of each. */
#ifndef SHOAL_NET_READER_H
#define SHOAL_NET_READER_H

#include "net/link.h"

void reader_on_bytes(void *link, const uint8_t *bytes, size_t length); /* The stream's on_read. */

#endif
