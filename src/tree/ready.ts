// The ready file of a device: a header, then one byte a chunk. Bytes, not bits, because a worker sets one with a single pwrite
// that touches nobody else's, and the native reader sees it through a shared mapping.
//
//   0  8  "lazyrdy\n"     8  4  version, little-endian     12  4  chunks     16  32  SHA-256 of the chunk table's decoded side
//  48  4  how often chunks were taken back     52  4  zero     56  8  the boot in which the kernel mounted it complete, or zero
//  64  …  one byte a chunk, then zeros up to a multiple of 4
//   …  …  4 bytes a block of the device: CRC-32 of what the only place that begins at or before it has of it; 0: none was written down
//
// A chunk's checksums are made from its verified bytes, and written before its byte. They are for whoever reads the file later: bits may flip
// on the disk under an agent that runs. Who finds a block changed makes its chunk READY_STORED.
//
// Who takes chunks back unsets their bytes, then adds one to the count, then punches their places, each after the other can be seen: a
// reader whose chunks were verified, then read, and are verified still under the same count has read no hole, nor half of what came next.

export const READY_HEADER_BYTES = 64
export const READY_VERSION = 1
/** What has a checksum. */
export const SUMMED_BYTES = 4096
/** Where the count of chunks taken back is: u32. */
export const READY_TAKEN_BACK_AT = 48
/** From here on the header changes; what lies before says what the device is. */
export const READY_CHANGING_AT = READY_TAKEN_BACK_AT
/** Where it stands in which boot the kernel mounted the device itself: 8 bytes. */
export const READY_MOUNTED_AT = 56
/** Nothing is there. */
export const READY_MISSING = 0
/** Written and verified by this process, or by its predecessor on the same FUSE connection. Only this is ever served. */
export const READY_VERIFIED = 1
/** Written by an earlier process: verified again before its first use. */
export const READY_STORED = 2

/** Where the checksums of a device's blocks begin. */
export function sumsAt(chunks: number): number {
  return Math.ceil((READY_HEADER_BYTES + chunks) / 4) * 4
}

/** Length of a ready file; one that was made before there were checksums ends with the bytes of the chunks. */
export function readyLength(chunks: number, deviceSize: number): number {
  return sumsAt(chunks) + 4 * Math.ceil(deviceSize / SUMMED_BYTES)
}
