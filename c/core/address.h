/* address: an IPv4 or IPv6 address with a port, as a value. Text is "10.0.0.1:7000" or "[::1]:7000". */
#ifndef SHOAL_ADDRESS_H
#define SHOAL_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ADDRESS_TEXT_MAX = 56 }; /* Longest text, its zero included. */

struct shoal_address {
  uint8_t family;    /* 4, 6, or 0 for none. */
  uint8_t bytes[16]; /* Network order; IPv4 in the first four, the rest zero. */
  uint16_t port;     /* Host order. */
};

/* Parse a numeric "host:port". Returns 0, or ERR_MALFORMED with *out unchanged. */
int address_parse(const char *text, size_t length, struct shoal_address *out);

/* Write the text, zero included, into out[ADDRESS_TEXT_MAX]; returns its length. */
size_t address_format(const struct shoal_address *address, char *out);

bool address_equal(const struct shoal_address *a, const struct shoal_address *b);

/* True for 127.0.0.0/8 and ::1. */
bool address_is_loopback(const struct shoal_address *address);

#endif
