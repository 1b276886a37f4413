import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EstargzOptions, type EstargzWritten, writeEstargz } from '../../src/build/estargz.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { Failure } from '../../src/errors.ts'
import { estargz, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { TOC_NAME } from '../../src/format/estargz/toc-member.ts'
import type { Contents } from '../../src/format/format.ts'
import { LANDMARK, NO_LANDMARK } from '../../src/format/toc/landmarks.ts'
import { digestOf } from '../../src/image/digest.ts'
import { suite } from '../e2e/engines/suite.ts'
import { runs } from '../fixtures/runs.ts'
import { NO_LISTER, tarLines } from '../fixtures/tar-listing.ts'
import { type Line, listing } from '../format/listing.ts'
import { MemoryBlob, sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lazylayer-build-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

const bytes = (length: number, seed = 1) =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) * seed + seed) & 0xff)
const LONG = `${'very-long-name/'.repeat(20)}${'n'.repeat(255)}`
const TIME = 1_700_000_000_000_000_000n

const ENTRIES: SourceEntry[] = [
  { path: '', type: 'dir', mtime: TIME },
  { path: './bin/', type: 'dir', mode: 0o1777, uid: 0xffffffff, gid: 70001, mtime: TIME },
  { path: '/bin/su', type: 'file', mode: 0o4755, content: bytes(3000), mtime: TIME },
  { path: 'bin/su2', type: 'hardlink', target: './bin/su', mode: 0o4755, mtime: TIME },
  { path: 'bin/sh', type: 'symlink', target: '../usr//bin/./sh', mtime: TIME },
  { path: 'big', type: 'file', content: bytes(300_000, 3), mtime: TIME + 123n },
  { path: 'empty', type: 'file', uid: 1000, gid: 1000, mtime: TIME },
  { path: 'exact', type: 'file', content: bytes(8192, 5), mtime: TIME },
  {
    path: 'x',
    type: 'file',
    content: bytes(1),
    xattrs: new Map([
      ['user.bin', new Uint8Array([0, 10, 255, 61])],
      ['security.capability', bytes(20)],
    ]),
  },
  { path: 'dev/null', type: 'char', rdev: [1, 3], mode: 0o666 },
  { path: 'dev/sda', type: 'block', rdev: [8, 300] },
  { path: 'dev/pipe', type: 'fifo' },
  { path: 'naïve/日本', type: 'file', content: bytes(700, 9) },
  { path: LONG, type: 'file', content: bytes(10, 11), mtime: -1_500_000_000n },
  { path: 'long-link', type: 'symlink', target: 'y'.repeat(300) },
  { path: 'bin/.wh.gone', type: 'file' },
]

interface Made {
  written: EstargzWritten
  path: string
  blob: Uint8Array
  contents: Contents
  lines: Line[]
}

let made = 0
async function make(entries: readonly SourceEntry[], options?: EstargzOptions): Promise<Made> {
  const path = join(dir, `blob-${made++}`)
  const written = await writeEstargz(entries, path, options)
  const blob = new Uint8Array(await readFile(path))
  const unit = unitOf({
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: written.digest,
    size: written.size,
    annotations: { [TOC_DIGEST]: written.tocDigest },
  })
  const index = await estargz.readIndex(unit, sourceOf(new MemoryBlob(blob)))
  const contents = estargz.parseIndex(index, unit)
  return { written, path, blob, contents, lines: listing(contents, blob) }
}

const find = (of: Made, path: string) => {
  const entry = [...of.contents.entries].find((each) => each.path === path)
  if (!entry) throw new Error(`${path} is missing`)
  return entry
}

describe('a layer that was written', () => {
  for (const options of [
    {},
    { chunkSize: 4096 },
    { chunkSize: 4096, minChunkSize: 10_000 },
    { prioritized: ['x', 'big'] },
  ]) {
    const title = `with ${JSON.stringify(options)}`
    suite(title, NO_LISTER, () => {
      test(`${title} is read back as it was, by us and by tar`, async () => {
        const layer = await make(ENTRIES, options)
        const own = [LANDMARK, NO_LANDMARK, TOC_NAME]
        const want = ENTRIES.map((each) => each.path.replace(/^[./]+|\/$/g, '') || '.')
        expect(
          layer.lines
            .map((line) => line.path)
            .filter((path) => !own.includes(path))
            .sort(),
        ).toEqual(want.sort())
        const theirs = tarLines(layer.path)
        const time = new Map(theirs.map((line) => [line.path, line.paxTime]))
        expect(theirs.map(({ paxTime: _, ...line }) => line)).toEqual(layer.lines)
        expect(time.get('big')).toBe('1700000000.000000123')
        expect(time.get(LONG)).toBe('-1.5')
        expect(find(layer, 'big').mtime).toBe(TIME + 123n)
        expect(find(layer, LONG).mtime).toBe(-1_500_000_000n)
        for (const source of ENTRIES) {
          if (!(source.content instanceof Uint8Array)) continue
          const line = layer.lines.find((each) => each.path === source.path.replace(/^\.?\//, ''))
          expect(`sha256:${line?.sha256}`).toBe(digestOf(source.content))
        }
      })
    })
  }

  test('is what gzip and tar read without complaint', async () => {
    const { path } = await make(ENTRIES)
    const list = execFileSync('sh', ['-c', `gzip -dc '${path}' | tar tf - 2>&1`])
      .toString()
      .trim()
      .split('\n')
    expect(list).toHaveLength(ENTRIES.length + 2)
    expect(list[0]).toBe(NO_LANDMARK)
    expect(list.at(-1)).toBe(TOC_NAME)
  })

  test('has the digests and sizes that are returned', async () => {
    const { written, blob } = await make(ENTRIES, { chunkSize: 1024 })
    const tar = gunzipSync(blob)
    expect(written).toMatchObject({
      digest: digestOf(blob),
      size: blob.length,
      diffId: digestOf(tar),
      uncompressedSize: tar.length,
    })
    expect(tar.length % 512).toBe(0)
  })

  test('is the same bytes every time', async () => {
    const [one, two] = [await make(ENTRIES, { chunkSize: 2048 }), await make(ENTRIES, { chunkSize: 2048 })]
    expect(one.written).toEqual(two.written)
  })

  test('has one chunk a member, cut at the chunk size', async () => {
    const layer = await make(ENTRIES, { chunkSize: 100_000 })
    expect(find(layer, 'big').extents?.map((each) => [each.at, each.length, each.offset])).toEqual([
      [0, 100_000, 0],
      [100_000, 100_000, 0],
      [200_000, 100_000, 0],
    ])
    const used = layer.contents.chunks.map((each) => each.checks.length)
    expect(used).toEqual(used.map(() => 1))
  })

  test('shares members between small files when asked to', async () => {
    const small = Array.from(
      { length: 100 },
      (_, i): SourceEntry => ({ path: `f${i}`, type: 'file', content: bytes(300, i) }),
    )
    const apart = await make(small)
    const shared = await make(small, { minChunkSize: 20_000 })
    expect(apart.contents.chunks.length).toBe(102)
    // 1,024 bytes a file and its header
    expect(shared.contents.chunks.length).toBeLessThan(10)
    expect(shared.blob.length).toBeLessThan(apart.blob.length / 2)
  })
})

describe('prioritized files', () => {
  test('come first with their parents, in the order named, and are what is wanted first', async () => {
    const layer = await make(ENTRIES, { prioritized: ['x', '/naïve/日本', 'bin/su2'] })
    const order = [...layer.contents.entries].map((each) => each.path)
    expect(order.slice(0, 7)).toEqual(['', 'x', 'naïve/日本', 'bin', 'bin/su', 'bin/su2', LANDMARK])
    const wanted = ['x', 'naïve/日本', 'bin/su'].flatMap((path) => find(layer, path).extents?.map((each) => each.chunk))
    expect(layer.contents.first).toEqual(wanted)
  })

  test('are wanted first from shared members too', async () => {
    const layer = await make(ENTRIES, { prioritized: ['x', 'bin/su'], minChunkSize: 1 << 20 })
    const [x, su, big] = ['x', 'bin/su', 'big'].map((path) => find(layer, path).extents?.[0]?.chunk)
    expect(x).toBe(su)
    expect(layer.contents.first).toEqual([x])
    expect(big).not.toBe(x)
  })

  test('that do not exist are named', async () => {
    await fails(make(ENTRIES, { prioritized: ['nowhere'] }), 'missing', 'nowhere')
  })

  test('that are links in a circle end', async () => {
    const circle: SourceEntry[] = [
      { path: 'a', type: 'hardlink', target: 'b' },
      { path: 'b', type: 'hardlink', target: 'a' },
    ]
    const layer = await make(circle, { prioritized: ['a'] })
    expect([...layer.contents.entries].map((each) => each.path).sort()).toEqual([LANDMARK, 'a', 'b', TOC_NAME].sort())
  })
})

test('a file of this machine is read chunk by chunk', async () => {
  const source = join(dir, 'source')
  await writeFile(source, bytes(50_000, 4))
  const layer = await make([{ path: 'f', type: 'file', content: { file: source, size: 50_000 } }], { chunkSize: 7000 })
  expect(find(layer, 'f').extents).toHaveLength(8)
  expect(`sha256:${layer.lines.find((each) => each.path === 'f')?.sha256}`).toBe(digestOf(bytes(50_000, 4)))
})

test('an input that fails leaves no blob', async () => {
  const source = join(dir, 'shrunk')
  await writeFile(source, bytes(10))
  const path = join(dir, 'unfinished')
  const entries: SourceEntry[] = [{ path: 'f', type: 'file', content: { file: source, size: 20_000 } }]
  await fails(writeEstargz(entries, path), 'system', 'became shorter')
  await fails(
    writeEstargz([{ path: 'f', type: 'file', content: { file: `${source}-not`, size: 1 } }], path),
    'system',
    'open',
  )
  await expect(readFile(path)).rejects.toMatchObject({ code: 'ENOENT' })
})

test('what cannot be written is refused', async () => {
  await fails(make([{ path: 'a/../b', type: 'dir' }]), 'corrupt', '..')
  await fails(make([{ path: LANDMARK, type: 'file' }]), 'usage', LANDMARK)
  await fails(make([{ path: TOC_NAME, type: 'file' }]), 'usage', TOC_NAME)
  await fails(make([{ path: 'l', type: 'symlink' }]), 'usage', 'target')
  await fails(make([{ path: 'l', type: 'dir', target: 'x' }]), 'usage', 'target')
  await fails(make([{ path: 'd', type: 'dir', xattrs: new Map([['user.a=b', bytes(1)]]) }]), 'unsupported', '=')
  await fails(make([], { chunkSize: 0 }), 'usage', 'chunks')
  await fails(make([], { chunkSize: 1 << 30 }), 'usage', 'chunks')
})

test('whatever sizes files have, every byte is read back', async () => {
  const size = fc.oneof(
    fc.integer({ min: 0, max: 3 }),
    fc.integer({ min: 500, max: 520 }),
    fc.integer({ min: 0, max: 5000 }),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(size, { maxLength: 12 }),
      fc.integer({ min: 100, max: 2000 }),
      fc.constantFrom(0, 1, 700, 4000),
      fc.array(fc.nat(11), { maxLength: 3 }),
      async (sizes, chunkSize, minChunkSize, wanted) => {
        const entries = sizes.map(
          (each, i): SourceEntry => ({ path: `d/f${i}`, type: 'file', content: bytes(each, i) }),
        )
        const prioritized = wanted.filter((each) => each < sizes.length).map((each) => `d/f${each}`)
        const layer = await make(entries, { chunkSize, minChunkSize, prioritized })
        const got = new Map(layer.lines.map((line) => [line.path, line.sha256]))
        for (const [i, each] of sizes.entries()) expect(`sha256:${got.get(`d/f${i}`)}`).toBe(digestOf(bytes(each, i)))
        await rm(layer.path)
      },
    ),
    { numRuns: runs(20) },
  )
})

async function fails(promise: Promise<unknown>, code: string, text: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(Failure)
  expect({ code: (error as Failure).code, message: (error as Failure).message }).toEqual({
    code,
    message: expect.stringContaining(text),
  })
}
