import { deflateRawSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Decoder } from '../../src/codec/decoder.ts'
import { fallbackDecoder } from '../../src/codec/fallback.ts'
import { loadCodecs, WasmDecoder } from '../../src/codec/wasm.ts'
import { Failure } from '../../src/errors.ts'
import { CHUNK_STORED_MAX_BYTES } from '../../src/tree/chunk.ts'
import { runs } from '../fixtures/runs.ts'
import { noise, text } from './fixture.ts'

const decoders: Decoder[] = [new WasmDecoder(await loadCodecs()), fallbackDecoder()]

/** Both decoders make `want` of it: bytes, or a Failure's code. */
async function check(seed: Uint8Array, stored: Uint8Array, size: number, want: Uint8Array | string) {
  for (const decoder of decoders) {
    try {
      const made = await decoder.decode({ name: 'gzip', seed }, stored, size)
      expect(Buffer.compare(made.stored, stored)).toBe(0)
      expect(typeof want !== 'string' && Buffer.compare(made.decoded, want)).toBe(0)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      expect(error.code).toBe(want)
    }
  }
}

/** A deflate stream (RFC 1951), bit by bit. */
class Bits {
  readonly #bits: number[] = []

  get length(): number {
    return this.#bits.length
  }

  /** Lowest bit first. */
  add(value: number, count: number): this {
    for (let i = 0; i < count; i++) this.#bits.push((value >> i) & 1)
    return this
  }

  /** A fixed block of literals from 144 up, which have 9 bits each; not the last. */
  fixed(bytes: Uint8Array): this {
    this.add(0, 1).add(1, 2)
    for (const byte of bytes) for (let i = 8; i >= 0; i--) this.add((0b110010000 + byte - 144) >> i, 1)
    return this.add(0, 7)
  }

  /** Not the last. */
  stored(bytes: Uint8Array): this {
    this.add(0, 3)
    while (this.length % 8 !== 0) this.add(0, 1)
    return this.add(bytes.length, 16).add(~bytes.length, 16).bytes(bytes)
  }

  bytes(bytes: Uint8Array): this {
    for (const byte of bytes) this.add(byte, 8)
    return this
  }

  /** What is stored from bit `at` on, and the seed for there. */
  from(at: number, dictionary: Uint8Array): { seed: Uint8Array; stored: Uint8Array } {
    const bits = (8 - (at % 8)) % 8
    const value = this.#bits.slice(at, at + bits).reduce((sum, bit, i) => sum | (bit << i), 0)
    const rest = this.#bits.slice(at + bits)
    const stored = new Uint8Array(Math.ceil(rest.length / 8))
    for (const [i, bit] of rest.entries()) stored[i >> 3] = (stored[i >> 3] as number) | (bit << (i & 7))
    return { seed: Uint8Array.of(bits, value, ...dictionary), stored }
  }
}

const before = Uint8Array.from({ length: 8 }, (_, i) => 150 + i)
const file = text(5000)
const concat = (...parts: Uint8Array[]) => Uint8Array.from(Buffer.concat(parts))

describe.each([0, 1, 2, 3, 4, 5, 6, 7])('a stream that goes on at bit %i of a byte', (bit) => {
  // 10 bits and 9 for each literal: as many as it takes to end there
  const literals = Array.from({ length: 8 }, (_, i) => i).find((count) => (10 + 9 * count) % 8 === bit) as number
  const first = before.subarray(0, literals)

  test('by a stored block, whose bytes begin where they did', async () => {
    const bits = new Bits().fixed(first)
    const at = bits.length
    bits.stored(file).bytes(deflateRawSync(file, { dictionary: concat(first, file) }))
    const { seed, stored } = bits.from(at, first)
    await check(seed, stored, 10_000, concat(file, file))
    await check(seed, stored, 1, file.subarray(0, 1))
    await check(seed, stored, 10_001, 'corrupt')
  })

  test('by a block that copies from what came before', async () => {
    const dictionary = concat(file, first)
    const bits = new Bits().fixed(first)
    const at = bits.length
    bits.bytes(deflateRawSync(file, { dictionary }))
    const { seed, stored } = bits.from(at, dictionary)
    expect(stored.length).toBeLessThan(500)
    await check(seed, stored, 5000, file)
    await check(seed.subarray(0, 2), stored, 5000, 'corrupt')
  })

  test('and ends before the wanted bytes do: members follow', async () => {
    const bits = new Bits().fixed(first)
    const at = bits.length
    bits.stored(file).bytes(concat(deflateRawSync(text(10, 2)), noise(8)))
    bits.bytes(concat(gzipSync(text(100, 3)), gzipSync(new Uint8Array(0)), gzipSync(text(200, 4)), gzipSync(noise(9))))
    const { seed, stored } = bits.from(at, first)
    const all = concat(file, text(10, 2), text(100, 3), text(200, 4))
    await check(seed, stored, all.length, all)
    await check(seed, stored, 5010, all.subarray(0, 5010))
    await check(seed, stored, 5011, all.subarray(0, 5011))
    await check(seed, stored, all.length + 10, 'corrupt')
  })
})

test('two zero bytes are the beginning of a deflate stream', async () => {
  await check(new Uint8Array(2), deflateRawSync(file), 5000, file)
})

test('a stream may be cut behind the wanted bytes, and no earlier', async () => {
  const stored = deflateRawSync(noise(5000), { level: 0 })
  const cut = stored.subarray(0, 5 + 4000) // a stored block's header
  await check(new Uint8Array(2), cut, 4000, stored.subarray(5, 4005))
  await check(new Uint8Array(2), cut, 4001, 'corrupt')
  await check(new Uint8Array(2), new Uint8Array(0), 1, 'corrupt')
})

test('a stream may hold far more than is wanted', async () => {
  await check(new Uint8Array(2), deflateRawSync(concat(file, new Uint8Array(40 * 2 ** 20))), 5000, file)
})

test.each([
  ['none', new Uint8Array(0)],
  ['one byte', new Uint8Array(1)],
  ['eight bits', Uint8Array.of(8, 0)],
  ['more bits than it says', Uint8Array.of(3, 8)],
  ['more than 32 KiB before', new Uint8Array(2 + 32 * 1024 + 1)],
])('a seed of %s is refused', async (_, seed) => {
  await check(seed, deflateRawSync(file), 5000, 'corrupt')
})

test('32 KiB before, and copies from the first of them', async () => {
  const dictionary = noise(32 * 1024)
  const stored = deflateRawSync(dictionary, { dictionary, windowBits: 15 })
  await check(concat(new Uint8Array(2), dictionary), stored, dictionary.length, dictionary)
})

test('mutated seeds and streams give exactly the wanted number of bytes, or a Failure', async () => {
  const stored = concat(deflateRawSync(file), noise(8), gzipSync(file))
  const seed = concat(new Uint8Array(2), file.subarray(0, 100))
  expect(stored.length).toBeLessThan(CHUNK_STORED_MAX_BYTES)
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.boolean(), fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
      fc.option(fc.nat()),
      fc.integer({ min: 1, max: 12_000 }),
      async (flips, cut, size) => {
        const [seedHere, storedHere] = [Uint8Array.from(seed), Uint8Array.from(stored)]
        for (const [ofSeed, at, value] of flips) {
          const of = ofSeed ? seedHere : storedHere
          of[at % of.length] = value
        }
        const bytes = cut === null ? storedHere : storedHere.subarray(0, cut % stored.length)
        for (const decoder of decoders) {
          const made = await decoder.decode({ name: 'gzip', seed: seedHere }, bytes, size).catch((error) => error)
          if (made instanceof Failure) expect(made.code).toBe('corrupt')
          else expect(made.decoded.length).toBe(size)
        }
      },
    ),
    { numRuns: runs(100) },
  )
})
