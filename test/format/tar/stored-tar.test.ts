// What is stored -> the tar: gzip and zstd of any number of members and frames, or neither.
import { randomBytes, randomUUID } from 'node:crypto'
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { constants, gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { storedTar } from '../../../src/format/tar/stored-tar.ts'
import { frameAt } from '../../../src/format/zstd-frame.ts'
import { runs } from '../../fixtures/runs.ts'
import { skippable } from '../zstd-chunked/zstd-craft.ts'

async function decoded(stored: Uint8Array): Promise<Buffer> {
  const path = join(tmpdir(), `lazylayer-stored-${randomUUID()}`)
  const fd = openSync(path, 'wx+')
  unlinkSync(path)
  try {
    writeSync(fd, stored)
    const pieces: Uint8Array[] = []
    for await (const piece of storedTar(fd, 'layer x')) pieces.push(piece)
    return Buffer.concat(pieces)
  } finally {
    closeSync(fd)
  }
}

async function refused(stored: Uint8Array, text = ''): Promise<void> {
  const error = await decoded(stored).then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(Failure)
  expect(error).toMatchObject({ code: 'corrupt', message: expect.stringContaining(text) })
}

/** Frames of every kind of header and block. */
const { ZSTD_c_checksumFlag, ZSTD_c_contentSizeFlag, ZSTD_c_windowLog } = constants
const CONTENTS = [
  Buffer.alloc(0),
  Buffer.from('a'),
  Buffer.from('text '.repeat(60)),
  Buffer.from('text '.repeat(30_000)),
  Buffer.alloc(300_000),
  randomBytes(1000),
  randomBytes(400_000),
]
const FRAMES = CONTENTS.flatMap((contents) =>
  [0, 1].flatMap((checksum) =>
    [0, 1].map((size) => ({
      contents,
      frame: zstdCompressSync(contents, {
        params: { [ZSTD_c_checksumFlag]: checksum, [ZSTD_c_contentSizeFlag]: size, [ZSTD_c_windowLog]: 17 },
      }),
    })),
  ),
)

describe('a tar', () => {
  test('is what its blob is, where that is compressed in no known way', async () => {
    const bytes = randomBytes(2_500_000)
    bytes[0] = 0
    expect((await decoded(bytes)).equals(bytes)).toBe(true)
    expect(await decoded(new Uint8Array())).toHaveLength(0)
  })

  test('comes in gzip members, one after the other', async () => {
    const parts = [randomBytes(1_500_000), Buffer.from('text'), Buffer.alloc(0)]
    expect((await decoded(Buffer.concat(parts.map((each) => gzipSync(each))))).equals(Buffer.concat(parts))).toBe(true)
  })

  test('comes in zstd frames of every kind, with what is to be skipped between them', async () => {
    const stored = FRAMES.flatMap(({ frame }, i) => [frame, skippable(new Uint8Array(i * 100_000))])
    const all = Buffer.concat(FRAMES.map(({ contents }) => contents))
    expect((await decoded(Buffer.concat(stored))).equals(all)).toBe(true)
    expect((await decoded(Buffer.concat([skippable(new Uint8Array(9)), ...stored]))).equals(all)).toBe(true)
  })

  test('comes in thousands of frames, of which no two begin in the same place of what is read', async () => {
    const one = zstdCompressSync('one')
    const small = Array.from({ length: 3000 }, (_, i) => zstdCompressSync(randomBytes(i % 1500)))
    const stored = Buffer.concat([...small, one])
    expect(stored.length).toBeGreaterThan(2 << 20)
    expect((await decoded(stored)).subarray(-3).toString()).toBe('one')
  })

  test('comes in frames that are too large for one call', async () => {
    const [noise, zeros] = [randomBytes(3_000_000), Buffer.alloc(20_000_000)]
    const stored = [zstdCompressSync(noise), zstdCompressSync(zeros), zstdCompressSync('end')]
    const all = Buffer.concat([noise, zeros, Buffer.from('end')])
    expect((await decoded(Buffer.concat(stored))).equals(all)).toBe(true)
  })
})

test('what stands behind gzip members, and is not one, ends nothing but the reading', async () => {
  const behind = randomBytes(3 << 20)
  for (const head of ['', '\x1f\x8b', '\x1f\x8b\x08\0']) {
    behind.write(head, 0, 'latin1')
    const got = await decoded(Buffer.concat([gzipSync('member'), behind])).catch((error: unknown) => error)
    expect(got instanceof Failure || `${got}` === 'member').toBe(true)
  }
  await new Promise((done) => setImmediate(done)) // the decompressor's own errors come late
})

describe('is refused', () => {
  const frame = zstdCompressSync(randomBytes(300))
  test('a frame that is cut off anywhere', async () => {
    for (const { frame } of FRAMES) {
      for (const length of [5, 6, 8, frame.length >> 1, frame.length - 1]) await refused(frame.subarray(0, length))
    }
    await refused(Buffer.concat([frame, frame.subarray(0, 4)]), 'cut off')
    const large = zstdCompressSync(randomBytes(3_000_000))
    await refused(large.subarray(0, -1), 'cut off')
  })
  test('anything else between frames, as engines do', async () => {
    for (const other of ['x', 'junk', 'junk that is longer']) {
      await refused(Buffer.concat([frame, Buffer.from(other)]), `no zstd frame stands at ${frame.length}`)
    }
  })
  test('a block of a kind that there is not', async () => {
    const other = Buffer.from('28b52ffd00000600000000', 'hex')
    await refused(other, 'has no block')
  })
  test('contents that do not decode', async () => {
    const wrong = Buffer.concat([zstdCompressSync('text '.repeat(1000))])
    wrong.fill(0xff, 12)
    await refused(wrong)
  })
})

test('a frame ends where its decoder says that it ends', () => {
  for (const { frame, contents } of FRAMES) {
    const bytes = Buffer.concat([Buffer.from('before'), frame, Buffer.from('behind')])
    const bytesAt = (at: number, length: number) => bytes.subarray(at, at + length)
    const { end, maxBytes } = frameAt(6, bytesAt, bytes.length)
    expect(end).toBe(6 + frame.length)
    expect(maxBytes).toBeGreaterThanOrEqual(contents.length)
  }
})

test('frames with flipped bytes are refused, or decode to something', async () => {
  const stored = Buffer.concat([...FRAMES.slice(0, 12).map(({ frame }) => frame), skippable(new Uint8Array(10))])
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(stored.length - 1), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 3 }),
      async (flips) => {
        const bytes = Uint8Array.from(stored)
        for (const [at, byte] of flips) bytes[at] = byte
        try {
          await decoded(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
      },
    ),
    { numRuns: runs(100) },
  )
})
