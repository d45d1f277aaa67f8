/* crc: CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected; RFC 3720, B.4), the checksum of our logs and datagrams.
 * It finds every burst of up to 32 bits and misses other damage once in 2^32; it is no defence against an attacker. */
#ifndef SHOAL_CRC_H
#define SHOAL_CRC_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `length` bytes that follow bytes whose checksum is `before` (0 when they are the first). */
uint32_t crc32c(uint32_t before, const void *bytes, size_t length);

/* The same without the processor's instruction, for comparison in specs. */
uint32_t crc32c_portable(uint32_t before, const void *bytes, size_t length);

#endif
