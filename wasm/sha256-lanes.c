// SHA-256 (FIPS 180-4) of four messages at once, one in each lane of a vector. A message alone cannot be spread over lanes: each
// of its blocks needs the one before.
#include "lanes.h"
#include "sha256-lanes.h"

enum { LANES = 4, BLOCK = 64 };

// First 32 bits of the fractional parts of the cube roots of the first 64 primes (4.2.2).
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

// The same of the square roots of the first 8 primes (5.3.3).
static const uint32_t INITIAL[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

// The end of a message, padded (5.1.1): one block, or two where the length does not fit behind the rest.
typedef struct {
  const uint8_t *message;
  size_t whole;   // blocks of the message itself
  size_t blocks;  // with those of the end
  uint8_t end[2 * BLOCK];
} Padded;

static void pad(Padded *padded, const uint8_t *message, size_t length) {
  const size_t whole = length / BLOCK, rest = length % BLOCK, ends = rest + 1 + 8 <= BLOCK ? 1 : 2;
  padded->message = message;
  padded->whole = whole;
  padded->blocks = whole + ends;
  memset(padded->end, 0, sizeof padded->end);
  memcpy(padded->end, message + whole * BLOCK, rest);
  padded->end[rest] = 0x80;
  uint64_t bits = (uint64_t)length * 8;
  for (uint8_t *at = padded->end + ends * BLOCK - 1; bits > 0; bits >>= 8) *at-- = (uint8_t)bits;
}

// A message that has ended is given its last block again, to no effect.
static const uint8_t *block_of(const Padded *padded, size_t block) {
  if (block < padded->whole) return padded->message + block * BLOCK;
  const size_t last = padded->blocks - 1;
  return padded->end + ((block < last ? block : last) - padded->whole) * BLOCK;
}

static inline Lanes swap_bytes(Lanes words) {
  const Bytes bytes = (Bytes)words;
  return (Lanes)__builtin_shufflevector(bytes, bytes, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
}

static inline Lanes rotations(Lanes words, int one, int two, int three) {
  return rotate_right(words, one) ^ rotate_right(words, two) ^ rotate_right(words, three);
}

// 6.2.2, steps 1 to 3, and the sums of step 4 in `state`.
static void compress(Lanes state[8], Lanes words[16]) {
  Lanes v[8];
  for (int i = 0; i < 8; i++) v[i] = state[i];
  for (int sixteen = 0; sixteen < 64; sixteen += 16) {
    // a round renames all variables; after sixteen they have their names again
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i++) {
      if (sixteen > 0) {
        const Lanes before15 = words[(i + 1) % 16], before2 = words[(i + 14) % 16];
        words[i] += (rotate_right(before15, 7) ^ rotate_right(before15, 18) ^ before15 >> 3) + words[(i + 9) % 16] +
                    (rotate_right(before2, 17) ^ rotate_right(before2, 19) ^ before2 >> 10);
      }
      const Lanes a = v[-i & 7], b = v[(1 - i) & 7], c = v[(2 - i) & 7];
      const Lanes e = v[(4 - i) & 7], f = v[(5 - i) & 7], g = v[(6 - i) & 7], h = v[(7 - i) & 7];
      const Lanes choice = g ^ (e & (f ^ g)), majority = (a & b) | (c & (a | b));
      const Lanes first = h + rotations(e, 6, 11, 25) + choice + in_each_lane(K[sixteen + i]) + words[i];
      v[(3 - i) & 7] += first;
      v[(7 - i) & 7] = first + rotations(a, 2, 13, 22) + majority;
    }
  }
  for (int i = 0; i < 8; i++) state[i] += v[i];
}

void sha256_lanes(const uint8_t *const messages[4], const size_t lengths[4], uint8_t *digests) {
  Padded padded[LANES];
  size_t blocks = 0;
  for (int i = 0; i < LANES; i++) {
    pad(&padded[i], messages[i], lengths[i]);
    if (padded[i].blocks > blocks) blocks = padded[i].blocks;
  }
  Lanes state[8];
  for (int i = 0; i < 8; i++) state[i] = in_each_lane(INITIAL[i]);
  for (size_t block = 0; block < blocks; block++) {
    Lanes words[16], before[8], going;
    for (int i = 0; i < LANES; i++) {
      const uint8_t *const at = block_of(&padded[i], block);
      for (int j = 0; j < 4; j++) words[j * 4 + i] = swap_bytes(load_lanes(at + j * 16));
      going[i] = block < padded[i].blocks ? UINT32_MAX : 0;
    }
    for (int j = 0; j < 16; j += 4) transpose(words + j);
    memcpy(before, state, sizeof before);
    compress(state, words);
    for (int i = 0; i < 8; i++) state[i] = (state[i] & going) | (before[i] & ~going);
  }
  transpose(state);
  transpose(state + 4);
  for (int i = 0; i < LANES; i++) {
    store_lanes(digests + i * 32, swap_bytes(state[i]));
    store_lanes(digests + i * 32 + 16, swap_bytes(state[4 + i]));
  }
}
