import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { crc32, deflateRawSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { blake3 } from '../../src/codec/blake3.ts'
import { CodecPool } from '../../src/codec/pool.ts'
import { digestOf } from '../../src/image/digest.ts'
import { CHUNK_MAX_BYTES, type Check, type Chunk } from '../../src/tree/chunk.ts'
import { READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { runs } from '../fixtures/runs.ts'
import { chunkOf, Device, noise, type Plain, store, text } from './fixture.ts'

const warnings: string[] = []
const nowhere = new URL('file:///nowhere/codecs.wasm')
const wasm = new CodecPool({ threads: 2, warn: (message) => warnings.push(`unexpected: ${message}`) })
const fallback = new CodecPool({ threads: 2, module: nowhere, warn: (message) => warnings.push(message) })
afterAll(async () => {
  await wasm.close()
  await fallback.close()
  expect(warnings).toEqual([expect.stringContaining('/nowhere/codecs.wasm')])
})

const NOW = { priority: 'demand' } as const
const CODECS: Plain[] = ['none', 'gzip', 'zstd', 'lz4']
const bytes = text(50_000)

function flip(stored: Uint8Array, bit: number): Uint8Array {
  const flipped = Uint8Array.from(stored)
  const at = (bit >> 3) % flipped.length
  flipped[at] = (flipped[at] as number) ^ (1 << (bit & 7))
  return flipped
}

describe.each([
  ['wasm', wasm],
  ['fallback', fallback],
] as const)('%s', (_, pool) => {
  test.each(CODECS)('a %s chunk is decoded, checked, written to all its places and marked ready', async (codec) => {
    using device = new Device()
    const stored = store(codec, bytes)
    const places = [
      { from: 0, length: 1000, at: 4096 },
      { from: 500, length: 49_500, at: 100_000 },
      { from: 500, length: 1, at: 0 },
    ]
    await pool.decode(chunkOf(codec, bytes, stored, { places }), stored, device.slot(7), NOW)
    for (const { from, length, at } of places)
      expect(device.read(at, length)).toEqual(bytes.subarray(from, from + length))
    expect(device.ready(7)).toBe(READY_VERIFIED)
    expect(device.ready(6)).toBe(0)
    expect(device.ready(8)).toBe(0)
  })

  test('a chunk is put together from pieces on other devices, which are checked when they were read', async () => {
    using device = new Device()
    using one = new Device()
    using other = new Device()
    const check = (start: number, end: number) =>
      ({ of: 'decoded', range: { start, end }, digest: digestOf(bytes.subarray(start, end)) }) as const
    const places = [
      { from: 0, length: 20_000, at: 4096 },
      { from: 20_000, length: 30_000, at: 81_920 },
    ]
    const checks = [check(0, 20_000), check(20_000, 50_000)]
    const chunk = chunkOf('gzip', bytes, store('gzip', bytes), { checks, places })
    one.write(100, bytes.subarray(0, 20_000))
    other.write(7, bytes.subarray(20_000))
    const pieces = [
      { fd: one.deviceFd, at: 100, start: 0, end: 20_000 },
      { fd: other.deviceFd, at: 7, start: 20_000, end: 50_000 },
    ]
    const before = pool.counters()
    await pool.copy(chunk, pieces, device.slot(3), NOW)
    expect(device.read(4096, 20_000)).toEqual(bytes.subarray(0, 20_000))
    expect(device.read(81_920, 30_000)).toEqual(bytes.subarray(20_000))
    expect(device.ready(3)).toBe(READY_VERIFIED)
    expect(pool.counters()).toMatchObject({ copied: before.copied + bytes.length, corrupt: before.corrupt })
    // a hole in one of them, and one that is shorter than it was
    one.write(200, new Uint8Array(4096))
    await expect(pool.copy(chunk, pieces, device.slot(4), NOW)).rejects.toMatchObject({ code: 'missing' })
    const beyond = pieces.map((piece) => ({ ...piece, at: piece.at + 100_000 }))
    await expect(pool.copy(chunk, beyond, device.slot(4), NOW)).rejects.toMatchObject({ code: 'missing' })
    expect(device.ready(4)).toBe(READY_MISSING)
    expect(pool.counters()).toMatchObject({ corrupt: before.corrupt })
  })

  test('the stored bytes stay the caller’s, whatever memory they lie on', async () => {
    using device = new Device()
    const stored = store('gzip', bytes)
    for (const memory of [SharedArrayBuffer, ArrayBuffer]) {
      const part = new Uint8Array(new memory(stored.length + 100), 50, stored.length)
      part.set(stored)
      await pool.decode(chunkOf('gzip', bytes, stored), part, device.slot(), NOW)
      expect(device.read(8192, bytes.length)).toEqual(bytes)
      expect(Buffer.compare(part, stored)).toBe(0)
      device.write(8192, noise(bytes.length))
    }
  })

  test('a seed stays the caller’s, and may be a small part of much memory', async () => {
    using device = new Device()
    const dictionary = text(20_000, 7)
    const memory = new Uint8Array(2 ** 20)
    memory.set(dictionary, 5002)
    const seed = memory.subarray(5000, 25_002)
    const stored = Array.from({ length: 8 }, (_, i) => deflateRawSync(text(3000, i), { dictionary }))
    await Promise.all(
      stored.map((each, i) => {
        const places = [{ from: 0, length: 3000, at: i * 4096 }]
        const chunk = chunkOf('gzip', text(3000, i), each, { codec: { name: 'gzip', seed }, places })
        return pool.decode(chunk, each, device.slot(i), NOW)
      }),
    )
    for (let i = 0; i < 8; i++) expect(device.read(i * 4096, 3000)).toEqual(text(3000, i))
    expect(Buffer.compare(seed.subarray(2), dictionary)).toBe(0)
    device.setReady(READY_STORED)
    const chunk = chunkOf('gzip', text(3000, 0), noise(10), { codec: { name: 'gzip', seed } })
    device.write(8192, text(3000, 0))
    expect(await pool.verify(chunk, device.slot(), NOW)).toBe('right')
  })

  test('what several digests of two algorithms cover is written when all are right', async () => {
    using device = new Device()
    const stored = store('lz4', bytes)
    const parts = [0, 1, 2, 3, 4].map((i) => ({ start: i * 10_000, end: (i + 1) * 10_000 }))
    const checks = parts.map((range, i): Check => {
      const part = bytes.subarray(range.start, range.end)
      const digest = i % 2 ? digestOf(part) : (`blake3:${Buffer.from(blake3(part)).toString('hex')}` as const)
      return { of: 'decoded', range, digest }
    })
    await pool.decode(chunkOf('lz4', bytes, stored, { checks }), stored, device.slot(), NOW)
    expect(device.ready()).toBe(READY_VERIFIED)
    device.setReady(READY_STORED)
    expect(await pool.verify(chunkOf('lz4', bytes, stored, { checks }), device.slot(), NOW)).toBe('right')
    const exchanged = checks.map((check, i) => ({ ...check, digest: checks[(i + 2) % 5]?.digest as Check['digest'] }))
    device.setReady(READY_MISSING)
    const wrong = pool.decode(chunkOf('lz4', bytes, stored, { checks: exchanged }), stored, device.slot(), NOW)
    await expect(wrong).rejects.toMatchObject({ code: 'corrupt' })
    expect(device.ready()).toBe(READY_MISSING)
  })

  test('a corrupt chunk fails alone among those that travel with it', async () => {
    using device = new Device()
    const all = Array.from({ length: 20 }, (_, i) => {
      const content = text(3000 + i, i + 1)
      const stored = store(i % 2 ? 'gzip' : 'zstd', content)
      const chunk = chunkOf(i % 2 ? 'gzip' : 'zstd', content, stored, {
        places: [{ from: 0, length: 3000, at: i * 4096 }],
      })
      return { content, chunk, stored: i === 5 ? noise(stored.length) : stored }
    })
    const before = pool.counters()
    const settled = await Promise.allSettled(
      all.map(({ chunk, stored }, i) => pool.decode(chunk, stored, device.slot(i), NOW)),
    )
    for (const [i, { status }] of settled.entries()) {
      expect(status).toBe(i === 5 ? 'rejected' : 'fulfilled')
      expect(device.ready(i)).toBe(i === 5 ? READY_MISSING : READY_VERIFIED)
      if (i !== 5) expect(device.read(i * 4096, 3000)).toEqual(all[i]?.content.subarray(0, 3000))
    }
    expect(settled[5]).toMatchObject({ reason: { name: 'Failure', code: 'corrupt' } })
    const after = pool.counters()
    expect(after.decoded - before.decoded).toBe(19)
    expect(after.verified - before.verified).toBe(19 * 3000)
    expect(after.corrupt - before.corrupt).toBe(1)
  })

  test('whatever happens to the stored bytes: right bytes and ready, or a Failure, no byte written and not ready', async () => {
    const content = text(4000)
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...CODECS),
        fc.nat(),
        fc.option(fc.nat()),
        fc.boolean(),
        async (codec, bit, cut, resized) => {
          using device = new Device()
          const right = store(codec, content)
          let stored = flip(right, bit)
          if (cut !== null) stored = stored.subarray(0, cut % stored.length)
          const chunk = chunkOf(codec, content, resized ? stored : right)
          const failure = await pool.decode(chunk, stored, device.slot(), NOW).then(
            () => null,
            (error) => error,
          )
          if (failure === null) {
            expect(device.read(8192, 4000)).toEqual(content)
            expect(device.ready()).toBe(READY_VERIFIED)
          } else {
            expect(['corrupt', 'limit']).toContain(failure.code)
            expect(device.read(0, 20_000).length).toBe(0)
            expect(device.ready()).toBe(READY_MISSING)
          }
        },
      ),
      { numRuns: runs(30) },
    )
  })

  test('a chunk beyond the limits is refused, whatever it holds', async () => {
    using device = new Device()
    const stored = gzipSync(bytes)
    const refuse = (changes: Partial<Chunk>) =>
      pool.decode(chunkOf('gzip', bytes, stored, changes), stored, device.slot(), NOW)
    await expect(refuse({ size: CHUNK_MAX_BYTES + 1 })).rejects.toMatchObject({ code: 'limit' })
    await expect(refuse({ size: 0 })).rejects.toMatchObject({ code: 'corrupt' })
    await expect(refuse({ size: Number.NaN })).rejects.toMatchObject({ code: 'corrupt' })
    await expect(refuse({ stored: { start: 9, end: 9 } })).rejects.toMatchObject({ code: 'limit' })
    await expect(refuse({ stored: { start: 0, end: 2 ** 40 } })).rejects.toMatchObject({ code: 'limit' })
    await expect(refuse({ checks: [] })).rejects.toMatchObject({ code: 'corrupt' })
    expect(device.ready()).toBe(READY_MISSING)
  })

  test('a device that cannot be written is a system failure that says which', async () => {
    using device = new Device()
    const stored = store('zstd', bytes)
    const deviceFd = device.openReadOnly()
    const failed = pool.decode(chunkOf('zstd', bytes, stored), stored, { ...device.slot(), deviceFd }, NOW)
    await expect(failed).rejects.toMatchObject({ code: 'system', cause: { code: 'EBADF' } })
    closeSync(deviceFd)
    expect(device.ready()).toBe(READY_MISSING)
  })

  test('a full disk is a system failure that says so', async () => {
    using device = new Device()
    const stored = store('zstd', bytes)
    const deviceFd = openSync('/dev/full', 'w')
    const failed = pool.decode(chunkOf('zstd', bytes, stored), stored, { ...device.slot(), deviceFd }, NOW)
    await expect(failed).rejects.toMatchObject({
      code: 'system',
      cause: { code: 'ENOSPC' },
      fix: expect.stringMatching(/Free space/),
    })
    closeSync(deviceFd)
    expect(device.ready()).toBe(READY_MISSING)
  })

  test('what cannot be sent to a worker fails, and the pool goes on', async () => {
    using device = new Device()
    const stored = store('gzip', bytes)
    const unsendable = { ...chunkOf('gzip', bytes, stored), places: [() => {}] } as unknown as Chunk
    await expect(pool.decode(unsendable, stored, device.slot(), NOW)).rejects.toMatchObject({ code: 'system' })
    await pool.decode(chunkOf('gzip', bytes, stored), stored, device.slot(), NOW)
    expect(device.ready()).toBe(READY_VERIFIED)
  })

  test('a chunk of an earlier life is found right', async () => {
    using device = new Device()
    device.write(8192, bytes)
    device.setReady(READY_STORED, 3)
    const before = pool.counters()
    expect(await pool.verify(chunkOf('zstd', bytes, noise(10)), device.slot(3), NOW)).toBe('right')
    expect(device.ready(3)).toBe(READY_VERIFIED)
    const after = pool.counters()
    expect([after.reverified - before.reverified, after.verified - before.verified]).toEqual([1, bytes.length])
  })

  test.each([
    ['a flipped bit', (device: Device) => device.write(8192, flip(bytes, 12_345)), 1],
    ['an end that is not there', (device: Device) => device.write(8192, bytes.subarray(1)), 1],
    ['nothing at all', () => {}, 1],
  ] as const)(
    'a chunk of an earlier life with %s is damaged, and nobody’s until it is fetched again',
    async (_, damage, corrupt) => {
      using device = new Device()
      damage(device)
      device.setReady(READY_STORED)
      const before = pool.counters().corrupt
      expect(await pool.verify(chunkOf('zstd', bytes, noise(10)), device.slot(), NOW)).toBe('damaged')
      expect(device.ready()).toBe(READY_STORED)
      expect(pool.counters().corrupt - before).toBe(corrupt)
    },
  )

  test('each of two places with the same bytes is looked at', async () => {
    const places = [
      { from: 0, length: 50_000, at: 0 },
      { from: 100, length: 200, at: 60_000 },
    ]
    for (const damaged of [false, true]) {
      using device = new Device()
      device.write(0, bytes)
      device.write(60_000, damaged ? flip(bytes.subarray(100, 300), 9) : bytes.subarray(100, 300))
      expect(await pool.verify(chunkOf('gzip', bytes, noise(10), { places }), device.slot(), NOW)).toBe(
        damaged ? 'damaged' : 'right',
      )
      expect(device.ready()).toBe(damaged ? READY_MISSING : READY_VERIFIED)
    }
  })

  test('a chunk whose check cannot be repeated is fetched again, which is no corruption', async () => {
    using device = new Device()
    device.write(8192, bytes)
    device.setReady(READY_STORED)
    const stored = store('gzip', bytes)
    const range = { start: 0, end: stored.length }
    const before = pool.counters().corrupt
    const chunk = chunkOf('gzip', bytes, stored, { checks: [{ of: 'stored', range, digest: digestOf(stored) }] })
    expect(await pool.verify(chunk, device.slot(), NOW)).toBe('unknown')
    expect(device.ready()).toBe(READY_STORED)
    expect(pool.counters().corrupt).toBe(before)
  })
})

test('who finds a chunk damaged takes back nothing that another process says of it', async () => {
  // the other one fetched it again while this one hashed what had been there
  using device = new Device()
  device.write(8192, flip(bytes, 5))
  device.setReady(READY_VERIFIED)
  expect(await wasm.verify(chunkOf('zstd', bytes, noise(10)), device.slot(), NOW)).toBe('damaged')
  expect(device.ready()).toBe(READY_VERIFIED)
})

test('checksums of the blocks that begin in a place are there when its byte says that it may be read', async () => {
  const long = text(10_000)
  const chunk = chunkOf('gzip', long, store('gzip', long), { places: [{ from: 0, length: 10_000, at: 8192 + 96 }] })
  for (const how of ['decoded', 'read back'] as const) {
    using device = new Device()
    const slot = { ...device.slot(), sumsAt: 68 }
    if (how === 'decoded') await wasm.decode(chunk, store('gzip', long), slot, NOW)
    else {
      device.write(8192 + 96, long)
      expect(await wasm.verify(chunk, slot, NOW)).toBe('right')
    }
    const ready = readFileSync(`/proc/self/fd/${device.readyFd}`)
    const sums = [2, 3, 4].map((block) => ready.readUInt32LE(68 + 4 * block))
    // the first begins before the place
    expect(sums).toEqual([0, crc32(long.subarray(4000, 8096)), crc32(long.subarray(8096))])
    expect(ready.length).toBe(68 + 4 * 5)
  }
})

test('a chunk that the disk does not let anybody look at is no damaged one', async () => {
  using device = new Device()
  device.setReady(READY_STORED)
  const before = wasm.counters().corrupt
  const chunk = chunkOf('zstd', bytes, noise(10))
  await expect(wasm.verify(chunk, { ...device.slot(), deviceFd: 1 << 20 }, NOW)).rejects.toMatchObject({
    code: 'system',
  })
  const tooLarge = { ...chunk, size: CHUNK_MAX_BYTES + 1 }
  await expect(wasm.verify(tooLarge, device.slot(), NOW)).rejects.toMatchObject({ code: 'limit' })
  await expect(wasm.verify(chunk, device.slot(), { ...NOW, signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: 'aborted',
  })
  expect(device.ready()).toBe(READY_STORED)
  expect(wasm.counters().corrupt).toBe(before)
})

test('both pools leave the same device behind', async () => {
  using one = new Device()
  using other = new Device()
  for (const codec of CODECS) {
    const stored = store(codec, bytes)
    const chunk = chunkOf(codec, bytes, stored)
    await wasm.decode(chunk, stored, one.slot(), NOW)
    await fallback.decode(chunk, stored, other.slot(), NOW)
    expect(one.read(0, 60_000)).toEqual(other.read(0, 60_000))
  }
})

test('a closed pool refuses, and what waited is told so', async () => {
  using device = new Device()
  const pool = new CodecPool({ threads: 1 })
  const stored = store('gzip', bytes)
  const all = Array.from({ length: 100 }, (_, i) =>
    pool.decode(chunkOf('gzip', bytes, stored), stored, device.slot(i), NOW),
  )
  const settled = Promise.allSettled(all)
  await all[0]
  await pool.close()
  const codes = (await settled).map((each) => (each.status === 'fulfilled' ? 'done' : each.reason.code))
  expect(new Set(codes)).toEqual(new Set(['done', 'aborted']))
  for (const [i, code] of codes.entries())
    expect(device.ready(i)).toBe(code === 'done' ? READY_VERIFIED : READY_MISSING)
  await expect(pool.decode(chunkOf('gzip', bytes, stored), stored, device.slot(), NOW)).rejects.toMatchObject({
    code: 'aborted',
  })
  await pool.close()
})

test('an idle pool does not keep its process alive', () => {
  const pool = new URL('../../src/codec/pool.ts', import.meta.url).href
  const fixture = new URL('./fixture.ts', import.meta.url).href
  const program = `
    const { CodecPool } = await import(${JSON.stringify(pool)})
    const { chunkOf, Device, store, text } = await import(${JSON.stringify(fixture)})
    const bytes = text(1000), stored = store('zstd', bytes), device = new Device()
    await new CodecPool().decode(chunkOf('zstd', bytes, stored), stored, device.slot(), { priority: 'demand' })
    process.stdout.write(String(device.ready()))
    device[Symbol.dispose]()`
  const out = execFileSync(process.execPath, ['--input-type=module', '--no-warnings', '-e', program], {
    timeout: 120_000,
  })
  expect(out.toString()).toBe('1')
})
