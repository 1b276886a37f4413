// SHA-256 of pieces. Where the processor has instructions for it, node:crypto is more than twice as fast as WebAssembly can be. Where
// it has none, four pieces side by side in WebAssembly may be faster than one after the other in node:crypto: that depends on the
// processor, so both are timed on what is to be hashed anyway.
import { readFileSync } from 'node:fs'
import { type Digest, digestOf } from '../image/digest.ts'

/** Digests of four pieces, 32 bytes each. */
type HashFour = (four: readonly Uint8Array[]) => Uint8Array[]

type Way = 'node:crypto' | 'WebAssembly'

const LANES = 4
// Four lanes take as long as the longest piece: without work for three of them they cannot win.
const FILLED_MIN = 0.75
// A clock says nothing of less.
const TIMED_MIN_BYTES = 16 * 1024
// So often each is timed before the faster one is believed; as seldom as that the other one is tried again, since WebAssembly that
// has run for a while is compiled once more, and better.
const TRIES = 8
const RETRY_EVERY = 64

export class Sha256 {
  readonly #four: HashFour | null
  /** MB/s at best, of four pieces. */
  readonly #best: Record<Way, number> = { 'node:crypto': 0, WebAssembly: 0 }
  #timed = 0

  /** @param four null: node:crypto for everything */
  constructor(four: HashFour | null) {
    this.#four = four
  }

  /** In the order of the pieces. */
  digests(pieces: readonly Uint8Array[]): Digest[] {
    const four = this.#four
    if (four === null || pieces.length < LANES) return pieces.map(digestOf)
    const digests: Digest[] = []
    // of like lengths together
    const ordered = pieces.map((bytes, i) => ({ bytes, i })).sort((a, b) => b.bytes.length - a.bytes.length)
    for (let at = 0; at < ordered.length; ) {
      const group = ordered.slice(at, at + LANES)
      if (!fills(group.map(({ bytes }) => bytes.length))) group.length = 1
      const all = group.map(({ bytes }) => bytes)
      const made = group.length === LANES ? this.#hashFour(four, all) : all.map(digestOf)
      for (const [j, { i }] of group.entries()) digests[i] = made[j] as Digest // one each
      at += group.length
    }
    return digests
  }

  /** Which one four pieces go to, and how fast both were; 0 where nothing was timed. */
  speeds(): { fastest: Way; mbPerSecond: Readonly<Record<Way, number>> } {
    return { fastest: this.#fastest(), mbPerSecond: { ...this.#best } }
  }

  #fastest(): Way {
    return this.#best.WebAssembly > this.#best['node:crypto'] ? 'WebAssembly' : 'node:crypto'
  }

  #hashFour(four: HashFour, pieces: readonly Uint8Array[]): Digest[] {
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0)
    const timed = bytes >= TIMED_MIN_BYTES
    const way = timed ? this.#next() : this.#fastest()
    const start = performance.now()
    const made = way === 'WebAssembly' ? four(pieces).map(digestFrom) : pieces.map(digestOf)
    if (timed) this.#best[way] = Math.max(this.#best[way], bytes / 1e3 / (performance.now() - start))
    return made
  }

  #next(): Way {
    const round = this.#timed++
    const fastest = this.#fastest()
    const other = fastest === 'WebAssembly' ? 'node:crypto' : 'WebAssembly'
    if (round < 2 * TRIES) return round % 2 === 0 ? 'WebAssembly' : 'node:crypto'
    return round % RETRY_EVERY === 0 ? other : fastest
  }
}

/** Whether the processor has instructions for SHA-256, which node:crypto uses: `sha_ni` on x86, `sha2` on ARM. */
export function processorHashes(cpuinfo: string = readCpuinfo()): boolean {
  return /\b(sha_ni|sha2)\b/.test(cpuinfo)
}

function readCpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'latin1')
  } catch {
    return '' // then both are timed
  }
}

function fills(lengths: readonly number[]): boolean {
  const [longest = 0] = lengths
  return lengths.length === LANES && lengths.reduce((sum, each) => sum + each, 0) >= FILLED_MIN * LANES * longest
}

function digestFrom(bytes: Uint8Array): Digest {
  return `sha256:${Buffer.from(bytes).toString('hex')}`
}
