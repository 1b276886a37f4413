// BLAKE3's inner loop, four chunks or parents at once, one in each lane of a vector. The library asks for it under the name of
// its ARM kernel, which is the only one of that width that it calls without asking the processor first: build.sh defines
// BLAKE3_USE_NEON for all of its files, or their buffers would be made for one lane and the digests be wrong.
#include "blake3_impl.h"
#include "lanes.h"

_Static_assert(MAX_SIMD_DEGREE == 4, "the library is built for another number of lanes");

enum { LANES = 4 };

// The quarter round of the specification, 2.2. Rotations by whole bytes are shifts, too: V8 makes three fast instructions of them, and
// of a shuffle a slow one (1,080 against 1,610 MB/s).
static inline void mix(Lanes v[16], int a, int b, int c, int d, Lanes x, Lanes y) {
  v[a] += v[b] + x;
  v[d] = rotate_right(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = rotate_right(v[b] ^ v[c], 12);
  v[a] += v[b] + y;
  v[d] = rotate_right(v[d] ^ v[a], 8);
  v[c] += v[d];
  v[b] = rotate_right(v[b] ^ v[c], 7);
}

// Columns, then diagonals.
static inline void mix_all(Lanes v[16], const Lanes words[16], const uint8_t order[16]) {
  for (int i = 0; i < 4; i++) {
    mix(v, i, 4 + i, 8 + i, 12 + i, words[order[2 * i]], words[order[2 * i + 1]]);
  }
  for (int i = 0; i < 4; i++) {
    mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, words[order[8 + 2 * i]], words[order[9 + 2 * i]]);
  }
}

static void hash_four(const uint8_t *const *inputs, size_t blocks, const uint32_t key[8], uint64_t counter,
                      bool increment_counter, uint8_t flags, uint8_t flags_start, uint8_t flags_end, uint8_t *out) {
  Lanes chain[8], low, high;
  for (int i = 0; i < 8; i++) chain[i] = in_each_lane(key[i]);
  for (int i = 0; i < LANES; i++) {
    const uint64_t of_lane = counter + (increment_counter ? i : 0);
    low[i] = counter_low(of_lane);
    high[i] = counter_high(of_lane);
  }
  for (size_t block = 0; block < blocks; block++) {
    Lanes words[16];
    for (int i = 0; i < 16; i++) words[i] = load_lanes(inputs[i % 4] + block * BLAKE3_BLOCK_LEN + i / 4 * 16);
    for (int i = 0; i < 16; i += 4) transpose(words + i);
    const uint8_t block_flags = flags | (block == 0 ? flags_start : 0) | (block + 1 == blocks ? flags_end : 0);
    Lanes v[16];
    for (int i = 0; i < 8; i++) v[i] = chain[i];
    for (int i = 0; i < 4; i++) v[8 + i] = in_each_lane(IV[i]);
    v[12] = low;
    v[13] = high;
    v[14] = in_each_lane(BLAKE3_BLOCK_LEN);
    v[15] = in_each_lane(block_flags);
#pragma clang loop unroll(full)
    for (int round = 0; round < 7; round++) mix_all(v, words, MSG_SCHEDULE[round]);
    for (int i = 0; i < 8; i++) chain[i] = v[i] ^ v[8 + i];
  }
  transpose(chain);
  transpose(chain + 4);
  for (int i = 0; i < LANES; i++) {
    store_lanes(out + i * BLAKE3_OUT_LEN, chain[i]);
    store_lanes(out + i * BLAKE3_OUT_LEN + 16, chain[4 + i]);
  }
}

void blake3_hash_many_neon(const uint8_t *const *inputs, size_t num_inputs, size_t blocks, const uint32_t key[8],
                           uint64_t counter, bool increment_counter, uint8_t flags, uint8_t flags_start,
                           uint8_t flags_end, uint8_t *out) {
  for (; num_inputs >= LANES; num_inputs -= LANES) {
    hash_four(inputs, blocks, key, counter, increment_counter, flags, flags_start, flags_end, out);
    if (increment_counter) counter += LANES;
    inputs += LANES;
    out += LANES * BLAKE3_OUT_LEN;
  }
  blake3_hash_many_portable(inputs, num_inputs, blocks, key, counter, increment_counter, flags, flags_start, flags_end,
                            out);
}
