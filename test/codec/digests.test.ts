import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { blake3 } from '../../src/codec/blake3.ts'
import type { Piece } from '../../src/codec/digests.ts'
import { fallbackDecoder } from '../../src/codec/fallback.ts'
import { Instance } from '../../src/codec/instance.ts'
import { processorHashes, Sha256 } from '../../src/codec/sha256.ts'
import { tryCodecs } from '../../src/codec/trial.ts'
import { CODECS_WASM, loadCodecs, WasmDecoder } from '../../src/codec/wasm.ts'
import { digestOf } from '../../src/image/digest.ts'
import { runs } from '../fixtures/runs.ts'
import { noise } from './fixture.ts'

const module = await loadCodecs()
const instance = new Instance(module)
/** WebAssembly wherever there are four pieces of like lengths, and node:crypto for comparison. */
const lanes = new Sha256((four) => instance.sha256(four))
const decoders = [new WasmDecoder(module), new WasmDecoder(module, lanes), fallbackDecoder()]

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
/** 0, 1, … 250, 0, 1, …: what BLAKE3's test vectors are made of. */
const counting = Uint8Array.from({ length: 102_400 }, (_, i) => i % 251)

describe('BLAKE3', () => {
  // by the portable C code of the crate blake3 1.8.7, built on its own
  test.each([
    [0, 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'],
    [1, '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213'],
    [63, 'e9bc37a594daad83be9470df7f7b3798297c3d834ce80ba85d6e207627b7db7b'],
    [64, '4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98'],
    [65, 'de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee'],
    [1023, '10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11'],
    [1024, '42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7'],
    [1025, 'd00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444'],
    [2049, '5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030'],
    [4096, '015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969'],
    [8193, 'bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b'],
    [31_744, '62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47'],
    [102_400, 'bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085'],
  ])('of %i bytes is as the test vectors say', (length, want) => {
    const bytes = counting.subarray(0, length)
    expect(hex(blake3(bytes))).toBe(want)
    expect(hex(instance.blake3(bytes))).toBe(want)
  })

  test('is the same in WebAssembly and in TypeScript for every number of blocks and chunks', () => {
    const bytes = noise(40_000)
    for (let length = 0; length < 40_000; length += 613) {
      const some = bytes.subarray(length % 64, length)
      expect(hex(instance.blake3(some))).toBe(hex(blake3(some)))
    }
  })
})

describe('SHA-256, four at once', () => {
  test('is that of node:crypto, however long each of the four is', () => {
    const lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 5000]
    const bytes = noise(5003)
    for (const [i, length] of lengths.entries()) {
      const four = [0, 1, 2, 3].map((j) => bytes.subarray(j, j + (lengths[(i + j * 5) % lengths.length] as number)))
      expect(instance.sha256(four).map(hex), `${length}`).toEqual(four.map((each) => digestOf(each).slice(7)))
    }
  })

  test('takes pieces of its own memory where they lie, and copies others', () => {
    const { pointer } = instance.reserve('output', 1000)
    const own = [0, 1, 2, 3].map((i) => instance.view(pointer + i * 10, 200))
    for (const view of own) view.set(noise(200))
    const want = own.map((view) => digestOf(view).slice(7))
    expect(instance.sha256(own).map(hex)).toEqual(want)
    const others = [noise(10), own[1] as Uint8Array, noise(300_000), own[0] as Uint8Array]
    const mixed = others.map((view) => digestOf(view).slice(7))
    expect(instance.sha256(others).map(hex)).toEqual(mixed)
  })
})

test('digests of pieces are in their order, whatever makes them', () => {
  const bytes = noise(60_000)
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(60_000), fc.nat(20_000), fc.boolean()), { maxLength: 30 }), (pieces) => {
      const all = pieces.map(([at, length, isBlake3]): Piece => {
        return { algorithm: isBlake3 ? 'blake3' : 'sha256', bytes: bytes.subarray(at, at + length) }
      })
      const want = all.map(({ algorithm, bytes }) =>
        algorithm === 'sha256' ? digestOf(bytes) : `blake3:${hex(blake3(bytes))}`,
      )
      for (const decoder of decoders) expect(decoder.digests(all)).toEqual(want)
    }),
    { numRuns: runs(40) },
  )
})

test('four pieces of like lengths are tried in both ways; one among them that is far longer, and few, are not', () => {
  let calls = 0
  const counted = new Sha256((four) => {
    calls++
    return instance.sha256(four)
  })
  const piece = noise(8192)
  counted.digests([piece, piece, piece])
  counted.digests([noise(100_000), piece, piece, piece])
  expect(calls).toBe(0)
  for (let i = 0; i < 20; i++) counted.digests([piece, piece, piece, piece])
  expect(calls).toBeGreaterThanOrEqual(8)
  const { fastest, mbPerSecond } = counted.speeds()
  expect(mbPerSecond[fastest]).toBe(Math.max(mbPerSecond.WebAssembly, mbPerSecond['node:crypto']))
  expect(Math.min(mbPerSecond.WebAssembly, mbPerSecond['node:crypto'])).toBeGreaterThan(0)
})

test.each([
  ['flags\t\t: fpu sha_ni avx2\n', true],
  ['Features\t: fp asimd aes sha1 sha2 crc32\n', true],
  ['flags\t\t: fpu ssse3 avx2\n', false],
  ['Features\t: fp asimd evtstrm sha1 sha256x\n', false],
  ['', false],
])('%j says that the processor hashes: %s', (cpuinfo, hashes) => {
  expect(processorHashes(cpuinfo)).toBe(hashes)
})

test('what a machine uses is found out as workers do', async () => {
  expect(await tryCodecs(new URL('file:///nowhere/codecs.wasm'))).toEqual({ noWasm: expect.stringMatching(/ENOENT/) })
  expect(await tryCodecs(CODECS_WASM, true)).toEqual({ processor: true })
  const { mbPerSecond } = (await tryCodecs(CODECS_WASM, false)) as ReturnType<Sha256['speeds']>
  expect(Math.min(mbPerSecond.WebAssembly, mbPerSecond['node:crypto'])).toBeGreaterThan(0)
})
