import { randomBytes } from 'node:crypto'
import { gunzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { estargz } from '../../../src/format/estargz/estargz.ts'
import { TOC_NAME } from '../../../src/format/estargz/toc-member.ts'
import { buildTree } from '../../../src/tree/build.ts'
import { difference, scanned } from '../../tree/compare-sides.ts'
import { MemoryBlob, sourceOf } from '../memory-blob.ts'
import { archive, header, pax } from '../tar/tar-craft.ts'
import { unitOf } from '../unit.ts'
import { type Item, item, type Stargz, type StargzOptions, stargz } from './stargz-craft.ts'

const directory = (name: string) => item({ name, type: 'dir' })
/** With headers of three blocks, of which the table says nothing. */
const long = (name: string) =>
  item({ name, type: 'dir' }, '', Buffer.concat([pax([['comment', 'x']]), header({ name, type: '5', mtime: '0' })]))
const noise = (size: number) => new Uint8Array(randomBytes(size))

const LAYERS: Record<string, Item[]> = {
  'a file': [item({ name: 'a' }, 'alpha')],
  'a file that fills its block': [item({ name: 'a' }, 'x'.repeat(1024))],
  'a file of zeros': [item({ name: 'a' }, new Uint8Array(5000))],
  'an empty file': [item({ name: 'a' }, 'alpha'), item({ name: 'b' })],
  'a file called as a key': [item({ name: 'a' }, 'alpha'), item({ name: '"offset":7,[{\\' }), item({ name: 'offset' })],
  directories: [item({ name: 'a' }, 'alpha'), directory('d'), directory('e')],
  'directories with longer headers': [item({ name: 'a' }, 'alpha'), long('d'), long('e'), directory('f')],
  'no file at all': [directory('d'), long('e')],
}

/** Beyond what is read of a blob at first, together with the table. */
const FAR: Record<string, Item[]> = {
  'a large file': [item({ name: 'a' }, 'alpha'), item({ name: 'b' }, noise(200_001))],
  'a large file and a directory': [item({ name: 'a' }, noise(200_001)), directory('d')],
  'a large file and a longer header': [item({ name: 'a' }, noise(200_001)), long('d')],
}

const shapes: [string, Omit<StargzOptions, 'ended'>][] = [
  ['', {}],
  [' in chunks', { chunkSize: 1000 }],
  [' in shared members', { minChunkSize: 50_000 }],
  [' in chunks in shared members', { chunkSize: 700, minChunkSize: 2000 }],
  [' with headers apart', { apart: true }],
]

/** What is shown, how many requests that took, and how it differs from what engines unpack. */
async function open({ blob, descriptor }: Stargz) {
  const memory = new MemoryBlob(blob)
  const index = await estargz.readIndex(unitOf(descriptor), sourceOf(memory))
  const contents = estargz.parseIndex(index, unitOf(descriptor))
  const names = [...contents.entries].map(({ path }) => path)
  const tar = await scanned(new Uint8Array(gunzipSync(blob)))
  return { names, requests: memory.ranges.length, differs: await difference(buildTree(contents), tar) }
}

for (const [name, items] of [...Object.entries(LAYERS), ...Object.entries(FAR)]) {
  for (const [shape, options] of shapes) {
    test(`the tree is the tar's, which ends before the table or with it: ${name}${shape}`, async () => {
      const own = items.map(({ toc }) => `${toc.name}`)
      expect(await open(stargz(items, { ...options, ended: true }))).toMatchObject({ names: own, differs: undefined })
      expect(await open(stargz(items, { ...options, ended: false }))).toMatchObject({
        names: [...own, TOC_NAME],
        differs: undefined,
      })
    })
  }
}

describe('requests', () => {
  const requests = async (items: Item[], ended: boolean) => (await open(stargz(items, { ended }))).requests
  test('one finds out where the tar ends', async () => {
    for (const items of Object.values(LAYERS)) {
      expect([await requests(items, true), await requests(items, false)]).toEqual([1, 1])
    }
    expect(await requests(FAR['a large file'] as Item[], true)).toBe(1)
    expect(await requests(FAR['a large file'] as Item[], false)).toBe(1)
    expect(await requests(FAR['a large file and a directory'] as Item[], false)).toBe(1)
  })
  test('are two where headers behind a large chunk could be the end', async () => {
    expect(await requests(FAR['a large file and a directory'] as Item[], true)).toBe(2)
    expect(await requests(FAR['a large file and a longer header'] as Item[], false)).toBe(2)
  })
})

test('behind a table that is large, only of one without landmarks more is read', async () => {
  // no two entries compress alike
  const many = Array.from({ length: 6000 }, () => item({ name: randomBytes(20).toString('hex') }))
  const read = async (items: Item[], ended: boolean) => {
    const { requests, names, differs } = await open(stargz(items, { ended }))
    return { requests, isShown: names.includes(TOC_NAME), differs }
  }
  const file = item({ name: 'a' }, 'alpha')
  const landmark = item({ name: '.no.prefetch.landmark' }, '\x0f')
  expect(await read([landmark, ...many, file], false)).toEqual({ requests: 2, isShown: true, differs: undefined })
  for (const ended of [true, false]) {
    expect(await read([...many, file], ended)).toEqual({ requests: 3, isShown: !ended, differs: undefined })
  }
})

test('a layer without entries ends before its table when there is anything before it', async () => {
  for (const entries of [[], null]) {
    expect(await open(stargz([], { ended: true, entries }))).toEqual({ names: [], requests: 1, differs: undefined })
    expect(await open(stargz([], { ended: false, entries }))).toEqual({
      names: [TOC_NAME],
      requests: 1,
      differs: undefined,
    })
  }
})

test('what fills the last record of a tape, or follows it, is no entry', async () => {
  for (const end of [new Uint8Array(10_240), archive(new Uint8Array(1024), header({ name: 'hidden' }))]) {
    const made = stargz(LAYERS['a file'] as Item[], { ended: true, end })
    expect(await open(made)).toMatchObject({ names: ['a'], differs: undefined })
  }
})

test('where it cannot be told the table is shown, and nothing is refuted by it', async () => {
  // more headers behind the last contents than are read from the end of a table
  const many = Array.from({ length: 12_000 }, (_, i) => directory(`${'d'.repeat(90)}${i}`))
  const { names, differs } = await open(stargz([item({ name: 'a' }, 'alpha'), ...many], { ended: true }))
  expect(names.at(-1)).toBe(TOC_NAME)
  expect(differs).toContain(TOC_NAME)
})
