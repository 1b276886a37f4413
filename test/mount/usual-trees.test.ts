import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Unit } from '../../src/format/format.ts'
import { formatNamed, planUnits } from '../../src/format/formats.ts'
import { digestOf } from '../../src/image/digest.ts'
import { runs } from '../fixtures/runs.ts'
import { tocEntry } from '../format/arbitrary.ts'
import { file, indexOf, layerOf, SOME_DIGEST } from '../format/craft.ts'
import { MemoryBlob, sourceOf } from '../format/memory-blob.ts'
import { SAMPLES, sampleLayers } from '../format/samples.ts'
import { zstdIndexOf, zstdLayerOf } from '../format/zstd-chunked/zstd-craft.ts'
import { isUsual } from './usual-trees.ts'

const OTHER_DIGEST = digestOf(new TextEncoder().encode('other bytes'))
const json = (entries: readonly object[]) => new TextEncoder().encode(JSON.stringify({ version: 1, entries }))
const isUsualEstargz = async (table: Uint8Array, size?: number) => await isUsual(indexOf(table), layerOf(table, size))
const isUsualZstd = async (table: Uint8Array) => await isUsual(zstdIndexOf(table), zstdLayerOf(table))

test.runIf(SAMPLES)(`sample layers are usual${SAMPLES ? '' : ' (LAZYLAYER_SAMPLES is not set)'}`, async () => {
  const usual: Record<string, boolean[]> = {}
  const layouts = [
    ['samples/oci', 'esgz'],
    ['samples/oci', 'esgz-min'],
    ['samples/oci', 'zstd'],
    ['samples/oci', 'zstd-podman'],
    ['samples/oci', 'nydus'],
    ['images/py-esgz', 'py'],
  ] as const
  for (const [dir, tag] of layouts) {
    const layers = sampleLayers(dir, tag)
    const planned = planUnits({ layers: layers.map(({ descriptor }) => descriptor) })
    usual[tag] = []
    for (const { descriptor, path } of layers) {
      const unit = planned.get(descriptor) as Unit
      if (unit.shown !== descriptor) continue
      const index = await formatNamed(unit.format).readIndex(unit, sourceOf(new MemoryBlob(readFileSync(path))))
      usual[tag].push(await isUsual(index, unit))
    }
  }
  expect(usual).toEqual(Object.fromEntries(layouts.map(([, tag]) => [tag, tag === 'nydus' ? [true] : [true, true]])))
})

/** What layers are made of, right most of the time. */
const usualEntry = fc.oneof(
  fc.record({
    name: fc.constantFrom('usr/', 'usr/lib', './etc', 'a/b', 'a/b/c/', '', '/'),
    type: fc.constant('dir'),
    mode: fc.constantFrom(0o755, 0o1777),
    modtime: fc.constantFrom(
      '2023-11-14T22:13:20.5Z',
      '1969-12-31T23:59:59.123456789Z',
      '0001-01-01T00:00:00Z',
      '',
      '2024-02-29T01:02:03+05:30',
    ),
    xattrs: fc.constantFrom(
      undefined,
      null,
      { 'user.a': 'b25l', 'trusted.overlay.opaque': 'eQ==' },
      { 'security.capability': 'AQAAAgAgAAAAAAAAAAAAAAAAAAA=' },
    ),
  }),
  fc.record({
    name: fc.constantFrom(
      'usr/lib/libc.so.6',
      'etc/passwd',
      'etc/ld.so.cache',
      'a/b/f',
      'f',
      '.prefetch.landmark',
      '!first',
      '\u00fc',
      '\u{1f600}',
      'x'.repeat(255),
      'a/.wh.f',
      'a/.wh..wh..opq',
      '.wh.usr',
      'a/.wh..wh.plnk',
    ),
    type: fc.constant('reg'),
    size: fc.constantFrom(0, 10, 10, 5000),
    mode: fc.constantFrom(0o644, 0o4755),
    uid: fc.constantFrom(0, 1000),
    offset: fc.integer({ min: 0, max: 90 }).map((each) => each * 10),
    innerOffset: fc.constantFrom(undefined, 0, 512),
    chunkDigest: fc.constantFrom(SOME_DIGEST, OTHER_DIGEST),
    xattrs: fc.constantFrom(undefined, { 'user.a': '' }, { 'system.posix_acl_access': 'AgAAAA==' }),
  }),
  fc.record({
    name: fc.constantFrom('a/link', 'usr/lib/libc.so', 'f', 'l'),
    type: fc.constantFrom('symlink', 'hardlink'),
    linkName: fc.constantFrom('f', 'a/b/f', '../x', './usr/lib/libc.so.6', 'l'),
  }),
  fc.record({
    name: fc.constantFrom('dev/null', 'a/b/d'),
    type: fc.constantFrom('char', 'block', 'fifo'),
    devMajor: fc.constantFrom(0, 1, 4095, 4096),
    devMinor: fc.constantFrom(0, 3, 255, 1_048_575),
  }),
)

test.each([
  ['eStargz', isUsualEstargz],
  ['zstd:chunked', isUsualZstd],
])('what is made of random tables of %s is what parsing them comes to', async (_, isUsualTable) => {
  let made = 0
  const tables = [fc.array(usualEntry, { maxLength: 8 }), fc.array(tocEntry, { maxLength: 6 })]
  await fc.assert(
    fc.asyncProperty(fc.oneof(...tables), async (entries) => {
      if (await isUsualTable(json(entries))) made++
    }),
    { numRuns: runs(600) },
  )
  expect(made).toBeGreaterThan(runs(60))
})

test('a large table is usual: many files, directories of many blocks, contents of several chunks, alike ones', async () => {
  const entries: object[] = []
  let offset = 10
  for (let i = 0; i < 4000; i++) {
    const name = `${i % 7}/${'long'.repeat(i % 20)}${i}`
    const digest = digestOf(new TextEncoder().encode(`${i % 1000}`))
    const size = 1 + ((i * 37) % 9000)
    const half = Math.floor(size / 2)
    if (i % 3 === 0 && half > 0) {
      entries.push({ name, type: 'reg', size, offset, chunkSize: half, chunkDigest: digest })
      entries.push({
        name,
        type: 'chunk',
        offset: offset + 5,
        chunkOffset: half,
        chunkSize: size - half,
        chunkDigest: SOME_DIGEST,
      })
    } else entries.push({ name, type: 'reg', size, offset, chunkDigest: digest })
    if (i === 50)
      entries.push({ name: '.prefetch.landmark', type: 'reg', size: 1, offset: offset + 8, chunkDigest: SOME_DIGEST })
    offset += 10
  }
  const table = json(entries)
  const unit = layerOf(table, offset + 1000)
  expect(await isUsual(indexOf(table, offset, offset + 100), unit)).toBe(true)
})

test('so is one of many files in one chunk, which are not looked at again for each', async () => {
  const entries = Array.from({ length: 20_000 }, (_, i) =>
    file(`${i % 50}/${i}`, 10, 10, { innerOffset: 512 + i * 1024 }),
  )
  expect(await isUsualEstargz(json(entries))).toBe(true)
})

test.each([
  ['a path that is there twice', [file('a', 1, 10), file('a', 1, 20)]],
  ['a hard link to what comes later', [{ name: 'l', type: 'hardlink', linkName: 'a' }, file('a', 1, 10)]],
  ['a field that nobody knows', [file('a', 1, 10, { color: 'red' })]],
  ['a number with a point', [file('a', 1, 10, { mode: 1.5 })]],
  [
    'an entry of many attributes',
    [file('a', 1, 10, { xattrs: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`user.${i}`, ''])) })],
  ],
  ['half of a character', [file('\ud800', 1, 10)]],
  ['what lies below a file', [file('a', 1, 10), file('a/b', 1, 20)]],
])('%s is not usual', async (_, entries) => {
  const table = json(entries)
  expect(await isUsualEstargz(table)).toBe(false)
})

test('an index that is cut off is not usual', async () => {
  const table = json([file('a', 1, 10)])
  const index = indexOf(table)
  for (let length = 0; length < index.length; length++) {
    expect(await isUsual(index.subarray(0, length), layerOf(table))).toBe(false)
  }
})
