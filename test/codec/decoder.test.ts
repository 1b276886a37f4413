import { execFileSync } from 'node:child_process'
import { constants, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Decoder } from '../../src/codec/decoder.ts'
import { fallbackDecoder } from '../../src/codec/fallback.ts'
import { loadCodecs, WasmDecoder } from '../../src/codec/wasm.ts'
import { Failure } from '../../src/errors.ts'
import { CHUNK_MAX_BYTES } from '../../src/tree/chunk.ts'
import { lz4Block } from '../fixtures/lz4.ts'
import { runs } from '../fixtures/runs.ts'
import { noise, type Plain, store, text } from './fixture.ts'

const ours: Decoder = new WasmDecoder(await loadCodecs())
const fallback: Decoder = fallbackDecoder()

const MIB = 2 ** 20

async function decoded(decoder: Decoder, codec: Plain, stored: Uint8Array, size: number): Promise<Buffer | string> {
  try {
    const made = await decoder.decode({ name: codec }, stored, size)
    expect(Buffer.compare(made.stored, stored)).toBe(0)
    return Buffer.from(made.decoded) // copied: the next call reuses it
  } catch (error) {
    if (error instanceof Failure) return error.code
    throw error
  }
}

/** Both decoders make `want` of it: bytes, or a Failure's code. */
async function check(codec: Plain, stored: Uint8Array, size: number, want: Uint8Array | string) {
  for (const decoder of [ours, fallback]) {
    const got = await decoded(decoder, codec, stored, size)
    if (typeof want === 'string') expect(got).toBe(want)
    else expect(typeof got !== 'string' && Buffer.compare(got, want), `${got}`.slice(0, 40)).toBe(0)
  }
}

const concat = (...parts: Uint8Array[]) => Uint8Array.from(Buffer.concat(parts))

describe('gzip', () => {
  test.each([0, 1, 6, 9])('level %i comes back', async (level) => {
    for (const size of [1, 1000, 65_536, 300_000]) {
      await check('gzip', gzipSync(text(size), { level }), size, text(size))
    }
  })

  test('a header with extra field, name, comment and checksum is skipped', async () => {
    const plain = gzipSync(text(5000))
    const flags = 2 | 4 | 8 | 16
    const header = Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255, 3, 0, 9, 9, 9, 97, 0, 98, 99, 0, 1, 2])
    const got = await decoded(ours, 'gzip', concat(header, plain.subarray(10)), 5000)
    expect(got).toEqual(Buffer.from(text(5000)))
    for (let cut = 0; cut < header.length; cut++) {
      expect(await decoded(ours, 'gzip', header.subarray(0, cut), 1)).toBe('corrupt')
    }
  })

  test('members follow each other', async () => {
    const parts = [text(70_000, 1), text(1, 2), text(90_000, 3)]
    const stored = concat(...parts.map((part) => gzipSync(part)))
    await check('gzip', stored, 160_001, concat(...parts))
    await check('gzip', stored, 70_001, concat(...parts).subarray(0, 70_001))
  })

  test('bytes after the wanted ones are dropped: padding, headers, other members, anything', async () => {
    const file = text(10_000)
    await check('gzip', gzipSync(concat(file, new Uint8Array(3000))), 10_000, file)
    await check('gzip', concat(gzipSync(file), gzipSync(noise(100)), noise(50)), 10_000, file)
  })

  test('more surplus than fits beside a chunk costs no memory', async () => {
    const file = text(10_000)
    for (const surplus of [MIB - 1, MIB, MIB + 1, 40 * MIB]) {
      await check('gzip', gzipSync(concat(file, new Uint8Array(surplus))), 10_000, file)
    }
  })

  test('a stream that ends early is corrupt', async () => {
    const stored = gzipSync(text(10_000))
    await check('gzip', stored, 10_001, 'corrupt')
    await check('gzip', stored.subarray(0, stored.length / 2), 10_000, 'corrupt')
    await check('gzip', new Uint8Array(0), 1, 'corrupt')
    await check('gzip', noise(1000), 10, 'corrupt')
  })
})

describe('zstd', () => {
  test.each([1, 3, 19])('level %i comes back', async (level) => {
    for (const size of [1, 1000, 65_536, 200_000]) {
      const stored = zstdCompressSync(text(size), { params: { [constants.ZSTD_c_compressionLevel]: level } })
      await check('zstd', stored, size, text(size))
    }
  })

  test('a frame need not say how much it holds', async () => {
    const stored = zstdCompressSync(text(300_000), { params: { [constants.ZSTD_c_contentSizeFlag]: 0 } })
    await check('zstd', stored, 300_000, text(300_000))
    await check('zstd', stored, 299_999, text(300_000).subarray(0, 299_999))
  })

  test('frames follow each other, skippable ones are skipped, what comes after the wanted bytes is dropped', async () => {
    const parts = [text(70_000, 1), text(90_000, 2)] as const
    const skippable = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3)
    const stored = concat(skippable, zstdCompressSync(parts[0]), skippable, zstdCompressSync(parts[1]), noise(50))
    await check('zstd', stored, 160_000, concat(...parts))
    await check('zstd', stored, 100_000, concat(...parts).subarray(0, 100_000))
  })

  test('a frame may hold far more than is wanted', async () => {
    const file = concat(text(10_000), new Uint8Array(20 * MIB))
    await check('zstd', zstdCompressSync(file), 10_000, file.subarray(0, 10_000))
  })

  test('a stream that ends early is corrupt', async () => {
    const stored = zstdCompressSync(text(100_000))
    await check('zstd', stored, 100_001, 'corrupt')
    await check('zstd', stored.subarray(0, stored.length / 2), 100_000, 'corrupt')
    await check('zstd', new Uint8Array(0), 1, 'corrupt')
    await check('zstd', noise(1000), 10, 'corrupt')
  })

  test('a window beyond the memory is a limit, and the decoder goes on', async () => {
    // one frame, window descriptor of 2^41 bytes (RFC 8878 3.1.1.1.2), no content size, one raw block of 1 byte that is not the last
    const stored = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 31 << 3, 8, 0, 0, 65)
    expect(await decoded(ours, 'zstd', stored, 2)).toBe('limit')
    await check('zstd', zstdCompressSync(text(1000)), 1000, text(1000))
  })
})

describe('lz4', () => {
  test.each([1, 12, 13, 20, 1000, 65_536, 300_000])('a block of %i bytes comes back', async (size) => {
    for (const bytes of [text(size), noise(size), new Uint8Array(size)])
      await check('lz4', lz4Block(bytes), size, bytes)
  })

  test('a block is what the specification says', async () => {
    // "abc", then 18 bytes from 3 before (4 + 14), then 5 literals
    const repeated = Uint8Array.of(0x3e, 97, 98, 99, 3, 0, 0x50, 100, 101, 102, 103, 104)
    await check('lz4', repeated, 26, Buffer.from('abcabcabcabcabcabcabcdefgh'))
    // 15 + 255 + 0 literals
    const long = concat(Uint8Array.of(0xf0, 255, 0), text(270))
    await check('lz4', long, 270, text(270))
  })

  test('it holds exactly the wanted bytes', async () => {
    const stored = lz4Block(text(1000))
    for (const size of [1, 999, 1001, 2000]) await check('lz4', stored, size, 'corrupt')
    for (const cut of [0, 1, stored.length >> 1, stored.length - 1]) {
      await check('lz4', stored.subarray(0, cut), 1000, 'corrupt')
    }
    await check('lz4', concat(stored, new Uint8Array(1)), 1000, 'corrupt')
  })

  test('a copy from before its beginning, and one that the last bytes are made by, are corrupt', async () => {
    const block = (distance: number, length: number, ...last: number[]) =>
      Uint8Array.of(0x30 | (length - 4), 97, 98, 99, distance, 0, last.length << 4, ...last)
    await check('lz4', block(3, 18, 1, 2, 3, 4, 5), 26, Buffer.from('abcabcabcabcabcabcabc\x01\x02\x03\x04\x05'))
    await check('lz4', block(4, 18, 1, 2, 3, 4, 5), 26, 'corrupt')
    await check('lz4', block(3, 18, 1, 2, 3, 4), 25, 'corrupt')
    await check('lz4', block(3, 6, 1, 2, 3, 4), 13, 'corrupt')
  })

  test('a length that goes on for ever ends with the block', async () => {
    await check('lz4', concat(Uint8Array.of(0xf0), new Uint8Array(100_000).fill(255)), 1000, 'corrupt')
    await check('lz4', concat(Uint8Array.of(0x1f, 1, 1, 0), new Uint8Array(100_000).fill(255)), 1000, 'corrupt')
  })
})

test('codec none gives the bytes themselves, copied', async () => {
  const stored = text(5000)
  for (const decoder of [ours, fallback]) {
    const made = await decoder.decode({ name: 'none' }, stored, 4000)
    stored[0] = 0
    expect(Buffer.compare(made.decoded, text(5000).subarray(0, 4000))).toBe(0)
    stored[0] = text(1)[0] as number
  }
  await check('none', stored, 5001, 'corrupt')
})

test.each([
  ['wasm', 'gzip'],
  ['wasm', 'zstd'],
  ['fallback', 'gzip'],
  ['fallback', 'zstd'],
])('%s: a %s bomb of a gigabyte costs no more than the megabyte that is wanted', (decoder, codec) => {
  // in a process of its own, whose peak of memory is nobody else's
  const source = (file: string) => JSON.stringify(new URL(`../../src/codec/${file}.ts`, import.meta.url).href)
  const make =
    decoder === 'wasm'
      ? `const { loadCodecs, WasmDecoder } = await import(${source('wasm')}); const decoder = new WasmDecoder(await loadCodecs())`
      : `const { fallbackDecoder } = await import(${source('fallback')}); const decoder = fallbackDecoder()`
  const small = store(codec as Plain, text(1000))
  const program = `
    ${make}
    const { readFileSync } = await import('node:fs')
    await decoder.decode({ name: '${codec}' }, Buffer.from('${Buffer.from(small).toString('hex')}', 'hex'), 1000)
    const bomb = readFileSync(0)
    const before = process.resourceUsage().maxRSS
    const { decoded } = await decoder.decode({ name: '${codec}' }, bomb, ${MIB})
    console.log(JSON.stringify([decoded.length, process.resourceUsage().maxRSS - before]))`
  const out = execFileSync(process.execPath, ['--input-type=module', '--no-warnings', '-e', program], {
    input: codec === 'gzip' ? gzipBomb() : zstdBomb(8192),
    timeout: 120_000,
  })
  const [length, peakKib] = JSON.parse(out.toString())
  expect(length).toBe(MIB)
  expect(peakKib).toBeLessThan(128 * 1024)
})

/** A gigabyte of zeros in one member. */
function gzipBomb(): Uint8Array {
  const header = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255)
  // a full flush ends at a byte and refers to nothing before it, so that copies may follow each other
  const part = deflateRawSync(new Uint8Array(16 * MIB), { finishFlush: constants.Z_FULL_FLUSH })
  const parts = Array.from({ length: 64 }, () => part)
  const end = deflateRawSync(new Uint8Array(0))
  return concat(header, ...parts, end, new Uint8Array(8))
}

/** One frame of `count` RLE blocks. */
function zstdBomb(count: number): Uint8Array {
  return concat(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3), rleBlocks(count))
}

/** `count` RLE blocks of 128 KiB (RFC 8878 3.1.1.2.2), the last one marked so. */
function rleBlocks(count: number): Uint8Array {
  const blocks = new Uint8Array(count * 4)
  for (let i = 0; i < count; i++) {
    const header = (i === count - 1 ? 1 : 0) | (1 << 1) | ((128 * 1024) << 3)
    blocks.set([header & 255, (header >> 8) & 255, header >> 16, 65], i * 4)
  }
  return blocks
}

test('the largest chunk is decoded, and its memory is given back', async () => {
  const stored = gzipSync(new Uint8Array(CHUNK_MAX_BYTES), { level: 1 })
  const made = await ours.decode({ name: 'gzip' }, stored, CHUNK_MAX_BYTES)
  expect(made.decoded.length).toBe(CHUNK_MAX_BYTES)
  ours.release()
  const small = await ours.decode({ name: 'gzip' }, gzipSync(text(100)), 100)
  expect(small.decoded.buffer.byteLength).toBeLessThan(8 * MIB)
})

test('zstd with a dictionary is refused, whatever it holds', async () => {
  const bytes = text(1000)
  for (const decoder of [ours, fallback]) {
    const made = decoder.decode({ name: 'zstd', dictionary: new Uint8Array() }, zstdCompressSync(bytes), 1000)
    await expect(made).rejects.toMatchObject({ code: 'unsupported' })
  }
})

test('mutated streams give exactly the wanted number of bytes, or a Failure', async () => {
  const bytes = text(20_000)
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom<Plain>('gzip', 'zstd', 'lz4'),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
      fc.option(fc.nat()),
      fc.integer({ min: 1, max: 40_000 }),
      async (codec, flips, cut, size) => {
        let stored = Uint8Array.from(store(codec, bytes))
        for (const [at, value] of flips) stored[at % stored.length] = value
        if (cut !== null) stored = stored.subarray(0, cut % stored.length)
        for (const decoder of [ours, fallback]) {
          const got = await decoded(decoder, codec, stored, size)
          if (typeof got === 'string') expect(['corrupt', 'limit']).toContain(got)
          else expect(got.length).toBe(size)
        }
      },
    ),
    { numRuns: runs(100) },
  )
})

test('a decoder that traps says corrupt, and the next chunk gets a fresh instance', async () => {
  const trapping = new WasmDecoder(new WebAssembly.Module(TRAPS_ONCE))
  expect(await decoded(trapping, 'gzip', text(100), 50)).toBe('corrupt')
  // a used instance would have counted on and answered -1
  expect(await decoded(trapping, 'gzip', text(100), 50)).toBe('corrupt')
  await expect(trapping.decode({ name: 'gzip' }, text(100), 50)).rejects.toMatchObject({
    message: 'the gzip decoder trapped',
  })
})

// (module (memory (export "memory") 64) (global $calls (mut i32) (i32.const 0)) (func (export "_initialize")) (func (export "free") (param i32))
//   (func (export "malloc") (param i32) (result i32) i32.const 65536)
//   (func (export "gunzip") (export "unzstd") (param i32 i32 i32 i32 i32) (result i32)
//     global.get $calls  i32.const 1  global.set $calls  if (result i32) i32.const -1 else unreachable end))
const name = (text: string) => [text.length, ...Buffer.from(text)]
const section = (id: number, ...bytes: number[]) => [id, bytes.length, ...bytes]
const func = (...code: number[]) => [code.length + 2, 0, ...code, 0x0b]
const I32 = 0x7f
const TRAPS_ONCE = Uint8Array.of(
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...section(1, 4, 0x60, 0, 0, 0x60, 1, I32, 0, 0x60, 1, I32, 1, I32, 0x60, 5, I32, I32, I32, I32, I32, 1, I32),
  ...section(3, 4, 0, 1, 2, 3),
  ...section(5, 1, 0, 64),
  ...section(6, 1, I32, 1, 0x41, 0, 0x0b),
  ...section(
    7,
    6,
    ...[...name('memory'), 2, 0, ...name('_initialize'), 0, 0, ...name('free'), 0, 1, ...name('malloc'), 0, 2],
    ...[...name('gunzip'), 0, 3, ...name('unzstd'), 0, 3],
  ),
  ...section(
    10,
    4,
    ...[...func(), ...func(), ...func(0x41, 0x80, 0x80, 4)],
    ...func(0x23, 0, 0x41, 1, 0x24, 0, 0x04, I32, 0x41, 0x7f, 0x05, 0x00, 0x0b),
  ),
)
