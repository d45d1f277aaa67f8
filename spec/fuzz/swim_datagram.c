/* swim_receive takes any datagram: the input is one, as it came from the network, behind a byte of who sent it. Nearly all are
 * refused at the checksum; swim_body.c has what lies behind it. */
#include "swim_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length) {
  if (length < 1 || length > SWIM_DATAGRAM_MAX + 2) return 0;
  core_open();
  receive(bytes[0] % 8, bytes + 1, length - 1);
  pass(300);
  receive(bytes[0] % 8, bytes + 1, length - 1); /* It may have come twice. */
  pass(3000);
  core_close();
  return 0;
}
