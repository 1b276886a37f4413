import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { estargz, TAR_SIZE, TOC_DIGEST } from '../../../src/format/estargz/estargz.ts'
import { FOOTER_BYTES, makeFooter, parseFooter } from '../../../src/format/estargz/footer.ts'
import { formatNamed } from '../../../src/format/formats.ts'
import { digestOf } from '../../../src/image/digest.ts'
import { blobOf, FILES_END, layerOf, SOME_DIGEST, tailOf, tocTar } from '../craft.ts'
import { MemoryBlob, sourceOf } from '../memory-blob.ts'
import { formatsOf, unitOf } from '../unit.ts'

const EMPTY = new TextEncoder().encode('{"version":1,"entries":[]}')

/** Reads the index of a blob whose manifest promises `json`. */
async function read(bytes: Uint8Array, json: Uint8Array = EMPTY) {
  const blob = new MemoryBlob(bytes)
  const layer = layerOf(json, bytes.length)
  const index = await estargz.readIndex(layer, sourceOf(blob))
  return { index, ranges: blob.ranges, layer }
}

/** JSON of about `size` bytes that does not compress. */
function noise(size: number): Uint8Array {
  const name = randomBytes(size / 2).toString('hex')
  return new TextEncoder().encode(`{"version":1,"x":"${name}","entries":[]}`)
}

describe('an index', () => {
  test('is read with one request of 128 KiB at least', async () => {
    const { ranges, index, layer } = await read(blobOf(EMPTY, 1_000_000))
    expect(ranges.map(({ start, end }) => end - start)).toEqual([128 << 10])
    expect(index.subarray(16)).toEqual(EMPTY)
    expect(estargz.parseIndex(index, layer).chunks[0]?.stored).toEqual({
      start: 1_000_000,
      end: layer.shown.size - FOOTER_BYTES,
    })
  })

  test('is read with one request of a 200th of the blob, 512 KiB at most', async () => {
    const tail = tailOf(EMPTY, 0)
    const length = async (front: number) => {
      const blob = new MemoryBlob(tailOf(EMPTY, front), front)
      await estargz.readIndex(layerOf(EMPTY, blob.size), sourceOf(blob))
      return blob.ranges.map(({ start, end }) => end - start)
    }
    expect(await length(40_000_000)).toEqual([Math.ceil((40_000_000 + tail.length) / 200)])
    expect(await length(100_000_000)).toEqual([Math.ceil((100_000_000 + tail.length) / 200)])
    expect(await length(20_000_000_000)).toEqual([512 << 10])
  })

  test('is read whole from a small blob', async () => {
    expect((await read(blobOf(EMPTY))).ranges).toEqual([{ start: 0, end: blobOf(EMPTY).length }])
  })

  test('that is larger needs just one request more, of what is missing', async () => {
    const json = noise(300_000)
    const bytes = blobOf(json, 5000)
    const { ranges, index } = await read(bytes, json)
    expect(ranges).toEqual([
      { start: bytes.length - (128 << 10), end: bytes.length },
      { start: 5000, end: bytes.length - (128 << 10) },
    ])
    expect(index.subarray(16)).toEqual(json)
  })

  test('of a legacy footer is read', async () => {
    const legacy = Buffer.concat([
      Buffer.from('1f8b08040000000000ff1600', 'hex'),
      Buffer.from(`${FILES_END.toString(16).padStart(16, '0')}STARGZ`),
      Buffer.from('010000ffff0000000000000000', 'hex'),
    ])
    expect(legacy.length).toBe(47)
    const { index } = await read(Buffer.concat([new Uint8Array(FILES_END), gzipSync(tocTar(EMPTY)), legacy]))
    expect(index.subarray(16)).toEqual(EMPTY)
  })

  test('is refused before any parsing when the manifest promises another', async () => {
    const lie = new TextEncoder().encode('{{{ no JSON')
    await refused(read(blobOf(lie)), 'corrupt', digestOf(lie))
  })
})

describe('a blob is refused when', () => {
  const whole = blobOf(EMPTY)
  const withOffset = (offset: number) => Buffer.concat([whole.subarray(0, -FOOTER_BYTES), makeFooter(offset)])
  const member = (bytes: Uint8Array) => blobOf(EMPTY, FILES_END, bytes)

  test('its footer is cut off', async () => {
    for (const cut of [1, 8, 25, 50, 51, whole.length - 20]) {
      await refused(read(whole.subarray(0, -cut)), 'corrupt', 'footer')
    }
  })
  test('it is empty', () => refused(read(new Uint8Array(0)), 'corrupt', 'footer'))
  test('the footer leads outside', async () => {
    for (const offset of [whole.length - FOOTER_BYTES, whole.length, 2 ** 52, 2 ** 63]) {
      await refused(read(withOffset(offset)), 'corrupt', 'outside')
    }
  })
  test('the footer leads elsewhere', async () => {
    for (const offset of [0, 1, FILES_END - 1, FILES_END + 1, whole.length - FOOTER_BYTES - 1]) {
      await refused(read(withOffset(offset)), 'corrupt', 'table of contents')
    }
  })
  test('the footer claims a compressed table of more than 64 MiB, which is not even read', async () => {
    const liar = new MemoryBlob(makeFooter(0), (64 << 20) + 1)
    await refused(estargz.readIndex(layerOf(EMPTY, liar.size), sourceOf(liar)), 'limit', 'compressed')
    expect(liar.ranges).toHaveLength(1)
  })
  test('the member is no gzip', () => refused(read(member(randomBytes(200))), 'corrupt', 'gzip'))
  test('the member is cut off', async () => {
    const cut = Buffer.concat([gzipSync(tocTar(EMPTY)).subarray(0, -12), new Uint8Array([0, 8, 0, 0])])
    await refused(read(member(cut)), 'corrupt', 'gzip')
  })
  test('the member is another file', async () => {
    const tar = Buffer.from(tocTar(EMPTY))
    tar.write('stargz.index.jsom')
    await refused(read(member(gzipSync(tar))), 'corrupt', 'stargz.index.json')
  })
  test('the member is cut off inside the JSON', () =>
    refused(read(member(gzipSync(tocTar(EMPTY).subarray(0, 520)))), 'corrupt', 'cut off'))
  test('the size in the member is no number', async () => {
    const tar = Buffer.from(tocTar(EMPTY))
    tar.write('-1', 124)
    await refused(read(member(gzipSync(tar))), 'corrupt', 'stargz.index.json')
  })
  test('the member says it is shorter or longer than it is', async () => {
    for (const by of [-512, 512]) {
      const lying = Buffer.from(gzipSync(tocTar(EMPTY)))
      lying.writeUInt32LE(lying.readUInt32LE(lying.length - 4) + by, lying.length - 4)
      // zlib itself may see it first
      await refused(read(member(lying)), 'corrupt', 'table of contents')
    }
  })

  test('other bytes or another member follow the member, which zlib lets pass', async () => {
    const good = gzipSync(tocTar(EMPTY))
    // zlib drops what is no gzip; its last four bytes then stand where the length does
    await refused(
      read(member(Buffer.concat([good, Buffer.from([0, 0, 0, 0, 0, 0, 1, 0])]))),
      'corrupt',
      'shorter than it says',
    )
    await refused(read(member(Buffer.concat([good, gzipSync(new Uint8Array(9))]))), 'corrupt', 'longer than it says')
  })

  test('its table inflates 1000:1 beyond the limit, in bounded memory, the event loop running', async () => {
    // a deflate block of 64 MiB of zeros, repeated until 576 MiB; the trailer says 4 KiB, then the truth
    const zeros = gzipSync(new Uint8Array(576 << 20), { level: 1 })
    expect((576 << 20) / zeros.length).toBeGreaterThan(200)
    await refused(read(member(zeros)), 'limit', 'larger than')
    const lying = Buffer.from(zeros)
    lying.writeUInt32LE(4096, lying.length - 4)
    const before = process.memoryUsage()
    await refused(read(member(lying)), 'corrupt', 'longer than it says')
    lying.writeUInt32LE(500 << 20, lying.length - 4)
    let turns = 0
    const ticking = new AbortController()
    const ticks = (async () => {
      while (!ticking.signal.aborted) {
        await sleep(1)
        turns++
      }
    })()
    await refused(read(member(lying)), 'corrupt', 'longer than it says')
    ticking.abort()
    await ticks
    expect(turns).toBeGreaterThan(20)
    // what the trailer was believed, and nothing like what the stream holds twice
    expect(process.memoryUsage().rss - before.rss).toBeLessThan(700 << 20)
  })

  test('the registry answers with fewer bytes', async () => {
    const short = { digest: SOME_DIGEST, size: whole.length, read: async () => whole.subarray(5) }
    await refused(estargz.readIndex(layerOf(EMPTY, whole.length), sourceOf(short)), 'corrupt', 'asked for')
  })
})

test('errors of the blob pass through', async () => {
  const failure = Failure.unavailable('the registry sleeps')
  const blob = { digest: SOME_DIGEST, size: 5000, read: () => Promise.reject(failure) }
  await expect(estargz.readIndex(layerOf(EMPTY, 5000), sourceOf(blob))).rejects.toBe(failure)
})

test('a footer is what the specification draws', () => {
  const footer = makeFooter(0x2f307)
  expect(Buffer.from(footer).toString('hex')).toBe(
    `1f8b08040000000000ff1a0053471600${Buffer.from('000000000002f307STARGZ').toString('hex')}010000ffff0000000000000000`,
  )
  expect(parseFooter(footer, 'x')).toEqual({ tocOffset: 0x2f307, length: 51 })
})

describe('a layer', () => {
  const { shown: descriptor } = layerOf(EMPTY)
  const reason = (change: object) => formatsOf([{ ...descriptor, ...change }])[0]
  test('is eStargz by its media type and annotation', () => {
    expect(reason({})).toBe('estargz')
    expect(reason({ mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip' })).toBe('estargz')
    expect(formatNamed('estargz')).toBe(estargz)
    expect(unitOf(descriptor)).toMatchObject({ index: digestOf(EMPTY), identity: digestOf(EMPTY) })
  })
  test('is not, for a reason', () => {
    expect(reason({ annotations: {} })).toBe('the manifest has no eStargz TOC digest: a plain gzip layer')
    expect(reason({ mediaType: 'application/vnd.oci.image.layer.v1.tar' })).toContain('which no lazy format has')
    expect(reason({ annotations: { [TOC_DIGEST]: 'md5:1' } })).toContain('no sha256 digest')
    expect(() => formatNamed('rar')).toThrow(Failure)
  })
  test('claims the size of its tar', () => {
    const size = (text: string) =>
      unitOf({ ...descriptor, annotations: { ...descriptor.annotations, [TAR_SIZE]: text } }).tarSize
    expect(['1024', '0', '-5', 'many', '', '1e300'].map(size)).toEqual([1024, ...Array(5).fill(undefined)])
  })
  test('is refused when what was kept of its index is cut off or lies', () => {
    const layer = layerOf(EMPTY)
    const index = (start: bigint, end: bigint) => {
      const bytes = Buffer.concat([new Uint8Array(16), EMPTY])
      bytes.writeBigUInt64LE(start, 0)
      bytes.writeBigUInt64LE(end, 8)
      return bytes
    }
    for (const bytes of [new Uint8Array(15), index(6n, 5n), index(5n, 10n ** 9n), index(2n ** 64n - 1n, 6n)]) {
      expect(() => estargz.parseIndex(bytes, layer)).toThrow(Failure)
    }
  })
})

async function refused(promise: Promise<unknown>, code: string, text: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(Failure)
  expect({ code: (error as Failure).code, message: (error as Failure).message }).toEqual({
    code,
    message: expect.stringContaining(text),
  })
  expect((error as Failure).message).toMatch(/^layer sha256:/)
}
