// What a device of a layout holds, byte for byte, as a digest: the decoded side of a chunk table (sizes, checks of decoded bytes, places,
// zeros), however it is stored. Little-endian, in units of 8 bytes:
//
//   a chunk        size f64 │ checks u32, places u32 │ its checks │ its places
//   a check        start f64, below 0 where it is by BLAKE3 (-1 stands for 0) │ end f64 │ digest 32 bytes
//   a place        from, length, at f64
//   a run of zeros start f64, below 0 (-1 stands for 0), as no chunk has a size │ end f64
import { type Digest, digestOf } from '../image/digest.ts'

/** Of a chunk table, as it has them (chunk-table.ts). */
export interface DecodedColumns {
  size: Float64Array
  checksEnd: Uint32Array
  placesEnd: Uint32Array
  checkStart: Float64Array
  checkEnd: Float64Array
  checkDigest: Uint8Array
  placeFrom: Float64Array
  placeLength: Float64Array
  placeAt: Float64Array
  zeroStart: Float64Array
  zeroEnd: Float64Array
}

const DIGEST_WORDS = 8
/** In units: a chunk's own, a check's, a place's, a run of zeros'. */
const UNITS = { chunk: 2, check: 6, place: 3, zeros: 2 }

/** @param isCounted whether a check is of decoded bytes @param isBlake3 by which algorithm it is */
export function contentDigestOf(
  { size, checksEnd, placesEnd, checkStart, checkEnd, checkDigest, ...columns }: DecodedColumns,
  isCounted: (check: number) => boolean,
  isBlake3: (check: number) => boolean,
): Digest {
  const { placeFrom, placeLength, placeAt, zeroStart, zeroEnd } = columns
  const units = size.length * UNITS.chunk + checkStart.length * UNITS.check + placeAt.length * UNITS.place
  const numbers = new Float64Array(units + zeroStart.length * UNITS.zeros)
  const words = new Uint32Array(numbers.buffer)
  const digests = new Uint32Array(checkDigest.buffer, checkDigest.byteOffset, checkDigest.length / 4)
  let at = 0
  let check = 0
  let place = 0
  for (let i = 0; i < size.length; i++) {
    const head = at
    at += UNITS.chunk
    let checks = 0
    for (; check < (checksEnd[i] as number); check++) {
      if (!isCounted(check)) continue
      const start = checkStart[check] as number
      numbers[at++] = isBlake3(check) ? -1 - start : start
      numbers[at++] = checkEnd[check] as number
      for (let word = 0; word < DIGEST_WORDS; word++) {
        words[at * 2 + word] = digests[check * DIGEST_WORDS + word] as number
      }
      at += DIGEST_WORDS / 2
      checks++
    }
    numbers[head] = size[i] as number
    words[head * 2 + 2] = checks
    words[head * 2 + 3] = (placesEnd[i] as number) - place
    for (; place < (placesEnd[i] as number); place++) {
      numbers[at++] = placeFrom[place] as number
      numbers[at++] = placeLength[place] as number
      numbers[at++] = placeAt[place] as number
    }
  }
  for (let i = 0; i < zeroStart.length; i++) {
    numbers[at++] = -1 - (zeroStart[i] as number)
    numbers[at++] = zeroEnd[i] as number
  }
  return digestOf(new Uint8Array(numbers.buffer, 0, at * 8))
}
