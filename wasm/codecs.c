// codecs.wasm: decoding over libdeflate, libzstd and lz4, and digests, for one thread. The caller owns all buffers (malloc and free
// are exported) and reads results in place.
//
//   int32_t gunzip(in, in_length, out, capacity, want)     gzip members one after the other (RFC 1952)
//   int32_t unzstd(in, in_length, out, capacity, want)     zstd frames one after the other (RFC 8878), skippable ones skipped
//   int32_t unlz4(in, in_length, out, capacity)            one lz4 block (lz4_Block_format.md), without a frame
//   void blake3(in, in_length, digest)                     32 bytes
//   void sha256x4(in, in_length, 3 more of these, digests) 4 times 32 bytes
//
// gunzip and unzstd decode until at least `want` bytes are there, or the input ends, and return how many bytes `out` holds: less
// than `want` when the input ends early, more when the last member or frame holds more. What follows in the input is not looked at.
// unlz4 takes all of its input, and returns how many bytes that made: at most `capacity`.
// Checksums inside the streams (CRC-32, XXH64) are not compared: the caller compares digests of whatever it uses.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "blake3.h"
#include "libdeflate.h"
#include "lz4.h"
#include "sha256-lanes.h"
#define ZSTD_STATIC_LINKING_ONLY
#include "zstd.h"
#include "zstd_errors.h"

#define EXPORT(name) __attribute__((export_name(#name))) name

enum { CORRUPT = -1, MEMORY = -2, SPACE = -3 };

enum { HEADER = 10, TRAILER = 8, FHCRC = 2, FEXTRA = 4, FNAME = 8, FCOMMENT = 16, RESERVED = 0xe0 };

// Length of the header at `in`, RFC 1952 2.3; 0 when there is none.
static size_t header_length(const uint8_t *in, size_t length) {
  if (length < HEADER || in[0] != 0x1f || in[1] != 0x8b || in[2] != 8 || (in[3] & RESERVED)) return 0;
  const unsigned flags = in[3];
  size_t at = HEADER;
  if (flags & FEXTRA) {
    if (length - at < 2) return 0;
    const size_t extra = 2 + (in[at] | (size_t)in[at + 1] << 8);
    if (length - at < extra) return 0;
    at += extra;
  }
  for (unsigned flag = FNAME; flag <= FCOMMENT; flag <<= 1) {
    if (!(flags & flag)) continue;
    while (at < length && in[at] != 0) at++;
    if (at == length) return 0;
    at++;
  }
  if (flags & FHCRC) {
    if (length - at < 2) return 0;
    at += 2;
  }
  return at;
}

// SPACE: a member does not fit into `capacity`; nothing is said about the bytes in `out`.
int32_t EXPORT(gunzip)(const uint8_t *in, size_t length, uint8_t *out, size_t capacity, size_t want) {
  static struct libdeflate_decompressor *decompressor;
  if (!decompressor && !(decompressor = libdeflate_alloc_decompressor())) return MEMORY;
  size_t done = 0;
  while (done < want && length > 0) {
    const size_t header = header_length(in, length);
    if (header == 0) return CORRUPT;
    in += header;
    length -= header;
    size_t used = 0, made = 0;
    switch (libdeflate_deflate_decompress_ex(decompressor, in, length, out + done, capacity - done, &used, &made)) {
      case LIBDEFLATE_SUCCESS: break;
      case LIBDEFLATE_INSUFFICIENT_SPACE: return SPACE;
      default: return CORRUPT;
    }
    done += made;
    used = length - used < TRAILER ? length : used + TRAILER;
    in += used;
    length -= used;
  }
  return (int32_t)done;
}

static int32_t failure(size_t code) {
  switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
    case ZSTD_error_frameParameter_windowTooLarge: return MEMORY;
    default: return CORRUPT;
  }
}

// Through a window: for a frame that holds more than is wanted, or of which only a part is there.
static int32_t unzstd_stream(ZSTD_DCtx *context, ZSTD_inBuffer in, ZSTD_outBuffer out) {
  ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
  while (out.pos < out.size) {
    const size_t before = out.pos, at = in.pos;
    const size_t rest = ZSTD_decompressStream(context, &out, &in);
    if (ZSTD_isError(rest)) return failure(rest);
    if (out.pos == before && in.pos == at) break;
  }
  return (int32_t)out.pos;
}

int32_t EXPORT(unzstd)(const uint8_t *in, size_t length, uint8_t *out, size_t capacity, size_t want) {
  static ZSTD_DCtx *context;
  if (!context) {
    if (!(context = ZSTD_createDCtx())) return MEMORY;
    ZSTD_DCtx_setParameter(context, ZSTD_d_forceIgnoreChecksum, ZSTD_d_ignoreChecksum);
  }
  size_t done = 0;
  while (done < want && length > 0) {
    // a whole frame that fits needs no window of its own
    const size_t frame = ZSTD_findFrameCompressedSize(in, length);
    const size_t made = ZSTD_isError(frame) ? frame : ZSTD_decompressDCtx(context, out + done, capacity - done, in, frame);
    if (ZSTD_isError(made)) {
      switch (ZSTD_getErrorCode(made)) {
        case ZSTD_error_dstSize_tooSmall:
        case ZSTD_error_srcSize_wrong: break;
        default: return failure(made);
      }
      const int32_t more =
          unzstd_stream(context, (ZSTD_inBuffer){in, length, 0}, (ZSTD_outBuffer){out + done, want - done, 0});
      return more < 0 ? more : (int32_t)done + more;
    }
    done += made;
    in += frame;
    length -= frame;
  }
  return (int32_t)done;
}

int32_t EXPORT(unlz4)(const uint8_t *in, size_t length, uint8_t *out, size_t capacity) {
  const int made = LZ4_decompress_safe((const char *)in, (char *)out, (int)length, (int)capacity);
  return made < 0 ? CORRUPT : made;
}

void EXPORT(blake3)(const uint8_t *in, size_t length, uint8_t *digest) {
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, in, length);
  blake3_hasher_finalize(&hasher, digest, BLAKE3_OUT_LEN);
}

void EXPORT(sha256x4)(const uint8_t *in0, size_t length0, const uint8_t *in1, size_t length1, const uint8_t *in2,
                      size_t length2, const uint8_t *in3, size_t length3, uint8_t *digests) {
  const uint8_t *const messages[4] = {in0, in1, in2, in3};
  const size_t lengths[4] = {length0, length1, length2, length3};
  sha256_lanes(messages, lengths, digests);
}
