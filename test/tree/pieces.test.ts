// Which pieces of a tree are found on others' devices, against a plain search through all of them.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type ChunkDigest, digestOf } from '../../src/image/digest.ts'
import { type Check, type Chunk, type Codec, GZIP, NONE } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import { PieceSearch } from '../../src/tree/pieces.ts'
import { READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'

const digest = (n: number): ChunkDigest => digestOf(Uint8Array.of(n))

/** A file that is piece `n`, in a chunk of its own or behind others of it. */
interface File {
  n: number
  length: number
  at: number
}

/** A chunk of these files, one behind the other, each with a check and a place. */
function chunkOf(files: readonly File[], codec: Codec = GZIP, of: Check['of'] = 'decoded'): Chunk {
  let size = 0
  const checks: Chunk['checks'][number][] = []
  const places: Chunk['places'][number][] = []
  for (const { n, length, at } of files) {
    checks.push({ of, range: { start: size, end: size + length }, digest: digest(n) })
    places.push({ from: size, length, at })
    size += length
  }
  return { blob: 0, stored: { start: 0, end: 10 }, size, codec, checks, places }
}

const tableOf = (...chunks: Chunk[]) =>
  new ChunkTable(encodeChunks([{ digest: digestOf(Uint8Array.of(0)), size: 10 }], chunks, 0, 1 << 20))

const stored = (table: ChunkTable) => new Uint8Array(table.length).fill(READY_STORED)

/** Holder and place of each check, where all of its chunk were found. */
function search(tree: ChunkTable, ...holders: [ChunkTable, Uint8Array?][]): [number, number][] | undefined {
  const pieces = new PieceSearch(tree)
  for (const [i, [table, states = stored(table)]] of holders.entries()) pieces.look(i + 1, table, states)
  const found = pieces.found()
  return found && Array.from(found.holder, (holder, i) => [holder, holder === 0 ? 0 : (found.at[i] as number)])
}

test('a piece is found whatever chunk it is a part of, on the first device that has it', () => {
  const tree = tableOf(chunkOf([{ n: 7, length: 100, at: 0 }]))
  const without = tableOf(chunkOf([{ n: 8, length: 100, at: 0 }]))
  const holder = tableOf(
    chunkOf([
      { n: 1, length: 5, at: 4096 },
      { n: 7, length: 100, at: 8192 },
    ]),
  ) // prettier-ignore
  const later = tableOf(chunkOf([{ n: 7, length: 100, at: 0 }]))
  expect(search(tree, [without], [holder], [later])).toEqual([[2, 8192]])
})

test('a chunk of several pieces is put together from several devices, and is left where one of them is missing', () => {
  const one = { n: 1, length: 10, at: 0 }
  const two = { n: 2, length: 20, at: 4096 }
  const tree = tableOf(chunkOf([one, two]), chunkOf([two]))
  expect(search(tree, [tableOf(chunkOf([two]))], [tableOf(chunkOf([one]))])).toEqual([
    [2, 0],
    [1, 4096],
    [1, 4096],
  ])
  expect(search(tree, [tableOf(chunkOf([two]))])).toEqual([
    [0, 0],
    [0, 0],
    [1, 4096],
  ])
  expect(search(tree, [tableOf(chunkOf([one]))])).toBeUndefined()
})

test('what is not stored there is not found there', () => {
  const table = tableOf(chunkOf([{ n: 1, length: 10, at: 0 }]), chunkOf([{ n: 2, length: 10, at: 4096 }]))
  expect(search(table, [table, Uint8Array.of(READY_MISSING, READY_VERIFIED)])).toEqual([
    [0, 0],
    [1, 4096],
  ])
})

test('the same digest of another length is another piece', () => {
  const tree = tableOf(chunkOf([{ n: 1, length: 10, at: 0 }]))
  expect(search(tree, [tableOf(chunkOf([{ n: 1, length: 11, at: 0 }]))])).toBeUndefined()
})

test('the same digest of another algorithm is another piece', () => {
  const made = chunkOf([{ n: 1, length: 10, at: 0 }])
  const blake3 = digest(1).replace('sha256', 'blake3') as ChunkDigest
  const other = { ...made, checks: made.checks.map((check) => ({ ...check, digest: blake3 })) }
  expect(search(tableOf(made), [tableOf(other)])).toBeUndefined()
})

test('checks of stored bytes are of no use, but where these are the decoded ones', () => {
  const file = { n: 1, length: 10, at: 0 }
  const whole = tableOf(chunkOf([file], NONE, 'stored'))
  const compressed = tableOf(chunkOf([file], GZIP, 'stored'))
  const tree = tableOf(chunkOf([file]))
  expect(search(tree, [whole])).toEqual([[1, 0]])
  expect(search(tree, [compressed])).toBeUndefined()
  expect(search(compressed, [tree])).toBeUndefined()
})

test('what lies in no one place of a device is not there', () => {
  const made = chunkOf([{ n: 1, length: 10, at: 0 }])
  const parts = tableOf({
    ...made,
    places: [
      { from: 0, length: 5, at: 0 },
      { from: 5, length: 5, at: 4096 },
    ],
  }) // prettier-ignore
  expect(search(tableOf(made), [parts])).toBeUndefined()
  expect(search(parts, [tableOf(made)])).toBeUndefined()
})

test('it finds what a plain search finds', () => {
  const file = fc.record({ n: fc.nat(12), length: fc.integer({ min: 0, max: 2 }), at: fc.nat(100) })
  const chunks = fc.array(
    fc.array(file, { maxLength: 3 }).map((files) => chunkOf(files)),
    { maxLength: 8 },
  )
  const holders = fc.array(fc.tuple(chunks, fc.infiniteStream(fc.constantFrom(READY_MISSING, READY_VERIFIED))), {
    maxLength: 4,
  })
  fc.assert(
    fc.property(chunks, holders, (tree, others) => {
      const tables = others.map(([made, states]): [ChunkTable, Uint8Array] => [
        tableOf(...made),
        Uint8Array.from(made, () => states.next().value as number),
      ])
      const pieceAt = ({ digest, range }: Check): [number, number] => {
        for (const [i, [table, states]] of tables.entries()) {
          for (let chunk = 0; chunk < table.length; chunk++) {
            const { checks, places } = table.get(chunk)
            const at = checks.findIndex(
              (each) => each.digest === digest && each.range.end - each.range.start === range.end - range.start,
            )
            if (at >= 0 && range.end > range.start && states[chunk] !== READY_MISSING) {
              return [i + 1, (places[at] as { at: number }).at]
            }
          }
        }
        return [0, 0]
      }
      const expected = tree.flatMap(({ checks }) => {
        const found = checks.map(pieceAt)
        return found.some(([holder]) => holder === 0) ? found.map((): [number, number] => [0, 0]) : found
      })
      const found = search(tableOf(...tree), ...tables)
      expect(found ?? expected.map(() => [0, 0])).toEqual(expected)
    }),
  )
})
