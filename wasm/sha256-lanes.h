#pragma once
#include <stddef.h>
#include <stdint.h>

// Four digests of 32 bytes each, one behind the other, of messages of any lengths. The time is that of the longest.
void sha256_lanes(const uint8_t *const messages[4], const size_t lengths[4], uint8_t *digests);
