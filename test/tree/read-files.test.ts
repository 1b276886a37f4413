import { expect, test } from 'vitest'
import { buildTree } from '../../src/tree/build.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { type DeviceRead, readFiles } from '../../src/tree/read-files.ts'
import { wantedChunks } from '../../src/tree/wanted-chunks.ts'
import { dir, file, layer, link, symlink } from './layer.ts'

const text = (of: string, bytes: number) => of.repeat(bytes)
const big = text('0123456789', 2500) // three chunks of 10,000 bytes
const tree = buildTree(
  layer([
    dir('etc'),
    file('etc/a', text('a', 100)),
    file('etc/b', text('b', 5000)),
    dir('usr'),
    file('usr/big', new TextEncoder().encode(big.slice(0, 12_000) + text('x', 13_000))),
    file('usr/like-a', text('a', 100)),
    link('usr/name-of-b', 'etc/b'),
    file('usr/empty'),
    symlink('usr/link', '../etc/a'),
  ]),
)
const reader = new ErofsReader(tree.image)
const placeOf = (path: string) => {
  const content = reader.content(reader.resolve(path) as number)
  if (content === null) throw new Error(`${path} is empty`)
  return content
}
const read = (path: string, from = 0, to = placeOf(path).size): DeviceRead => {
  const { offset } = placeOf(path)
  return { at: offset + from, end: offset + to }
}

test('files are told in the order in which they were read first, all that have the same bytes', () => {
  const reads = [read('etc/b'), read('usr/big', 10_000, 20_000), read('etc/a')]
  expect(readFiles(tree.image, reads)).toEqual([
    { path: 'etc/b', ranges: [], size: 5000, first: 0 },
    { path: 'usr/big', ranges: [{ start: 10_000, end: 20_000 }], size: 25_000, first: 1 },
    { path: 'etc/a', ranges: [], size: 100, first: 2 },
    { path: 'usr/like-a', ranges: [], size: 100, first: 2 },
  ])
})

test('pieces of a file that touch are one, and all of a file is no piece', () => {
  const pieces = [read('usr/big', 10_000, 20_000), read('usr/big', 20_000, 25_000), read('usr/big', 0, 10_000)]
  expect(readFiles(tree.image, pieces)).toEqual([{ path: 'usr/big', ranges: [], size: 25_000, first: 0 }])
})

test('reads of what no file has tell nothing', () => {
  const { at, end } = read('etc/a')
  const behind = { at: end + 1, end: at + 4096 }
  expect(readFiles(tree.image, [behind])).toEqual([])
})

test('a file that was read in many pieces is wanted from its first to its last', () => {
  const many = buildTree(
    layer(
      [
        file(
          'many',
          new Uint8Array(100).map((_, i) => i),
        ),
      ],
      [],
      1,
    ),
  )
  const { offset } = new ErofsReader(many.image).content(
    new ErofsReader(many.image).resolve('many') as number,
  ) as ReturnType<typeof placeOf>
  const reads = Array.from({ length: 40 }, (_, i) => ({ at: offset + i * 2, end: offset + i * 2 + 1 }))
  expect(readFiles(many.image, reads)).toEqual([{ path: 'many', ranges: [{ start: 0, end: 79 }], size: 100, first: 0 }])
})

test('files become the chunks that hold them, in their order, each once', () => {
  const all = (path: string) => ({ path, ranges: [] })
  const chunkOf = (path: string, from = 0) =>
    tree.chunks.chunksAt(placeOf(path).offset + from, placeOf(path).offset + from + 1)
  const wanted = wantedChunks(reader, tree.chunks, [
    { path: 'usr/big', ranges: [{ start: 12_000, end: 12_001 }] },
    all('usr/like-a'),
    all('usr/name-of-b'),
    all('etc/a'),
  ])
  expect(wanted).toEqual([...chunkOf('usr/big', 12_000), ...chunkOf('etc/a'), ...chunkOf('etc/b')])
})

test('behind a large file comes what the kernel reads ahead of whoever reads it to its end, behind a small one nothing', () => {
  const kib = 1024
  const rows = buildTree(
    layer(
      [file('a', text('a', 300 * kib)), file('b', text('b', 100 * kib)), file('c', text('c', 100 * kib))],
      [],
      50 * kib,
    ),
  )
  const image = new ErofsReader(rows.image)
  const of = (path: string) => {
    const { offset, size } = image.content(image.resolve(path) as number) as ReturnType<typeof placeOf>
    return rows.chunks.chunksAt(offset, offset + size)
  }
  const wanted = (path: string, ranges: { start: number; end: number }[] = []) =>
    wantedChunks(image, rows.chunks, [{ path, ranges }])
  // 128 KiB behind it are all of b and the beginning of c
  expect(wanted('a')).toEqual([...of('a'), ...of('b'), ...of('c').slice(0, 1)])
  expect(wanted('a', [{ start: 0, end: 200 * kib }])).toEqual(of('a').slice(0, 4))
  expect(wanted('b')).toEqual(of('b'))
})

test('what a tree does not have, or as no file, is passed over', () => {
  const files = ['gone', 'etc', 'usr/link', 'usr/empty', 'etc/a/b', ''].map((path) => ({ path, ranges: [] }))
  const behind = { path: 'etc/a', ranges: [{ start: 100, end: 200 }] }
  expect(wantedChunks(reader, tree.chunks, [...files, behind])).toEqual([])
})

test('what programs read is what is fetched for them the next time', () => {
  const reads = [read('usr/big', 20_000, 25_000), read('etc/b')]
  const found = readFiles(tree.image, reads)
  const chunks = wantedChunks(reader, tree.chunks, found)
  const places = chunks.map((chunk) => {
    let at = -1
    tree.chunks.places(chunk, (start) => {
      at = start
    })
    return at
  })
  expect(places).toEqual(reads.map(({ at }) => at))
})
