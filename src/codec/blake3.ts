// BLAKE3 in TypeScript, for where the WebAssembly module cannot be instantiated: slower, the same digests.
// Sections are those of the BLAKE3 paper.

const BLOCK_BYTES = 64
const CHUNK_BYTES = 1024
const DIGEST_BYTES = 32

const CHUNK_START = 1
const CHUNK_END = 2
const PARENT = 4
const ROOT = 8

const IV = Uint32Array.of(
  ...[0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a],
  ...[0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19],
)
/** How a round's words become the next round's (table 2). */
const PERMUTATION = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
const ROUNDS = 7
/** Which word comes when, in all rounds one after the other. */
const ORDER = Uint8Array.from({ length: ROUNDS * 16 }, (_, i) => i)
for (let i = 16; i < ORDER.length; i++) ORDER[i] = ORDER[i - 16 - (i % 16) + (PERMUTATION[i % 16] as number)] as number

/** A node of the tree before its last compression, which is another one when it turns out to be the root (2.5). */
interface Node {
  chain: Uint32Array
  words: Uint32Array
  blockBytes: number
  /** Which chunk it is; 0 for parents. */
  counter: number
  flags: number
}

/** The digest of 32 bytes, without a key. */
export function blake3(bytes: Uint8Array): Uint8Array {
  const { chain, words, blockBytes, flags } = nodeOf(bytes, 0)
  const made = compress(chain, words, 0, blockBytes, flags | ROOT)
  const digest = new DataView(new ArrayBuffer(DIGEST_BYTES))
  for (const [i, word] of made.entries()) digest.setUint32(i * 4, word, true)
  return new Uint8Array(digest.buffer)
}

/** The tree over `bytes`, which begin with chunk number `counter`: the left half of it is the largest full one (2.1). */
function nodeOf(bytes: Uint8Array, counter: number): Node {
  if (bytes.length <= CHUNK_BYTES) return chunkNode(bytes, counter)
  const chunks = 2 ** (31 - Math.clz32((bytes.length - 1) / CHUNK_BYTES))
  const words = new Uint32Array(16)
  words.set(chainOf(nodeOf(bytes.subarray(0, chunks * CHUNK_BYTES), counter)))
  words.set(chainOf(nodeOf(bytes.subarray(chunks * CHUNK_BYTES), counter + chunks)), 8)
  return { chain: IV, words, blockBytes: BLOCK_BYTES, counter: 0, flags: PARENT }
}

function chunkNode(bytes: Uint8Array, counter: number): Node {
  let chain: Uint32Array = IV
  let flags = CHUNK_START
  let at = 0
  for (; bytes.length - at > BLOCK_BYTES; at += BLOCK_BYTES) {
    chain = compress(chain, wordsOf(bytes.subarray(at, at + BLOCK_BYTES)), counter, BLOCK_BYTES, flags)
    flags = 0
  }
  const last = bytes.subarray(at)
  return { chain, words: wordsOf(last), blockBytes: last.length, counter, flags: flags | CHUNK_END }
}

function chainOf({ chain, words, blockBytes, counter, flags }: Node): Uint32Array {
  return compress(chain, words, counter, blockBytes, flags)
}

/** Zeros follow what is shorter than a block. */
function wordsOf(block: Uint8Array): Uint32Array {
  const words = new Uint32Array(16)
  for (let i = 0; i < block.length; i++) {
    words[i >> 2] = (words[i >> 2] as number) | ((block[i] as number) << ((i & 3) * 8))
  }
  return words
}

/** The first half of what the compression function gives (2.2). */
function compress(
  chain: Uint32Array,
  words: Uint32Array,
  counter: number,
  blockBytes: number,
  flags: number,
): Uint32Array {
  const v = new Int32Array(16)
  v.set(chain)
  v.set(IV.subarray(0, 4), 8)
  v[12] = counter // chunks of at most 64 MiB: its upper half stays 0
  v[14] = blockBytes
  v[15] = flags
  for (let next = 0; next < ORDER.length; ) {
    // columns, then diagonals
    for (let step = 0; step < 2; step++) {
      for (let i = 0; i < 4; i++, next += 2) {
        const x = words[ORDER[next] as number] as number
        const y = words[ORDER[next + 1] as number] as number
        mix(v, i, 4 + ((i + step) & 3), 8 + ((i + 2 * step) & 3), 12 + ((i + 3 * step) & 3), x, y)
      }
    }
  }
  const made = new Uint32Array(8)
  for (let i = 0; i < 8; i++) made[i] = (v[i] as number) ^ (v[i + 8] as number)
  return made
}

function mix(v: Int32Array, ia: number, ib: number, ic: number, id: number, x: number, y: number): void {
  let a = v[ia] as number
  let b = v[ib] as number
  let c = v[ic] as number
  let d = v[id] as number
  a = (a + b + x) | 0
  d = rotateRight(d ^ a, 16)
  c = (c + d) | 0
  b = rotateRight(b ^ c, 12)
  a = (a + b + y) | 0
  d = rotateRight(d ^ a, 8)
  c = (c + d) | 0
  b = rotateRight(b ^ c, 7)
  v[ia] = a
  v[ib] = b
  v[ic] = c
  v[id] = d
}

function rotateRight(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits))
}
