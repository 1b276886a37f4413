// Four words side by side: what a WebAssembly vector holds. Clang's vector types become SIMD instructions one to one.
#pragma once
#include <stdint.h>
#include <string.h>

typedef uint32_t Lanes __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(16)));

static inline Lanes load_lanes(const uint8_t *at) {
  Lanes words;
  memcpy(&words, at, sizeof words);
  return words;
}

static inline void store_lanes(uint8_t *at, Lanes words) { memcpy(at, &words, sizeof words); }

static inline Lanes in_each_lane(uint32_t word) { return (Lanes){word, word, word, word}; }

static inline Lanes rotate_right(Lanes words, int bits) { return words >> bits | words << (32 - bits); }

// Word i of each of the four becomes lane by lane the i-th of them: rows to columns.
static inline void transpose(Lanes four[4]) {
  const Lanes low01 = __builtin_shufflevector(four[0], four[1], 0, 4, 1, 5);
  const Lanes high01 = __builtin_shufflevector(four[0], four[1], 2, 6, 3, 7);
  const Lanes low23 = __builtin_shufflevector(four[2], four[3], 0, 4, 1, 5);
  const Lanes high23 = __builtin_shufflevector(four[2], four[3], 2, 6, 3, 7);
  four[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  four[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  four[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  four[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}
