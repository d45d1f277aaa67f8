#include "core/address.h"

#include <arpa/inet.h> /* inet_pton and inet_ntop: text and bytes, no socket. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/errors.h"

static bool parse_port(const char *text, size_t length, uint16_t *out) {
  if (length == 0 || length > 5) return false;
  uint32_t port = 0;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    port = port * 10 + (uint32_t)(text[i] - '0');
  }
  if (port > UINT16_MAX) return false;
  *out = (uint16_t)port;
  return true;
}

int address_parse(const char *text, size_t length, struct shoal_address *out) {
  struct shoal_address parsed = {0};
  char host[ADDRESS_TEXT_MAX];
  const char *colon = memrchr(text, ':', length);
  if (!colon || !parse_port(colon + 1, length - (size_t)(colon - text) - 1, &parsed.port)) return ERR_MALFORMED;
  size_t host_length = (size_t)(colon - text);
  bool bracketed = host_length >= 2 && text[0] == '[' && colon[-1] == ']';
  if (bracketed) text++, host_length -= 2;
  if (host_length == 0 || host_length >= sizeof host) return ERR_MALFORMED;
  memcpy(host, text, host_length);
  host[host_length] = '\0';
  if (strlen(host) != host_length) return ERR_MALFORMED; /* A zero byte within. */
  parsed.family = bracketed ? 6 : 4;
  if (inet_pton(bracketed ? AF_INET6 : AF_INET, host, parsed.bytes) != 1) return ERR_MALFORMED;
  *out = parsed;
  return 0;
}

size_t address_format(const struct shoal_address *address, char *out) {
  char host[INET6_ADDRSTRLEN];
  if (address->family == 0) return (size_t)snprintf(out, ADDRESS_TEXT_MAX, "none");
  const char *text = inet_ntop(address->family == 6 ? AF_INET6 : AF_INET, address->bytes, host, sizeof host);
  assert(text);
  return (size_t)snprintf(out, ADDRESS_TEXT_MAX, address->family == 6 ? "[%s]:%u" : "%s:%u", text, address->port);
}

bool address_equal(const struct shoal_address *a, const struct shoal_address *b) {
  return a->family == b->family && a->port == b->port && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool address_is_loopback(const struct shoal_address *address) {
  static const uint8_t one[16] = {[15] = 1};
  if (address->family == 4) return address->bytes[0] == 127;
  return address->family == 6 && memcmp(address->bytes, one, sizeof one) == 0;
}
